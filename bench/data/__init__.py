"""Datasets, rendered scenes and prompts."""
