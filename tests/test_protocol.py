"""Images on disk by the papers' protocol: equal to torch-fidelity's own numbers, to ADM's files, and resumable."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch_fidelity
from PIL import Image
from tiny import ditbench

from bench.data import scenes
from bench.data.errors import DataError
from bench.data.reading import stored
from bench.measure import metrics, protocol
from bench.measure.metrics import MetricError, extractors, networks
from bench.measure.metrics.frechet import moments
from bench.measure.metrics.sets import fidelity_options

REL = 1e-4  # of torch-fidelity's number


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return scenes.generate(120, 32, seed=0, split="train").images


@pytest.fixture(scope="module")
def folders(images, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """70 samples in subfolders, 50 darker images as the real side: far enough for KID not to be rounding."""
    root = tmp_path_factory.mktemp("sides")
    for name, own in (("samples", images[:70]), ("real", (images[70:] * 0.7).astype(np.uint8))):
        for k, one in enumerate(own):
            file = root / name / f"{k % 2}" / f"{k:03d}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(one).save(file)
    return root / "samples", root / "real"


def features(cache: Path, name: str = "efficientnet-lite0", **more: Any) -> protocol.Features:
    return protocol.Features(metrics.resolve(name), cache, **more)


def theirs(samples: Path, real: Path, **more: Any) -> dict[str, float]:
    options: dict[str, Any] = fidelity_options(
        cuda=False, cache=False, save_cpu_ram=True, samples_find_deep=True, isc=True, fid=True, batch_size=16, **more
    )
    found: dict[str, float] = torch_fidelity.calculate_metrics(input1=str(samples), input2=str(real), **options)
    return found


NAMES = {
    "fid": "frechet_inception_distance",
    "inception_score": "inception_score_mean",
    "kid": "kernel_inception_distance_mean",
    "precision": "precision",
    "recall": "recall",
}


@pytest.mark.thorough
def test_equal_to_torch_fidelitys_own_reading_extraction_and_numbers(folders, tmp_path: Path) -> None:
    """The same PNG files, through its front door."""
    own = protocol.evaluate(*folders, features(tmp_path))
    expected = theirs(
        *folders, feature_extractor="efficientnet-lite0", kid=True, prc=True, kid_subset_size=50, kid_subsets=100
    )
    assert set(own.values) == {f"{kind}_efficientnet_lite0_70" for kind in NAMES}
    for kind, name in NAMES.items():
        assert own.values[f"{kind}_efficientnet_lite0_70"] == pytest.approx(expected[name], rel=REL), kind
    assert own.about["extractor_digest"] == metrics.resolve("efficientnet-lite0").digest
    assert any("70 samples for 1,280 features" in note for note in own.notes)
    assert any("no sFID" in note for note in own.notes)


@pytest.fixture
def inception(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Random weights in torch-fidelity's layout, well conditioned: the published ones are a download."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    with monkeypatch.context() as patched:
        patched.setattr(FeatureExtractorInceptionV3, "load_state_dict", lambda self, state: None)
        patched.setattr("torch_fidelity.feature_extractor_inceptionv3.torch.load", lambda *_, **__: {})
        torch.manual_seed(0)
        (tmp_path / "empty.pth").write_bytes(b"")
        network = FeatureExtractorInceptionV3(
            extractors.INCEPTION, ["2048"], feature_extractor_weights_path=str(tmp_path / "empty.pth")
        )
    weights = tmp_path / "weights.pth"
    torch.save(network.state_dict(), weights)
    monkeypatch.setenv(extractors.INCEPTION_WEIGHTS, str(weights))
    extractors._network.cache_clear()
    return weights


@pytest.mark.thorough
def test_inception_equals_torch_fidelitys_and_sfid_is_of_adms_layer(
    inception: Path, images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With random weights: network, resize, layers and numbers are those that the published file goes through."""
    for name, part in (("samples", images[:20]), ("real", images[20:25])):
        (tmp_path / name).mkdir()
        for k, one in enumerate(part):
            Image.fromarray(one).save(tmp_path / name / f"{k:03d}.png")
    sides = tmp_path / "samples", tmp_path / "real"
    how = features(tmp_path / "cache", "inception")
    own = protocol.evaluate(*sides, how)
    seen: list[torch.Tensor] = []
    make = torch_fidelity.metrics.create_feature_extractor

    def watched(*words: Any, **more: Any) -> Any:
        network = make(*words, **more)
        network.Mixed_6d.branch1x1.bn.register_forward_hook(lambda module, given, out: seen.append(out.clone()))
        return network

    monkeypatch.setattr(torch_fidelity.metrics, "create_feature_extractor", watched)
    weights = {"feature_extractor": extractors.INCEPTION, "feature_extractor_weights_path": str(inception)}
    expected = theirs(*sides, **weights)
    assert own.values["fid_inception_20"] == pytest.approx(expected[NAMES["fid"]], rel=REL)
    assert own.values["inception_score_inception_20"] == pytest.approx(expected[NAMES["inception_score"]], rel=REL)
    assert [len(part) for part in seen] == [16, 4, 5]
    spatial = torch.cat(seen).relu()[:, :7].permute(0, 2, 3, 1).reshape(25, -1).double().numpy()
    assert spatial.shape == (25, 17 * 17 * 7)
    assert own.values["sfid_inception_20"] == pytest.approx(frechet(spatial[:20], spatial[20:]), rel=REL)


def frechet(a: np.ndarray, b: np.ndarray) -> float:
    """Of two sets of features: the trace of sqrt(S T) is the sum of the singular values of sqrt(S) sqrt(T)."""
    means = a.mean(0), b.mean(0)
    roots = [(one - mean) / np.sqrt(len(one) - 1) for one, mean in zip((a, b), means, strict=True)]
    traces = sum((root**2).sum() for root in roots) - 2 * np.linalg.norm(roots[0] @ roots[1].T, "nuc")
    return float(((means[0] - means[1]) ** 2).sum() + traces)


@pytest.mark.thorough
def test_adms_file_of_statistics_and_images_is_read(folders, tmp_path: Path) -> None:
    how = features(tmp_path / "cache")
    plain = protocol.evaluate(*folders, how)
    own, darker = (np.concatenate([one.read() for one in stored.open_images(side).parts()]) for side in folders)
    real = moments(how.extractor.features(darker))
    mu, sigma = real.mean.numpy(), real.covariance.numpy()
    np.savez(tmp_path / "statistics.npz", mu=mu, sigma=sigma)
    np.savez(tmp_path / "adm.npz", darker, mu=mu, sigma=sigma, arr_1=np.zeros(3))
    np.savez(tmp_path / "samples.npz", own)
    alone = protocol.evaluate(folders[0], tmp_path / "statistics.npz", how)
    assert alone.values["fid_efficientnet_lite0_70"] == pytest.approx(
        plain.values["fid_efficientnet_lite0_70"], rel=REL
    )
    assert "kid_efficientnet_lite0_70" not in alone.values and any("no KID" in note for note in alone.notes)
    whole = protocol.evaluate(tmp_path / "samples.npz", tmp_path / "adm.npz", how)
    for key, value in plain.values.items():
        assert whole.values[key] == pytest.approx(value, rel=REL), key


def test_arrays_that_a_cell_keeps_are_read(images, tmp_path: Path) -> None:
    for k in range(2):
        np.save(tmp_path / f"part-{k}.npy", images[k * 20 : k * 20 + 20])
    found = stored.open_images(tmp_path)
    assert (found.count, found.size) == (40, (32, 32))
    assert np.array_equal(np.concatenate([part.read() for part in found.parts()]), images[:40])


def test_an_interrupted_run_resumes_and_a_damaged_part_is_computed_again(
    folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored, "PART", 20)
    calls: list[int] = []
    outputs = metrics.Extractor.outputs

    def counted(self: Any, part: np.ndarray, **more: Any) -> Any:
        calls.append(len(part))
        return outputs(self, part, **more)

    monkeypatch.setattr(metrics.Extractor, "outputs", counted)

    def stop(what: str, done: int, total: int) -> None:
        if "samples" in what and done == 40:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        protocol.evaluate(*folders, features(tmp_path, progress=stop))
    assert calls == [20, 20, 10, 20, 20]
    whole = protocol.evaluate(*folders, features(tmp_path))
    assert calls[5:] == [20, 10]
    kept = sorted(tmp_path.rglob("*.npy"))[0]
    kept.write_bytes(kept.read_bytes()[:-1])
    said: list[str] = []
    again = protocol.evaluate(*folders, features(tmp_path, warn=said.append))
    assert len(calls) == 8 and len(said) == 1 and again.values == whole.values


def test_own_statistics_are_a_reference_of_their_extractor_alone(
    folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    how, out = features(tmp_path / "cache"), tmp_path / "real.npz"
    protocol.write_reference(folders[1], out, how)
    plain, kept = protocol.evaluate(*folders, how), protocol.evaluate(folders[0], out, how)
    key = "fid_efficientnet_lite0_70"
    assert kept.values[key] == pytest.approx(plain.values[key], rel=REL)
    arrays = dict(np.load(out))
    for changed, message in (
        ({"extractor": np.array("dinov2")}, "statistics of extractor dinov2, not efficientnet-lite0"),
        ({"digest": np.array("0" * 16)}, "with other weights"),
        ({"sigma": arrays["sigma"][:-1]}, "do not fit"),
        ({"mu": arrays["mu"] * np.nan}, "not all finite"),
    ):
        np.savez(tmp_path / "changed.npz", **(arrays | changed))
        with pytest.raises(MetricError, match=message):
            protocol.evaluate(folders[0], tmp_path / "changed.npz", how)


def test_what_is_wrong_with_a_side_is_one_sentence(folders, images, tmp_path: Path) -> None:
    how = features(tmp_path / "cache")
    (tmp_path / "empty").mkdir()
    mixed = tmp_path / "mixed"
    mixed.mkdir()
    for k in range(6):
        Image.fromarray(images[k] if k < 5 else images[k][:16]).save(mixed / f"{k}.png")
    torn = tmp_path / "torn"
    torn.mkdir()
    for k in range(6):
        Image.fromarray(images[k]).save(torn / f"{k}.png")
    (torn / "3.png").write_bytes((torn / "3.png").read_bytes()[:100])
    np.savez(tmp_path / "of-inception.npz", mu=np.zeros(2048), sigma=np.eye(2048))
    np.savez(tmp_path / "neither.npz", a=np.zeros(3))
    np.savez(tmp_path / "floats.npz", images[:9] / 255)
    (tmp_path / "page.npz").write_text("<html>not found</html>")
    few = tmp_path / "few"
    few.mkdir()
    Image.fromarray(images[0]).save(few / "a.png")
    samples = folders[0]
    for side, reference, message in (
        (samples, tmp_path / "of-inception.npz", "statistics of 2048 features, and efficientnet-lite0 has 1280; evalu"),
        (samples, tmp_path / "neither.npz", r"mu and sigma are needed \(it holds a\)"),
        (samples, tmp_path / "floats.npz", "images are uint8"),
        (samples, tmp_path / "page.npz", "an HTML page|no reference statistics|zip"),
        (samples, tmp_path / "absent", "no such folder or file"),
        (tmp_path / "empty", samples, "no images; it holds nothing"),
        (mixed, samples, "mixed sizes: 5.png has 32 x 16 pixels, 0.png 32 x 32"),
        (torn, samples, "3.png"),
        (few, samples, "1 images; at least 5 are needed"),
        (samples, few, "1 images; at least 5 are needed"),
    ):
        with pytest.raises((DataError, MetricError), match=message) as caught:
            protocol.evaluate(side, reference, how)
        assert len(str(caught.value).splitlines()) == 1


def test_features_are_computed_without_tf32_and_flags_come_back() -> None:
    seen = []
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.allow_tf32 = True

    class Network(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor]:
            seen.append((torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32))
            assert not torch.is_autocast_enabled("cpu")
            return (x.flatten(1).float(),)

    try:
        with pytest.MonkeyPatch.context() as patched, torch.autocast("cpu", dtype=torch.bfloat16):
            patched.setattr(extractors, "_network", lambda *_: Network())
            metrics.resolve("efficientnet-lite0").features(np.zeros((1, 4, 4, 3), np.uint8))
        assert seen == [("highest", False)]
        assert (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32) == ("high", True)
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]


@pytest.mark.parametrize("name", ["dinov2", "clip"])
def test_dinov2_and_clip_come_from_a_folder(name: str, images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tiny random network of the same class: its own features of images resized by Pillow's bicubic, nearly."""
    import transformers

    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 224, "patch_size": 56}
    torch.manual_seed(0)
    network: Any
    if name == "dinov2":
        network = transformers.Dinov2Model(transformers.Dinov2Config(**small))
    else:
        config = transformers.CLIPVisionConfig(**small, projection_dim=8, intermediate_size=32)
        network = transformers.CLIPVisionModelWithProjection(config)
    network.save_pretrained(tmp_path)
    monkeypatch.setenv(f"DITBENCH_{name.upper()}", str(tmp_path))
    found = metrics.resolve(name)
    own = found.features(images[:3])
    from bench.measure.metrics.vision import VISION

    mean, deviation = np.array(VISION[name].mean), np.array(VISION[name].deviation)
    resized = np.stack(
        [np.asarray(Image.fromarray(one).resize((224, 224), Image.Resampling.BICUBIC)) for one in images[:3]]
    )
    pixels = torch.from_numpy((resized / 255 - mean) / deviation).permute(0, 3, 1, 2).float()
    with torch.inference_mode():
        out = network.eval()(pixel_values=pixels)
    expected = (out.image_embeds if name == "clip" else out.last_hidden_state[:, 0]).numpy()
    assert own.shape == expected.shape and found.dim == own.shape[1]
    assert np.abs(own - expected).max() < 0.05 * np.abs(expected).max()
    digest = found.digest
    with torch.no_grad():
        next(network.parameters()).add_(1)
    network.save_pretrained(tmp_path)
    assert metrics.resolve(name).digest != digest
    monkeypatch.setenv(f"DITBENCH_{name.upper()}", str(tmp_path / "absent"))
    with pytest.raises(MetricError, match=f"extractor {name}: DITBENCH_.*absent: no folder with config.json"):
        metrics.resolve(name)
    monkeypatch.delenv(f"DITBENCH_{name.upper()}")
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: (_ for _ in ()).throw(OSError("no net")))
    with pytest.raises(MetricError, match=f"extractor {name}: its weights .* name it in DITBENCH_{name.upper()}"):
        metrics.resolve(name)


@pytest.mark.thorough
def test_the_command_shows_numbers_extractor_and_digest(folders, tmp_path: Path) -> None:
    words = ("evaluate", str(folders[0]), "--reference", str(folders[1]), "--extractor", "efficientnet-lite0")
    shown = ditbench(*words, cwd=tmp_path, code=0).stdout
    digest = metrics.resolve("efficientnet-lite0").digest
    assert "FID (efficientnet-lite0, 70)" in shown and digest in shown and "note: no sFID" in shown
    found = json.loads(ditbench(*words, "--json", cwd=tmp_path, code=0).stdout)
    assert found["values"].keys() >= {"fid_efficientnet_lite0_70"} and found["about"]["extractor_digest"] == digest
    wrong = ditbench("evaluate", str(folders[0]), cwd=tmp_path, code=2).stderr
    assert "--reference" in wrong and len(wrong.splitlines()) == 1


def test_an_unknown_extractor_names_those_of_the_papers() -> None:
    with pytest.raises(MetricError, match="dinov2, clip") as caught:
        metrics.resolve("inceptoin")
    assert networks.SPATIAL not in str(caught.value)
