"""The results directory, which is the truth: files, journal, results, provenance, seeds, metrics. Imports no torch."""
