"""Shapes of the figures of blocks, as SVG text: no dependency, no script, no font of its own.

Grey is what a branch computes, colour is conditioning (the palette of Okabe and Ito). Every colour has a shape or a
label of its own, so that the figures are read without colour too. Light and dark follow the reader's colour scheme, and
since a figure brings its own background, it is readable where the two disagree.
"""

from __future__ import annotations

from collections.abc import Sequence
from xml.sax.saxutils import escape, quoteattr

LIGHT = {
    "page": "#ffffff", "card": "#f6f8fa", "edge": "#d1d9e0", "ink": "#1f2328", "soft": "#59636e", "box": "#ffffff",
    "op": "#e3e8ed", "line": "#59636e", "stream": "#b9c2cb", "vector": "#d55e00", "prompt": "#0072b2",
}  # fmt: skip
DARK = {
    "page": "#0d1117", "card": "#151b23", "edge": "#3d444d", "ink": "#f0f6fc", "soft": "#9198a1", "box": "#0d1117",
    "op": "#2a313c", "line": "#9198a1", "stream": "#59636e", "vector": "#e8772e", "prompt": "#56b4e9",
}  # fmt: skip
MODULATING = {"scale": "scale", "shift": "shift", "angle": "rotate"}  # a slot -> its word, as on the wire
PILLS = {"scale": "#e69f00", "shift": "#2fb58c", "angle": "#56b4e9", "gate": "#cc79a7"}
RULES = """
text{font-family:-apple-system,BlinkMacSystemFont,'Segoe UI',Helvetica,Arial,sans-serif;font-size:11px;fill:var(--ink);
text-anchor:middle;dominant-baseline:central}
.title{font-size:16px;font-weight:600;text-anchor:start}.small{font-size:10.5px;fill:var(--soft)}
.start{text-anchor:start}.end{text-anchor:end}.op-label{font-size:11.5px;font-weight:600}.parallel-label{font-size:10.5px;font-weight:600}.chip-label{font-size:10.5px}
.pill-label{font-size:10.5px;font-weight:600;fill:#1f2328}.c{font-style:italic;font-size:14px;fill:var(--vector)}
.page{fill:var(--page)}.card{fill:var(--card);stroke:var(--edge)}.box{fill:var(--box);stroke:var(--line)}
.op{fill:var(--op);stroke:var(--line);stroke-width:1.2}.frame{fill:none;stroke:var(--soft);stroke-dasharray:5 4}
.wire{stroke:var(--line);stroke-width:1.4;fill:none}.stream{stroke:var(--stream);stroke-width:3;fill:none}
.vector{stroke:var(--vector);stroke-width:1.7;fill:none}.prompt{stroke:var(--prompt);stroke-width:1.7;fill:none}
.tip-wire{fill:var(--line)}.tip-vector{fill:var(--vector)}.tip-prompt{fill:var(--prompt)}
.head{fill:var(--box);stroke:var(--vector);stroke-width:1.5}
.chip-timestep{fill:var(--box);stroke:var(--vector);stroke-width:1.5}
.chip-prompt{fill:var(--box);stroke:var(--prompt);stroke-width:1.5}.chip-image{fill:var(--op);stroke:var(--line)}
.token-timestep{fill:var(--vector)}.token-prompt{fill:var(--prompt)}.token-image{fill:var(--box);stroke:var(--line)}
.token-label{font-size:9px;font-weight:700;fill:var(--page)}
"""


class Canvas:
    """SVG elements in layers: wires lie under shapes, shapes under text."""

    def __init__(self) -> None:
        self.layers: tuple[list[str], list[str], list[str], list[str]] = ([], [], [], [])

    def element(self, layer: int, tag: str, kind: str, **attributes: float | str) -> None:
        """Adds one element of a CSS class to a layer (0 background, 1 wires, 2 shapes)."""
        given = "".join(f" {name}={quoteattr(_number(value))}" for name, value in attributes.items())
        self.layers[layer].append(f'<{tag} class="{kind}"{given}/>')

    def text(self, x: float, y: float, content: str, kind: str = "") -> None:
        """Text centred on (x, y), unless its class says otherwise."""
        attribute = f' class="{kind}"' if kind else ""
        self.layers[3].append(f'<text{attribute} x="{_number(x)}" y="{_number(y)}">{escape(content)}</text>')

    def box(
        self, x: float, y: float, width: float, height: float, content: str, kind: str = "box", label: str = ""
    ) -> None:
        """A labelled box centred on (x, y)."""
        self.element(2, "rect", kind, x=x - width / 2, y=y - height / 2, width=width, height=height, rx=4)
        self.text(x, y, content, label)

    def line(self, points: Sequence[tuple[float, float]], kind: str = "wire", *, tip: bool = False) -> None:
        """Horizontal and vertical strokes through points, with an arrowhead at the last if asked for."""
        path = "M" + "L".join(f"{_number(x)} {_number(y)}" for x, y in points)
        if tip:
            (x0, y0), (x, y) = points[-2:]
            dx, dy = (x > x0) - (x < x0), (y > y0) - (y < y0)
            corners = [(x, y), (x - 6 * dx - 3.5 * dy, y - 6 * dy - 3.5 * dx)]
            corners.append((x - 6 * dx + 3.5 * dy, y - 6 * dy + 3.5 * dx))
            shape = "M" + "L".join(f"{_number(a)} {_number(b)}" for a, b in corners) + "Z"
            path = path[: path.rindex("L")] + f"L{_number(x - 4 * dx)} {_number(y - 4 * dy)}"
            self.element(1, "path", f"tip-{kind}", d=shape)
        self.element(0 if kind == "stream" else 1, "path", kind, d=path)

    def plus(self, x: float, y: float) -> None:
        """The sum of a branch and its residual."""
        self.element(2, "circle", "box", cx=x, cy=y, r=7)
        self.element(2, "path", "wire", d=f"M{x - 4} {_number(y)}h8M{x} {_number(y - 4)}v8")

    def modulation(self, x: float, y: float, slots: Sequence[str]) -> float:
        """Scale (round at the left), shift and rotation (square) on the wire; returns the right edge."""
        widths = {"scale": 40.0, "shift": 38.0, "angle": 44.0}
        names = [name for name in widths if name in slots]
        left = x - sum(widths[name] for name in names) / 2
        for name in names:
            width = widths[name]
            if name != "scale":
                self.element(2, "rect", f"pill {name}", x=left, y=y - 8.5, width=width, height=17, fill=PILLS[name])
            else:
                flat = width - 8.5 if len(names) > 1 else width - 17
                end = "v-17" if len(names) > 1 else "a8.5 8.5 0 0 0 0 -17"
                path = f"M{_number(left + 8.5)} {_number(y - 8.5)}a8.5 8.5 0 0 0 0 17h{flat}{end}Z"
                self.element(2, "path", "pill scale", d=path, fill=PILLS[name])
            self.text(left + width / 2, y, MODULATING[name], "pill-label")
            left += width
        return left

    def gate(self, x: float, y: float, content: str) -> float:
        """A gate on the wire, a hexagon; returns the right edge."""
        half = 14 + 2.9 * len(content)
        edge = f"L{_number(x + half - 7)} {_number(y - 8.5)}L{_number(x + half)} {_number(y)}"
        edge += f"L{_number(x + half - 7)} {_number(y + 8.5)}L{_number(x - half + 7)} {_number(y + 8.5)}"
        path = f"M{_number(x - half + 7)} {_number(y - 8.5)}{edge}L{_number(x - half)} {_number(y)}Z"
        self.element(2, "path", "pill gate", d=path, fill=PILLS["gate"])
        self.text(x, y, content, "pill-label")
        return x + half

    def tokens(self, x: float, y: float, kinds: Sequence[str]) -> None:
        """A strip of tokens centred on (x, y): empty squares of the image, `t` the timestep, `p` of the prompt."""
        left = x - 7 * len(kinds)
        for k, kind in enumerate(kinds):
            self.element(2, "rect", f"token-{kind}", x=left + 14 * k + 1, y=y - 6, width=12, height=12, rx=2)
            if kind != "image":
                self.text(left + 14 * k + 7, y, kind[0], "token-label")

    def svg(self, width: float, height: float, title: str, description: str) -> str:
        """The whole figure.

        Args:
            width: of the view box, in pixels.
            height: likewise.
            title: read by a screen reader first.
            description: the figure as text.
        """
        light, dark = (";".join(f"--{name}:{value}" for name, value in theme.items()) for theme in (LIGHT, DARK))
        style = f"svg{{{light}}}@media (prefers-color-scheme:dark){{svg{{{dark}}}}}{RULES}"
        size = f'width="{_number(width)}" height="{_number(height)}" viewBox="0 0 {_number(width)} {_number(height)}"'
        head = [
            f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-labelledby="title desc">',
            f'<title id="title">{escape(title)}</title>',
            f'<desc id="desc">{escape(description)}</desc>',
            f"<style>{style}</style>",
            f'<rect class="page" width="{_number(width)}" height="{_number(height)}" rx="8"/>',
        ]
        return "\n".join([*head, *(line for layer in self.layers for line in layer), "</svg>"]) + "\n"


def _number(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.1f}".removesuffix(".0")
