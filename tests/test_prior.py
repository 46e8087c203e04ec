import pytest
import torch
from golden_cases import golden
from torch.nn import functional as F

from clip2latent import diffusion
from clip2latent.diffusion import Schedule, Steps, ddpm_steps, guided, sample
from clip2latent.prior import LatentPrior

NAMES = {
    "learned_query": "queries",
    "null_text_embeds": "null_embedding",
    "to_time_embeds.0.weight": "time.weight",
}
NOT_OURS = ("null_image_embed", "null_text_encodings")
SCALE = 32**0.5


@pytest.fixture(scope="module", params=["dalle2_prior", "dalle2_prior_scaled"])
def case(request):
    return golden(request.param)


@pytest.fixture(scope="module")
def golden_prior(case):
    prior = LatentPrior(embedding_dim=32, latent_dim=32, dim=32, depth=2, heads=2, dim_head=16, timesteps=40).eval()
    state = {}
    for key, value in case.weights.items():
        name = key.removeprefix("net.")
        if key.startswith("net.") and name not in NOT_OURS:
            name = NAMES.get(name, name.replace("causal_transformer.", "transformer."))
            state[name] = value.reshape(prior.state_dict()[name].shape)
    prior.load_state_dict(state)
    return prior.requires_grad_(False)


def tiny(**sizes):
    torch.manual_seed(0)
    sizes = {"embedding_dim": 7, "latent_dim": 5, "dim": 16, "depth": 2, "heads": 2, "dim_head": 8, **sizes}
    return LatentPrior(**sizes).eval()


def inputs(prior, batch=4):
    config = prior.config
    rng = torch.Generator().manual_seed(1)
    x = torch.randn(batch, config["num_tokens"], config["latent_dim"], generator=rng)
    embedding = torch.nn.functional.normalize(torch.randn(batch, config["embedding_dim"], generator=rng), dim=-1)
    return x, torch.randint(config["timesteps"], (batch,), generator=rng), embedding


@pytest.mark.parametrize(("keep", "text"), [(None, 0), (True, 0), (False, 1)])
@pytest.mark.parametrize("image", [0, 1])
def test_one_token_is_dalle2_pytorchs_network(case, golden_prior, keep, text, image):
    """Where that drops the noised latent too, which our null branch never does, a constant takes its place."""
    x, t, embedding = case.io["net.image_embed"], case.io["net.t"], case.io["text_embed"]
    x = case.weights["net.null_image_embed"].expand_as(x) if image else x
    mask = None if keep is None else torch.full((len(x),), keep)
    out = golden_prior(x[:, None], t, embedding, mask)[:, 0]
    torch.testing.assert_close(out, case.io[f"net.out_textdrop{text}_imgdrop{image}"], rtol=0, atol=1e-5)


def test_guidance_extrapolates_from_text_drop_alone(case, golden_prior):
    x, t, embedding = case.io["net.image_embed"], case.io["net.t"], case.io["text_embed"]
    with_text, without = (case.io[f"net.out_textdrop{drop}_imgdrop0"] for drop in (0, 1))
    out = guided(golden_prior, embedding, 2.0)(x[:, None], t)[:, 0]
    torch.testing.assert_close(out, without + 2 * (with_text - without), rtol=0, atol=2e-5)


def dalle2_denoiser(case, prior, scale, on_sphere):
    """Its guidance, whose null branch sees the timestep alone, on the sphere where the case puts x0 there."""
    embedding, null = case.io["text_embed"], case.weights["net.null_image_embed"]

    def denoise(x, t):
        blind = prior(null.expand_as(x), t, embedding, torch.zeros(len(x), dtype=torch.bool))
        x0 = blind + scale * (prior(x, t, embedding) - blind)
        return F.normalize(x0, dim=-1) * SCALE if on_sphere else x0

    return denoise


def test_its_own_guidance_can_be_had_too(case, golden_prior):
    out = dalle2_denoiser(case, golden_prior, 2.0, False)(case.io["net.image_embed"][:, None], case.io["net.t"])
    torch.testing.assert_close(out[:, 0], case.io["net.out_cond_scale2"], rtol=0, atol=2e-5)


def dalle2_ddim_steps(schedule, num, eta):
    """Its DDIM as a table: one step fewer than asked for, abar read one timestep late, a last step that returns x0."""
    times = torch.linspace(-1, schedule.timesteps, num + 1)[:-1].int().flip(0).tolist()
    abar, before = schedule.alphas_cumprod, torch.cat([torch.ones(1).double(), schedule.alphas_cumprod[:-1]])
    t, following = torch.tensor(times[:-1]), torch.tensor(times[1:])
    last = following < 0
    alpha, alpha_next = before[t], before[following.clamp(min=0)]
    noise = eta * ((1 - alpha / alpha_next) * (1 - alpha_next) / (1 - alpha)).sqrt()
    towards_noise = (1 - alpha_next - noise**2).sqrt()
    x = towards_noise / (1 - abar[t]).sqrt()
    x0 = alpha_next.sqrt() - x * abar[t].sqrt()
    x, x0, noise = (torch.where(last, end, column) for column, end in ((x, 0.0), (x0, 1.0), (noise, 0.0)))
    return Steps(t, x, x0, torch.zeros_like(x), torch.where(following > 0, noise, 0.0))


RUNS = {
    "ddpm": lambda schedule: ddpm_steps(schedule, 40),
    "ddim10.eta0.0": lambda schedule: dalle2_ddim_steps(schedule, 10, 0.0),
    "ddim10.eta1.0": lambda schedule: dalle2_ddim_steps(schedule, 10, 1.0),
}


@pytest.mark.parametrize("scale", [1.0, 2.0])
@pytest.mark.parametrize("run", RUNS)
def test_chains_of_the_network_are_dalle2_pytorchs(case, golden_prior, run, scale, monkeypatch):
    noise = case.io["noise"][:, :, None]
    draws = iter(noise[1:])
    monkeypatch.setattr(diffusion, "normal", lambda *_: next(draws))
    on_sphere = case.config["diffusion_prior"].get("init_image_embed_l2norm")
    start = F.normalize(noise[0], dim=-1) * SCALE if on_sphere else noise[0]
    denoise = dalle2_denoiser(case, golden_prior, scale, on_sphere)
    found = sample(denoise, start, RUNS[run](Schedule.cosine(40)), None)
    if on_sphere:
        found = F.normalize(found, dim=-1) * SCALE
    torch.testing.assert_close(found[:, 0], case.io[f"{run}.cs{scale}"], rtol=0, atol=1e-3)
    if (run, scale) == ("ddim10.eta1.0", 2.0):
        torch.testing.assert_close(found[:, 0] / SCALE, case.io["p_sample_loop.timesteps10.cs2.0"], rtol=0, atol=1e-3)


@pytest.mark.parametrize("num_tokens", [1, 3, 18])
def test_the_transformer_sees_two_and_two_k_tokens(num_tokens):
    prior = tiny(num_tokens=num_tokens)
    lengths = []
    prior.transformer.register_forward_pre_hook(lambda module, args: lengths.append(args[0].shape[1]))
    x, t, embedding = inputs(prior)
    assert prior(x, t, embedding).shape == x.shape
    assert lengths == [2 + 2 * num_tokens]


def test_projections_exist_only_where_widths_differ():
    names = {name.split(".")[0] for name in tiny(embedding_dim=16, latent_dim=16).state_dict()}
    assert names.isdisjoint({"embedding_in", "latent_in", "latent_out"})
    names = {name.split(".")[0] for name in tiny().state_dict()}
    assert names >= {"embedding_in", "latent_in", "latent_out"}


def test_dropping_text_keeps_the_noised_tokens():
    prior = tiny(num_tokens=3)
    x, t, embedding = inputs(prior)
    drop = torch.zeros(len(x), dtype=torch.bool)
    null = prior(x, t, embedding, drop)
    assert torch.equal(null, prior(x, t, embedding.flip(0), drop))
    assert (null - prior(x + 1, t, embedding, drop)).abs().max() > 1e-3
    assert (null - prior(x, t, embedding)).abs().max() > 1e-3


@pytest.mark.parametrize("scale", [0.0, 1.0, 2.5])
def test_a_row_does_not_depend_on_its_batch(scale):
    prior = tiny(num_tokens=2)
    x, t, embedding = inputs(prior)
    whole = guided(prior, embedding, scale)(x, t)
    alone = torch.cat([guided(prior, embedding[i : i + 1], scale)(x[i : i + 1], t[i : i + 1]) for i in range(4)])
    torch.testing.assert_close(whole, alone, rtol=1e-4, atol=1e-5)


def test_gradients_reach_every_weight_but_the_fixed_frequencies():
    prior = tiny(num_tokens=2).train()
    x, t, embedding = inputs(prior)
    prior(x, t, embedding, torch.tensor([True, False, True, False])).square().sum().backward()
    without = {name for name, weight in prior.named_parameters() if weight.grad is None}
    assert all(name.endswith("rotary_emb.freqs") for name in without)


def test_config_rebuilds_the_prior():
    prior = tiny(num_tokens=2, timesteps=10)
    twin = LatentPrior(**prior.config)
    twin.load_state_dict(prior.state_dict())
    x, t, embedding = inputs(prior)
    assert torch.equal(twin.eval()(x, t, embedding), prior(x, t, embedding))


def test_the_papers_size_is_the_default():
    with torch.device("meta"):
        prior = LatentPrior(embedding_dim=512, latent_dim=512)
    assert sum(weight.numel() for weight in prior.parameters()) == pytest.approx(48.8e6, rel=0.01)


def test_impossible_sizes_are_refused():
    with pytest.raises(ValueError, match="'depth': 0"):
        tiny(depth=0)
