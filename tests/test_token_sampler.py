"""TokenSampler gives what sample and guided give, by whatever form; images do not change."""

import warnings

import pytest
import torch
from tiny_checkpoint import write_tiny_checkpoint
from torch import nn
from torch.nn import functional as F

from clip2latent import token_sampler
from clip2latent.diffusion import Schedule, ddpm_steps, dpmpp_steps, guided, row_generators, sample
from clip2latent.lean_graph import Recorded, record_on_cuda
from clip2latent.prior import LatentPrior
from clip2latent.text2image import TextToImage
from clip2latent.token_sampler import TokenSampler

SCHEDULE = Schedule.cosine(50)
TABLE = dpmpp_steps(SCHEDULE, 6)


def frozen(device="cpu"):
    torch.manual_seed(0)
    sizes = {"embedding_dim": 7, "latent_dim": 5, "num_tokens": 2, "dim": 16, "depth": 2, "heads": 2, "timesteps": 50}
    return LatentPrior(**sizes).eval().requires_grad_(False).to(device)


def asked(batch, device="cpu"):
    """Noise [B, 2, 5], conditions [B, 7] in equal pairs, one negative condition [B, 7]."""
    rng = torch.Generator().manual_seed(batch)
    conditions = F.normalize(torch.randn(batch + 1, 7, generator=rng), dim=-1)
    which = torch.arange(batch) // 2
    noise = torch.randn(batch, 2, 5, generator=rng)
    return [value.to(device) for value in (noise, conditions[which], conditions[-1:].expand(batch, -1))]


def seeded():
    return torch.Generator().manual_seed(5)


def compare(sampler, prior, batch, table=TABLE, scale=2.0, negative=False, **options):
    noise, condition, away = asked(batch, next(prior.parameters()).device)
    away = away if negative else None
    found = sampler(noise, condition, table, seeded(), scale, away, **options)
    expected = sample(guided(prior, condition, scale, negative=away, **options), noise, table, seeded())
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


CASES = {
    "plain": {"scale": 1.0},
    "null alone": {"scale": 0.0},
    "guided": {},
    "negative": {"negative": True},
    "options": {"guidance_rescale": 0.5, "guidance_interval": (5, 40), "guidance_limit": 1.5},
    "fresh noise": {"table": ddpm_steps(SCHEDULE, 6)},
    "all steps": {"table": ddpm_steps(SCHEDULE, 50)},
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_tokens_are_those_of_the_plain_form(case):
    prior = frozen()
    compare(TokenSampler(prior), prior, 5, **case)


class Recorder:
    """Records as CUDA does, by repeating the function at fixed places."""

    def __init__(self, refuses=False):
        self.sizes, self.refuses = [], refuses

    def __call__(self, function, *inputs):
        if self.refuses:
            raise RuntimeError("operation not permitted when stream is capturing")
        self.sizes.append(len(inputs[0]))
        output = function(*inputs).clone()
        return Recorded(function, inputs, lambda: output.copy_(function(*inputs)), output)


def test_recordings_serve_all_batches_up_to_a_power_of_two_and_all_conditions():
    prior, record = frozen(), Recorder()
    sampler = TokenSampler(prior, record)
    for batch in (3, 4, 3, 7, 8):
        compare(sampler, prior, batch)
    assert record.sizes == [4, 8]
    compare(sampler, prior, 3, scale=3.0)
    compare(sampler, prior, 3, negative=True)
    compare(sampler, prior, 3, table=dpmpp_steps(SCHEDULE, 5))
    compare(sampler, prior, 3, guidance_limit=1.0)
    assert record.sizes == [4, 8, 4, 4, 4, 4]


def test_a_recording_of_a_table_with_fresh_noise_draws_anew_at_each_call():
    prior, record = frozen(), Recorder()
    sampler = TokenSampler(prior, record)
    table = ddpm_steps(SCHEDULE, 6)
    for batch in (3, 4):
        compare(sampler, prior, batch, table=table)
    assert record.sizes == [4]
    noise, condition, _ = asked(3)
    first, other = (sampler(noise, condition, table, torch.Generator().manual_seed(seed), 2.0) for seed in (5, 6))
    assert (first - other).abs().max() > 0.01 and record.sizes == [4]


def test_rows_draw_their_noise_from_their_own_generators_in_a_recording_too():
    prior = frozen()
    table = ddpm_steps(SCHEDULE, 6)
    noise, condition, _ = asked(3)
    found = TokenSampler(prior, Recorder())(noise, condition, table, row_generators(0, 1, 3), 2.0)
    alone = TokenSampler(prior)(noise[:2], condition[:2], table, row_generators(0, 1, 2), 2.0)
    torch.testing.assert_close(found[:2], alone, rtol=0, atol=1e-4)


def test_of_a_table_with_many_steps_a_step_is_recorded(monkeypatch):
    monkeypatch.setattr("clip2latent.token_sampler.MAX_GRAPH_STEPS", 5)
    prior, record = frozen(), Recorder()
    sampler = TokenSampler(prior, record)
    for case in ({"table": ddpm_steps(SCHEDULE, 6)}, {"table": ddpm_steps(SCHEDULE, 7), "scale": 3.0}):
        compare(sampler, prior, 3, **case)
    assert record.sizes == [8]  # Both branches of three.
    for weight in prior.parameters():
        weight.mul_(1.1)
    compare(sampler, prior, 3, **case)
    assert record.sizes == [8, 8]


def test_old_recordings_are_let_go(monkeypatch):
    monkeypatch.setattr("clip2latent.lean_graph.MAX_RECORDED", 2)
    prior, record = frozen(), Recorder()
    sampler = TokenSampler(prior, record)
    for scale in (2.0, 3.0, 2.0, 4.0, 2.0, 3.0):
        compare(sampler, prior, 2, scale=scale)
    assert len(record.sizes) == 4


def test_what_cannot_be_recorded_is_computed_with_one_warning():
    prior = frozen()
    sampler = TokenSampler(prior, Recorder(refuses=True))
    with pytest.warns(UserWarning, match="without CUDA graphs"):
        compare(sampler, prior, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        compare(sampler, prior, 3)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA graphs need a GPU")
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_cuda_graphs_compute_the_plain_form(case):
    prior = frozen("cuda")
    sampler = TokenSampler(prior, record_on_cuda)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for batch in (3, 4, 3):
            compare(sampler, prior, batch, **case)


def test_changed_weights_count():
    prior = frozen()
    sampler = TokenSampler(prior)
    compare(sampler, prior, 4)
    prior.load_state_dict({name: 1.5 * value for name, value in prior.state_dict().items()})
    compare(sampler, prior, 4)
    prior.double()
    noise, condition, _ = (value.double() for value in asked(4))
    found = sampler(noise, condition, TABLE, seeded(), 2.0)
    torch.testing.assert_close(found, sample(guided(prior, condition, 2.0), noise, TABLE, seeded()), rtol=0, atol=1e-4)


def test_a_lean_form_made_in_inference_mode_serves_outside_of_it():
    prior = frozen()
    sampler = TokenSampler(prior)
    with torch.inference_mode():
        compare(sampler, prior, 4)
    compare(sampler, prior, 4, table=dpmpp_steps(SCHEDULE, 7))


def test_autocast_is_possible():
    prior = frozen()
    noise, condition, _ = asked(4)
    exact = sample(guided(prior, condition, 2.0), noise, TABLE, seeded())
    with torch.autocast("cpu", torch.bfloat16):
        found = TokenSampler(prior)(noise, condition, TABLE, seeded(), 2.0)
    assert (found - exact).norm() < 5e-2 * exact.norm()


class Other(nn.Module):
    """A prior of another kind, which must be called itself."""

    def __init__(self):
        super().__init__()
        self.inner = frozen()

    def forward(self, x, t, embedding, keep=None):
        return 2 * self.inner(x, t, embedding, keep)


def test_other_priors_and_those_in_training_or_with_hooks_are_called_themselves(monkeypatch):
    monkeypatch.setattr(token_sampler, "LeanPrior", None)
    compare(TokenSampler(Other()), Other(), 3)
    trained = frozen().requires_grad_()
    compare(TokenSampler(trained), trained, 3)
    hooked, calls = frozen(), []
    hooked.transformer.register_forward_pre_hook(lambda *_: calls.append(1))
    compare(TokenSampler(hooked), hooked, 3)
    assert len(calls) == 2 * len(TABLE.t)


@pytest.mark.parametrize("options", [{}, {"sampler": "ddpm", "guidance": 1.0}], ids=["dpmpp", "ddpm"])
@pytest.mark.parametrize("source", ["tiny", "demo"])
def test_images_are_those_of_the_plain_form(tmp_path, source, options):
    pipeline = TextToImage.from_pretrained(write_tiny_checkpoint(tmp_path / "tiny") if source == "tiny" else source)
    arguments = {"prompts": ["a man with a red hat", "a woman"], "num": 3, "candidates": 3, **options}
    lean = pipeline.generate(**arguments)
    pipeline.prior.register_forward_hook(lambda *_: None)  # What has hooks is called itself.
    plain = pipeline.generate(**arguments)
    assert lean.candidates.equal(plain.candidates)
    torch.testing.assert_close(lean.images, plain.images, rtol=0, atol=1e-4)
    torch.testing.assert_close(lean.latents, plain.latents, rtol=0, atol=1e-4)
