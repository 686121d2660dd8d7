"""Training steps of published systems against diffusers' models of the same size: `python -m bench.studies.peers`."""
