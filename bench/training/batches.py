"""Batch k is a function of (seed, k): whatever the scheme, the number of workers, or where a run was resumed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import lightning
import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from bench.data.datasets import Dataset
from bench.data.prompts import Prompts
from bench.data.streamed import StreamedImages
from bench.data.tasks.registry import sample_batch
from bench.store.seeds import derive

Permutation = Callable[[np.random.Generator], NDArray[np.int64]]  # of all images, for an epoch
WHOLE = slice(None)  # of a batch


class StepSampler:
    """Yields image indices of batches `start` to `steps - 1`, or parts; an epoch is a permutation of (seed, epoch)."""

    def __init__(
        self,
        count: int,
        batch: int,
        steps: int,
        seed: int,
        permutation: Permutation | None = None,
        part: slice = WHOLE,
    ) -> None:
        self.count, self.batch, self.steps, self.seed, self.part = count, batch, steps, seed, part
        self.permutation = permutation or (lambda rng: rng.permutation(count))
        self.start = 0
        self._orders: dict[int, NDArray[np.int64]] = {}

    def __len__(self) -> int:
        return self.steps  # all of them, also when resumed: Lightning ends the epoch here

    def __iter__(self) -> Iterator[list[int]]:
        return (self.indices(step)[self.part].tolist() for step in range(self.start, self.steps))

    def indices(self, step: int) -> NDArray[np.int64]:
        """Indices (B,) of one whole batch."""
        places = np.arange(step * self.batch, (step + 1) * self.batch)
        epochs = places // self.count
        return np.concatenate([self._order(int(e))[places[epochs == e] % self.count] for e in np.unique(epochs)])

    def _order(self, epoch: int) -> NDArray[np.int64]:
        if epoch not in self._orders:
            self._orders = {key: order for key, order in self._orders.items() if key >= epoch - 1}
            self._orders[epoch] = self.permutation(np.random.default_rng(derive(self.seed, "epoch", epoch)))
        return self._orders[epoch]


class TrainImages(torch.utils.data.Dataset[Any]):
    """The training split, a whole batch at a time: (uint8 (B, H, W, C), prompts)."""

    def __init__(self, data: Dataset, prompts: Prompts) -> None:
        exact = data.train.exact
        self.images = exact if isinstance(exact, StreamedImages) else np.asarray(exact)  # a view: it stays mapped
        self.permutation = exact.permutation if isinstance(exact, StreamedImages) else None
        self.prompts = prompts

    def __len__(self) -> int:
        return len(self.images)

    def __getitems__(self, indices: list[int]) -> tuple[torch.Tensor, Any]:
        """Images and prompts of a batch."""
        order = np.asarray(indices)
        return torch.from_numpy(self.images[order]), self.prompts.rows("train", order)


class DeviceImages:
    """The same, from images that are all on a device: uint8 (B, H, W, C) is taken there, by one index."""

    def __init__(self, images: TrainImages, device: torch.device) -> None:
        self.prompts = images.prompts
        self.images = torch.from_numpy(np.array(images.images)).to(device)  # a copy: what is mapped cannot be written

    def __getitems__(self, indices: list[int]) -> tuple[torch.Tensor, Any]:
        """Images and prompts of a batch."""
        order = torch.tensor(indices, pin_memory=self.images.is_cuda)  # what is not pinned is copied after the step
        return self.images[order.to(self.images.device, non_blocking=True)], self.prompts.rows("train", order.numpy())


class TaskBatches(torch.utils.data.IterableDataset[Any]):
    """Batches of a task, sampled as they are needed: (x_0 float (B, C, H, W), prompts); never the same image again."""

    def __init__(self, data: Dataset, prompts: Prompts, batch: int, steps: int, seed: int, part: slice = WHOLE) -> None:
        assert data.task is not None
        self.task, self.prompts, self.part = data.task, prompts, part
        self.batch, self.steps, self.seed = batch, steps, seed
        self.start = 0

    def __len__(self) -> int:
        return self.steps  # all of them, also when resumed: Lightning ends the epoch here

    def __iter__(self) -> Iterator[tuple[torch.Tensor, Any]]:
        for step in range(self.start, self.steps):
            x_0, words, _ = sample_batch(self.task, "train", self.seed, step, self.batch)
            yield x_0[self.part], self.prompts.of_words(self.task, words[self.part])


class _Here:
    """The batches of a sampler, loaded in this process: what a `DataLoader` does besides weighs on a short step."""

    def __init__(self, images: TrainImages | DeviceImages, sampler: StepSampler) -> None:
        self.images, self.sampler = images, sampler

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[tuple[torch.Tensor, Any]]:
        return map(self.images.__getitems__, self.sampler)


def _unchanged(batch: Any) -> Any:
    return batch


class Batches(lightning.LightningDataModule):
    """Training batches that resume where a checkpoint stopped; of each a part, where others have the rest."""

    def __init__(
        self,
        data: Dataset,
        prompts: Prompts,
        *,
        batch: int,
        steps: int,
        seed: int,
        device: torch.device,
        workers: int = 0,
        part: slice = WHOLE,
        images_on: torch.device | None = None,
    ) -> None:
        super().__init__()
        self.pinned = device.type == "cuda"  # not whether there is one: pinning opens a context on it
        self.images_on = images_on
        self.task = TaskBatches(data, prompts, batch, steps, seed, part) if data.task is not None else None
        self.images = TrainImages(data, prompts)
        self.sampler = StepSampler(len(self.images), batch, steps, seed, self.images.permutation, part)
        self.workers = workers

    @property
    def here(self) -> TaskBatches | _Here:
        """Whole batches, made in this process as they are asked for."""
        return self.task or _Here(self.images, self.sampler)

    def train_dataloader(self) -> DataLoader[Any] | TaskBatches | _Here:
        """Whole batches, as the sampler orders them."""
        if self.images_on is not None:
            return _Here(DeviceImages(self.images, self.images_on), self.sampler)
        if not self.workers and not self.pinned:
            return self.here
        if self.task is not None:
            return DataLoader(self.task, batch_size=None, collate_fn=_unchanged, pin_memory=self.pinned)
        return DataLoader(
            self.images,
            batch_sampler=self.sampler,
            num_workers=self.workers,
            collate_fn=_unchanged,
            pin_memory=self.pinned,
            persistent_workers=self.workers > 0,
        )

    def state_dict(self) -> dict[str, int]:
        """Where to resume."""
        assert self.trainer is not None
        return {"next_step": self.trainer.global_step}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Resumes there."""
        self.sampler.start = state["next_step"]
        if self.task is not None:
            self.task.start = state["next_step"]
