import json
import subprocess
import sys
from pathlib import Path

import open_clip
import pytest
import torch
import yaml
from safetensors.torch import save_file
from torch.nn import functional as F

from clip2latent import openclip
from clip2latent.embedders import OpenCLIPEmbedder, load_embedder, load_open_clip
from clip2latent.interfaces import Embedder
from clip2latent.spec import ModelSpec

VISION = {"layers": 2, "width": 32, "head_width": 16, "patch_size": 8, "image_size": 32}
TEXT = {"context_length": 12, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2}
TINY = {"embed_dim": 24, "vision_cfg": VISION, "text_cfg": TEXT}


def write_folder(folder: Path, model_cfg: dict, **config: object) -> Path:
    torch.manual_seed(0)
    folder.mkdir(exist_ok=True)
    save_file(openclip.build_clip(model_cfg).state_dict(), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"model_cfg": model_cfg, **config}))
    return folder


@pytest.fixture(scope="module")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    preprocess = {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.4]}
    return write_folder(tmp_path_factory.mktemp("clip"), TINY, preprocess_cfg=preprocess)


@pytest.fixture(scope="module", params=["tiny", "demo"])
def embedder(request: pytest.FixtureRequest, tiny_folder: Path) -> OpenCLIPEmbedder:
    return load_embedder("demo" if request.param == "demo" else str(tiny_folder))


@pytest.fixture(scope="module")
def tiny(tiny_folder: Path) -> OpenCLIPEmbedder:
    return load_embedder(str(tiny_folder))


def images(num: int, side: int) -> torch.Tensor:
    return torch.rand(num, 3, side, side, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_is_an_embedder_of_unit_vectors(embedder: OpenCLIPEmbedder) -> None:
    assert isinstance(embedder, Embedder)
    texts, seen = embedder.embed_text(["a red house", "a dog"]), embedder.embed_images(images(3, embedder.resolution))
    assert texts.shape == (2, embedder.dim) and seen.shape == (3, embedder.dim)
    assert torch.allclose(texts.norm(dim=-1), torch.ones(2)) and torch.allclose(seen.norm(dim=-1), torch.ones(3))


def test_embeddings_do_not_depend_on_the_batch(embedder: OpenCLIPEmbedder) -> None:
    batch, prompts = images(4, embedder.resolution), ["a dog", "an old man with a red hat", "a cat"]
    alone = torch.cat([embedder.train().embed_images(image[None]) for image in batch])
    assert torch.allclose(embedder.embed_images(batch), alone, atol=1e-5)
    assert torch.allclose(embedder.embed_text(prompts)[1:2], embedder.embed_text(prompts[1:2]), atol=1e-5)


@pytest.mark.parametrize("side", [16, 100])
def test_gradient_reaches_images_of_any_size(embedder: OpenCLIPEmbedder, side: int) -> None:
    pixels = images(2, side).requires_grad_()
    embedder.embed_images(pixels)[:, 0].sum().backward()
    assert pixels.grad.isfinite().all() and (pixels.grad.abs().sum(dim=(1, 2, 3)) > 0).all()
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in embedder.parameters())


def test_preprocessing_is_the_models_own_without_clamp(tiny: OpenCLIPEmbedder) -> None:
    pixels = 1.5 * images(2, 32)
    mean, std = torch.tensor([0.4, 0.5, 0.6]).view(3, 1, 1), torch.tensor([0.2, 0.3, 0.4]).view(3, 1, 1)
    wanted = tiny.clip.encode_image(((pixels + 1) / 2 - mean) / std, normalize=True)
    assert torch.equal(tiny.embed_images(pixels), wanted)


def test_resizing_keeps_smooth_images(tiny: OpenCLIPEmbedder) -> None:
    ramp = torch.linspace(-0.8, 0.8, 32).view(1, 1, 32, 1).expand(1, 3, 32, 32)
    large = F.interpolate(ramp, 128, mode="bilinear", align_corners=False)
    assert F.cosine_similarity(tiny.embed_images(large), tiny.embed_images(ramp)).item() > 0.999


@pytest.mark.parametrize("prompts", [[], [""], ["a dog", " \n"], "a dog"])
def test_refuses_empty_prompts(tiny: OpenCLIPEmbedder, prompts: list[str]) -> None:
    with pytest.raises(ValueError, match="prompt"):
        tiny.embed_text(prompts)


def test_refuses_long_prompts_unless_asked_to_cut(tiny: OpenCLIPEmbedder, tiny_folder: Path) -> None:
    fits, long = " ".join(["dog"] * 10), " ".join(["dog"] * 11)
    cutting = load_embedder(str(tiny_folder), truncate=True)
    assert torch.equal(cutting.embed_text([long]), tiny.embed_text([fits]))
    with pytest.raises(ValueError, match="12 tokens"):
        tiny.embed_text(["a dog", long])


@pytest.mark.parametrize("bad", [torch.zeros(3, 32, 32), torch.zeros(1, 1, 32, 32), torch.zeros(1, 3, 32, 16)])
def test_refuses_images_of_other_shapes(tiny: OpenCLIPEmbedder, bad: torch.Tensor) -> None:
    with pytest.raises(ValueError, match=r"\[B, 3, R, R\]"):
        tiny.embed_images(bad)


def test_refuses_integer_images(tiny: OpenCLIPEmbedder) -> None:
    with pytest.raises(ValueError, match="uint8"):
        tiny.embed_images(torch.zeros(1, 3, 32, 32, dtype=torch.uint8))


def test_names_unknown_words(tiny: OpenCLIPEmbedder) -> None:
    assert load_embedder("demo").unknown_words("A Wizard, and an old wizard with a spaceship-hat!") == ["wizard"]
    assert tiny.unknown_words("a wizard") == []


def test_folder_errors_name_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        load_embedder(str(tmp_path / "nowhere"))
    folder = write_folder(tmp_path / "clip", TINY, merges="merges.txt.gz")
    with pytest.raises(FileNotFoundError, match=r"merges.txt.gz"):
        load_embedder(str(folder))
    write_folder(folder, TINY | {"text_cfg": TEXT | {"vocab_size": 50000}})
    with pytest.raises(ValueError, match=r"vocab_size 50000 .* expected 49408"):
        load_embedder(str(folder))
    (folder / "config.json").write_text(json.dumps({"model_cfg": TINY}))
    with pytest.raises(ValueError, match=r"token_embedding\.weight"):
        load_embedder(str(folder))
    (folder / "config.json").write_text(json.dumps({"model_cfg": TINY | {"embed_dims": 3}}))
    with pytest.raises(ValueError, match="embed_dims"):
        load_embedder(str(folder))
    (folder / "config.json").write_text(json.dumps({"vision_cfg": VISION}))
    with pytest.raises(ValueError, match="model_cfg"):
        load_embedder(str(folder))
    write_folder(folder, TINY)
    (folder / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"model.safetensors"):
        load_embedder(str(folder))


def test_half_precision_files_load_exactly(tiny: OpenCLIPEmbedder, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "clip", TINY)
    halves = {name: value.half() for name, value in tiny.clip.state_dict().items()}
    save_file(halves, folder / "model.safetensors")
    loaded = load_embedder(str(folder)).clip.state_dict()
    assert all(
        value.dtype == torch.float32 and torch.equal(value.half(), halves[name]) for name, value in loaded.items()
    )


@pytest.fixture
def named_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Makes the tiny model one that open_clip knows by name, with a file of weights."""
    monkeypatch.setattr(
        open_clip.factory, "_MODEL_CONFIGS", {"tiny": TINY, "tiny-quickgelu": TINY | {"quick_gelu": True}}
    )
    torch.manual_seed(0)
    torch.save(openclip.build_clip(TINY).state_dict(), tmp_path / "weights.pt")
    return tmp_path / "weights.pt"


def test_loads_a_named_model_from_a_file(named_model: Path, tiny_folder: Path) -> None:
    plain = load_open_clip("tiny", str(named_model), quick_gelu=False)
    quick = load_open_clip("tiny-quickgelu", str(named_model))
    assert plain.resolution == 32 and plain.dim == 24
    assert torch.allclose(plain.mean.flatten(), torch.tensor(open_clip.OPENAI_DATASET_MEAN))
    assert torch.equal(plain.embed_text(["a dog"]), load_embedder(str(tiny_folder)).embed_text(["a dog"]))
    assert not torch.allclose(plain.embed_text(["a dog"]), quick.embed_text(["a dog"]), atol=1e-6)
    assert torch.equal(
        load_open_clip("tiny", str(named_model), quick_gelu=True).embed_text(["a dog"]), quick.embed_text(["a dog"])
    )


def test_named_model_errors(named_model: Path) -> None:
    with pytest.raises(ValueError, match="list_models"):
        load_open_clip("no-such-model", "openai")
    with pytest.raises(ValueError, match="neither a file nor a tag"):
        load_open_clip("tiny", "no-such-tag")
    with pytest.raises(ValueError, match="which activation"):
        load_open_clip("tiny", str(named_model))
    with pytest.raises(ValueError, match="contradictory"):
        load_open_clip("tiny-quickgelu", str(named_model), quick_gelu=False)
    torch.save({"visual.proj": torch.zeros(2)}, named_model)
    with pytest.raises(ValueError, match="do not fit model 'tiny'"):
        load_open_clip("tiny", str(named_model), quick_gelu=False)


@pytest.mark.parametrize(
    ("configured", "trained", "asked", "expected"),
    [
        (False, True, None, True),
        (False, True, True, True),
        (True, True, None, True),
        (True, None, None, True),
        (False, False, None, False),
        (False, None, False, False),
        (False, None, True, True),
        (False, True, False, None),
        (False, False, True, None),
        (True, False, None, None),
        (True, None, False, None),
        (False, None, None, None),
    ],
)
def test_activation_is_known_or_refused(
    configured: bool, trained: bool | None, asked: bool | None, expected: bool | None
) -> None:
    if expected is None:
        with pytest.raises(ValueError, match=r"activation|QuickGELU"):
            openclip.activation(configured, trained, asked)
    else:
        assert openclip.activation(configured, trained, asked) is expected


def test_openai_weights_get_quick_gelu(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def create_model(*args: object, **kwargs: object) -> None:
        asked.append(kwargs["force_quick_gelu"])
        raise RuntimeError("nothing is downloaded")

    monkeypatch.setattr(open_clip, "create_model", create_model)
    for model, tag in (("ViT-B-32", "openai"), ("ViT-B-32-quickgelu", "openai"), ("ViT-B-32", "laion2b_s34b_b79k")):
        with pytest.raises(ValueError, match="nothing is downloaded"):
            load_open_clip(model, tag)
    assert asked == [True, True, False]


def test_import_is_light() -> None:
    code = "import clip2latent.embedders, sys; print([m for m in ('open_clip', 'torchvision') if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_demo_config_builds_the_demo() -> None:
    config = yaml.safe_load((Path(__file__).parents[1] / "configs/embedder/demo.yaml").read_text())
    built = ModelSpec.from_dict(config).build()
    recorded = ModelSpec.of(**config, module=built)
    assert recorded.sha256 and recorded.build().dim == built.dim == load_embedder().dim
