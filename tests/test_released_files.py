"""Published checkpoints as files: what belongs to them, what is refused, and text to image from one config."""

import json
import shutil
from pathlib import Path

import open_clip
import pytest
import safetensors.torch
import torch
import yaml
from golden_cases import golden
from tiny_clip import TINY, write_folder
from tiny_released import Running, change_config, published, tokens

from clip2latent import cli, released_config
from clip2latent.checkpoint import load_prior
from clip2latent.generators.stylegan2 import StyleGAN2
from clip2latent.prior import LatentPrior
from clip2latent.released import AVERAGE, is_released, load_released
from clip2latent.released_config import find_published, resolved
from clip2latent.text2image import Sampling, TextToImage

CASES = ["clip2latent_prior", "clip2latent_prior_w3"]
CONFIGS = Path(__file__).parents[1] / "configs"
GENERATOR = {"z_dim": 8, "c_dim": 0, "w_dim": 32, "img_resolution": 32, "img_channels": 3, "channel_base": 64}


@pytest.fixture(params=CASES)
def checkpoint(request, tmp_path):
    return published(golden(request.param), tmp_path)


@pytest.fixture
def config(checkpoint, tmp_path, monkeypatch):
    """A yaml file as in configs/sample over a random StyleGAN2 and a random CLIP of the checkpoint's shapes."""
    torch.manual_seed(0)
    generator = StyleGAN2(**GENERATOR, channel_max=4, mapping_kwargs={"num_layers": 2})
    (tmp_path / "generator").mkdir()
    safetensors.torch.save_file(generator.state_dict(), tmp_path / "generator" / "model.safetensors")
    record = {"class_path": "clip2latent.generators.stylegan2.StyleGAN2", "init_args": generator.init_args}
    (tmp_path / "generator" / "config.json").write_text(json.dumps(record))
    clip = TINY | {"embed_dim": 32, "quick_gelu": True}
    monkeypatch.setattr(open_clip.factory, "_MODEL_CONFIGS", {"ViT-B-32-quickgelu": clip})
    write_folder(tmp_path / "clip", clip)
    change_config(checkpoint, lambda config: config["data"].update(latent_repeats=_rows_of_32_pixels(config)))
    models = {
        name: yaml.safe_load((CONFIGS / file).read_text())
        for name, file in (("generator", "generator/demo.yaml"), ("embedder", "embedder/released-vit-b-32.yaml"))
    }
    models["generator"]["init_args"] = {"source": str(tmp_path / "generator")}
    models["embedder"]["init_args"]["weights"] = str(tmp_path / "clip" / "model.safetensors")
    (tmp_path / "models").mkdir()
    for name, model in models.items():
        (tmp_path / "models" / f"{name}.yaml").write_text(yaml.safe_dump(model))
    own = {
        "checkpoint": "style.ckpt",
        "generator": "models/generator.yaml",
        "embedder": models["embedder"],
        "guidance": 2,
    }
    (tmp_path / "faces.yaml").write_text(yaml.safe_dump(own))
    return tmp_path / "faces.yaml"


def _rows_of_32_pixels(config: dict) -> list[int]:
    return [8] if config["data"]["n_latents"] == 1 else [2, 2, 4]


def test_one_config_runs_from_text_to_files(config, tmp_path):
    out = tmp_path / "out"
    options = ["--num=1", "--candidates=2", "--sampler=clip2latent-skip", "--steps=4", f"--out={out}"]
    assert cli.main(["generate", "a red hat", "--checkpoint", str(config), *options]) == 0
    record = json.loads((out / "results.json").read_text())
    assert record["options"]["guidance"] == 2.0 and record["options"]["sampler"] == "clip2latent-skip"
    assert -1 <= record["images"][0]["score"] <= 1
    latents = safetensors.torch.load_file(out / "latents.safetensors")["latents"]
    assert latents.shape == (1, 1, 8, 32) and latents.isfinite().all()


def test_embeddings_reach_the_prior_raw(config):
    pipeline, seen = TextToImage.from_pretrained(config, device="cpu"), []
    pipeline.prior.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[2]))
    samples = pipeline.generate(["a dog"], num=1, candidates=1, steps=1, guidance=1.0)
    features = pipeline.embedder.embedder.text_features(["a dog"])
    assert seen[0].equal(features) and abs(features.norm() - 1) > 1e-3
    images = pipeline.embedder.embed_images(samples.images[0])
    torch.testing.assert_close(samples.scores[0], torch.cosine_similarity(images, features), rtol=0, atol=1e-4)


def test_a_generator_of_other_rows_is_refused(config, checkpoint):
    change_config(checkpoint, lambda config: config["data"].update(latent_repeats=[1] * config["data"]["n_latents"]))
    with pytest.raises(ValueError, match=r"\(8, 32\)"):
        TextToImage.from_pretrained(config, device="cpu")


def test_a_checkpoint_alone_takes_what_its_configuration_names(checkpoint):
    loaded = load_prior(checkpoint)
    space = {1: "w", 3: "w3"}[loaded.space.num_tokens]
    assert loaded.generator.init_args == {"source": "network-snapshot.pkl", "space": space}
    assert loaded.embedder.init_args == {"model": "ViT-B-32-quickgelu", "pretrained": "openai"}
    (checkpoint.parent / "network-snapshot.pkl").write_bytes(b"")
    beside = load_prior(checkpoint).generator.init_args["source"]
    assert beside == str(checkpoint.parent / "network-snapshot.pkl")


def test_the_configuration_may_lie_in_the_file_and_speak_of_other_rows_and_names(tmp_path):
    """As of LHQ, whose StyleGAN3 takes 16 rows, and of the first releases of the original's code."""
    case = golden(CASES[0])
    content = yaml.safe_load((case.folder / "released_style.yaml").read_text())
    content["data"].update(latent_repeats=[16], noise_scale=0.75, clip_variant="ViT-L/14@336px")
    del content["data"]["embed_noise_scale"]
    path = published(case, tmp_path, cfg=content)
    path.with_suffix(".yaml").unlink()
    loaded = load_prior(path)
    assert loaded.space.groups == (16,) and loaded.config["noise_scale"] == 0.75
    assert loaded.embedder.init_args["model"] == "ViT-L-14-336-quickgelu"


@pytest.mark.parametrize("address", ["https://host/x/style.ckpt?download=1", "hf://owner/name/style.ckpt@main"])
def test_addresses_bring_their_configuration(address, tmp_path, monkeypatch):
    path, fetched = published(golden(CASES[0]), tmp_path), []

    def cached_file(source, sha256=None):
        fetched.append(source)
        return path.with_suffix(".yaml" if ".yaml" in source else ".ckpt")

    monkeypatch.setattr(released_config, "cached_file", cached_file)
    monkeypatch.setattr("clip2latent.released.cached_file", cached_file)
    assert load_prior(address).config["released"] == address.partition("?")[0]
    assert set(fetched) == {address, address.replace(".ckpt", ".yaml")}


@pytest.mark.parametrize("path", sorted((CONFIGS / "sample").glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_configs_name_what_is_there(path, tmp_path, monkeypatch):
    shutil.copyfile(golden(CASES[0]).folder / "released_style.yaml", tmp_path / "style.yaml")
    monkeypatch.setattr(released_config, "cached_file", lambda *_: tmp_path / "style.yaml")
    found = find_published(path)
    for role in ("generator", "embedder"):
        model = getattr(found, role)
        assert model in [yaml.safe_load(file.read_text()) for file in (CONFIGS / role).glob("*.yaml")]
    assert is_released(path) and found.name.endswith(".ckpt") and found.guidance == 2.0


def test_only_published_checkpoints_are_taken_for_one(checkpoint, tmp_path):
    torch.save({"state_dict": LatentPrior(4, 4, 1, 8, 1, 2, 4, 5).state_dict()}, tmp_path / "own.ckpt")
    assert is_released(checkpoint) and is_released(str(checkpoint))
    assert not any(is_released(source) for source in ("demo", "owner/name", tmp_path, tmp_path / "own.ckpt"))


def test_scales_are_the_originals(tmp_path):
    """The embedding times text_embed_scale; tokens over image_embed_scale, sqrt(dim) where there is none."""
    case = golden(CASES[0])
    path = published(case, tmp_path)
    plain = load_released(path)
    change_config(
        path, lambda config: config["model"]["diffusion"].update(image_embed_scale=None, text_embed_scale=2.0)
    )
    scaled = load_released(path)
    torch.testing.assert_close(scaled.space.std * 32**0.5, plain.space.std)
    x, t, embedding = tokens(case, "net.image_embed"), case.io["net.t"].long(), case.io["text_embed"]
    assert scaled.prior(x, t, embedding).equal(plain.prior(x, t, 2 * embedding))


def edited(path: Path, edit) -> None:
    content = torch.load(path, weights_only=True)
    edit(content["state_dict"])
    torch.save(content, path)


WEIGHTS = {
    "missing": (lambda state: state.pop(f"{AVERAGE}net.learned_query"), "missing keys net.learned_query"),
    "unexpected": (lambda state: state.update({f"{AVERAGE}net.more": torch.ones(1)}), "unexpected keys net.more"),
    "of another shape": (
        lambda state: state.update({f"{AVERAGE}net.causal_transformer.project_out.weight": torch.ones(3, 32)}),
        r"project_out.weight \[3, 32\] instead of \[32, 32\]",
    ),
    "flat statistics": (
        lambda state: state.update({f"{AVERAGE}latent_std": torch.ones(1, 96)}),
        r"latent_std: expected .* found \[1, 96\]",
    ),
    "no average": (lambda state: [state.pop(name) for name in list(state) if AVERAGE in name], "no weights ema_diff"),
}


@pytest.mark.parametrize("edit, message", WEIGHTS.values(), ids=WEIGHTS)
def test_weights_load_strictly(checkpoint, edit, message):
    edited(checkpoint, edit)
    with pytest.raises(ValueError, match=rf"style.ckpt.*{message}"):
        load_prior(checkpoint)


CONFIGURATIONS = {
    "another depth": (lambda config: config["model"]["network"].update(depth=3), r"missing keys .*layers\.2\.0"),
    "another size": (lambda config: config["model"]["network"].update(heads=4), "mis-shaped keys"),
    "no size": (lambda config: config["model"]["network"].pop("heads"), "lacks heads"),
    "no number": (lambda config: config["model"]["network"].update(heads=None), "int"),
    "an unknown option": (lambda config: config["model"]["network"].update(normformer=True), "has normformer"),
    "predicting noise": (
        lambda config: config["model"]["diffusion"].update(predict_x_start=False),
        "predict_x_start=F",
    ),
    "no sections": (lambda config: config.pop("model"), "expected model.network"),
    "nowhere": (lambda config: config["model"]["diffusion"].update(timesteps="${model.steps}"), "nowhere"),
    "other rows": (lambda config: config["data"].update(latent_repeats=[9, 9]), "latent_repeats"),
    "two lengths": (lambda config: config["model"]["diffusion"].update(timesteps=1000), "network's 40, got 1000"),
    "no clip": (lambda config: config["data"].pop("clip_variant"), "clip_variant"),
}


@pytest.mark.parametrize("edit, message", CONFIGURATIONS.values(), ids=CONFIGURATIONS)
def test_configurations_that_do_not_fit_are_refused(checkpoint, edit, message):
    change_config(checkpoint, edit)
    with pytest.raises(ValueError, match=message):
        load_prior(checkpoint)


def test_files_that_are_missing_or_run_code_are_refused(checkpoint, tmp_path):
    case = golden(CASES[0])
    checkpoint.with_suffix(".yaml").rename(tmp_path / "elsewhere.yaml")
    with pytest.raises(ValueError, match=r"style.yaml beside it"):
        load_prior(checkpoint)
    published(case, tmp_path, cfg=Running())
    with pytest.raises(ValueError, match="more than tensors"):
        load_prior(checkpoint)
    assert not Running.ran
    (tmp_path / "own.yaml").write_text("checkpoint: nothing.ckpt\n")
    with pytest.raises(FileNotFoundError, match=r"nothing.ckpt does not exist"):
        load_prior(tmp_path / "own.yaml")
    with pytest.raises(ValueError, match=r"name .*style.ckpt"):
        load_prior(checkpoint.with_suffix(".yaml"))
    (tmp_path / "own.yaml").write_text("checkpoint: style.ckpt\nguidence: 2\n")
    with pytest.raises(ValueError, match=r"guidence"):
        load_prior(tmp_path / "own.yaml")


def test_interpolations_lead_to_values_but_not_in_a_circle():
    assert resolved({"a": "${b.c}", "b": {"c": ["${d}"]}, "d": 3})["a"] == [3]
    with pytest.raises(ValueError, match="circle"):
        resolved({"a": "${b}", "b": "${a}"})


def test_steps_that_do_not_divide_the_schedule_are_refused_with_those_that_do(checkpoint):
    schedule = load_prior(checkpoint).schedule
    assert len(Sampling(sampler="clip2latent-skip", steps=8).table(schedule).t) == 8
    with pytest.raises(ValueError, match=r"\[1, 2, 4, 5, 8, 10, 20, 40\], got 7"):
        Sampling(sampler="clip2latent-skip", steps=7).table(schedule)
