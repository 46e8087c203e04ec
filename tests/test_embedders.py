import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from safetensors.torch import save_file
from tiny_clip import TEXT, TINY, VISION, images, write_folder
from torch import nn
from torch.nn import functional as F

from clip2latent.embedders import OpenCLIPEmbedder, load_embedder
from clip2latent.interfaces import Embedder
from clip2latent.spec import ModelSpec


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


MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.3, 0.4)


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("resize_mode", ["shortest", "longest", "squash"])
@pytest.mark.parametrize("side", [64, 224, 256, 1024])
def test_preprocessing_is_open_clips_own(side: int, resize_mode: str, interpolation: str) -> None:
    """Within the 8 bits that Pillow rounds to: 1.5/255 for smooth images, and where it does not clamp overshoots."""
    embedder = OpenCLIPEmbedder(nn.Identity(), None, 77, 8, 224, MEAN, STD, interpolation=interpolation)
    rng = torch.Generator().manual_seed(0)
    coarse = torch.randint(0, 256, (1, 3, max(8, side // 16), max(8, side // 16)), generator=rng)
    pixels = F.interpolate(coarse.float(), (side, side), mode="bilinear").round().byte()[0]
    picture = Image.fromarray(pixels.permute(1, 2, 0).numpy().astype(np.uint8))
    theirs = image_transform_v2(PreprocessCfg(224, "RGB", MEAN, STD, interpolation, resize_mode), is_train=False)
    wanted = theirs(picture)
    got = embedder.preprocess(pixels[None] / 127.5 - 1)[0]
    error = ((got - wanted) * torch.tensor(STD).view(3, 1, 1)).abs()
    assert wanted.shape == got.shape
    assert error.max() <= 1.5 / 255 and error.mean() <= 0.5 / 255


def test_preprocessing_by_area_and_without_clamp() -> None:
    embedder = OpenCLIPEmbedder(nn.Identity(), None, 77, 8, 16, MEAN, STD, interpolation="area")
    pixels = 2 * images(2, 64)
    means = (pixels.view(2, 3, 16, 4, 16, 4).mean(dim=(3, 5)) + 1) / 2
    wanted = (means - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    torch.testing.assert_close(embedder.preprocess(pixels), wanted)


@pytest.mark.parametrize("chunk", [1, 3])
def test_chunks_change_nothing_but_memory(tiny: OpenCLIPEmbedder, tiny_folder: Path, chunk: int) -> None:
    small, batch, found = load_embedder(str(tiny_folder), chunk=chunk), images(4, 40), []
    rows: list[int] = []
    small.clip.visual.register_forward_pre_hook(lambda _, args: rows.append(len(args[0])))
    for embedder in (tiny, small):
        kept: dict[int, int] = {}

        def keep(tensor: torch.Tensor, kept: dict[int, int] = kept) -> torch.Tensor:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        pixels = batch.clone().requires_grad_()
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            embeddings = embedder.embed_images(pixels)
        embeddings[:, 0].sum().backward()
        found.append((embeddings.detach(), pixels.grad, sum(kept.values())))
    torch.testing.assert_close(found[0][0], found[1][0])
    torch.testing.assert_close(found[0][1], found[1][1])
    assert max(rows) == chunk and found[1][2] < 0.5 * found[0][2]
    texts = ["a dog", "an old man with a red hat", "a cat", "a tree"]
    torch.testing.assert_close(tiny.embed_text(texts), small.embed_text(texts))


def test_default_chunk_follows_the_pixels() -> None:
    chunks = [OpenCLIPEmbedder(nn.Identity(), None, 77, 8, side, MEAN, STD).chunk for side in (64, 224, 448, 1024)]
    assert chunks == [196, 16, 4, 1]
    with pytest.raises(ValueError, match="chunk must be at least 1, got 0"):
        OpenCLIPEmbedder(nn.Identity(), None, 77, 8, 224, MEAN, STD, chunk=0)


@pytest.mark.parametrize(("precision", "dtype"), [("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_half_precision_keeps_float32_embeddings(
    tiny: OpenCLIPEmbedder, tiny_folder: Path, precision: str, dtype: torch.dtype
) -> None:
    half = load_embedder(str(tiny_folder), precision=precision)
    assert next(half.clip.parameters()).dtype == dtype and half.mean.dtype == half.std.dtype == torch.float32
    assert half.mean.equal(tiny.mean) and half.to(torch.float64).mean.equal(tiny.mean)
    half.to(dtype)
    texts = ["a red house", "a dog"]
    pixels = images(3, 50).to(dtype).requires_grad_()
    for got, wanted in (
        (half.embed_images(pixels), tiny.embed_images(pixels.float())),
        (half.embed_text(texts), tiny.embed_text(texts)),
    ):
        assert got.dtype == torch.float32
        torch.testing.assert_close(got.norm(dim=-1), torch.ones(len(got)), rtol=0, atol=1e-6)
        assert F.cosine_similarity(got, wanted).min() > 0.999
    half.embed_images(pixels)[:, 0].sum().backward()
    assert pixels.grad.isfinite().all() and (pixels.grad != 0).any()
    with pytest.raises(ValueError, match="precision='fp8': expected one of fp32, bf16, fp16"):
        load_embedder(str(tiny_folder), precision="fp8")


def test_identity_says_what_decides_an_embedding(tiny: OpenCLIPEmbedder) -> None:
    preprocessing = {"size": 32, "mean": [*MEAN], "std": [*STD], "interpolation": "bicubic"}
    assert tiny.identity == {"activation": "gelu", "preprocessing": preprocessing, "dim": 24}
    assert json.loads(json.dumps(tiny.identity)) == tiny.identity


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


def test_import_is_light() -> None:
    code = "import clip2latent.embedders, sys; print([m for m in ('open_clip', 'torchvision') if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_demo_config_builds_the_demo() -> None:
    config = yaml.safe_load((Path(__file__).parents[1] / "configs/embedder/demo.yaml").read_text())
    built = ModelSpec.from_dict(config).build()
    recorded = ModelSpec.of(**config, module=built)
    assert recorded.sha256 and recorded.build().dim == built.dim == load_embedder().dim


def test_datasets_and_checkpoints_record_the_identity(tiny_folder: Path, tmp_path: Path) -> None:
    from clip2latent.checkpoint import check_same_models
    from datagen.generate import load_models

    generator = {"class_path": "tiny_models.TinyGenerator", "init_args": {}}
    path = "clip2latent.embedders.load_embedder"
    config = json.loads((tiny_folder / "config.json").read_text())
    records = {}
    for name, changed in (("same", {}), ("quick", {"model_cfg": TINY | {"quick_gelu": True}})):
        folder = write_folder(tmp_path / name, **(config | changed))
        models = load_models(generator, {"class_path": path, "init_args": {"source": str(folder)}}, "cpu")
        specs = (models.generator_spec.to_dict(), models.embedder_spec.to_dict())
        records[name] = json.loads(json.dumps(dict(zip(("generator", "embedder"), specs, strict=True))))
    assert records["quick"]["embedder"]["sha256"] == records["same"]["embedder"]["sha256"]
    check_same_models(records["same"], records["same"])
    with pytest.raises(
        ValueError, match=r"checkpoint's embedder is .*activation gelu.*made with .*activation quick_gelu"
    ):
        check_same_models(records["same"], records["quick"])
    # The folder changes under a checkpoint that names it: another preprocessing, the same weights.
    spec = ModelSpec.from_dict(records["same"]["embedder"])
    assert spec.build().dim == 24
    changed = config | {"preprocess_cfg": config["preprocess_cfg"] | {"interpolation": "bilinear"}}
    (tmp_path / "same" / "config.json").write_text(json.dumps(changed))
    with pytest.raises(
        ValueError, match=r"(?s)'interpolation': 'bilinear'.* but .*'interpolation': 'bicubic'.*recorded"
    ):
        spec.build()
