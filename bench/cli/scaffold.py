"""The first lines of a stranger's scheme: a file that works, its test, and a package around them. Needs no torch."""

from __future__ import annotations

from pathlib import Path
from string import Template

import architectures
from bench.store.files import slug, write_atomic

SCHEME = Template('''"""$name: a conditioning scheme for ditbench. Change the equations, then see whether it is sound:

    $check
"""

from typing import Annotated

from architectures import Facts, Scheme$register_import
from architectures.layers import LayerNorm
from architectures.modulation import HEAD, FinalNorm, parse_placement
from architectures.sublayer import GATE, Adaptive, Block, Condition, SubLayer, parse_gate

$decorator
class $Class(Scheme):
    """What your scheme does in a sentence, then its equations, as your paper writes them.

        c = e_t + prompt
        b1, s1, g1, b2, s2, g2 = W_i silu(c) + b_i          (W_i and b_i begin at zero)
        x <- x + g1 SA(LN(x) (1 + s1) + b1)
        x <- x + g2 MLP(LN(x) (1 + s2) + b2)
        b, s = W silu(c) + b
        x = LN(x) (1 + s) + b
    """

    # What it says of itself; `ditbench check` holds it to every word.
    facts = Facts(
        source="your paper, section",
        vector="timestep + pooled prompt",  # what c sums: timestep, pooled prompt, both, or none
        prompt="modulation",  # where the prompt enters: modulation, cross-attention, in-context
        reads=frozenset({"pooled"}),  # of the encoded prompt: pooled (B, D), tokens (B, L, D)
        identity_at_init=True,  # whether every block begins as x <- x
        modulation_parameters="n*(6*d*d + 6*d) + 2*d*d + 2*d",  # a formula in d (width) and n (depth)
    )

    # Keyword arguments are its options: set them in a matrix, {scheme: $name, gate: one}, or sweep them as axes.
    def __init__(
        self,
        backbone,
        image_size,
        *,
        gate: Annotated[str, GATE] = "zero",
        head: Annotated[str, HEAD] = "per-block",
    ):
        super().__init__(backbone, image_size)
        d = backbone.width
        self.told = Adaptive("scale+shift", parse_gate(gate))  # what a sub-layer takes of the head
        self.heads = parse_placement(head, d, [self.told, self.told])  # a sub-layer each: attention, MLP
        self.trunk = self.heads.trunk()
        self.final = FinalNorm(LayerNorm(d), "scale+shift", d)

    def embed(self, e_t, prompt):
        """Once a pass: e_t (B, D), prompt.pooled (B, D), prompt.tokens (B, L, D), prompt.mask -> what blocks see."""
        c = e_t + prompt.pooled
        return Condition(vector=c, modulation=self.trunk(c))

    def block(self, index):
        """Block `index`: x <- x + gate(g) op(norm(x) (1 + s) + b), twice. Keep the names attention and mlp: weights
        are drawn by name, so every scheme begins with the same backbone."""
        d = self.backbone.width
        return Block(
            self.heads.head(),
            attention=SubLayer(self.self_attention(), LayerNorm(d), self.told),
            mlp=SubLayer(self.mlp(), LayerNorm(d), self.told),
        )

    def leave(self, h, c):
        """After the last block: (B, N, D) -> (B, N, D), normalised."""
        return self.final(h, c.vector)
''')

TEST = Template('''"""$name obeys every law that ditbench holds its own schemes to. Run: python -m pytest $test"""

$imports

$load
@pytest.mark.parametrize("law", laws.LAWS, ids=str)
def test_law(law):
    law.hold("$name")
''')

PYPROJECT = Template("""[build-system]
requires = ["setuptools>=77"]
build-backend = "setuptools.build_meta"

[project]
name = "$distribution"
version = "0.1.0"
description = "The conditioning scheme $name for ditbench"
readme = "README.md"
requires-python = ">=3.11"
dependencies = ["ditbench"]

[project.entry-points."ditbench.schemes"]
$name = "$module:$Class"

[tool.setuptools]
py-modules = ["$module"]
""")

README = Template("""# $distribution

The conditioning scheme `$name` for ditbench: its equations stand in `$module.py`.

```
pip install -e .
ditbench check $name
python -m pytest
ditbench run configs/quickstart.yaml name=mine 'variants=[adaln-zero, $name]'
```
""")


def new_scheme(name: str, folder: Path, *, package: bool) -> list[Path]:
    """Writes a scheme that works and its test into `folder`, as files or as an installable package.

    Raises:
        ValueError: if the name is no slug or is taken, or if a file is there already.
    """
    slug(name, "scheme")
    if not name.replace("-", "_").isidentifier() or name != name.lower() or "_" in name or "." in name:
        raise ValueError(f"scheme name {name!r}: use lower-case letters, digits and '-', a letter first")
    if name in architectures.schemes():
        found = architectures.origin(name)
        raise ValueError(f"scheme {name!r} is there already ({found['kind']} {found['name']}); choose another name")
    files = {folder / path: text for path, text in (_package(name) if package else _file(name)).items()}
    for path in files:
        if path.exists():
            raise ValueError(f"{path} is there already; nothing was written")
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, text)
    return list(files)


def _file(name: str) -> dict[str, str]:
    module = name.replace("-", "_")
    words = _words(name) | {
        "check": f"ditbench check {name} --plugin {module}.py",
        "register_import": ", register",
        "decorator": f'\n@register("{name}")',
        "test": f"test_{module}.py",
        "imports": "from pathlib import Path\n\nimport pytest\n\nfrom architectures import laws, load_plugin",
        "load": f'load_plugin(Path(__file__).with_name("{module}.py"))\n\n',
    }
    return {f"{module}.py": SCHEME.substitute(words), f"test_{module}.py": TEST.substitute(words)}


def _package(name: str) -> dict[str, str]:
    module = "ditbench_" + name.replace("-", "_")
    words = _words(name) | {
        "check": f"ditbench check {name}",
        "register_import": "",
        "decorator": "",
        "module": module,
        "distribution": f"ditbench-{name}",
        "test": f"tests/test_{module}.py",
        "imports": "import pytest\n\nfrom architectures import laws",
        "load": "",
    }
    return {
        "pyproject.toml": PYPROJECT.substitute(words),
        "README.md": README.substitute(words),
        f"{module}.py": SCHEME.substitute(words),
        f"tests/test_{module}.py": TEST.substitute(words),
    }


def _words(name: str) -> dict[str, str]:
    return {"name": name, "Class": "".join(part.capitalize() for part in name.split("-"))}
