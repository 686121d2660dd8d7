"""Names that people search by: published systems that are conditioned as a scheme with some of its options.

A name is taken wherever a scheme's is, in a matrix and in `create`, and options given beside it are over its own. What
belongs to a system's backbone (biases, kind of MLP, normed queries) is not its, since the backbone is fixed. Imports no
torch.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Named:
    """A name of a published system.

    Attributes:
        scheme: of the fixed backbone. options: of the scheme, that differ from its own.
        year: of its publication. source: of its equations.
        says: what the name leaves out or changes, a sentence, or empty.
    """

    scheme: str
    year: int
    source: str
    options: dict[str, Any] = field(default_factory=dict)
    says: str = ""

    @property
    def conditioning(self) -> str:
        """The scheme with its options, as on a command line."""
        return as_typed(self.scheme, self.options)


def as_typed(scheme: str, options: dict[str, Any]) -> str:
    """A scheme with options, as on a command line."""
    return " ".join([scheme, *(f"{name}={value}" for name, value in options.items())])


DIFFUSERS = "diffusers, transformer_{}.py"
ONE_STREAM: dict[str, Any] = dict(post="none", gate="zero", modulation="scale+shift")  # of lumina2: plain adaLN-Zero
NAMED: dict[str, Named] = {
    "pixart": Named("shared-modulation", 2023, "arXiv 2310.00426"),
    "sana": Named(
        "shared-modulation", 2024, "arXiv 2410.10629",
        says="Its linear attention and convolutions are its backbone's, the norm of its caption the encoder's.",
    ),
    "longcat-image": Named("flux", 2025, DIFFUSERS.format("longcat_image"), dict(signals="timestep")),
    "ovis-image": Named(
        "flux", 2025, DIFFUSERS.format("ovis_image"), dict(signals="timestep"),
        "6 of its 33 blocks have two streams; here a third of all.",
    ),
    "auraflow": Named(
        "flux", 2024, "diffusers, auraflow_transformer_2d.py",
        dict(dual="ninth", parallel="through", registers=8, signals="timestep"),
        "Its last vectors modulate the stream itself, where a norm is here.",
    ),
    "hidream-i1": Named(
        "flux", 2025, "arXiv 2505.22705", dict(parallel="none", text_layers="each"),
        "Its MLPs are mixtures of experts, and are its backbone's.",
    ),
    "hunyuanimage-2.1": Named(
        "flux", 2025, DIFFUSERS.format("hunyuanimage"), dict(signals="timestep"),
        "The blocks that refine its caption are the encoder's.",
    ),
    "cosmos-predict2": Named(
        "adaln-zero-cross", 2025, DIFFUSERS.format("cosmos"),
        dict(head="low-rank(D/8)", signals="timestep", cross="modulated"),
        "Its shared map gives one triple for all three branches, and each branch has a low-rank map of its own.",
    ),
    "eqm": Named(
        "adaln-zero", 2025, "arXiv 2510.02300", dict(signals="pooled"),
        "Time-free: its velocity is a function of image and class, as in uEDM (arXiv 2502.13129).",
    ),
    "kandinsky5": Named("adaln-zero-cross", 2025, DIFFUSERS.format("kandinsky"), dict(cross="modulated")),
    "wan": Named("shared-modulation", 2025, "arXiv 2503.20314, section 4.2.1", dict(cross_norm="layer")),
    "prx": Named("static-text", 2025, "Photoroom/PRX"),
    "chroma": Named(
        "flux", 2025, "lodestones/Chroma1-HD", dict(head="approximator(5D/3, 5)", trunk="one", signals="timestep"),
        "Its approximator gives the last norm's vectors too.",
    ),
    "flux2": Named(
        "flux", 2025, "black-forest-labs/flux2", dict(dual="seventh", head="shared", signals="timestep")
    ),
    "e-mmdit": Named(
        "sd3", 2025, "arXiv 2510.27135, section 3", dict(head="shared+affine", trunk="one", signals="timestep"),
        "Its tokens are compressed between blocks and attend within subregions, as its backbone has them.",
    ),
    "joyimage": Named(
        "sd3", 2026, DIFFUSERS.format("joyimage"), dict(head="shared+table", trunk="one", signals="timestep"),
        "Its tables are initialised at zero, and nothing modulates its last norm.",
    ),
    "glm-image": Named(
        "lumina2", 2026, DIFFUSERS.format("glm_image"), dict(trunk="side", norm="layer", **ONE_STREAM),
        "Its c has the size and crop of the image too, and its image tokens a prior's.",
    ),
    "ltx2": Named(
        "adaln-zero-cross", 2026, DIFFUSERS.format("ltx2"),
        dict(head="shared+table", norm="rms", signals="timestep", cross="modulated", prompt_side="c"),
        "Of video alone, without the audio's stream. LTX-2.5 has prompt_side=static.",
    ),
    "flux3": Named(
        "flux", 2026, DIFFUSERS.format("flux3"),
        dict(dual="seventh", early="separate", parallel="all", head="shared", trunk="side", signals="timestep",
             prompt_time="zero"),
        "Reference images are a third kind of tokens there.",
    ),
    "ideogram4": Named(
        "z-image", 2026, DIFFUSERS.format("ideogram4"), dict(rank=512, activation="silu"),
        "Its tokens of image and prompt have a learned vector each that says which they are; its c has 512 channels of "
        "any width, here D at most.",
    ),
    "lens": Named(
        "qwen-image", 2026, "arXiv 2605.21573",
        says="Its norms are RMS, and the encoder's layers are fused before its first block.",
    ),
    "boogu": Named(
        "lumina2", 2026, "boogu-project/Boogu-Image, transformer_boogu.py",
        says="Its first blocks have two streams, and an attention of the image alone beside the joint one; here all "
        "are as the others.",
    ),
    "imf": Named(
        "in-context", 2025, "arXiv 2512.02012", dict(tokens=8, gate="static-zero", norm="rms"),
        "Its time has 4 tokens and its class 8; here each has 8.",
    ),
    "jit": Named(
        "adaln-zero", 2025, "arXiv 2511.13720", dict(bank="tokens(32, 1)"),
        "Its tokens enter before block 4 of 12; here before block 1.",
    ),
    "ernie-image": Named("lumina2", 2026, DIFFUSERS.format("ernie_image"), dict(head="shared", **ONE_STREAM)),
    "krea2": Named(
        "lumina2", 2026, "krea.ai, technical report of June 2026", dict(head="shared+table", **ONE_STREAM),
        "Its c passes a GELU before the map, where c passes silu here, and its last norm has a table.",
    ),
    "qwen-image-2.1": Named(
        "lumina2", 2026, DIFFUSERS.format("qwenimage21"),
        dict(head="shared", norm="layer", post="none", prompt_time="zero", prompt_sees_image="no"),
        "Its prompt's tokens are causal; here they attend to one another.",
    ),
    "cosmos3": Named(
        "sd3", 2026, DIFFUSERS.format("cosmos3"),
        dict(signals="timestep", time="added", modulation="none", gate="one", prompt_sees_image="no"),
        "Its prompt's tokens are causal, and its norms RMS; here they attend to one another, behind LN.",
    ),
    "hidream-o1": Named("in-context", 2026, "arXiv 2605.11061"),
}  # fmt: skip
