"""What a GPU gives: `python -m bench.studies.gpu` measures steps, samples and features, `make gpu` all there is to."""
