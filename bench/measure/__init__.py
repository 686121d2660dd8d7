"""Measuring a trained cell: quality, cost, prompt adherence."""
