"""The convert command: a folder that gives the same images, and never half of one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from network_pickles import network_pickle
from safetensors.torch import load_file, save_file
from test_loading import FAMILIES, TINY, official, same_images

from clip2latent import cli
from clip2latent.convert import LICENCE, convert, save
from clip2latent.downloads import file_sha256
from clip2latent.generators import load_generator
from clip2latent.generators.stylegan2 import StyleGAN2


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("source") / "network.pkl"
    network = StyleGAN2(**TINY, mapping_kwargs={"num_layers": 2}, conv_clamp=None).eval()
    path.write_bytes(network_pickle(network, {**TINY, "mapping_kwargs": {"num_layers": 2}, "conv_clamp": None}))
    return path


@pytest.mark.parametrize("family", FAMILIES)
def test_a_converted_generator_draws_equal_images(family, tmp_path):
    weights, arguments, _ = official(family)
    folder = convert(str(weights), tmp_path / "out", family=family, arguments=arguments)
    assert same_images(load_generator(str(folder)), load_generator(str(weights), family=family, **arguments))
    again = convert(str(folder), tmp_path / "again")
    assert load_file(folder / "model.safetensors").keys() == load_file(again / "model.safetensors").keys()
    configs = [json.loads((path / "config.json").read_text()) for path in (folder, again)]
    assert configs[0]["init_args"] == configs[1]["init_args"]


def test_the_command_writes_the_folder_and_says_where_it_is_from(source, tmp_path, capsys):
    out = tmp_path / "out"
    assert cli.main(["convert", str(source), str(out), "--space", "w+"]) == 0
    assert sorted(path.name for path in out.iterdir()) == ["config.json", "model.safetensors"]
    config = json.loads((out / "config.json").read_text())
    assert config["class_path"] == "clip2latent.generators.stylegan2.StyleGAN2"
    assert config["init_args"]["space"] == "w+" and config["init_args"]["conv_clamp"] is None
    expected = {"name": str(source), "file": "network.pkl", "sha256": file_sha256(source), "licence": LICENCE}
    assert config["source"] == expected and str(out) in capsys.readouterr().out
    assert same_images(load_generator(str(out)), load_generator(str(source), space="w+"))


def test_what_a_file_does_not_say_is_given(tmp_path):
    torch.manual_seed(0)
    network = StyleGAN2(**TINY).eval()
    save_file(network.state_dict(), tmp_path / "weights.safetensors")
    command = ["convert", "--family", "stylegan2", str(tmp_path / "weights.safetensors"), str(tmp_path / "out")]
    assert cli.main([*command, "--arguments", json.dumps(TINY)]) == 0
    assert same_images(load_generator(str(tmp_path / "out")), network)


def test_a_folder_with_files_is_kept_unless_overwriting(source, tmp_path, capsys):
    out = tmp_path / "out"
    out.mkdir()
    (out / "config.json").write_text("mine")
    assert cli.main(["convert", str(source), str(out)]) == 2
    assert "not empty" in capsys.readouterr().err and (out / "config.json").read_text() == "mine"
    assert cli.main(["convert", "--overwrite", str(source), str(out)]) == 0
    assert load_generator(str(out)).resolution == 8


def test_a_failure_leaves_nothing(source, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("clip2latent.convert.write_json", lambda *args: (_ for _ in ()).throw(OSError("disk full")))
    assert cli.main(["convert", str(source), str(tmp_path / "out")]) == 2
    assert "disk full" in capsys.readouterr().err and not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["{source}"], "out"),
        (["nowhere", "{out}"], "nowhere"),
        (["{source}", "{out}", "--sha256", "0" * 64], "sha256"),
        (["{source}", "{out}", "--famly", "sagan"], "did you mean --family?"),
        (["{source}", "{out}", "--arguments", '{{"w_dim": 5}}'], "w_dim"),
        (["https://host.invalid/weights.pkl", "{out}", "--offline"], "offline: https://host.invalid/weights.pkl"),
        (["hf://owner/name/weights.pkl", "--offline", "{out}"], "offline: hf://owner/name/weights.pkl"),
    ],
)
def test_errors_are_one_line(words, message, source, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("CLIP2LATENT_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("CLIP2LATENT_OFFLINE", raising=False)
    out = tmp_path / "out"
    assert cli.main(["convert", *(word.format(source=source, out=out) for word in words)]) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith("error: ") and printed.err.count("\n") == 1 and message in printed.err
    assert not any(tmp_path.iterdir())
    assert "CLIP2LATENT_OFFLINE" not in os.environ


def test_help_is_instant():
    script = (
        "import sys; from clip2latent.cli import main\n"
        "try: main(['convert', '--help'])\n"
        "except SystemExit as end: assert not end.code\n"
        "assert not {'torch', 'numpy', 'huggingface_hub'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=Path(__file__).parents[1])
    assert done.returncode == 0, done.stderr
    for option in ("source", "out", "--family", "--preset", "--offline", "--overwrite", "--arguments"):
        assert option in done.stdout


def test_a_module_without_arguments_cannot_be_saved(tmp_path):
    with pytest.raises(ValueError, match="no init_args"):
        save(torch.nn.Linear(1, 1), tmp_path, {})
