"""DDPM beside the flow: its tables and samplers are diffusers', its bound is what the papers write."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler
from tiny import planned, run_all

from architectures import Labels
from bench.config.schema import ConfigError, Sample
from bench.measure import ancestral
from bench.measure.sampling import sample_exact
from bench.training.ddpm import Ddpm, bound, ladder
from bench.views.sample.cells import SampleSettings, generate_images

LINEAR: dict[str, Any] = {
    "beta_start": 1e-4,
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "clip_sample": False,
    "timestep_spacing": "linspace",
}


def gaussian(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def network(x: torch.Tensor, t: torch.Tensor, prompt: Any) -> torch.Tensor:
    """Some smooth [noise ; variance] of x and t."""
    return torch.cat([0.7 * x + 0.1 * t[:, None, None, None], torch.tanh(x)], dim=1)


@pytest.mark.parametrize("steps", [10, 250, 1000])
def test_steps_and_their_products_are_diffusers(steps: int) -> None:
    theirs = DDPMScheduler(**LINEAR)
    theirs.set_timesteps(steps)
    assert ladder(steps).s.flip(0).tolist() == theirs.timesteps.tolist()
    assert torch.allclose(ladder().a.float(), theirs.alphas_cumprod, rtol=1e-5)
    x, noise, t = gaussian(4, 3, 4, 4), gaussian(4, 3, 4, 4, seed=1), torch.tensor([0.0, 0.0015, 0.5, 0.9999])
    due = theirs.add_noise(x, noise, (t * 1000).long())
    assert torch.allclose(Ddpm().noisy(x, noise, t), due, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("steps", [10, 100])
def test_the_ancestral_sampler_is_diffusers(steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Mean and variance of every step, with fresh noise of ones on both sides."""
    monkeypatch.setattr(
        "diffusers.schedulers.scheduling_ddpm.randn_tensor", lambda shape, **_: torch.ones(shape, dtype=torch.float32)
    )
    theirs, x = DDPMScheduler(**LINEAR, variance_type="learned_range"), gaussian(2, 3, 4, 4)
    theirs.set_timesteps(steps)
    monkeypatch.setattr(ancestral.torch, "randn", lambda shape, **_: torch.ones(shape))
    due = x
    for t in theirs.timesteps:
        due = theirs.step(network(due, torch.full((2,), t / 1000), None), t, due).prev_sample
    assert torch.allclose(ancestral.ancestral(network, x, None, steps), due, rtol=1e-3, atol=1e-4)


def test_the_sampler_without_chance_is_diffusers() -> None:
    """Over all steps: of fewer, theirs takes the step before to be 1000 / n away, which is not the next one's place."""
    theirs = DDIMScheduler(**LINEAR, set_alpha_to_one=True)
    theirs.set_timesteps(1000)
    x = due = gaussian(2, 3, 4, 4)
    for t in theirs.timesteps:
        due = theirs.step(network(due, torch.full((2,), t / 1000), None)[:, :3], t, due).prev_sample
    assert torch.allclose(ancestral.ddim(network, x, None, 1000), due, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["ddpm", "ddim"])
@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_exact_noise_leads_to_the_image(name: str, guidance: float) -> None:
    """A network that knows the only image there is; guidance of equal predictions changes nothing, nor does a batch."""
    image = gaussian(1, 3, 4, 4).clamp(-1, 1)

    def exact(x: torch.Tensor, t: torch.Tensor, prompt: Any) -> torch.Tensor:
        a = ladder().a.float()[(t * 1000).round().long()][:, None, None, None]
        return torch.cat([(x - a.sqrt() * image) / (1 - a).sqrt(), -torch.ones_like(x)], dim=1)

    noise, how = gaussian(4, 3, 4, 4, seed=2), Sample(sampler=name, steps=20, guidance=guidance)
    prompt = torch.zeros(4, dtype=torch.long)
    found = sample_exact(exact, Labels(2), prompt, noise, how, Ddpm())
    assert torch.allclose(found, image.expand_as(found), atol=1e-3)
    alone = sample_exact(network, Labels(2), prompt[:1], noise[2:3], how, Ddpm())
    assert torch.allclose(sample_exact(network, Labels(2), prompt, noise, how, Ddpm())[2:3], alone, atol=1e-5)


def test_the_bound_is_the_divergence_of_two_normal_distributions() -> None:
    x_0, noise, t = gaussian(5, 3, 4, 4).clamp(-1, 1), gaussian(5, 3, 4, 4, seed=1), torch.linspace(0.1, 0.9, 5)
    e, r = noise + 0.1 * gaussian(5, 3, 4, 4, seed=2), torch.tanh(gaussian(5, 3, 4, 4, seed=3))
    found = bound(x_0, Ddpm().noisy(x_0, noise, t), e, r, t)
    assert bound(x_0, Ddpm().noisy(x_0, noise, t), noise, -torch.ones_like(r), t).abs().max() < 1e-5
    of, s = ladder(), (t * 1000).long()
    for k in range(5):
        at = {name: getattr(of, name)[s[k]].item() for name in ("a", "a_before", "b", "of_data", "of_x", "log_least")}
        x = at["a"] ** 0.5 * x_0[k] + (1 - at["a"]) ** 0.5 * noise[k]
        guess = (x - (1 - at["a"]) ** 0.5 * e[k]) / at["a"] ** 0.5
        true = torch.distributions.Normal(
            at["of_data"] * x_0[k] + at["of_x"] * x, torch.full_like(x, math.exp(at["log_least"] / 2))
        )
        share = (r[k] + 1) / 2
        deviation = ((share * math.log(at["b"]) + (1 - share) * at["log_least"]) / 2).exp()
        own = torch.distributions.Normal(at["of_data"] * guess + at["of_x"] * x, deviation)
        due = torch.distributions.kl_divergence(true, own).mean() / math.log(2)
        assert found[k].item() == pytest.approx(due.item(), rel=1e-3)


def test_at_the_first_step_the_256_values_share_all_probability() -> None:
    values, t = torch.linspace(-1, 1, 256).view(256, 1, 1, 1), torch.zeros(256)
    x, e, r = torch.full((256, 1, 1, 1), 0.3), torch.full((256, 1, 1, 1), 0.2), torch.zeros(256, 1, 1, 1)
    bits = bound(values, x, e, r, t)
    assert (2.0**-bits).sum().item() == pytest.approx(1, abs=1e-3)
    assert values.flatten()[bits.argmin()].item() == pytest.approx(0.3, abs=0.01)


def test_the_variance_learns_and_does_not_pull_at_the_noise() -> None:
    x_0, noise, t = gaussian(4, 3, 4, 4), gaussian(4, 3, 4, 4, seed=1), torch.tensor([0.0, 0.2, 0.5, 0.99])
    out = torch.zeros(4, 6, 4, 4, requires_grad=True)
    Ddpm().loss(lambda x, t, prompt: out, x_0, noise, t, None).sum().backward()
    assert out.grad is not None and (out.grad[:, 3:] != 0).any(dim=(1, 2, 3)).all()
    assert torch.allclose(out.grad[:, :3], -2 * noise / noise[0].numel(), atol=1e-6)


def test_what_chance_decides_is_a_function_of_seed_and_step() -> None:
    a, b, other = (Ddpm().chance(3, k, (4096, 1, 1, 1), drop=0.1, device="cpu") for k in (7, 7, 8))
    assert torch.equal(a.t, b.t) and torch.equal(a.noise, b.noise) and not torch.equal(a.t, other.t)
    assert a.t.min() >= 0 and a.t.max() < 1 and abs(a.t.mean() - 0.5) < 0.03
    assert abs(a.dropped.float().mean() - 0.1) < 0.03


SHORT: dict[str, Any] = {"train__process": "ddpm", "sample__sampler": "ddpm", "sample__steps": 4}


def test_a_cell_of_ddpm_trains_and_samples(tmp_path: Path) -> None:
    made, store = planned(tmp_path, **SHORT)
    run_all(made, store)
    folder = store.cell(made.cells[0].row.cell)
    result = folder.result()
    assert result is not None, folder.status()
    assert math.isfinite(result.quality["heldout_loss"]) and any(name.startswith("kid_") for name in result.quality)
    for steps in (1, 1001):  # of which the first is from hardly any noise, and the others repeat
        with pytest.raises(ValueError, match=f"--steps {steps}: of DDPM choose 2 to 1,000"):
            generate_images(folder, [""], SampleSettings(1, steps=steps))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"sample__sampler": "heun"}, "sample.sampler heun: of train.process ddpm choose ddpm or ddim"),
        ({"train__process": "flow"}, "sample.sampler ddpm: of train.process flow choose euler or heun"),
        ({"train__target": "data"}, "train.target data is of the flow alone"),
        ({"sample__steps": 1001}, "of DDPM choose 2 to 1,000"),
        ({"sample__steps": 1}, "of DDPM choose 2 to 1,000"),
    ],
)
def test_what_is_of_another_process_is_a_sentence(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        planned(tmp_path, **SHORT | changes)
