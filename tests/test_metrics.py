"""Metrics: equal to torch-fidelity's and torchmetrics' own, right where the answer is known, honest in their names."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch_fidelity
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import Dataset

from bench.data import scenes
from bench.measure import metrics
from bench.measure.metrics import (
    MetricError,
    extractors,
    features_distance,
    frechet_distance,
    kid_interval,
    moments,
    set_metrics,
)
from bench.measure.metrics.sets import fidelity_options
from bench.store.metrics import count_name
from bench.studies import bias
from bench.views.figures import quality as figures


@pytest.fixture(scope="module")
def lite() -> metrics.Extractor:
    return metrics.resolve("efficientnet-lite0")


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    """120 scenes, or real photographs where DITBENCH_CIFAR10 names a folder with test.parquet."""
    folder = os.environ.get("DITBENCH_CIFAR10")
    if not folder:
        return scenes.generate(120, 32, seed=0, split="train").images
    import io

    import pyarrow.parquet as pq
    from PIL import Image

    rows = pq.read_table(Path(folder) / "test.parquet").column("image").to_pylist()[:120]
    return np.stack([np.asarray(Image.open(io.BytesIO(row["bytes"])).convert("RGB")) for row in rows])


@pytest.fixture(scope="module")
def features(lite, images) -> np.ndarray:
    return lite.features(images)


# --- the Frechet distance -------------------------------------------------------------------------------------------


@given(seed=st.integers(0, 1000), n=st.integers(3, 60), d=st.integers(1, 20))
@settings(max_examples=30, deadline=None)
def test_zero_on_itself_symmetric_and_not_negative(seed: int, n: int, d: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = (moments(rng.normal(size=(n, d)) * (k + 1)) for k in range(2))
    scale = float(a.covariance.trace() + b.covariance.trace())
    assert abs(frechet_distance(a, a)) <= 1e-6 * scale
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a), abs=1e-6 * scale)
    assert frechet_distance(a, b) >= -1e-6 * scale


def test_closed_form_of_diagonal_gaussians() -> None:
    def diagonal(mean: float, deviations: list[float]) -> metrics.Moments:
        d = torch.tensor(deviations, dtype=torch.float64)
        return metrics.Moments(10, torch.full((len(d),), mean, dtype=torch.float64), torch.diag(d**2))

    a, b = diagonal(0.0, [1, 2, 3]), diagonal(1.0, [2, 2, 1])
    assert frechet_distance(a, b) == pytest.approx(3 + 1 + 0 + 4)


@pytest.mark.parametrize("n", [30, 400])
def test_equal_to_torch_fidelitys(n: int) -> None:
    """With full rank and without."""
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(n, 64)), rng.normal(size=(n, 64)) * 1.3 + 0.1
    theirs = fid_statistics_to_metric(*(fid_features_to_statistics(torch.from_numpy(x)) for x in (a, b)), False)
    expected = theirs["frechet_inception_distance"]
    assert frechet_distance(moments(a), moments(b)) == pytest.approx(expected, rel=1e-4 if n < 64 else 1e-8)


@pytest.mark.parametrize(("n", "m"), [(20, 30), (20, 200), (200, 20), (200, 300)])
def test_fewer_samples_than_features_have_the_same_distance_from_a_smaller_matrix(n: int, m: int) -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(n, 64)), rng.normal(size=(m, 64)) * 1.3 + 0.1
    assert features_distance(a, b) == pytest.approx(frechet_distance(moments(a), moments(b)), rel=1e-6)


def test_moments_of_parts_are_those_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Far from zero, where a sum of squares alone would lose eight digits; a million features were held twice."""
    monkeypatch.setattr("bench.measure.metrics.frechet.ROWS", 7)
    features = np.random.default_rng(0).normal(size=(100, 5)) * [1, 2, 3, 4, 5] + 1e4
    running = metrics.Running()
    for part in np.split(features, [3, 50]):
        running.add(part)
    found = running.moments()
    assert found.count == 100 and torch.equal(found.covariance, found.covariance.T)
    assert found.mean.numpy() == pytest.approx(features.mean(0), rel=1e-14)
    assert found.covariance.numpy() == pytest.approx(np.cov(features.T), rel=1e-10, abs=1e-10)


def test_too_few_samples() -> None:
    for of in (moments, lambda x: features_distance(x, x)):
        with pytest.raises(ValueError, match="at least two"):
            of(np.zeros((1, 3)))
    with pytest.raises(MetricError, match="at least 5 images a side, got 4"):
        set_metrics(np.zeros((4, 3)), np.zeros((9, 3)), slug="x")


# --- whole metrics --------------------------------------------------------------------------------------------------


class Images(Dataset):
    def __init__(self, images: np.ndarray) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.from_numpy(self.images[index].copy()).permute(2, 0, 1)


def test_equal_to_calculate_metrics(lite, images, features) -> None:
    """The same images through torch-fidelity's front door, with its own extraction."""
    options: dict[str, Any] = fidelity_options(
        feature_extractor="efficientnet-lite0",
        cuda=False,
        cache=False,
        save_cpu_ram=True,
        fid=True,
        kid=True,
        prc=True,
        kid_subset_size=60,
        batch_size=16,
    )
    theirs = torch_fidelity.calculate_metrics(input1=Images(images[:60]), input2=Images(images[60:]), **options)
    ours = set_metrics(features[:60], features[60:], slug=lite.slug)
    assert ours["fid_efficientnet_lite0_60"] == pytest.approx(theirs["frechet_inception_distance"], rel=1e-4)
    assert ours["kid_efficientnet_lite0_60"] == pytest.approx(theirs["kernel_inception_distance_mean"], abs=1e-5)
    assert ours["precision_efficientnet_lite0_60"] == pytest.approx(theirs["precision"], abs=1e-6)
    assert ours["recall_efficientnet_lite0_60"] == pytest.approx(theirs["recall"], abs=1e-6)


def test_equal_to_torchmetrics(lite, images, features) -> None:
    from torchmetrics.image.fid import FrechetInceptionDistance

    class Network(torch.nn.Module):
        num_features = 1280

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.from_numpy(lite.features(x.permute(0, 2, 3, 1).numpy()))

    theirs = FrechetInceptionDistance(Network(), normalize=False)
    theirs.update(torch.from_numpy(images[:60]).permute(0, 3, 1, 2), real=True)
    theirs.update(torch.from_numpy(images[60:]).permute(0, 3, 1, 2), real=False)
    ours = frechet_distance(moments(features[:60]), moments(features[60:]))
    assert ours == pytest.approx(theirs.compute().item(), rel=1e-3)


def test_a_set_beside_itself_its_other_half_and_worse(lite, images, features) -> None:
    """0 for itself, small for a half, and worse with every step of noise and of blur."""
    from PIL import Image, ImageFilter

    half = features[60:]

    def kid_fid(changed: np.ndarray) -> tuple[float, float]:
        found = set_metrics(lite.features(changed), half, slug="x")
        return found["kid_x_60"], found["fid_x_60"]

    def noisy(level: float) -> np.ndarray:
        noise = np.random.default_rng(0).normal(0, level, images[:60].shape)
        return np.clip(images[:60] + noise, 0, 255).astype(np.uint8)

    def blurred(radius: float) -> np.ndarray:
        return np.stack([np.asarray(Image.fromarray(p).filter(ImageFilter.GaussianBlur(radius))) for p in images[:60]])

    itself = set_metrics(half, half, slug="x")
    assert abs(itself["fid_x_60"]) < 1e-3 * np.trace(np.cov(half.T)) and itself["precision_x_60"] == 1
    plain = kid_fid(images[:60])
    by_noise = [plain, *(kid_fid(noisy(level)) for level in (20, 120))]
    by_blur = [plain, *(kid_fid(blurred(radius)) for radius in (1, 4))]
    for values in (by_noise, by_blur):
        assert values == sorted(values) and [v[1] for v in values] == sorted(v[1] for v in values)
    assert abs(plain[0]) < 0.1 < by_noise[-1][0]


def test_the_interval_of_kid_is_that_of_its_samples() -> None:
    """It holds KID of endlessly many samples as often as it says, over fresh sets of 60 against one reference."""
    rng = np.random.default_rng(0)
    reference = rng.standard_normal((200, 8))
    many = kid_interval(1.3 * rng.standard_normal((6000, 8)), reference)
    truth = sum(many) / 2
    bounds = [kid_interval(1.3 * rng.standard_normal((60, 8)), reference) for _ in range(200)]
    assert 0.88 <= np.mean([low <= truth <= high for low, high in bounds]) <= 0.99
    one = 1.3 * rng.standard_normal((200, 8))
    low, high = kid_interval(one, reference)
    assert (low + high) / 2 == pytest.approx(set_metrics(one, reference, slug="x")["kid_x_200"], abs=1e-6)


def test_the_limit_of_fid_is_where_its_line_over_one_over_n_ends() -> None:
    points = [{"n": n, "fid": [3 + 100 / n] * 2, "kid": [0.0]} for n in (10, 100, 200, 400)]
    points[0]["fid"] = [999.0]  # too few samples: not on the line
    assert bias.limit(points, 50)["fid"] == pytest.approx(3) and bias.limit(points, 50)["slope"] == pytest.approx(100)
    with pytest.raises(ValueError, match="three numbers of images from 200 on, got 2; raise --most"):
        bias.limit(points, 200)


def test_fid_of_one_distribution_falls_to_zero_with_more_samples() -> None:
    rng = np.random.default_rng(0)
    found = bias.along(*(rng.standard_normal((640, 8)).astype(np.float32) for _ in range(2)), repeats=1)
    means = [float(np.mean(one["fid"])) for one in found]
    assert [one["n"] for one in found] == [40, 80, 160, 240, 320, 480, 640] and means[0] > 4 * means[-1] > 0
    assert abs(bias.limit(found, 40)["fid"]) < means[0] / 8, "two halves of one distribution: the truth is 0"
    assert figures.bias({"x": {"points": found, "limit": bias.limit(found, 40)}}, 40)[:4] == b"\x89PNG"


@pytest.mark.thorough
def test_every_image_is_in_precision_and_recall() -> None:
    """Of 50,000 the first 10,000 were compared, and the name said 50k, as it does of `ditbench evaluate`."""
    rng = np.random.default_rng(0)
    real = rng.normal(size=(10_500, 2)).astype(np.float32)
    generated = np.concatenate([real[:10_000], real[:500] + 100])
    found = set_metrics(generated, real, slug="x")
    assert found["precision_x_10500"] == pytest.approx(10_000 / 10_500, abs=1e-6)


def test_names_say_what_made_them() -> None:
    assert [count_name(n) for n in (400, 1000, 5000, 1500)] == ["400", "1k", "5k", "1500"]
    with pytest.raises(TypeError, match="fid_statistics_file"):
        fidelity_options(fid_statistics_file="x.npz")


# --- extractors -----------------------------------------------------------------------------------------------------


def test_features_do_not_depend_on_the_batch(lite, images, features) -> None:
    assert np.allclose(lite.features(images[:20], batch=7), features[:20], atol=1e-4)
    assert features.shape == (120, 1280) and features.dtype == np.float32 and features.std(0).mean() > 0.01


def test_features_show_that_the_cell_lives(lite, images, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sign of life a batch: where a set takes longer than `run.silence`, the cell was ended as hung."""
    beats: list[int] = []
    monkeypatch.setattr(extractors, "beat", lambda: beats.append(1))
    lite.features(images[:20], batch=7)
    assert len(beats) == 3


def test_what_is_no_image_is_refused(lite) -> None:
    with pytest.raises(MetricError, match="uint8 images"):
        lite.features(np.zeros((2, 8, 8, 3), np.float32))


def test_unknown_extractor_names_the_nearest() -> None:
    with pytest.raises(MetricError, match="did you mean 'efficientnet-lite0'"):
        metrics.resolve("efficientnet-lite")


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No network and an empty cache of weights."""

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError("no network")

    monkeypatch.setattr(extractors.socket, "create_connection", refuse)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.delenv(extractors.INCEPTION_WEIGHTS, raising=False)
    return tmp_path


def test_without_inception_auto_says_so_and_inception_is_an_error(offline: Path) -> None:
    said: list[str] = []
    assert metrics.resolve("auto", warn=said.append).slug == "efficientnet_lite0"
    assert len(said) == 1 and "not inception" in said[0] and extractors.INCEPTION_WEIGHTS in said[0]
    with pytest.raises(MetricError, match="weights-inception.*DITBENCH_INCEPTION_WEIGHTS"):
        metrics.resolve("inception")


def test_inception_from_a_file_runs_the_real_network(offline: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Random weights in torch-fidelity's layout: the path that the published file takes, without the download."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    monkeypatch.setattr(FeatureExtractorInceptionV3, "load_state_dict", lambda self, state: None)
    monkeypatch.setattr("torch_fidelity.feature_extractor_inceptionv3.torch.load", lambda *_, **__: {})
    empty = offline / "empty.pth"
    empty.write_bytes(b"")
    network = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], feature_extractor_weights_path=str(empty))
    monkeypatch.undo()
    weights = offline / "weights.pth"
    torch.save(network.state_dict(), weights)
    monkeypatch.setenv(extractors.INCEPTION_WEIGHTS, str(weights))
    found = metrics.resolve("auto")
    assert (found.name, found.slug) == ("inception", "inception")
    assert found.features(np.zeros((2, 16, 16, 3), np.uint8)).shape == (2, 2048)
    weights.write_bytes(b"no weights")
    extractors._network.cache_clear()
    with pytest.raises(MetricError, match="weights cannot be loaded"):
        metrics.resolve("inception").features(np.zeros((2, 16, 16, 3), np.uint8))
    monkeypatch.setenv(extractors.INCEPTION_WEIGHTS, str(offline / "absent.pth"))
    with pytest.raises(MetricError, match="absent.pth: no such file"):
        metrics.resolve("inception")


def test_damaged_weights_in_the_cache_are_refused(offline: Path) -> None:
    cached = offline / "checkpoints" / "weights-inception-2015-12-05-6726825d.pth"
    cached.parent.mkdir()
    cached.write_bytes(b"half a download")
    with pytest.raises(MetricError, match="damaged"):
        metrics.resolve("inception")


# --- reference features ---------------------------------------------------------------------------------------------


def test_reference_features_are_made_once_and_verified(tmp_path: Path, lite, images) -> None:
    calls, said = [], []

    def give() -> np.ndarray:
        calls.append(1)
        return images[:6]

    def reference() -> np.ndarray:
        return metrics.reference_features(lite, give, data_digest="d", count=6, cache=tmp_path, warn=said.append)

    first = reference()
    assert np.array_equal(reference(), first) and len(calls) == 1 and not said
    file = next(tmp_path.glob("*.npy"))
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    assert np.array_equal(reference(), first) and len(calls) == 2 and "damaged" in said[0]
    other = metrics.reference_features(lite, give, data_digest="e", count=6, cache=tmp_path)
    assert len(calls) == 3 and np.array_equal(other, first), "another data set has a place of its own"
