"""Where timestep and prompt enter the block, read from the built model by `anatomy`, rendered by `render`."""

from bench.views.diagram.anatomy import SchemeAnatomy, read_anatomy
from bench.views.diagram.render import figure

__all__ = ["SchemeAnatomy", "figure", "read_anatomy"]
