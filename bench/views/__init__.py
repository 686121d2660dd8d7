"""Results shown: text, figures, page, record, README, MLflow, samples."""
