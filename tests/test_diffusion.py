"""Rectified flow: what it learns, what it samples, and that chance is a function of (seed, step) and (seed, index)."""

from __future__ import annotations

import pytest
import torch
from gaussians import gaussian
from hypothesis import given, settings
from hypothesis import strategies as st

import architectures
from architectures import Labels, laws
from bench.config.schema import Sample
from bench.data.pixels import from_images, to_images
from bench.measure.sampling import SAMPLERS, euler, guided, heun, initial_noise, sample, sample_exact, solver, with_null
from bench.store.seeds import derive
from bench.training.flow import Flow, data_prediction, interpolate, velocity


def step(seed: int, k: int, batch: int = 64):
    return Flow().chance(seed, k, (batch, 3, 8, 8), drop=0.1, device="cpu")


def test_ends_of_the_path() -> None:
    x, noise = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    assert torch.equal(interpolate(x, noise, torch.zeros(2)), x)
    assert torch.equal(interpolate(x, noise, torch.ones(2)), noise)


def test_the_true_velocity_has_no_loss() -> None:
    x, noise, t = torch.randn(4, 3, 4, 4), torch.randn(4, 3, 4, 4), torch.rand(4)
    loss = Flow().loss(lambda x_t, t, p: noise - x, x, noise, t, None)
    assert loss.shape == (4,) and loss.abs().max() == 0
    assert Flow().loss(lambda x_t, t, p: noise - x + 1, x, noise, t, None).allclose(torch.ones(4))


def test_a_step_s_chance_depends_on_seed_and_step_alone() -> None:
    torch.manual_seed(1)
    first = step(0, 5)
    torch.randn(100)
    again = step(0, 5)
    assert all(torch.equal(a, b) for a, b in zip(vars(first).values(), vars(again).values(), strict=True))
    assert not torch.equal(first.noise, step(0, 6).noise) and not torch.equal(first.noise, step(1, 5).noise)


def test_t_is_logit_normal_and_prompts_are_dropped_as_often_as_said() -> None:
    chance = step(0, 0, batch=20_000)
    logits = torch.logit(chance.t)
    assert abs(logits.mean()) < 0.03 and abs(logits.std() - 1) < 0.03
    assert abs(chance.dropped.float().mean() - 0.1) < 0.01


@given(start=st.integers(0, 50), cut=st.integers(1, 7))
@settings(max_examples=10, deadline=None)
def test_sampling_noise_does_not_depend_on_the_batch(start: int, cut: int) -> None:
    whole = initial_noise(7, range(start, start + 8), (3, 4, 4))
    parts = [
        initial_noise(7, range(start, start + cut), (3, 4, 4)),
        initial_noise(7, range(start + cut, start + 8), (3, 4, 4)),
    ]
    assert torch.equal(whole, torch.cat(parts))


@pytest.mark.parametrize(("sampler", "order"), [(euler, 1), (heun, 2)])
def test_samplers_converge_at_their_order(sampler, order: int) -> None:
    """dx/dt = x has the solution x(0) = x(1) / e; halving the step divides the error by 2^order."""
    x = torch.ones(1, 1, 1, 1, dtype=torch.float64)
    errors = [abs(sampler(lambda x, t, p: x, x, None, n).item() - 1 / torch.e) for n in (20, 40)]
    assert errors[0] / errors[1] == pytest.approx(2**order, rel=0.1)


@pytest.mark.parametrize("sampler", [euler, heun])
def test_a_straight_flow_is_followed_exactly(sampler) -> None:
    data, noise = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    assert torch.allclose(sampler(lambda x, t, p: noise - data, noise, None, 3), data, atol=1e-5)


def test_guidance_extrapolates_from_null() -> None:
    def model(x, t, prompt):
        return prompt.float()[:, None, None, None].expand_as(x)

    x, t = torch.zeros(2, 1, 2, 2), torch.zeros(2)
    v = guided(model, 3.0)(x, t, with_null(Labels(10), torch.tensor([1, 4]), x, 3.0))
    assert v[:, 0, 0, 0].tolist() == [10 + 3 * (1 - 10), 10 + 3 * (4 - 10)]
    assert guided(model, 1.0) is model


# --- what the output is ---------------------------------------------------------------------------------------------


def flow(batch: int = 6) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    x, noise = (torch.randn(batch, 3, 4, 4, generator=g, dtype=torch.float64) for _ in range(2))
    return x, noise, torch.linspace(0.05, 1, batch, dtype=torch.float64)


def test_both_targets_say_the_same_velocity_and_data() -> None:
    """Of white data the optimum is linear: E[x_0 | x_t] = (1 - t) x_t / q, E[v | x_t] = (2 t - 1) x_t / q."""

    def share(t: torch.Tensor) -> torch.Tensor:
        return 1 / ((1 - t) ** 2 + t**2)[:, None, None, None]

    def as_data(x, t, p):
        return (1 - t)[:, None, None, None] * share(t) * x

    def as_velocity(x, t, p):
        return (2 * t - 1)[:, None, None, None] * share(t) * x

    x, noise, t = flow()
    x_t = interpolate(x, noise, t)
    assert torch.allclose(velocity(as_data, "data")(x_t, t, None), as_velocity(x_t, t, None))
    assert torch.allclose(data_prediction(as_velocity, "velocity")(x_t, t, None), as_data(x_t, t, None))
    assert velocity(as_velocity, "velocity") is as_velocity and data_prediction(as_data, "data") is as_data
    plain = Flow().loss(as_velocity, x, noise, t, None).double()
    clamped = Flow("data", 0.3).loss(as_data, x, noise, t, None).double()
    assert torch.allclose(clamped, plain * (t / t.clamp(min=0.3)) ** 2, rtol=1e-4)
    assert torch.allclose(Flow("data", 0.01).loss(as_data, x, noise, t, None).double(), plain, rtol=1e-4)


def test_the_gradient_of_the_data_loss_has_the_clamped_weight() -> None:
    x, noise, t = flow()
    out = torch.zeros_like(x, requires_grad=True)
    Flow("data", 0.3).loss(lambda x_t, t, p: out, x, noise, t, None).sum().backward()
    weight = 1 / t.clamp(min=0.3) ** 2
    assert out.grad is not None
    assert torch.allclose(out.grad, -2 * x * weight[:, None, None, None] / x[0].numel(), rtol=1e-4)


@pytest.mark.parametrize("steps", [1, 4])
@pytest.mark.parametrize("name", sorted(SAMPLERS["flow"]))
def test_an_exact_denoiser_lands_on_a_mode(name: str, steps: int) -> None:
    """Of two modes, each sample ends on one, also where the prompt names it; nothing is divided by t = 0."""
    modes = torch.stack([torch.full((3, 4, 4), -0.6), torch.full((3, 4, 4), 0.6)])

    def denoise(x, t, prompt):
        assert (t > 0).all(), "(x - x^) / t was asked for at 0"
        apart = (x[:, None] - (1 - t)[:, None, None, None, None] * modes).square().flatten(2).sum(2)
        open_to = torch.nn.functional.one_hot(prompt, 3)[:, :2] + (prompt == 2)[:, None]
        weights = (-apart / (2 * t[:, None] ** 2)).masked_fill(open_to == 0, -torch.inf).softmax(1)
        return torch.einsum("bk,kchw->bchw", weights, modes)

    noise, prompt = torch.randn(8, 3, 4, 4, generator=torch.Generator().manual_seed(0)), torch.arange(8) % 2
    found = sample(denoise, Labels(2), prompt, noise, Sample(sampler=name, steps=steps, guidance=1.0), Flow("data"))
    assert torch.equal(found, to_images(modes[prompt]))
    free = solver(name, Flow("data"))(velocity(denoise, "data"), noise, torch.full((8,), 2), 16)
    assert torch.cdist(free.flatten(1), modes.flatten(1)).min(1).values.max() < 1e-2


def test_guidance_acts_on_the_velocity() -> None:
    """x^ = a of the prompt, b of null: v = (x - x^) / t is extrapolated, and so is x^."""

    def model(x, t, prompt):
        return prompt.to(x)[:, None, None, None].expand_as(x)

    x, t = torch.ones(1, 1, 2, 2), torch.tensor([0.5])
    v = guided(velocity(model, "data"), 3.0)(x, t, with_null(Labels(10), torch.tensor([4]), x, 3.0))
    assert torch.allclose(v, (x - (10 + 3.0 * (4 - 10))) / 0.5)


@pytest.mark.parametrize("guidance", [1.0, 3.0])
@pytest.mark.parametrize("name", sorted(SAMPLERS["flow"]))
def test_guidance_and_solver_compute_in_float32_what_a_model_gives_in_bf16(name: str, guidance: float) -> None:
    noise, slope = gaussian(4, 3, 4, 4), gaussian(2, 3, 4, 4, seed=1)

    def low(x, t, prompt):
        return (slope[prompt] + x * t[:, None, None, None]).bfloat16()

    prompt, how = torch.zeros(4, dtype=torch.long), Sample(sampler=name, steps=5, guidance=guidance)
    found = sample_exact(low, Labels(1), prompt, noise, how)
    due = sample_exact(lambda x, t, p: low(x, t, p).float(), Labels(1), prompt, noise, how)
    assert found.dtype == torch.float32 and torch.equal(found, due)


# --- a prompt is encoded once ---------------------------------------------------------------------------------------


def every_time(model, kind, guidance: float):
    """Guidance that encodes prompt and null at every step."""

    def velocity(x, t, prompt):
        if guidance == 1.0:
            return model(x, t, prompt)
        both = with_null(kind, prompt, x, guidance)
        v, v_null = model(x.repeat(2, 1, 1, 1), t.repeat(2), both).chunk(2)
        return v_null + guidance * (v - v_null)

    return velocity


@pytest.mark.parametrize("guidance", [1.0, 2.0])
@pytest.mark.parametrize("kind", laws.PROMPTS)
@pytest.mark.parametrize("scheme", architectures.schemes())
def test_a_sampling_encodes_its_prompt_once_and_samples_the_same_bits(scheme: str, kind: str, guidance: float) -> None:
    subject = laws.SchemeUnderTest(scheme)
    model, prompt = subject.random(laws.PROMPTS[kind]), subject.inputs(laws.PROMPTS[kind])[2]
    calls: list[object] = []
    model.prompt.register_forward_hook(lambda *given: calls.append(given))
    noise, how = gaussian(4, 3, 16, 16), Sample(sampler="heun", steps=2, guidance=guidance)
    found = sample_exact(model, model.prompt_kind, prompt, noise, how)
    assert len(calls) == 1
    with torch.no_grad():
        assert torch.equal(found, heun(every_time(model, model.prompt_kind, guidance), noise, prompt, 2))
    assert len(calls) == 5


@pytest.mark.parametrize("options", [{}, {"prompt_time": "zero", "prompt_sees_image": "no"}])
def test_modulation_guidance_extrapolates_the_pooled_prompt_alone(options: dict[str, str]) -> None:
    """p + w (p - null) in c, also where the prompt's keys and values are kept; its tokens are the prompt's."""
    subject = laws.SchemeUnderTest("sd3", options)
    model, prompt = subject.random(), subject.inputs()[2]
    noise, kind = gaussian(4, 3, 16, 16), model.prompt_kind
    found = {
        w: sample_exact(model, kind, prompt, noise, Sample(steps=2, guidance=3.0, modulation_guidance=w))
        for w in (0.0, 2.0)
    }
    both = with_null(kind, prompt, noise, 3.0)
    with torch.no_grad():
        own = model.read(both)
        null = model.read(kind.null(1)).pooled
        given = own._replace(pooled=own.pooled + 2.0 * (own.pooled - null))
        assert torch.equal(given.pooled[4:], own.pooled[4:])  # the null half has no other c
        assert torch.allclose(heun(guided(model, 3.0), noise, given, 2), found[2.0], atol=1e-5)
        tokens = own._replace(tokens=own.tokens + 2.0 * (own.tokens - model.read(kind.null(1)).tokens))
        assert not torch.allclose(heun(guided(model, 3.0), noise, tokens, 2), found[2.0], atol=1e-2)
    assert not torch.allclose(found[0.0], found[2.0], atol=1e-2)


def test_images_survive_the_round_trip() -> None:
    images = torch.arange(256, dtype=torch.uint8).reshape(1, 16, 16, 1).expand(1, 16, 16, 3)
    assert torch.equal(to_images(from_images(images)), images)
    assert to_images(torch.tensor([-9.0, 9.0]).reshape(1, 1, 1, 2)).flatten().tolist() == [0, 255]


def test_seeds_are_the_same_everywhere() -> None:
    assert derive(0, "step", 3) == 63140857536093539
    assert derive(0, "step", 3) != derive(0, "step", 4)
