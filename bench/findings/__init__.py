"""What results say: means, comparisons, claims, ladders, fairness. Imports no torch."""
