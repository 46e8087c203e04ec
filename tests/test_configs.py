"""Every file in configs/ is read by the command it is for."""

import contextlib
import importlib
import inspect
import io
import json
from pathlib import Path
from unittest import mock

import pytest
import yaml

from clip2latent.assets import names
from clip2latent.captions import read_captions
from clip2latent.downloads import is_remote
from clip2latent.generators import load_generator
from clip2latent.generators.loading import family_module, find_preset
from clip2latent.prompts import read_prompts
from clip2latent.spec import ModelSpec
from datagen.__main__ import build_parser

CONFIGS = Path(__file__).parents[1] / "configs"
FILES = sorted(path for path in CONFIGS.rglob("*") if path.is_file())


def read_model(path: Path) -> None:
    spec = ModelSpec.from_dict(yaml.safe_load(path.read_text(encoding="utf-8")))
    module, _, name = spec.class_path.rpartition(".")
    inspect.signature(getattr(importlib.import_module(module), name)).bind(**spec.init_args)


def read_datagen(path: Path) -> None:
    options = build_parser().parse_args(["--config", str(path), "--out", "nowhere"])
    for model in (options.generator, options.embedder):
        assert model.record["class_path"]


def read_train(path: Path) -> None:
    from clip2latent import cli_train

    printed = io.StringIO()
    # LightningCLI warns of arguments given beside those of the process.
    with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit), mock.patch("sys.argv", ["train.py"]):
        assert cli_train.main(["fit", "--config", str(path), "--data.path", "nowhere", "--print_config"]) in (None, 0)
    settings = yaml.safe_load(printed.getvalue())
    given = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert settings["data"]["path"] == "nowhere" and set(given) <= set(settings)


def read_prompt_file(path: Path) -> None:
    prompts = read_prompts(path)
    assert prompts and all(prompt.text.strip() for prompt in prompts)


def read_sample(path: Path) -> None:
    given = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert is_remote(given["checkpoint"]) and is_remote(given["config"])
    for role in ("generator", "embedder"):
        read_model(path.parent / given[role])


def read_caption_file(path: Path) -> None:
    captions = list(read_captions(path))
    assert captions and all(caption.text for caption in captions)


READERS = {
    "generator": read_model,
    "embedder": read_model,
    "datagen": read_datagen,
    "train": read_train,
    "prompts": read_prompt_file,
    "sample": read_sample,
    "evaluate": read_caption_file,
}


def test_there_is_a_demo_for_every_command():
    assert {"generator/demo.yaml", "embedder/demo.yaml", "datagen/demo.yaml", "train/demo.yaml"} <= {
        path.relative_to(CONFIGS).as_posix() for path in FILES
    }


@pytest.mark.parametrize("path", sorted((CONFIGS / "generator").glob("*.yaml")), ids=lambda path: path.stem)
def test_a_generators_source_and_preset_exist(path, tmp_path, monkeypatch):
    """As far as it can be told without the network: a name, or a well-formed address or path of what is not here."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CLIP2LATENT_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    arguments = yaml.safe_load(path.read_text(encoding="utf-8"))["init_args"]
    if arguments["source"] in names():
        assert load_generator(**arguments).resolution
        return
    with pytest.raises(FileNotFoundError, match="offline" if is_remote(arguments["source"]) else arguments["source"]):
        load_generator(**arguments, offline=True)
    if "preset" in arguments:
        family, preset = find_preset(arguments["preset"])
        with pytest.raises(ValueError, match="missing"):
            family_module(family).from_official({}, **preset)
    else:
        assert arguments["source"].endswith(".pkl")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(CONFIGS).as_posix())
def test_config_is_read(path):
    folder = path.relative_to(CONFIGS).parts[0]
    assert folder in READERS, f"configs/{folder} has no reader here: which command reads {path.name}?"
    READERS[folder](path)


def test_the_papers_prompts_for_evaluation_are_those_of_its_appendix_b():
    """64 prompts, of which 45 could be given to DALL-E 2; plain in configs/prompts."""
    records = [json.loads(line) for line in (CONFIGS / "evaluate/faces-64.jsonl").read_text().splitlines()]
    assert [record["prompt"] for record in records] == [
        p.text for p in read_prompts(CONFIGS / "prompts/faces-test.txt")
    ]
    accepted = [record["prompt"] for record in records if record["dalle2"]]
    assert len(records) == 64 and len(accepted) == 45
    assert accepted == [prompt.text for prompt in read_prompts(CONFIGS / "evaluate/faces-dalle2.txt")]
