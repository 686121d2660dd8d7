"""Latents from images to FID: encoded once, trained on, decoded, measured; with a tiny random autoencoder."""

from __future__ import annotations

import errno
import io
import json
import os
import tracemalloc
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
import torch
from kit import precisions
from PIL import Image
from safetensors.numpy import save_file
from tiny import MATRIX, ditbench, matrix_file, planned, run_all

from bench.config.schema import Data, Train
from bench.data import datasets, encode, images_once, latents, prepared, vae
from bench.data.errors import DataError
from bench.data.subsets import chosen
from bench.measure import metrics, protocol
from bench.store.disk import DiskError
from bench.store.journal import Journal
from bench.training.callback import CellCallback, RankCallback

SIZE, FACTOR, CHANNELS = 16, 2, 4
IMAGES = Data(image_size=SIZE, train_count=48, heldout_count=30, unseen_count=8)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random AutoencoderKL of 4 channels and 2 pixels a latent, scaled and shifted as FLUX's is."""
    import diffusers

    torch.manual_seed(0)
    network = diffusers.AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 8),
        norm_num_groups=4,
        latent_channels=CHANNELS,
        scaling_factor=0.5,
        shift_factor=0.25,
    )
    folder = tmp_path_factory.mktemp("vae")
    network.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> datasets.Dataset:
    return datasets.load(datasets.prepare(IMAGES, tmp_path_factory.mktemp("images")))


def request(images: datasets.Dataset, weights: Path, out: Path, **more: Any) -> encode.Request:
    return encode.Request(
        images_once.of_arrays(images), vae.load(str(weights)), out, **({"batch": 8, "shard": 20} | more)
    )


def shard_bytes(out: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(out.glob("*.safetensors")) if "diffusion" not in file.name}


def test_a_latent_is_diffusers_own_scaled_and_shifted(images, weights: Path, tmp_path: Path) -> None:
    import diffusers

    with precisions() as found:
        said = encode.encode(request(images, weights, tmp_path / "mean", posterior="mean")).about
    assert found == {("highest", False)}, "encoded and decoded"
    own = np.concatenate([part for _, part in latents.shards(tmp_path / "mean", "heldout")])
    network = diffusers.AutoencoderKL.from_pretrained(weights)
    x = torch.from_numpy(np.array(images.heldout.images)).permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.inference_mode():
        expected = (network.encode(x).latent_dist.mean - 0.25) * 0.5
        back = network.decode(expected / 0.5 + 0.25).sample
    assert own.dtype == np.float16 and own.shape == (30, CHANNELS, SIZE // FACTOR, SIZE // FACTOR)
    assert np.abs(own - expected.numpy()).max() < 2e-3 * expected.abs().max()
    decoded = vae.load(str(weights)).decode(expected)
    error = ((decoded.numpy().astype(float) - images.heldout.images) ** 2).mean((1, 2, 3))[:20]  # the first shard
    assert said["psnr"] == pytest.approx(np.mean(10 * np.log10(255**2 / error)), abs=0.05)
    assert said["deviation"] == pytest.approx(expected.std().item(), rel=0.1)
    assert (decoded.float() - ((back.clamp(-1, 1) + 1) * 127.5).round().permute(0, 2, 3, 1)).abs().max() <= 1
    encode.encode(request(images, weights, tmp_path / "sample"))
    sampled = np.concatenate([part for _, part in latents.shards(tmp_path / "sample", "heldout")])
    with torch.inference_mode():
        deviation = (network.encode(x).latent_dist.std * 0.5).numpy()
    z = (sampled - expected.numpy()) / deviation
    assert abs(z.mean()) < 0.05 and abs(z.std() - 1) < 0.05


def test_interrupted_parted_and_damaged_runs_give_the_bytes_of_a_calm_one(
    images, weights: Path, tmp_path: Path
) -> None:
    calm = encode.encode(request(images, weights, tmp_path / "calm"))
    expected = shard_bytes(tmp_path / "calm")
    assert (calm.shards, calm.missing, calm.made) == (5, 0, 5) and len(expected) == 5
    assert calm.about["counts"] == {"train": 48, "heldout": 30} and calm.about["channels"] == CHANNELS

    def stop(what: str, done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        encode.encode(request(images, weights, tmp_path / "torn"), stop)
    left = tmp_path / "torn" / ".train-00004.safetensors.abcd1234.ditbench-tmp"  # of a process that was killed
    left.write_bytes(b"half")
    os.utime(left, (1, 1))
    broken = tmp_path / "torn" / "train-00000.safetensors"
    broken.write_bytes(broken.read_bytes()[:-1])
    said: list[str] = []
    with pytest.raises(DataError, match=r"is not finished \(2 shards\)"):
        latents.about(Data("latents", path=str(tmp_path / "torn")))
    assert encode.encode(request(images, weights, tmp_path / "torn"), warn=said.append).made == 4
    assert shard_bytes(tmp_path / "torn") == expected and "train-00000.safetensors is damaged" in said[0]
    assert not left.exists() and prepared.read(tmp_path / "torn")["files"] == prepared.read(tmp_path / "calm")["files"]
    first = encode.encode(request(images, weights, tmp_path / "parts", part=(0, 2)))
    assert (first.made, first.missing, first.about) == (3, 2, {})
    second = encode.encode(request(images, weights, tmp_path / "parts", part=(1, 2)))
    assert second.missing == 0 and second.about["key"] == calm.about["key"]
    assert shard_bytes(tmp_path / "parts") == expected
    assert encode.encode(request(images, weights, tmp_path / "parts")).made == 0


def test_what_does_not_fit_is_one_sentence(images, weights: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    mine = request(images, weights, out)
    encode.encode(mine)
    changed = replace(mine.data, content="b")
    own = Data("latents", path=str(out))
    assert latents.resolved(own) == replace(own, image_size=8, channels=CHANNELS)
    other = datasets.load(datasets.prepare(replace(IMAGES, seed=1), tmp_path / "other"))
    (tmp_path / "bare").mkdir()
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet" / "config.json").write_text(json.dumps({"_class_name": "UNet2DModel"}))
    for make, message in (
        (lambda: latents.resolved(replace(own, channels=16)), "data.channels 16: the latents of .* have 4"),
        (lambda: latents.resolved(replace(own, image_size=64)), "data.image_size 64: the latents of .* have 8 a side"),
        (lambda: latents.resolved(Data("latents", path=str(tmp_path / "absent"))), "no such folder; `ditbench encode"),
        (lambda: latents.resolved(Data("latents", path=str(tmp_path / "bare"))), "holds no latents"),
        (lambda: encode.encode(request(other, weights, out)), "holds latents of another data"),
        (
            lambda: encode.encode(replace(mine, data=changed)),
            "holds latents of another content",
        ),
        (lambda: encode.encode(request(images, weights, out, posterior="mean")), "holds latents of another posterior"),
        (lambda: encode.encode(request(images, weights, out, part=(2, 2))), "part 2/2: parts of 2 are 0/2 to 1/2"),
        (lambda: vae.load(str(tmp_path / "unet")), "is a UNet2DModel; AutoencoderKL or AutoencoderDC is needed"),
        (lambda: vae.load(str(tmp_path / "bare")), "VAE .*: .* a name on the hub, or sd, sd-mse, dc-ae, flux"),
    ):
        with pytest.raises(DataError, match=message) as caught:
            make()
        assert len(str(caught.value).splitlines()) == 1
    (out / "train-00001.safetensors").unlink()
    with pytest.raises(DataError, match="train-00001.safetensors is missing; `ditbench encode` on it"):
        datasets.prepare(latents.resolved(own), tmp_path / "cache")
    for message, words in (("of latents alone", {"channels": 4}), ("data.path is needed", {"source": "latents"})):
        with pytest.raises(ValueError, match=message):
            Data(**words)


def test_encode_train_decode_and_fid_of_the_folder(weights: Path, tmp_path: Path) -> None:
    """The whole way, by the commands; FID of the cell's samples on disk is the cell's own."""
    file = matrix_file(tmp_path, name="images")
    out = tmp_path / "latents"
    words = ("encode", str(file), "--vae", str(weights), "--out", str(out), "--shard", "40")
    said = ditbench(*words, cwd=tmp_path, code=0).stdout
    assert "latents 4 x 8 x 8 of 16 px images" in said and "dB PSNR" in said
    evaluate = MATRIX["evaluate"] | {"reference": 40}
    made, store = planned(tmp_path, name="latents", data={"source": "latents", "path": str(out)}, evaluate=evaluate)
    cell = made.cells[0]
    assert (cell.spec.config.data.channels, cell.spec.config.data.image_size) == (CHANNELS, 8)
    (done,) = run_all(made, store)
    folder = store.cell(cell.row.cell)
    result = folder.result()
    assert result is not None, done
    grid = np.load(folder.path / "samples" / "grid.npy")
    assert grid.shape[1:] == (SIZE, SIZE, 3) and result.cost["parameters_total"] > 0
    data = datasets.load(store.cache / "data" / cell.spec.digests["data"])
    assert data.shape == (CHANNELS, 8, 8) and len(data.train) == 96 and len(data.train.images) == 0
    how = protocol.Features(metrics.resolve("efficientnet-lite0"), tmp_path / "cache")
    found = protocol.evaluate(folder.path / "generated" / "heldout", out / "heldout-images.npy", how)
    key = "fid_efficientnet_lite0_20"
    assert found.values[key] == pytest.approx(result.quality[key], rel=1e-4)
    shown = ditbench("data", str(file), "data.source=latents", f"data.path={out}", cwd=tmp_path)
    assert "latents of" in shown.stdout, shown.stderr


@pytest.mark.parametrize("leads", [True, False])
def test_a_decoder_is_gone_after_a_sample_grid(weights: Path, tmp_path: Path, leads: bool) -> None:
    """On every rank: it stayed on the GPU, and was part of the peak of training."""

    def decode(*unused: Any) -> None:
        vae.of_folder(weights, torch.device("cpu")).decode(torch.zeros(1, CHANNELS, 2, 2))
        assert vae.of_folder.cache_info().currsize == 1

    config: Any = SimpleNamespace(train=Train(steps=99), sample=SimpleNamespace(grid_every=7))
    journal, subject = Journal(tmp_path / "journal"), SimpleNamespace(device=torch.device("cpu"), config=config)
    callback: Any = RankCallback(subject, 0)  # type: ignore[arg-type]
    if leads:
        callback = CellCallback(config.train, journal, tmp_path, grid_every=7, write_grid=decode)
    ranks = SimpleNamespace(led=nullcontext, follow=decode)
    module = SimpleNamespace(averaged=nullcontext, agreed=bool, ranks=ranks, seconds=0.0)
    callback.on_train_batch_end(SimpleNamespace(global_step=7), module, None, None, 0)
    assert vae.of_folder.cache_info().currsize == 0


# --- large folders ----------------------------------------------------------------------------------------------------


def folder_of_latents(out: Path, images: Any, shards: dict[str, Any]) -> Data:
    """A folder as `ditbench encode` leaves it, of held-out images and latents (n, 1, 2, 2) by name of shard."""
    out.mkdir()
    for name, part in shards.items():
        save_file({"latents": part}, out / name)
    np.save(out / "heldout-images.npy", images)
    for name in latents.DECODER:
        (out / name).write_text("{}")
    counts = {split: sum(len(part) for name, part in shards.items() if split in name) for split in latents.SPLITS}
    own = {"channels": 1, "size": 2, "counts": counts, "vae": "none"}
    prepared.seal(out, {"latents": own, "classes": None})
    return Data("latents", path=str(out))


def few(*values: int) -> Any:
    return np.array(values, np.float16)[:, None, None, None] * np.ones((1, 2, 2), np.float16)


def test_shards_are_read_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    """As text 100000 comes before 10001: behind it, latents had the labels of others."""
    numbers = [0, 9, 10_000, 10_001, 99_999, 100_000, 100_001, 1_000_000]
    parts = {latents.shard_name("train", number): few(place) for place, number in enumerate(numbers)}
    folder_of_latents(tmp_path / "out", np.zeros((0, 4, 4, 3), np.uint8), parts | {"heldout-00000.safetensors": few(9)})
    found = list(latents.shards(tmp_path / "out", "train"))
    assert [start for start, _ in found] == [int(part.flat[0]) for _, part in found] == list(range(len(numbers)))
    every = [f"train-{number:05d}.safetensors" for number in range(100_100)]
    others = ["train-00000.json", "train-copy.safetensors", "heldout-00000.safetensors", "train-00001.safetensors.bak"]
    assert latents.ordered([*others, *sorted(every)], "train") == every
    assert [latents.shard_name("train", k) for k in (0, 100_099)] == [every[0], every[-1]]


def test_prepared_latents_take_their_space_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mapped file took it page by page, and a disk that filled meanwhile ended the process by a signal."""
    shards = {"train-00000.safetensors": few(1, 2), "heldout-00000.safetensors": few(3)}
    config = folder_of_latents(tmp_path / "out", np.zeros((1, 4, 4, 3), np.uint8), shards)
    (tmp_path / "prepared").mkdir()

    def full(descriptor: int, start: int, size: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(DiskError, match=r"prepared latents of .*no space left for .*train-x0.npy"):
        latents.fill(config, tmp_path / "prepared", lambda *_: None)


def test_held_out_images_are_copied_a_few_at_a_time(tmp_path: Path) -> None:
    """All of them at once are 9.8 GB of ImageNet at 256 px; the file is what `np.save` writes of them."""
    images = np.random.default_rng(0).integers(0, 256, (2000, 64, 64, 3), np.uint8)
    shards = {"train-00000.safetensors": few(1, 2), "heldout-00000.safetensors": few(*range(2000))}
    config = replace(folder_of_latents(tmp_path / "out", images, shards), heldout_count=1900)
    (tmp_path / "prepared").mkdir()
    tracemalloc.start()
    latents.fill(config, tmp_path / "prepared", lambda *_: None)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    rows = chosen(1900, 2000, seed=config.seed, name="heldout")
    np.save(tmp_path / "whole.npy", images[rows])
    copied = (tmp_path / "prepared" / "heldout-images.npy").read_bytes()
    assert copied == (tmp_path / "whole.npy").read_bytes() and peak < len(copied) / 3
    assert np.load(tmp_path / "prepared" / "train-images.npy").shape == (0, 64, 64, 3)
    assert np.array_equal(np.load(tmp_path / "prepared" / "heldout-x0.npy")[:, 0, 0, 0], rows)


# --- ImageNet's layouts, straight from the files ----------------------------------------------------------------------

CLASSES = ("n01440764", "n01443537", "n02102040")


def jpeg(seed: int, size: tuple[int, int] = (40, 30)) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 255, (size[1] // 5, size[0] // 5, 3), np.uint8)
    Image.fromarray(pixels).resize(size).save(buffer, "JPEG")
    return buffer.getvalue()


def as_folders(root: Path) -> Path:
    """train/n01440764/n01440764_0.JPEG, val/n01440764/ILSVRC2012_val_00000000.JPEG."""
    for split, name, each in (("train", "{}_{}.JPEG", 9), ("val", "ILSVRC2012_val_{1:08d}.JPEG", 3)):
        for k, label in enumerate(CLASSES):
            for j in range(each):
                file = root / split / label / name.format(label, k * each + j)
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(jpeg(1000 * (split == "val") + k * each + j))
    return root


def as_parquet(root: Path) -> Path:
    """data/train-00000-of-00002.parquet as the hub has it: image {bytes, path}, label with its names."""
    import datasets as hugging

    names = hugging.ClassLabel(names=[f"class {label}" for label in CLASSES])
    (root / "data").mkdir(parents=True)
    for split, shards, each in (("train", 3, 9), ("validation", 1, 9)):
        for part in range(shards):
            rows = [{"bytes": jpeg(part * each + j + 1000 * (shards == 1)), "path": f"{j}.JPEG"} for j in range(each)]
            features = hugging.Features({"image": hugging.Image(), "label": names})
            table = hugging.Dataset.from_dict({"image": rows, "label": [j % 3 for j in range(each)]}, features=features)
            table.to_parquet(str(root / "data" / f"{split}-{part:05d}-of-{shards:05d}.parquet"))
    return root


@pytest.mark.parametrize("layout", [as_folders, as_parquet])
def test_imagenets_layouts_are_encoded_from_their_files_to_the_same_bytes(
    layout: Any, weights: Path, tmp_path: Path
) -> None:
    """Without arrays of pixels, in parts, as by prepared arrays; labels and names as the layout has them."""
    source = layout(tmp_path / "imagenet")
    own = Data("huggingface", path=str(source), image_size=SIZE, heldout_split="validation", label_column="label")
    own = replace(own, train_count=24)
    encode.encode(request(datasets.load(datasets.prepare(own, tmp_path / "arrays")), weights, tmp_path / "plain"))
    for part in ((0, 2), (1, 2)):
        with images_once.of_files(own, tmp_path / "scratch") as images:
            how = encode.Request(images, vae.load(str(weights)), tmp_path / "streamed", batch=8, shard=20, part=part)
            done = encode.encode(how)
    assert done.missing == 0 and shard_bytes(tmp_path / "streamed") == shard_bytes(tmp_path / "plain")
    for name in ("heldout-images.npy", "train-labels.npy", "heldout-labels.npy"):
        assert (tmp_path / "streamed" / name).read_bytes() == (tmp_path / "plain" / name).read_bytes()
    data = latents.resolved(Data("latents", path=str(tmp_path / "streamed")))
    found = datasets.load(datasets.prepare(data, tmp_path / "cache"))
    assert found.classes == [("class " if layout is as_parquet else "") + label for label in CLASSES]
    assert found.train.labels is not None and np.bincount(found.train.labels).tolist() == [8, 8, 8]
    assert len(found.train) == 24 and len(found.heldout) == 9


def test_a_shard_is_one_pass_through_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row group of parquet was read again for each batch of 16."""
    own = Data("huggingface", path=str(as_parquet(tmp_path / "imagenet")), image_size=SIZE, label_column="label")
    own = replace(own, heldout_split="validation")
    arrays = datasets.load(datasets.prepare(own, tmp_path / "arrays")).train.images
    opened, read = [], pyarrow.parquet.ParquetFile.iter_batches

    def counted(self: Any, *words: Any, **options: Any) -> Any:
        opened.append(options["row_groups"])
        return read(self, *words, **options)

    with images_once.of_files(own, tmp_path / "scratch") as images:
        monkeypatch.setattr(pyarrow.parquet.ParquetFile, "iter_batches", counted)
        for rows, part in images.splits["train"].batches(2, 20, 4):  # of three files
            assert np.array_equal(part, arrays[rows.start : rows.stop])
        assert rows == range(18, 20) and len(opened) == 3


@pytest.mark.thorough
def test_the_command_streams_without_arrays_and_says_what_it_cannot(weights: Path, tmp_path: Path) -> None:
    source = as_folders(tmp_path / "imagenet")
    words = ["encode", str(matrix_file(tmp_path)), "--vae", str(weights), "--out", str(tmp_path / "out"), "--stream"]
    data = [
        "data.source=huggingface",
        f"data.path={source}",
        "data.heldout_split=validation",
        "data.label_column=label",
    ]
    said = ditbench(*words, *data, cwd=tmp_path, code=0).stdout
    assert "latents 4 x 8 x 8" in said and not (tmp_path / "runs" / "cache" / "data").exists()
    for more, message in (
        ([], "--stream reads files on this machine"),
        ([*data[:1], "data.path=imagenet-1k", *data[2:]], "--stream reads files on this machine"),
    ):
        wrong = ditbench(*words, *more, cwd=tmp_path, code=2).stderr
        assert message in wrong and len(wrong.splitlines()) == 1
    broken = source / "train" / CLASSES[0] / f"{CLASSES[0]}_0.JPEG"
    broken.write_bytes(broken.read_bytes()[:200])
    words[5] = str(tmp_path / "other")
    assert f"{CLASSES[0]}_0.JPEG" in ditbench(*words, *data, cwd=tmp_path, code=2).stderr
