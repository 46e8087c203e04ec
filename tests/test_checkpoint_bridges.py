"""The three ways across the modality gap: the choice and its statistics travel in the checkpoint, both its forms."""

import pytest
import torch
from tiny_pairs import TinyEmbedder, TinyGenerator, write_tiny_dataset

from clip2latent.checkpoint import CONFIG_KEY, export_prior, load_prior
from clip2latent.diffusion import guided, normal, row_generators, sample
from clip2latent.text2image import Sampling, TextToImage
from clip2latent.training import PriorTraining

WAYS = {"noise": (0.75, False), "centring and noise": (0.5, True), "none": (0.0, False)}
PROMPTS = ["a red hat", "night"]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return write_tiny_dataset(tmp_path_factory.mktemp("pairs"), count=50)


@pytest.fixture(params=WAYS)
def trained(request, dataset, tmp_path):
    """A training module, and the checkpoint it writes."""
    noise_scale, centre = WAYS[request.param]
    torch.manual_seed(0)
    module = PriorTraining(
        dataset, dim=16, depth=1, heads=2, dim_head=8, timesteps=50, noise_scale=noise_scale, centre=centre
    ).eval()
    checkpoint = {"state_dict": module.state_dict()}
    module.on_save_checkpoint(checkpoint)
    torch.save(checkpoint, tmp_path / "best.ckpt")
    return module, tmp_path / "best.ckpt", checkpoint[CONFIG_KEY]


def test_the_choice_and_its_statistics_are_kept(trained, tmp_path):
    module, path, described = trained
    for source in (path, export_prior(path, tmp_path / "exported")):
        loaded = load_prior(source)
        assert (loaded.config["noise_scale"], loaded.config["centred"]) == (module.noise_scale, described["centred"])
        assert loaded.bridge.image_mean.equal(module.bridge.image_mean)
        assert loaded.bridge.text_mean.equal(module.bridge.text_mean)
        assert bool(loaded.bridge.text_mean.any()) == described["centred"]


def test_sampling_applies_it_without_being_asked(trained, dataset):
    module, path, _ = trained
    pipeline = TextToImage.from_pretrained(path, device="cpu")
    text = TinyEmbedder().embed_text(PROMPTS)
    chunk = next(iter(pipeline.stream(text, 1, Sampling(guidance=1.0, steps=2))))
    rng = row_generators(0, len(PROMPTS), 1)
    noise = normal((2, 1, 4), rng, torch.device("cpu"))
    condition = torch.nn.functional.normalize(text - module.bridge.text_mean, dim=-1)
    with torch.no_grad():
        tokens = sample(guided(module.prior, condition, 1.0), noise, Sampling(steps=2).table(module.schedule), rng)
        expected = TinyGenerator().synthesize(module.space.decode(tokens))
    torch.testing.assert_close(chunk.images, expected)


def test_means_count_even_where_only_texts_are_moved(trained, tmp_path):
    """Weights are what counts: a description that says "not centred" does not take the means away."""
    _, path, _ = trained
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["state_dict"]["bridge.image_mean"] = torch.zeros(6)
    checkpoint["state_dict"]["bridge.text_mean"] = torch.full((6,), 0.25)
    checkpoint[CONFIG_KEY]["centred"] = False
    torch.save(checkpoint, path)
    assert load_prior(path).bridge.text_mean.tolist() == [0.25] * 6
