"""The README's generated parts: capability, published systems with parity, schemes, tree. `make readme` writes them.

`tests/test_readme.py` holds the README to them, so that none of it goes stale.
"""

from __future__ import annotations

import ast
import inspect
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path

SYSTEMS = {  # name in `architectures.published` -> its name for people
    "dit": "DiT-XL/2",
    "pixart": "PixArt-alpha",
    "sd3": "Stable Diffusion 3 medium",
    "flux": "FLUX.1 dev",
    "flux2": "FLUX.2 dev",
    "flux3": "FLUX.3 without reference images",
    "chroma": "Chroma1-HD",
    "qwen-image": "Qwen-Image",
    "qwen-image-2.1": "Qwen-Image-2.1",
    "krea2": "Krea 2",
    "ernie-image": "ERNIE-Image",
    "wan": "Wan 2.1 14B",
    "prx": "PRX",
    "sana": "Sana 1.6B",
    "hidream-i1": "HiDream-I1",
    "kandinsky5": "Kandinsky 5 image",
    "glm-image": "GLM-Image",
    "lumina2": "Lumina-Image 2.0",
    "z-image": "Z-Image",
    "hdm": "HDM",
}


def systems(root: Path) -> str:
    """Markdown: each published system's parameters, the share of its modulation, and how near diffusers it comes.

    Parameters are those of the released sizes. Outputs and gradients are compared by tests, of tiny models.

    Args:
        root: of the repository; the differences are those of `results/parity.json`.
    """
    import torch

    import architectures

    parity = json.loads((root / "results" / "parity.json").read_text())["systems"]
    lines = [
        "| system | scheme | parameters as released | modulation share "
        "| largest difference from diffusers at width 32 to 64, random weights: outputs, gradients |",
        "|---|---|---:|---:|---|",
    ]
    for name, title in SYSTEMS.items():
        with torch.device("meta"):
            split = architectures.parameter_split(architectures.published(name))
        measured = parity.get(name)
        near = (
            f"{measured['outputs']:.0e}, {measured['gradients']:.0e}"
            if measured
            else "not in diffusers; equal to its equations at width 32"
        )
        scheme = architectures.PUBLISHED[name].scheme
        share = f"{split['modulation'] / split['total']:.1%}" if split["modulation"] else "0"
        lines.append(f"| {title} | `{scheme}` | {split['total']:,} | {share} | {near} |")
    return "\n".join(lines) + "\n"


def schemes(root: Path) -> str:
    """Markdown: every built-in scheme but controls, with the first sentence of its docstring and its source."""
    import architectures

    lines = ["| scheme | how the model is conditioned | source |", "|---|---|---|"]
    for name in architectures.schemes():
        if architectures.origin(name)["kind"] == "built-in" and name not in architectures.CONTROLS:
            description = architectures.describe(name)
            text = _sentence(inspect.cleandoc(description.equations))
            lines.append(f"| `{name}` | {text} | {description.facts.source} |")
    return "\n".join(lines) + "\n"


def tree(root: Path) -> str:
    """The tree of the two packages: each folder with its docstring's first sentence and the modules in it."""
    lines = ["```"]
    for package in ("architectures", "bench"):
        lines.append(_entry(root / package, 0))
        lines += [_entry(folder, 1) for folder in sorted(_folders(root / package), key=_rank)]
    rest = {
        "configs/": "matrices, each with its command, cost and expected numbers",
        "results/": "committed records",
        "docs/": "the documentation site",
        "tests/": "a file a module; every law over every scheme, parity, end to end",
    }
    lines += [f"{folder:20} {text}" for folder, text in rest.items()]
    return "\n".join([*lines, "```"]) + "\n"


def result(root: Path) -> str:
    """Markdown: the figure of the claims' differences, and how it is read."""
    from bench.views.claimfigure import result_text

    return result_text(root)


SHOWN = ("in-context", "cross-attention", "adaln-zero", "shared-modulation", "sd3", "lumina2")


def scheme_figure(names: Sequence[str]) -> str:
    """An SVG: where timestep and prompt enter the block, a card a scheme."""
    from bench.views.diagram import figure, read_anatomy

    return figure([read_anatomy(name) for name in names])


ORDER = ("store", "config", "data", "training", "measure", "findings", "run", "views", "cli", "studies")


def _rank(folder: Path) -> tuple[int, str]:
    return (ORDER.index(folder.name) if folder.name in ORDER else len(ORDER), folder.name)


def _folders(package: Path) -> list[Path]:
    return [path.parent for path in package.glob("*/__init__.py")]


def _entry(folder: Path, depth: int) -> str:
    text = ast.get_docstring(ast.parse((folder / "__init__.py").read_text(encoding="utf-8"))) or ""
    name = "  " * depth + folder.name + "/"
    return f"{name:20} {_sentence(text)}"


def _sentence(text: str) -> str:
    """The first sentence of a docstring, on one line, without its full stop."""
    paragraph = " ".join(text.split("\n\n")[0].split())
    return re.split(r"\.(?:\s|$)", paragraph)[0].replace("|", "\\|")


def capability(root: Path) -> str:
    """Markdown: the figure of the newest record over tasks, what it is of, and its limits."""
    from bench.views.firstfigure import front_text

    return front_text(root)


PARTS: dict[str, Callable[[Path], str]] = {
    "capability": capability,
    "result": result,
    "systems": systems,
    "schemes": schemes,
    "tree": tree,
}


def replace_part(text: str, name: str, content: str) -> str:
    """The text with what is between `<!-- name:begin -->` and `<!-- name:end -->` replaced.

    Raises:
        ValueError: if the marks are not there.
    """
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    if begin not in text or end not in text:
        raise ValueError(f"the marks {begin} and {end} are missing")
    return text.partition(begin)[0] + f"{begin}\n{content}{end}" + text.partition(end)[2]


def write(readme: Path) -> None:
    """Writes every generated part into the README, and its figures."""
    from bench.views.claimfigure import claim_figure
    from bench.views.firstfigure import FILE, front_figure, front_record

    text = readme.read_text(encoding="utf-8")
    for name, part in PARTS.items():
        text = replace_part(text, name, part(readme.parent))
    readme.write_text(text, encoding="utf-8")
    images = readme.parent / "docs" / "images"
    images.mkdir(parents=True, exist_ok=True)
    if found := front_record(readme.parent / "results"):
        (readme.parent / FILE).write_bytes(front_figure(found[1]))
    (images / "result.png").write_bytes(claim_figure(readme.parent))
    (images / "schemes.svg").write_text(scheme_figure(SHOWN), encoding="utf-8")


if __name__ == "__main__":
    write(Path("README.md"))
