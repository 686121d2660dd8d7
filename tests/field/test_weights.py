"""Files of weights as users have them: bundles, prefixes, shards, averages; and what only looks like weights."""

from __future__ import annotations

import json
import struct
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save, save_file
from torch import Tensor

import architectures
from architectures import WeightsError
from architectures.layers import sincos_at
from architectures.systems.prefixes import quantised
from architectures.systems.weights import LAYOUTS
from bench.views.sample import published
from bench.views.sample.cells import SampleSettings
from bench.views.sample.weightfiles import FileError, read

SIZES: dict[str, Any] = {"width": 32, "heads": 4, "depth": 1, "image_size": 8, "classes": 7}
PIXART: dict[str, Any] = {"width": 48, "heads": 4, "depth": 1, "text_width": 12, "size_conditions": False}
CHROMA: dict[str, Any] = {
    "width": 32, "heads": 2, "dual": 1, "single": 1, "text_width": 12, "hidden": 16, "layers": 1, "axes": (4, 6, 6),
}  # fmt: skip
State = dict[str, Tensor]


def state_of(
    layout: str = "original", fill: float | None = None, system: str = "dit", sizes: dict[str, Any] = SIZES
) -> State:
    """Weights of a tiny DiT, or another system, under the names of a layout."""
    model: Any = architectures.published(system, **sizes)
    own = model.state_dict()
    state: State = {}
    for move in model.moves(layout):
        parts = own[move.target].chunk(len(move.names), move.axis)
        for name, part in zip(move.names, parts, strict=True):
            state[name] = torch.full_like(part, fill) if fill is not None else torch.randn_like(part) / 20
    return {name: tensor.contiguous() for name, tensor in state.items()}


@pytest.fixture(scope="module")
def whole() -> State:
    return state_of()


def loaded(path: Path, **more: Any) -> tuple[State, list[str]]:
    """The model's weights of a file, and what was said."""
    said: list[str] = []
    model, _ = published.load("dit", path, SIZES, say=said.append, **more)
    return dict(model.state_dict()), said


def saved(path: Path, state: State) -> Path:
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, path)
    return path


def same(a: State, b: State) -> bool:
    return all(torch.equal(a[name], b[name]) for name in a)


PREFIXES = ["module.", "_orig_mod.", "ema.", "ema_model.", "model.diffusion_model.", "diffusion_model.", "transformer."]
PREFIXES += [
    "unet.model.",
    "model.",
    "student.",
    "module._orig_mod.",
    "ema.module.",
    "net.module.model.x1.",
    "state_dict.",
]


@pytest.mark.parametrize("prefix", PREFIXES)
def test_a_prefix_is_taken_off_and_said(whole: State, tmp_path: Path, prefix: str) -> None:
    """`31 of 31 keys are missing` was all that was said of any prefix but one."""
    plain, _ = loaded(saved(tmp_path / "plain.safetensors", whole))
    with_prefix = {prefix + name: tensor for name, tensor in whole.items()}
    wrapped, said = loaded(saved(tmp_path / "wrapped.safetensors", with_prefix))
    shown = ".".join(part for part in prefix.split(".") if part != "_orig_mod")
    assert same(plain, wrapped) and (not shown or any(shown in line for line in said))


def test_wrappers_within_keys_are_taken_off(whole: State, tmp_path: Path) -> None:
    """Blocks compiled one by one, or wrapped by FSDP, carry the wrapper's name in the middle."""
    odd = {name.replace("blocks.0.", "blocks.0._orig_mod._fsdp_wrapped_module."): one for name, one in whole.items()}
    assert odd.keys() != whole.keys()
    assert same(loaded(saved(tmp_path / "a.safetensors", whole))[0], loaded(saved(tmp_path / "b.safetensors", odd))[0])


@pytest.mark.parametrize("prefix", ["", "model.diffusion_model.", "transformer."])
def test_what_lies_beside_the_model_is_passed_over_and_said(whole: State, tmp_path: Path, prefix: str) -> None:
    """The released SD3 file holds a VAE and text encoders: it was refused as `left over`."""
    bundle = {prefix + name: tensor for name, tensor in whole.items()}
    for name in ("first_stage_model.decoder.conv_in.weight", "text_encoders.clip_l.a.weight", "vae.encoder.b.bias"):
        bundle[name] = torch.full((3,), float("nan"), dtype=torch.float16)  # not ours to judge
    weights, said = loaded(saved(tmp_path / "bundle.safetensors", bundle))
    assert any("passed over" in line and "3 tensors" in line for line in said)
    assert same(weights, loaded(saved(tmp_path / "plain.safetensors", whole))[0])


def test_an_average_is_taken_only_when_asked(tmp_path: Path) -> None:
    """Of a file with both, the one whose name came last won."""
    both = {f"model.{name}": one for name, one in state_of(fill=1.0).items()}
    both |= {f"ema.{name}": one for name, one in state_of(fill=2.0).items()}
    file = saved(tmp_path / "both.safetensors", both)
    plain, said = loaded(file)
    averaged, _ = loaded(file, ema=True)
    assert all((one == 1).all() for one in plain.values()) and all((one == 2).all() for one in averaged.values())
    assert any("passed over" in line and "ema." in line for line in said)
    beside = state_of(fill=1.0) | {f"ema.{name}": one for name, one in state_of(fill=2.0).items()}
    assert all((one == 1).all() for one in loaded(saved(tmp_path / "beside.safetensors", beside))[0].values())
    only = {f"ema.{name}": one for name, one in state_of(fill=3.0).items()}
    assert all((one == 3).all() for one in loaded(saved(tmp_path / "only.safetensors", only))[0].values())


def test_weights_twice_are_refused_and_listed(tmp_path: Path) -> None:
    """A teacher and a student: neither is more meant than the other."""
    both = {f"student.{name}": one for name, one in state_of(fill=1.0).items()}
    both |= {f"teacher.{name}": one for name, one in state_of(fill=2.0).items()}
    with pytest.raises(WeightsError, match=r"2 times, under student\., teacher\."):
        loaded(saved(tmp_path / "both.safetensors", both))
    with pytest.raises(WeightsError, match="no averaged weights"):
        loaded(saved(tmp_path / "plain.safetensors", state_of()), ema=True)


def test_several_files_with_the_same_keys_are_refused_and_listed(whole: State, tmp_path: Path) -> None:
    """A folder with `model` and `ema` was merged, and the last name won."""
    saved(tmp_path / "ema.safetensors", whole)
    saved(tmp_path / "model.safetensors", whole)
    with pytest.raises(FileError, match=r"--weights FILE \(files: ema\.safetensors, model\.safetensors\)"):
        read(tmp_path)
    assert len(read(tmp_path / "model.safetensors")) == len(whole)


def sharded(folder: Path, whole: State, index: bool) -> Path:
    """Weights in three files, with an index or without."""
    folder.mkdir()
    names = [f"model-{k:05d}-of-00003.safetensors" for k in (1, 2, 3)]
    where = {name: names[k % 3] for k, name in enumerate(sorted(whole))}
    for file in names:
        saved(folder / file, {name: whole[name] for name, place in where.items() if place == file})
    if index:
        (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))
    return folder


def test_shards_are_put_together_and_missing_ones_are_named(whole: State, tmp_path: Path) -> None:
    """By their index, which other files beside them do not change; or by their names."""
    plain, _ = loaded(saved(tmp_path / "plain.safetensors", whole))
    for index in (True, False):
        folder = sharded(tmp_path / f"shards-{index}", whole, index)
        assert same(plain, loaded(folder)[0])
        if index:
            saved(folder / "ema.safetensors", state_of(fill=7.0))
            assert same(plain, loaded(folder)[0]), "the index says which"
            assert same(plain, loaded(folder / "model.safetensors.index.json")[0])
        (folder / "model-00002-of-00003.safetensors").unlink()
        with pytest.raises(FileError, match="1 of 3 shards are missing .model-00002-of-00003"):
            read(folder)


def test_an_index_that_lies_is_named(whole: State, tmp_path: Path) -> None:
    """A key that is not where it says, a file outside the folder, another shape of JSON."""
    folder = sharded(tmp_path / "shards", whole, True)
    index = folder / "model.safetensors.index.json"
    where = json.loads(index.read_text())["weight_map"]
    for content in (where | {"surprise": "model-00001-of-00003.safetensors"}, where | {"x": "../a.safetensors"}, [1]):
        index.write_text(json.dumps({"weight_map": content}))
        with pytest.raises(FileError, match=r"index\.json"):
            read(folder)
    index.write_text("{")
    with pytest.raises(FileError, match="no index of weights"):
        read(folder)


def test_a_folder_of_folders_names_them(whole: State, tmp_path: Path) -> None:
    """A pipeline of diffusers keeps its model one folder below."""
    (tmp_path / "transformer").mkdir()
    saved(tmp_path / "transformer" / "model.safetensors", whole)
    with pytest.raises(FileError, match="its folders transformer hold some"):
        read(tmp_path)


def pickled(kind: str) -> bytes:
    import io

    buffer = io.BytesIO()
    torch.save({"a": torch.zeros(2)}, buffer, _use_new_zipfile_serialization=kind == "zip")
    return buffer.getvalue()


def zipped() -> bytes:
    import io

    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("a.txt", "x")
    return buffer.getvalue()


NOT_WEIGHTS = {
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 12\n", "Git LFS pointer"),
    "annex": (b"/annex/objects/SHA256E-s1--ab.safetensors\n", "git-annex pointer"),
    "html": (b"<!DOCTYPE html><html><body>404</body></html>", "a page of HTML"),
    "html with a space": (b"\n  <html>Login</html>", "a page of HTML"),
    "xml": (b'<?xml version="1.0"?><Error/>', "a page of HTML or XML"),
    "json": (b'{"error": "Access to model is restricted"}', "JSON"),
    "gguf": (b"GGUF\x03\0\0\0" + bytes(100), "a GGUF file"),
    "pickle": (pickled("old"), "a pickle"),
    "zip": (pickled("zip"), "a pickle"),
    "npz": (zipped(), "a zip"),
    "empty": (b"", "empty"),
    "zeros": (bytes(5000), "nothing but zeros"),
    "short": (b"abc", "not a whole safetensors file"),
    "gzip": (b"\x1f\x8b\x08\0" + bytes(50), "packed with gzip"),
    "hdf5": (b"\x89HDF\r\n\x1a\n" + bytes(50), "an HDF5 file"),
    "numpy": (b"\x93NUMPY\x01\0v\0", "an array of numpy"),
    "tar": (b"a" * 257 + b"ustar" + bytes(300), "a tar"),
    "image": (b"\x89PNG\r\n\x1a\n" + bytes(50), "an image"),
    "huge header": (struct.pack("<Q", 2**62) + b"{}", "not a whole safetensors file"),
    "header cut": (struct.pack("<Q", 900) + b'{"a": {"dtype"', "cut"),
    "header of a list": (struct.pack("<Q", 2) + b"[]", "not a whole safetensors file"),
    "header damaged": (struct.pack("<Q", 9) + b'{"a": 1} ', "its header is damaged"),
    "deep": (struct.pack("<Q", 200_006) + b'{"a": ' + b"[" * 200_000, "header is damaged"),
}


@pytest.mark.parametrize("name", NOT_WEIGHTS)
def test_what_is_no_weights_is_named_for_what_it_is(tmp_path: Path, name: str) -> None:
    """LFS pointers, HTML pages and GGUF files were all `header too large`."""
    content, words = NOT_WEIGHTS[name]
    file = tmp_path / "model.safetensors"
    file.write_bytes(content)
    with pytest.raises(FileError, match=words) as error:
        read(file)
    assert str(file) in str(error.value) and "\n" not in str(error.value) and len(str(error.value)) < 400


def test_weights_cut_anywhere_are_named(whole: State, tmp_path: Path) -> None:
    """An interrupted download; each place, the header's too."""
    data = save(whole)
    file = tmp_path / "cut.safetensors"
    for size in [*range(0, 40), *range(40, len(data), len(data) // 40), len(data) - 1]:
        file.write_bytes(data[:size])
        with pytest.raises(FileError, match=r"cut\.safetensors"):
            loaded(file)


def test_no_file_is_named(tmp_path: Path) -> None:
    """Nothing there, nothing in it, a link to nothing, something that is no file."""
    (tmp_path / "link.safetensors").symlink_to(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "none.safetensors", tmp_path / "empty", tmp_path / "link.safetensors", Path("/dev/null")):
        with pytest.raises(FileError, match="no safetensors file there"):
            read(path)


@pytest.mark.parametrize(
    "dtype", [torch.float16, torch.bfloat16, torch.float64, torch.float8_e4m3fn, torch.float8_e5m2]
)
def test_floats_of_any_width_load(whole: State, tmp_path: Path, dtype: torch.dtype) -> None:
    """fp8 without scales is a float like any other; the weights are those of the file, exactly."""
    given = {name: tensor.to(dtype) for name, tensor in whole.items()}
    weights, _ = loaded(saved(tmp_path / "narrow.safetensors", given))
    wide, _ = loaded(saved(tmp_path / "wide.safetensors", {name: one.float() for name, one in given.items()}))
    assert same(weights, wide)


QUANTISED = {
    "bitsandbytes 4 bit": ("absmax", torch.float32, torch.uint8),
    "bitsandbytes 8 bit": ("SCB", torch.float32, torch.int8),
    "fp8 of ComfyUI": ("scale_weight", torch.float32, torch.float8_e4m3fn),
    "fp8 with scales": ("weight_scale", torch.float32, torch.float8_e4m3fn),
    "GPTQ": ("qweight", torch.int32, None),
    "int8 alone": ("", None, torch.int8),
}


@pytest.mark.parametrize("kind", QUANTISED)
def test_quantised_weights_are_named(whole: State, tmp_path: Path, kind: str) -> None:
    """A 40-line traceback, or numbers that are none."""
    suffix, of_scale, of_weight = QUANTISED[kind]
    state = dict(whole)
    for name in [name for name in whole if name.endswith("mlp.fc1.weight")]:
        tensor = state.pop(name)
        if of_weight is not None:
            state[name] = tensor.to(of_weight)
        if of_scale is not None:
            scale = f"{name}.{suffix}" if suffix == "absmax" else name.replace("weight", suffix)
            state[scale] = torch.ones(1, dtype=of_scale)
    with pytest.raises(WeightsError, match="quantised") as error:
        loaded(saved(tmp_path / "q.safetensors", state))
    assert len(str(error.value)) < 400


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_no_numbers_are_refused_with_the_tensors_name(
    whole: State, tmp_path: Path, value: float
) -> None:
    """NaN weights made NaN latents, and the command ended with 0."""
    name = next(name for name in whole if name.endswith("attn.qkv.weight"))
    state = whole | {name: whole[name].clone()}
    state[name][3, 5] = value
    with pytest.raises(WeightsError, match=f"{name} holds NaN or infinity"):
        loaded(saved(tmp_path / "nan.safetensors", {f"module.{key}": one for key, one in state.items()}))


def test_latents_that_are_no_numbers_are_not_written(whole: State, tmp_path: Path) -> None:
    """A guidance beyond reason overflows; the file would have held NaN."""
    file, out = saved(tmp_path / "w.safetensors", {n: t * 1e18 for n, t in whole.items()}), tmp_path / "out.png"
    request = published.PublishedRequest(["2"], None, (8, 8), None)
    with pytest.raises(ValueError, match="nothing was written"):
        published.sample_published("dit", file, SIZES, request, SampleSettings(1, steps=2, guidance=1e38), out)
    assert not list(tmp_path.glob("out*"))


def test_keys_of_another_system_name_it_and_what_the_file_holds(whole: State, tmp_path: Path) -> None:
    """With a prefix too."""
    other = {"model.double_blocks.0.img_mod.lin.weight": torch.zeros(2), "model.x": torch.zeros(1)}
    with pytest.raises(WeightsError, match=r"look like flux; the file holds model\.double_blocks"):
        loaded(saved(tmp_path / "flux.safetensors", other))
    with pytest.raises(WeightsError, match="the file holds no tensor"):
        loaded(saved(tmp_path / "none.safetensors", {}))
    less = {
        f"module.{name}": one for name, one in whole.items() if not name.endswith("y_embedder.embedding_table.weight")
    }
    with pytest.raises(WeightsError, match="1 missing .y_embedder.embedding_table.weight."):
        loaded(saved(tmp_path / "less.safetensors", less))
    with pytest.raises(WeightsError, match="1 left over .extra.weight."):
        loaded(saved(tmp_path / "more.safetensors", whole | {"extra.weight": torch.zeros(1)}))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.integers(0, 10**6), value=st.binary(min_size=1, max_size=4))
def test_bytes_replaced_anywhere_in_the_header_are_weights_or_a_sentence(
    tmp_path: Path, place: int, value: bytes
) -> None:
    """Nothing but `ValueError`s with the file's name."""
    file = tmp_path / "w.safetensors"
    data = bytearray(save(state_of(fill=0.5)))
    at = place % (8 + int.from_bytes(data[:8], "little"))
    data[at : at + len(value)] = value
    file.write_bytes(data)
    try:
        loaded(file)
    except (FileError, WeightsError) as error:
        named = str(error)
        if str(file) not in named:
            raise AssertionError(named) from error


def test_encoded_prompts_that_do_not_fit_are_named(tmp_path: Path) -> None:
    """A mask of another length, tokens of NaN or of integers; bfloat16 is taken."""
    tokens = torch.randn(2, 3, 4)
    wrong: list[State] = [
        {"tokens": tokens, "mask": torch.ones(2, 5)},
        {"tokens": tokens * float("nan")},
        {"tokens": tokens.int()},
        {"tokens": tokens[0].clone()},
        {"tokens": tokens, "null_tokens": tokens[:1].clone()},
        {"tokens": tokens, "pooled": torch.randn(3, 4)},
        {"embeddings": tokens},
    ]
    for k, state in enumerate(wrong):
        with pytest.raises(FileError, match=f"{k}.safetensors"):
            published.features(saved(tmp_path / f"{k}.safetensors", state))
    prompt, null = published.features(saved(tmp_path / "x.safetensors", {"tokens": tokens.bfloat16()}))
    assert prompt.tokens.dtype == null.tokens.dtype == torch.float32
    with pytest.raises(FileError, match=r"no `null_tokens`; it holds tokens; or give --guidance 1"):
        published.features(tmp_path / "x.safetensors", guided=True)  # zeros are no prompt to guide away from
    published.write(tmp_path / "below" / "latents.safetensors", tokens)
    assert load_file(tmp_path / "below" / "latents.safetensors")["latents"].shape == (2, 3, 4)


# --- positions that a file holds --------------------------------------------------------------------------------------


def of_pixart(grid: int, interpolation: float = 1.0, layout: str = "original") -> State:
    """Weights of a tiny PixArt as released, with the table of a grid's positions."""
    state = state_of(layout, system="pixart", sizes=PIXART)
    at = torch.arange(grid) / interpolation
    return state | ({"pos_embed": sincos_at(48, at, at)[None].half()} if layout == "original" else {})


@pytest.mark.parametrize(
    ("system", "grid", "interpolation"), [("pixart", 16, 1.0), ("pixart-512", 32, 1.0), ("pixart-1024", 64, 2.0)]
)
def test_positions_of_a_file_are_those_of_the_model_or_refused(system: str, grid: int, interpolation: float) -> None:
    """PixArt-512's file was loaded with the positions of the 256 model, in silence."""
    model, file = architectures.published(system, **PIXART), of_pixart(grid, interpolation)
    assert architectures.load_published(model, file) == "original"
    other = architectures.published("pixart-512" if system == "pixart" else "pixart", **PIXART)
    with pytest.raises(WeightsError, match=f"other positions than .*table is {grid} x {grid}; choose pixart for"):
        architectures.load_published(other, file)


def test_positions_of_another_interpolation_are_refused() -> None:
    """Sigma's file of 256 pixels has a table of the same shape."""
    with pytest.raises(WeightsError, match="interpolation 1 give"):
        architectures.load_published(architectures.published("pixart", **PIXART), of_pixart(16, 0.5))
    sigma = architectures.published("pixart", **PIXART, interpolation=0.5)
    assert architectures.load_published(sigma, of_pixart(16, 0.5)) == "original"
    assert architectures.load_published(sigma, of_pixart(16, layout="diffusers")) == "diffusers"


# --- a model of a file ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("system", "sizes"), [("chroma", CHROMA), ("dit", SIZES)])
def test_a_model_has_no_memory_before_its_file_gives_it(system: str, sizes: dict[str, Any]) -> None:
    """For a small buffer all of Chroma was allocated and initialised a second time, beside the loaded one."""
    whole = architectures.published(system, **sizes)
    with published.parameters_on_meta():
        model = architectures.published(system, **sizes)
    assert [p.shape for p in model.parameters()] == [p.shape for p in whole.parameters()]
    assert all(p.is_meta for p in model.parameters()) and not any(p.is_meta for p in whole.parameters())
    buffers = dict(whole.named_buffers())
    assert buffers and same(buffers, dict(model.named_buffers()))
    assert not any(p.is_meta for p in architectures.published(system, **sizes).parameters()), "the rule outlives it"


def test_a_model_is_built_once_for_a_file(whole: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built, build = [], architectures.published

    def counted(name: str, **sizes: Any) -> Any:
        built.append(name)
        return build(name, **sizes)

    monkeypatch.setattr(architectures, "published", counted)
    state, _ = loaded(saved(tmp_path / "w.safetensors", whole))
    assert built == ["dit"]
    assert not any(tensor.is_meta for tensor in state.values())


@pytest.mark.parametrize(
    ("system", "own"), [("flux", 1.0), ("flux-schnell", 1.0), ("flux2-klein-4b", 1.0), ("chroma", 4.0), ("sd3", 4.0)]
)
def test_a_distilled_system_is_not_guided_twice(
    system: str, own: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FLUX.1 dev, conditioned on a scale of 3.5, was guided by 4 on top of it."""
    with torch.device("meta"):
        model = architectures.published(system)
    given: list[float] = []

    def latents(*_: Any, guidance: float, **__: Any) -> Tensor:
        given.append(guidance)
        return torch.zeros(1, 4, 8, 8)

    monkeypatch.setattr(published, "load", lambda *_, **__: (model, "original"))
    monkeypatch.setattr(published, "encode_prompts", lambda *_, **more: (None, None))
    monkeypatch.setattr(published, "latents", latents)
    request = published.PublishedRequest([], None, (8, 8), None)
    for guidance in (None, 2.5):
        published.sample_published(
            system, Path("w"), {}, request, SampleSettings(1, guidance=guidance), tmp_path / "out.png"
        )
    assert given == [own, 2.5]


@pytest.mark.thorough
def test_no_system_s_own_key_looks_quantised() -> None:
    for system in architectures.PUBLISHED:
        with torch.device("meta"):
            model: Any = architectures.published(system)
        names = [name for layout in LAYOUTS for move in model.moves(layout) for name in move.names]
        assert names and not quantised(names), system
