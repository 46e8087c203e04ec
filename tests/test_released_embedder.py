import open_clip
import pytest
import torch
from tiny_clip import TINY, images, write_folder
from torch.nn import functional as F

from clip2latent import openclip
from clip2latent.contracts import EmbedderContract
from clip2latent.embedders import load_embedder
from clip2latent.openclip import MEAN, STD
from clip2latent.released_embedder import ReleasedEmbedder, load_released_embedder


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> ReleasedEmbedder:
    folder = write_folder(tmp_path_factory.mktemp("clip"), TINY | {"quick_gelu": True})
    return ReleasedEmbedder(load_embedder(str(folder)))


def normalize(images: torch.Tensor) -> torch.Tensor:
    return (images - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


@pytest.mark.parametrize("side", [16, 32, 50])
def test_images_are_normalised_clamped_and_normalised_again(released: ReleasedEmbedder, side: int) -> None:
    pixels = images(3, side)
    small = F.interpolate(pixels, (32, 32), mode="area")
    seen = normalize(normalize(0.5 * small + 0.5).clamp(0, 1))
    torch.testing.assert_close(released.preprocess(pixels), seen)
    torch.testing.assert_close(released.embed_images(pixels), released.embedder.clip.encode_image(seen))


def test_the_clamp_cuts_most_values_of_uniform_pixels(released: ReleasedEmbedder) -> None:
    once = normalize((images(20, 32) + 1) / 2)
    share = ((once < 0) | (once > 1)).float().mean().item()
    assert share == pytest.approx(0.73, abs=0.01)


def test_it_is_no_embedder_by_contract(released: ReleasedEmbedder) -> None:
    contract = EmbedderContract(released)
    with pytest.raises(AssertionError):
        contract.shapes_and_norms()
    for law in ("images_of_any_side", "an_embedding_does_not_depend_on_its_batch", "the_same_input_gives_equal_bits"):
        getattr(contract, law)()
    contract.weights_are_frozen_where_there_are_any()
    contract.float64_gives_the_same_embeddings()


def test_texts_keep_their_norm(released: ReleasedEmbedder) -> None:
    texts = ["a dog", "an old man with a red hat"]
    features = released.embed_text(texts)
    assert (features.norm(dim=-1) - 1).abs().min() > 1e-3
    torch.testing.assert_close(F.normalize(features, dim=-1), released.embedder.embed_text(texts))
    with pytest.raises(ValueError, match="12 tokens"):
        released.embed_text(["dog " * 20])


def test_loads_openais_weights_from_a_file(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    quick = TINY | {"quick_gelu": True}
    monkeypatch.setattr(open_clip.factory, "_MODEL_CONFIGS", {"ViT-B-32-quickgelu": quick})
    torch.save(openclip.build_clip(quick).state_dict(), tmp_path / "weights.pt")
    embedder = load_released_embedder(weights=str(tmp_path / "weights.pt"))
    assert embedder.identity["activation"] == "quick_gelu" and embedder.identity["norm"] == "raw"
    assert embedder.identity["preprocessing"]["interpolation"] == "area"
    assert embedder.identity != embedder.embedder.identity
