"""Schemes lowered to the code of an H100 on a machine that has none.

A preloaded library answers what CUDA is asked (`preload`), tensors are fake (`step`), Inductor writes its code (`code`)
and Triton its machine code (`machine`); nothing is launched. So it is known without a GPU that a training step is one
graph, what makes the host wait, which kernel attends, what a block moves and keeps, and what kernels spill. Speed,
numbers, what libraries do inside and whether memory suffices are a GPU's to show.
"""
