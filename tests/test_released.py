"""Published checkpoints: the original's network, guidance, sampling and loss, number by number."""

import pytest
import torch
from golden_cases import golden
from tiny_released import published, tokens
from torch.nn import functional as F

from clip2latent import diffusion
from clip2latent.checkpoint import load_prior
from clip2latent.diffusion import clip2latent_skip_steps, ddpm_steps, guided, sample
from clip2latent.released import load_released
from clip2latent.released_prior import ReleasedPrior

CASES = ["clip2latent_prior", "clip2latent_prior_w3"]
NETWORK, CHAIN, STEP = {"rtol": 0, "atol": 1e-5}, {"rtol": 0, "atol": 1e-3}, {"rtol": 0, "atol": 2e-5}
RUNS = [(skip, scale) for skip in (1, 4, 10) for scale in (1.0, 2.5)]


@pytest.fixture(scope="module", params=CASES)
def case(request):
    return golden(request.param)


@pytest.fixture(scope="module")
def loaded(case, tmp_path_factory):
    return load_released(published(case, tmp_path_factory.mktemp("released")))


def test_forward_null_branch_and_guidance_are_the_originals(case, loaded):
    x, t, embedding = tokens(case, "net.image_embed"), case.io["net.t"].long(), case.io["text_embed"]
    prior, drop = loaded.prior, torch.zeros(len(x), dtype=torch.bool)
    recorded = {f"out_{name}": tokens(case, f"net.out_{name}") for name in ("drop0", "drop1", "cond_scale2.5")}
    torch.testing.assert_close(prior(x, t, embedding), recorded["out_drop0"], **NETWORK)
    torch.testing.assert_close(prior(x, t, embedding, ~drop), recorded["out_drop0"], **NETWORK)
    torch.testing.assert_close(prior(x, t, embedding, drop), recorded["out_drop1"], **NETWORK)
    torch.testing.assert_close(guided(prior, embedding, 2.5)(x, t), recorded["out_cond_scale2.5"], rtol=0, atol=3e-5)


@pytest.mark.parametrize("skip", [1, 4, 10])
def test_the_skip_table_is_the_originals_with_its_noise(case, loaded, skip):
    steps = clip2latent_skip_steps(loaded.schedule, 40 // skip)
    assert steps.t.tolist() == list(range(40 - skip, -1, -skip))
    for column, name in (("x", "posterior_mean_coef2"), ("x0", "posterior_mean_coef1")):
        buffer = case.io[f"buf.skip{skip}.{name}"][steps.t]
        torch.testing.assert_close(getattr(steps, column).float(), buffer, rtol=0, atol=1e-5)
    deviation = (0.5 * case.io["buf.skip1_before.posterior_log_variance_clipped"][steps.t]).exp()
    torch.testing.assert_close(steps.noise[:-1].float(), deviation[:-1], rtol=0, atol=1e-6)
    assert steps.noise[-1] == 0
    respaced = ddpm_steps(loaded.schedule, steps.t.tolist()).noise
    assert steps.noise[0] < 0.8 * respaced[0] if skip > 1 else steps.noise.equal(respaced)


@pytest.mark.parametrize("skip, scale", RUNS)
def test_sampling_is_the_originals(case, loaded, skip, scale, monkeypatch):
    noise = tokens(case, "noise")
    draws = iter(noise[1:])
    monkeypatch.setattr(diffusion, "normal", lambda *_: next(draws))
    denoise = guided(loaded.prior, loaded.bridge.texts(case.io["text_embed"]), scale)
    found = sample(denoise, noise[0], clip2latent_skip_steps(loaded.schedule, 40 // skip), None)
    for truncation in (1.0, 0.8):
        recorded = case.io.get(f"sample.skip{skip}.cs{scale}.tr{truncation}")
        if recorded is not None:
            latents = loaded.space.decode(found, truncation)
            assert latents.shape == (3, 18, 32)
            torch.testing.assert_close(latents, recorded.expand_as(latents), **CHAIN)


@pytest.mark.parametrize("skip, scale", [run for run in RUNS if run[0] > 1])
def test_every_single_step_is_the_originals(case, loaded, skip, scale):
    """From the recorded state before it, where rounding has no later steps to grow in."""
    noise, states = tokens(case, "noise"), tokens(case, f"sample.skip{skip}.cs{scale}.tr1.0.traj")
    denoise, steps = (
        guided(loaded.prior, case.io["text_embed"], scale),
        clip2latent_skip_steps(loaded.schedule, 40 // skip),
    )
    for index, before in enumerate([noise[0], *states[:-1]]):
        weights = {name: float(column[index]) for name, column in steps._asdict().items()}
        x0 = denoise(before, steps.t[index].expand(len(before)))
        after = weights["x"] * before + weights["x0"] * x0 + weights["noise"] * noise[1 + index]
        torch.testing.assert_close(after, states[index], **STEP)


def test_the_published_file_itself_holds_the_average_to_sample_from(case):
    if not (case.folder / "released_style.ckpt").is_file():
        pytest.skip("the published layout's own file is not on this machine")
    loaded = load_prior(case.folder / "released_style.ckpt")
    out = loaded.prior(tokens(case, "net.image_embed"), case.io["net.t"].long(), case.io["text_embed"])
    torch.testing.assert_close(out, tokens(case, "net.out_drop0"), **NETWORK)
    mean = case.weights["latent_mean"].view_as(loaded.space.mean)
    assert loaded.space.mean.equal(mean) and loaded.space.groups == tuple(case.config["latent_repeats"])


def test_the_training_loss_is_the_originals(case, tmp_path):
    """Recorded with the weights trained last, which the file keeps beside the average."""
    path = case.folder / "released_style.ckpt"
    if not path.is_file():
        pytest.skip("the weights trained last are not on this machine")
    state = torch.load(path, weights_only=True)["state_dict"]
    last = {name.removeprefix("diffusion_prior."): value for name, value in state.items()}
    last = {name: last[name] for name in case.weights}
    loaded = load_released(published(case._replace(weights=last), tmp_path))
    x, t, embedding = tokens(case, "net.image_embed"), case.io["net.t"].long(), case.io["text_embed"]
    torch.testing.assert_close(loaded.prior(x, t, embedding), tokens(case, "net.out_online_drop0"), **NETWORK)
    x0, noise, t = tokens(case, "loss.latent_in"), tokens(case, "loss.noise"), case.io["loss.t"].long()
    abar = loaded.schedule.alphas_cumprod[t][:, None, None].float()
    loss = F.mse_loss(loaded.prior(abar.sqrt() * x0 + (1 - abar).sqrt() * noise, t, embedding), x0)
    torch.testing.assert_close(loss.view(1), case.io["loss.value"], rtol=1e-5, atol=0)


def test_a_masked_embedding_is_not_seen_and_a_row_does_not_depend_on_its_batch(case, loaded):
    x, t, embedding = tokens(case, "net.image_embed"), case.io["net.t"].long(), case.io["text_embed"]
    keep = torch.tensor([True, False, True])
    out = loaded.prior(x, t, embedding, keep)
    changed = torch.where(keep[:, None], embedding, 3 - embedding)
    assert out.equal(loaded.prior(x, t, changed, keep))
    torch.testing.assert_close(out[1:2], loaded.prior(x[1:2], t[1:2], embedding[1:2], keep[1:2]), **NETWORK)
    assert (out - loaded.prior(x.roll(1, -1), t, embedding, keep)).abs().amax(dim=(1, 2)).min() > 1e-3


def test_positions_and_rotations_beyond_the_recorded_lengths():
    """Of 18 tokens, as in w+, distances pass the exact buckets; of heads wider than 32 only a part is turned."""
    from dalle2_pytorch.dalle2_pytorch import RelPosBias
    from rotary_embedding_torch import RotaryEmbedding

    from clip2latent.released_prior import _rotate

    torch.manual_seed(0)
    prior = ReleasedPrior(dim=8, depth=1, heads=3, dim_head=64, timesteps=5, num_tokens=18)
    official = RelPosBias(heads=3)
    official.relative_attention_bias.load_state_dict(prior.position_bias.state_dict())
    bias = prior._attention_bias(150)
    seen = torch.ones(150, 151, dtype=torch.bool).tril(1)
    assert bias.isfinite().equal(seen.expand_as(bias))
    assert bias[:, seen].equal(official(150, 151, device="cpu")[:, seen])
    x = torch.randn(2, 3, 40, 64)
    turned = RotaryEmbedding(dim=32).rotate_queries_or_keys(x)
    torch.testing.assert_close(_rotate(x, prior.layers[0].attention.frequencies), turned, rtol=0, atol=1e-5)
