"""Renders blocks as the figures of papers do.

The stream runs upward, a residual beside each branch, and on the wires what conditions them. What each block has of its
own is inside its frame, what is computed once a pass is outside.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bench.views.diagram.anatomy import BlockAnatomy, Part, SchemeAnatomy
from bench.views.diagram.canvas import MODULATING, Canvas

WIDTH, GUTTER, MARGIN = 312.0, 14.0, 18.0  # of a card, between cards, around them
TOP, BOTTOM = 76.0, 12.0  # of a card: its title and the arrow out of the block; below the labels of its inputs
ROWS = {"norm": 19.0, "modulation": 17.0, "op": 27.0, "post": 19.0, "gate": 17.0, "add": 14.0}
GAP, BRANCH = 7.0, 15.0  # between rows, below a sub-layer
CHIP, CHIP_WIDTH, FOOT = 18.0, 84.0, 26.0  # of a signal or a head; the row of a head that two streams share
NARROW = 60.0  # of an op beside another: its short name
CHIPS = {"prompt": "chip-prompt", "token": "chip-image"}  # a word of a signal -> its style
STRIP = {"image": 4, "timestep": 1, "prompt": 3}  # tokens shown for those of each kind


@dataclass(frozen=True)
class Column:
    """Where one stream is placed: its axis, the width of its boxes, its residual, and the rail of its vectors."""

    axis: float
    width: float
    residual: float
    rail: float


@dataclass(frozen=True)
class Plan:
    """Where a block is placed, relative to the left edge of its card."""

    columns: tuple[Column, ...]
    frame: tuple[float, float]  # left and right
    head: float  # the axis of the head and of the signals


def _plan(block: BlockAnatomy) -> Plan:
    if len(block.streams) == 2:
        width = 100 if block.parallel else 86
        text, image = Column(78, width, 20, 148), Column(234, width, 292, 164)
        return Plan((image, text), (8, 304), 156)
    if block.parallel:
        return Plan((Column(118, 168, 22, 256),), (8, 304), 256)
    if not _uses_vector(block):
        return Plan((Column(156, 108, 84, 256),), (66, 246), 256)
    return Plan((Column(152, 108, 78, 256),), (58, 304), 256)


def _rows(parts: Sequence[Part]) -> list[str]:
    """The rows of a sub-layer, upward; parts of two streams share them."""
    has = {
        "norm": any(part.norm for part in parts),
        "modulation": any(set(MODULATING) & set(part.slots) for part in parts),
        "op": True,
        "post": any(part.post for part in parts),
        "gate": any(part.gate for part in parts),
        "add": True,
    }
    return [row for row in ROWS if has[row]]


def _levels(block: BlockAnatomy) -> list[tuple[Part, ...]]:
    """The sub-layers from below; each as the parts of the streams, or the parts that are beside each other."""
    if block.parallel:
        return [block.parts]
    return list(zip(*block.streams, strict=True))


def _height(block: BlockAnatomy) -> float:
    """Of a block's frame."""
    rows = [_rows(level) for level in _levels(block)]
    base = _foot(block)
    return base + sum(BRANCH + sum(ROWS[row] + GAP for row in level) for level in rows) + 4


def _foot(block: BlockAnatomy) -> float:
    """Height of the row of the head where two streams share it."""
    return FOOT if len(block.streams) == 2 and block.own else 0.0


def _inputs(scheme: SchemeAnatomy, block: BlockAnatomy) -> float:
    """Height of what is below a block: signals, and the part of the head that is computed once."""
    signals = len(_signals(scheme, block)) * (CHIP + 9) + 11 if _uses_vector(block) else 0.0
    captions = 55.0 if any(part.tokens for part in block.parts) else 44.0
    return max(signals + (CHIP + 4 if block.once else 0.0), captions)


def _signals(scheme: SchemeAnatomy, block: BlockAnatomy) -> tuple[str, ...]:
    """What c sums, which may be of each token."""
    return ("c of each token",) if block.by_token else scheme.signals


def _uses_vector(block: BlockAnatomy) -> bool:
    return any(part.slots or part.vector for part in block.parts)


# --- a block --------------------------------------------------------------------------------------------------------


class _Block:
    """One block on a canvas; y grows downward, so the stream runs from `bottom` toward smaller y."""

    def __init__(self, canvas: Canvas, scheme: SchemeAnatomy, block: BlockAnatomy, x: float, bottom: float) -> None:
        self.canvas, self.scheme, self.block = canvas, scheme, block
        self.x, self.bottom, self.plan = x, bottom, _plan(block)
        self.start = bottom - _foot(block)  # where the first branch leaves the stream
        self.pins: list[tuple[Column, float, float]] = []  # what a rail leads to: its column, x and y
        self.crosses: list[float] = []  # y of ops that read the prompt's tokens

    def render(self) -> None:
        y = self.start
        for level in _levels(self.block):
            y = self._level(level, y)
        self._frame(y - 4)
        self._inputs()
        self._rails()

    def _level(self, level: tuple[Part, ...], y: float) -> float:
        """One sub-layer of all streams above y; returns where the next starts."""
        centres, top = {}, y - BRANCH
        for row in _rows(level):
            centres[row] = top - ROWS[row] / 2
            top -= ROWS[row] + GAP
        if self.block.parallel:
            for parts, column in zip(self.block.streams, self.plan.columns, strict=True):
                self._branch(parts[0], column, y, centres)
                self._beside(parts, column, centres)
        else:
            for part, column in zip(level, self.plan.columns, strict=True):
                self._branch(part, column, y, centres)
            self._op(level, centres["op"])
        return top

    def _branch(self, part: Part, column: Column, y: float, centres: dict[str, float]) -> None:
        """Wires, norms, pills and residual of one stream; the op itself is rendered by `_op` or `_beside`."""
        canvas, x = self.canvas, self.x + column.axis
        add = centres["add"]
        canvas.line([(x, y), (x, add - 14)])
        width = min(column.width, 108)
        for row, norm in (("norm", part.norm), ("post", part.post)):
            if norm:
                canvas.box(x, centres[row], width, ROWS[row], norm)
        leaves = y - 7
        if set(MODULATING) & set(part.slots):
            edge = canvas.modulation(x, centres["modulation"], part.slots)
            self._pin(column, edge, centres["modulation"])
        if part.carries_modulated:
            leaves = centres["op"] + ROWS["op"] / 2 + GAP / 2
        if part.gate:
            edge = canvas.gate(x, centres["gate"], part.gate)
            self._pin(column, edge, centres["gate"])
        if part.vector:
            self._pin(column, x + column.width / 2, centres["op"])
        if part.tokens:
            self.crosses.append(centres["op"])
        residual, side = self.x + column.residual, -7 if column.residual < column.axis else 7
        canvas.line([(x, leaves), (residual, leaves), (residual, add), (x + side, add)], "stream")
        canvas.plus(x, add)

    def _pin(self, column: Column, right: float, y: float) -> None:
        """A rail's arrow ends at the side of a pill that faces it."""
        axis = self.x + column.axis
        self.pins.append((column, right if column.rail > column.axis else 2 * axis - right, y))

    def _op(self, level: tuple[Part, ...], y: float) -> None:
        """The op of one stream, or of two: the first of a level of two streams attends jointly over both."""
        columns = self.plan.columns
        if len(columns) == 2 and self.block.joint and "ttention" in level[0].op:
            left, right = columns[1].axis - columns[1].width / 2, columns[0].axis + columns[0].width / 2
            middle = self.x + (left + right) / 2
            self.canvas.box(middle, y, right - left, ROWS["op"], "Joint attention", "op", "op-label")
            return
        for part, column in zip(level, columns, strict=True):
            self.canvas.box(self.x + column.axis, y, column.width, ROWS["op"], part.op, "op", "op-label")

    def _beside(self, parts: tuple[Part, ...], column: Column, centres: dict[str, float]) -> None:
        """Parallel ops: the wire splits before them and is one again after them."""
        y, width = centres["op"], (column.width - 8 * (len(parts) - 1)) / len(parts)
        for k, part in enumerate(parts):
            x = self.x + column.axis - column.width / 2 + width / 2 + k * (width + 8)
            split, join = y + ROWS["op"] / 2 + 4, y - ROWS["op"] / 2 - 4
            axis = self.x + column.axis
            self.canvas.line([(axis, split), (x, split), (x, join), (axis, join)])
            label = part.op if width > NARROW else self._short(part.op)
            self.canvas.box(x, y, width, ROWS["op"], label, "op", "parallel-label")

    def _short(self, op: str) -> str:
        """What fits beside another op in one of two streams."""
        if "ttention" not in op:
            return op
        return "joint SA" if self.block.joint else "SA"

    def _frame(self, top: float) -> None:
        left, right = self.plan.frame
        canvas, height = self.canvas, self.bottom - top
        canvas.element(0, "rect", "frame", x=self.x + left, y=top, width=right - left, height=height, rx=8)
        if len(self.plan.columns) == 2:
            canvas.text(self.x + (left + right) / 2, top - 9, self.block.where, "small")
        else:
            canvas.text(self.x + right, top - 9, self.block.where, "small end")
        for column in self.plan.columns:
            x = self.x + column.axis
            canvas.line([(x, top + 12), (x, top - 14)], tip=True)

    # --- what enters ------------------------------------------------------------------------------------------------

    def _inputs(self) -> None:
        """The streams' tokens, and the prompt's where cross-attention reads them."""
        y, columns, prompt = self.bottom + 27, self.plan.columns, self.scheme.tokens
        aside = 10.0 if len(columns) == 2 else 0.0  # captions leave room for the signals
        if len(self.block.sequence) > 1 and self.pins and not aside:
            aside = -16.0
        self._strip(columns[0].axis, self.block.sequence, _caption(self.block.sequence), aside)
        if len(columns) == 2:
            self._strip(columns[1].axis, ("prompt",), ["prompt tokens"], -aside)
        if not self.crosses:
            return
        x = self.x + 34
        self._strip(
            34, prompt, ["timestep,", "prompt"] if "timestep" in prompt else ["prompt", "tokens"], 0, wire=False
        )
        edge = self.x + columns[0].axis - columns[0].width / 2
        for cross in self.crosses:
            self.canvas.line([(x, y - 7), (x, cross), (edge, cross)], "prompt", tip=True)

    def _strip(
        self, axis: float, kinds: tuple[str, ...], caption: list[str], aside: float, *, wire: bool = True
    ) -> None:
        """Tokens below the block, with lines of text below them and the wire into the block above them."""
        x, y = self.x + axis, self.bottom + 27
        self.canvas.tokens(x, y, [token for kind in kinds for token in [kind] * STRIP[kind]])
        for k, text in enumerate(caption):
            self.canvas.text(x + aside, y + 15 + 13 * k, text, "small")
        if wire:
            self.canvas.line([(x, y - 7), (x, self.start - 5)])

    def _rails(self) -> None:
        """c from its signals through the head to the pills."""
        if not self.pins:
            return
        canvas, x, block = self.canvas, self.x + self.plan.head, self.block
        y = self.bottom + 10
        if block.once:
            canvas.box(x, y + CHIP / 2, CHIP_WIDTH, CHIP, block.once, "head", "chip-label")
        self._signals(x, y + CHIP if block.once else y - 4)
        inside = self.bottom - (13 if len(self.plan.columns) == 2 else 21)
        if block.own:
            several = "s" if block.heads > 1 and block.own.endswith("head") else ""
            canvas.box(x, inside, CHIP_WIDTH, CHIP, block.own + several, "head", "chip-label")
            canvas.line([(x, y), (x, inside + CHIP / 2)], "vector")
        for column in dict.fromkeys(pin[0] for pin in self.pins):
            ends = [(right, height) for one, right, height in self.pins if one == column]
            rail, top = self.x + column.rail, min(height for _, height in ends)
            split = self.bottom - 8
            start = [(rail, inside - CHIP / 2)] if block.own else [(x, y), (x, split), (rail, split)]
            canvas.line([*start, (rail, top)], "vector")
            for right, height in ends:
                canvas.line([(rail, height), (right, height)], "vector", tip=True)

    def _signals(self, x: float, y: float) -> None:
        """What c sums, below y, and c on its way to what is above."""
        canvas, top = self.canvas, y + 14
        canvas.line([(x, top), (x, y)], "vector")
        canvas.text(x + 9, y + 7, "c", "c")
        for k, signal in enumerate(_signals(self.scheme, self.block)):
            middle = top + CHIP / 2 + k * (CHIP + 9)
            kind = next((kind for word, kind in CHIPS.items() if word in signal), "chip-timestep")
            canvas.box(x, middle, CHIP_WIDTH, CHIP, signal, kind, "chip-label")
            if k:
                canvas.text(x, middle - CHIP / 2 - 4.5, "+")


def _caption(kinds: tuple[str, ...]) -> list[str]:
    """What a strip of tokens is of, in lines."""
    if len(kinds) < 3:
        return [" + ".join(kinds) + " tokens"]
    return [" + ".join(kinds)]


# --- figures --------------------------------------------------------------------------------------------------------


def _span(scheme: SchemeAnatomy) -> float:
    return len(scheme.blocks) * WIDTH + (len(scheme.blocks) - 1) * GUTTER


def _card(canvas: Canvas, scheme: SchemeAnatomy, x: float, y: float, height: float, below: float) -> None:
    """A card with all kinds of blocks of a scheme, their lower edges `below` above the card's."""
    canvas.element(0, "rect", "card", x=x, y=y, width=_span(scheme), height=height, rx=8)
    canvas.text(x + 14, y + 21, scheme.name, "title")
    canvas.text(x + 14, y + 40, scheme.source, "small start")
    for k, block in enumerate(scheme.blocks):
        _Block(canvas, scheme, block, x + k * (WIDTH + GUTTER), y + height - below).render()


def _size(schemes: Sequence[SchemeAnatomy]) -> tuple[float, float]:
    """Height of a row of cards, and of what is below their blocks."""
    pairs = [(scheme, block) for scheme in schemes for block in scheme.blocks]
    below = max(_inputs(scheme, block) for scheme, block in pairs) + BOTTOM
    return TOP + max(_height(block) for _, block in pairs) + below, below


def figure(schemes: Sequence[SchemeAnatomy], *, columns: int = 3, legend: bool = True) -> str:
    """An SVG of one card a scheme, in rows.

    Args:
        schemes: in the order of the figure.
        columns: cards a row; a scheme of two kinds of blocks is two wide.
        legend: whether the shapes are explained below.
    """
    canvas, rows = Canvas(), _pack(schemes, columns)
    y = MARGIN
    for row in rows:
        height, below = _size(row)
        x = MARGIN
        for scheme in row:
            _card(canvas, scheme, x, y, height, below)
            x += _span(scheme) + GUTTER
        y += height + GUTTER
    width = 2 * MARGIN + max(sum(_span(scheme) + GUTTER for scheme in row) - GUTTER for row in rows)
    if legend:
        y = _legend(canvas, y + 2)
    names = ", ".join(scheme.name for scheme in schemes)
    return canvas.svg(
        width, y + MARGIN - GUTTER, f"Where timestep and prompt enter the block: {names}", _describe(schemes)
    )


def _pack(schemes: Sequence[SchemeAnatomy], columns: int) -> list[list[SchemeAnatomy]]:
    rows: list[list[SchemeAnatomy]] = [[]]
    for scheme in schemes:
        taken = sum(len(other.blocks) for other in rows[-1])
        if rows[-1] and taken + len(scheme.blocks) > columns:
            rows.append([])
        rows[-1].append(scheme)
    return rows


def _legend(canvas: Canvas, y: float) -> float:
    """Explains shapes, colours and places; returns the y below."""
    x, y = MARGIN + 10, y + 12
    canvas.modulation(x + 39, y, ("scale", "shift"))
    canvas.text(x + 86, y, "u = norm(x) (1 + scale) + shift", "small start")
    canvas.gate(x + 288, y, "gate")
    canvas.text(x + 322, y, "x + gate \u00b7 op(u)", "small start")
    canvas.line([(x + 432, y), (x + 460, y)], "vector", tip=True)
    canvas.text(x + 467, y, "vector c, and heads", "small start")
    canvas.tokens(x + 602, y, ["timestep", "prompt"])
    canvas.text(x + 622, y, "timestep and prompt as tokens", "small start")
    canvas.line([(x + 815, y), (x + 843, y)], "stream")
    canvas.text(x + 850, y, "residual", "small start")
    y += 25
    canvas.element(0, "rect", "frame", x=x, y=y - 8, width=28, height=16, rx=4)
    canvas.text(
        x + 36, y, "a block: each has its own of what is inside; what is outside is computed once a pass", "small start"
    )
    canvas.element(2, "rect", "op", x=x + 602 - 14, y=y - 7, width=28, height=14, rx=4)
    canvas.text(x + 622, y, "op: attention or MLP; colour: conditioning", "small start")
    return y + 24


def _describe(schemes: Sequence[SchemeAnatomy]) -> str:
    """The figure in words, for a reader who does not see it."""
    return " ".join(f"{scheme.name}: {'; '.join(_sentences(scheme))}." for scheme in schemes)


def _sentences(scheme: SchemeAnatomy) -> list[str]:
    sentences = [f"c is {' + '.join(scheme.signals)}" if scheme.signals else "there is no vector c"]
    for block in scheme.blocks:
        order = (", " if block.parallel else ", then ").join(_part(part) for part in block.streams[0])
        streams = " in two streams, of image and prompt," if len(block.streams) == 2 else ""
        streams += "" if block.joint else " each of which attends to itself alone,"
        streams += " with c of each token," if block.by_token else ""
        sentences.append(f"{block.where}{streams} over {' and '.join(block.sequence)} tokens: {order}")
    return sentences


def _part(part: Part) -> str:
    slots = [word for slot, word in MODULATING.items() if slot in part.slots] + ([part.gate] if part.gate else [])
    reads = " of the prompt's tokens" if part.tokens else ""
    return part.op.lower() + reads + (f" ({', '.join(slots)})" if slots else "")
