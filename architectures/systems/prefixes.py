"""Which of a file's keys are the model's: what wraps a key, what lies beside the model, what no weights are."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass

from torch import Tensor

WRAPPERS = {"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}  # of compile, FSDP, checkpointing
AVERAGES = re.compile(r"(?:^|[._])(?:ema|averaged?|shadow)(?:$|[._\d])", re.IGNORECASE)
# Parts of pipelines whose keys lie beside a model that has no prefix of its own.
BESIDE = re.compile(
    r"(?:vae|first_stage_model|text_encoders?|text_encoder_\d|cond_stage_model|conditioner|clip_[lg]|t5xxl|te\d?"
    r"|model_ema|ema(?:_model)?|optimizers?|opt|optimizer_states|lr_schedulers?|scheduler|tokenizer|loss|discriminator"
    r"|image_encoder|safety_checker|alphas_cumprod|betas|epoch|step|global_step|args)(?:\..*)?"
)
QUANTISED = {  # how each library marks weights of few bits
    "bitsandbytes": re.compile(r".*\.(?:absmax|quant_map|quant_state\..*|nested_absmax|SCB|weight_format)"),
    "GPTQ or AWQ": re.compile(r".*\.(?:qweight|qzeros|g_idx)"),
    "fp8 or int8 with scales": re.compile(
        r"(?:.*\.)?(?:scale_weight|weight_scale|weight_scale_2|weight_scale_inv|scale_input|input_scale|scaled_fp8"
        r"|comfy_quant|_scale|zero_point|weight_zero_point|scales)"
    ),
    "torchao or quanto": re.compile(r".*\.(?:weight\._data|weight\._scale|weight_qtensor|int_data|tensor_impl.*)"),
}


@dataclass(frozen=True)
class Found:
    """A layout in a file's keys.

    Attributes:
        layout: `original` or `diffusers`.
        prefix: before each of the model's keys, ends with a dot or is empty.
        names: key of the layout -> key of the file.
        share: of the layout's keys that are there.
        beside: keys of the file that are no part of the model.
        others: other prefixes under which all of the layout is there too.
    """

    layout: str
    prefix: str
    names: dict[str, str]
    share: float
    beside: list[str]
    others: list[str]


def find(keys: Iterable[str], layout: str, expected: Set[str], *, ema: bool = False) -> Found:
    """The prefix under which most of a layout's keys are; among several that have as many, the plain or the average.

    Args:
        keys: of the file.
        layout: its name.
        expected: its keys.
        ema: whether the averaged weights are wanted.

    Raises:
        ValueError: if the whole model is there several times, and nothing says which is meant.
    """
    cleaned = {key: _unwrapped(key) for key in keys}
    counts = _counts(cleaned.values(), expected)
    most = max(counts.values(), default=0)
    best = sorted(prefix for prefix, count in counts.items() if count == most) or [""]
    chosen = _one_of(best, ema) if most == len(expected) else min(best, key=len)
    names = {clean.removeprefix(chosen): key for key, clean in cleaned.items() if clean.startswith(chosen)}
    others = [prefix for prefix in best if prefix != chosen] if most == len(expected) else []
    beside = [key for key, clean in cleaned.items() if not clean.startswith(chosen)]
    for name in [*names]:
        if name not in expected and (name.startswith(tuple(others)) or (not chosen and BESIDE.fullmatch(name))):
            beside.append(names.pop(name))
    return Found(layout, chosen, names, most / len(expected), sorted(beside), others)


def _unwrapped(key: str) -> str:
    """A key without the parts that wrappers put within it."""
    return ".".join(part for part in key.split(".") if part not in WRAPPERS)


def _counts(keys: Iterable[str], expected: Set[str]) -> Counter[str]:
    """Prefix -> how many of the layout's keys there are under it."""
    counts: Counter[str] = Counter()
    for key in keys:
        start = 0
        while True:
            if key[start:] in expected:
                counts[key[:start]] += 1
            dot = key.find(".", start)
            if dot < 0:
                break
            start = dot + 1
    return counts


def _one_of(prefixes: Sequence[str], ema: bool) -> str:
    """The prefix that is meant.

    Raises:
        ValueError: if several could be.
    """
    wanted = [prefix for prefix in prefixes if bool(AVERAGES.search(prefix)) == ema]
    if len(prefixes) == 1 and not ema:
        return prefixes[0]  # the only weights there are, averaged or not
    if len(wanted) != 1:
        listed = ", ".join(prefix or "(none)" for prefix in prefixes)
        if ema and not wanted:
            raise ValueError(f"no averaged weights are there, only those under {listed}; leave out --ema")
        hint = "" if ema else "; --ema takes the averaged ones"
        raise ValueError(f"the model is there {len(prefixes)} times, under {listed}: which is meant is not known{hint}")
    return wanted[0]


def quantised(keys: Iterable[str]) -> str:
    """How weights are quantised, with a key that shows it; empty if they are not."""
    for key in keys:
        for kind, pattern in QUANTISED.items():
            if pattern.fullmatch(key):
                return f"quantised ({kind}: {key})"
    return ""


def unfit(names: Iterable[str], state: Mapping[str, Tensor]) -> str:
    """Why the tensors of these keys are no weights, with the first that is none; empty if all are."""
    for name in names:
        tensor = state[name]
        if not tensor.is_floating_point():
            return f"{name} holds {str(tensor.dtype).removeprefix('torch.')}: quantised, or no weights"
        if not tensor.is_meta and not bool(_wide(tensor).isfinite().all()):
            return f"{name} holds NaN or infinity: a run that diverged, or a damaged file"
    return ""


def _wide(tensor: Tensor) -> Tensor:
    """A tensor that can be computed with: floats of 8 bits cannot, and fit into bfloat16 exactly."""
    return tensor.bfloat16() if tensor.element_size() == 1 else tensor


class Computable(Mapping[str, Tensor]):
    """A layout's keys -> tensors of a file, read one by one, in a type that can be computed with."""

    def __init__(self, state: Mapping[str, Tensor], names: Mapping[str, str]) -> None:
        self.state, self.names = state, names

    def __getitem__(self, name: str) -> Tensor:
        return _wide(self.state[self.names[name]])

    def __iter__(self):  # type: ignore[no-untyped-def]  # of strings
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)
