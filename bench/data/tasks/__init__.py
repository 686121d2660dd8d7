"""Tasks: images of few modes whose Bayes-optimal denoiser is exact, each made to isolate one thing a scheme must do."""
