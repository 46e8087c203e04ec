import json
import subprocess
import sys

import loopback
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_pairs import write_tiny_dataset

from clip2latent.bridge import Bridge
from clip2latent.checkpoint import CONFIG_KEY, check_same_models, describe, export_prior, load_prior
from clip2latent.latents import LatentSpace
from clip2latent.prior import LatentPrior

server = pytest.fixture(loopback.running)
empty_cache = pytest.fixture(loopback.empty_cache)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return write_tiny_dataset(tmp_path_factory.mktemp("pairs"), count=50, groups=(2, 1))


@pytest.fixture(scope="module")
def modules(dataset):
    torch.manual_seed(0)
    prior = LatentPrior(6, 4, num_tokens=2, dim=16, depth=1, heads=2, dim_head=8, timesteps=50)
    mean, std = torch.tensor(dataset["latent_mean"]), torch.tensor(dataset["latent_std"])
    return prior.eval(), LatentSpace(dataset["groups"], mean, std)


@pytest.fixture
def checkpoint(modules, dataset):
    prior, space = modules
    state = {f"prior.{name}": value for name, value in prior.state_dict().items()}
    state |= {f"space.{name}": value for name, value in space.state_dict().items()}
    description = describe(prior, space, Bridge.plain(6), dataset, noise_scale=0.5, guidance=1.5)
    return {"state_dict": state, CONFIG_KEY: description, "epoch": 0}


@pytest.fixture
def path(checkpoint, tmp_path):
    torch.save(checkpoint, tmp_path / "best.ckpt")
    return tmp_path / "best.ckpt"


def test_both_forms_load_the_same_prior(path, modules, dataset, tmp_path):
    prior, space = modules
    folder = export_prior(path, tmp_path / "exported")
    assert sorted(file.name for file in folder.iterdir()) == ["config.json", "model.safetensors"]
    x, t, embedding = torch.randn(3, 2, 4), torch.tensor([0, 20, 49]), torch.randn(3, 6)
    for source in (path, str(path), folder):
        loaded = load_prior(source)
        torch.testing.assert_close(loaded.prior(x, t, embedding), prior(x, t, embedding))
        assert torch.equal(loaded.space.decode(x), space.decode(x))
        assert loaded.space.groups == (2, 1)
        assert loaded.schedule.timesteps == 50
        assert not any(weight.requires_grad for weight in loaded.prior.parameters())
        assert loaded.generator.class_path == "tiny_pairs.TinyGenerator"
        assert loaded.embedder.to_dict() == dataset["embedder"]
        assert (loaded.config["guidance"], loaded.config["noise_scale"]) == (1.5, 0.5)
        assert "shards" not in loaded.config["dataset"] and loaded.config["dataset"]["count"] == 50


def test_half_precision_folders_load_in_float32(path, tmp_path):
    folder = export_prior(path, tmp_path / "exported")
    weights = load_file(folder / "model.safetensors")
    save_file({name: value.half() for name, value in weights.items()}, folder / "model.safetensors")
    assert {weight.dtype for weight in load_prior(folder).prior.parameters()} == {torch.float32}


def test_the_module_imports_neither_lightning_nor_dalle2():
    code = "import clip2latent, sys; assert 'torch' not in sys.modules; clip2latent.load_prior;"
    code += "assert not {'pytorch_lightning', 'dalle2_pytorch', 'open_clip'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_wrong_keys_are_listed(checkpoint, tmp_path):
    state = checkpoint["state_dict"]
    state["prior.extra"] = torch.zeros(1)
    state["space.mean"] = torch.zeros(3, 4)
    del state["prior.queries"]
    torch.save(checkpoint, tmp_path / "a.ckpt")
    with pytest.raises(ValueError, match=r"a.ckpt: .*missing prior.queries; unknown prior.extra"):
        load_prior(tmp_path / "a.ckpt")
    state.pop("prior.extra")
    state["prior.queries"] = torch.zeros(2, 16)
    torch.save(checkpoint, tmp_path / "a.ckpt")
    with pytest.raises(ValueError, match=r"misshapen space.mean \(3, 4\) in place of \(2, 4\)"):
        load_prior(tmp_path / "a.ckpt")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda checkpoint: checkpoint[CONFIG_KEY].update(format=7), "format 7, this version reads format 1"),
        (lambda checkpoint: checkpoint[CONFIG_KEY].pop("space"), "lacks space"),
        (lambda checkpoint: checkpoint[CONFIG_KEY]["prior"].update(width=1), "not one of this version's.*width"),
        (lambda checkpoint: checkpoint.pop(CONFIG_KEY), "not a checkpoint of clip2latent"),
    ],
)
def test_foreign_checkpoints_are_refused(checkpoint, tmp_path, change, message):
    change(checkpoint)
    torch.save(checkpoint, tmp_path / "a.ckpt")
    with pytest.raises(ValueError, match=message):
        load_prior(tmp_path / "a.ckpt")


def test_missing_and_damaged_files_are_named(path, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere.ckpt does not exist"):
        load_prior(tmp_path / "nowhere.ckpt")
    content = path.read_bytes()
    for damaged in (b"", b"no checkpoint", content[: len(content) // 2]):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"best.ckpt is not a checkpoint"):
            load_prior(path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"config.json is missing"):
        load_prior(tmp_path / "empty")


class Malicious:
    def __reduce__(self):
        return print, ("run",)


def test_files_cannot_run_code(checkpoint, tmp_path, capsys):
    torch.save({**checkpoint, "callbacks": Malicious()}, tmp_path / "a.ckpt")
    with pytest.raises(ValueError, match=r"a.ckpt is not a checkpoint"):
        load_prior(tmp_path / "a.ckpt")
    assert capsys.readouterr().out == ""


def test_export_never_overwrites(path, tmp_path):
    folder = export_prior(path, tmp_path / "exported")
    with pytest.raises(ValueError, match="not empty"):
        export_prior(path, folder)
    assert json.loads((folder / "config.json").read_text())["format"] == 1


@pytest.mark.parametrize("role", ["generator", "embedder"])
def test_other_models_are_refused_naming_both(checkpoint, dataset, role):
    check_same_models(checkpoint[CONFIG_KEY], dataset)
    other = {**dataset, role: {"class_path": "other.Model", "init_args": {"size": 3}, "sha256": "f" * 64}}
    with pytest.raises(ValueError, match=rf"{role} is tiny_pairs.*other.Model\(size=3\)"):
        check_same_models(checkpoint[CONFIG_KEY], other)


def test_a_checkpoint_is_loaded_from_an_address(checkpoint, path, modules, server, empty_cache):
    for role in ("generator", "embedder"):
        checkpoint[CONFIG_KEY][role] = {"class_path": f"clip2latent.{role}s.load_{role}"}
    torch.save(checkpoint, path)
    server.script = [loopback.send(path.read_bytes())]
    for _ in range(2):
        loaded = load_prior(f"{server.url}/runs/best.ckpt?key=secret")
        assert loaded.config["guidance"] == 1.5 and loaded.space.mean.equal(modules[1].mean)
    assert len(server.requests) == 1
