"""From a matrix to finished cells: plan, budgets, executors, the loop, one cell."""
