"""Arithmetic in `d` and `n`, for `Facts.modulation_parameters`.

Facts are data: a formula is shown in the gallery and never executed as Python.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable

ARITHMETIC: dict[type[ast.operator], Callable[[int, int], int]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
    ast.Pow: operator.pow,
}


def formula(text: str, **values: int) -> int:
    """A formula of whole numbers and names, with + - * //, ** and min.

    Args:
        text: such as `n*(6*d*d + 6*d)` or `min(d, 256)*d`.
        values: of the names that it may use.

    Raises:
        ValueError: for anything else.
    """

    def value(node: ast.expr) -> int:
        if isinstance(node, ast.BinOp) and type(node.op) in ARITHMETIC:
            return ARITHMETIC[type(node.op)](value(node.left), value(node.right))
        if isinstance(node, ast.Name) and node.id in values:
            return values[node.id]
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "min" and node.args:
            return min(value(one) for one in node.args)
        if isinstance(node, ast.Constant) and type(node.value) is int:
            return node.value
        raise ValueError(f"formula {text!r}: write it with + - * // ** min in {' and '.join(values)}")

    try:
        return value(ast.parse(text, mode="eval").body)
    except SyntaxError as error:
        raise ValueError(f"formula {text!r}: {error.msg}") from error
