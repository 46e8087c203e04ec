from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from clip2latent.diffusion import guided
from clip2latent.prior import LatentPrior

GOLDEN = load_file(Path(__file__).parent / "golden" / "dalle2_prior.safetensors")
NAMES = {
    "learned_query": "queries",
    "null_text_embeds": "null_embedding",
    "to_time_embeds.0.weight": "time.weight",
}


@pytest.fixture(scope="module")
def golden_prior():
    prior = LatentPrior(embedding_dim=32, latent_dim=32, dim=32, depth=2, heads=2, dim_head=16, timesteps=40).eval()
    state = {}
    for key, value in GOLDEN.items():
        name = key.removeprefix("net.")
        if key.startswith("net.") and name != "null_image_embed":
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


@pytest.mark.parametrize(("keep", "recorded"), [(None, 0), (True, 0), (False, 1)])
def test_one_token_is_dalle2_pytorchs_network(golden_prior, keep, recorded):
    x, t, embedding = GOLDEN["io.net.image_embed"], GOLDEN["io.net.t"], GOLDEN["io.text_embed"]
    mask = None if keep is None else torch.full((len(x),), keep)
    out = golden_prior(x[:, None], t, embedding, mask)[:, 0]
    torch.testing.assert_close(out, GOLDEN[f"io.net.out_textdrop{recorded}_imgdrop0"], rtol=0, atol=1e-5)


def test_guidance_extrapolates_from_text_drop_alone(golden_prior):
    x, t, embedding = GOLDEN["io.net.image_embed"], GOLDEN["io.net.t"], GOLDEN["io.text_embed"]
    with_text, without = (GOLDEN[f"io.net.out_textdrop{drop}_imgdrop0"] for drop in (0, 1))
    out = guided(golden_prior, embedding, 2.0)(x[:, None], t)[:, 0]
    torch.testing.assert_close(out, without + 2 * (with_text - without), rtol=0, atol=2e-5)


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
