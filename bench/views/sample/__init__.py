"""Samples of trained cells and of published systems."""
