"""generate and remake: every way to say what to draw, one line for what is wrong with it, nothing half-written."""

import io
import json
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_checkpoint import write_tiny_checkpoint
from tiny_models import TinyGenerator

from clip2latent import cli, cli_generate
from clip2latent.images import read_metadata


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    folder = tmp_path_factory.mktemp("places")
    Image.fromarray(np.arange(12 * 9 * 3, dtype=np.uint8).reshape(12, 9, 3)).save(folder / "photo.png")
    (folder / "broken.png").write_text("no picture")
    (folder / "photo.jpg").write_bytes((folder / "photo.png").read_bytes()[:60])
    (folder / "clip.yaml").write_text("class_path: tiny_models.TinyEmbedder\ninit_args: {seed: 9}\n")
    (folder / "generator.yaml").write_text("class_path: tiny_models.TinyGenerator\n")
    (folder / "latin.txt").write_bytes(b"caf\xe9\n")
    spec = {"class_path": "nowhere.Generator", "init_args": {}}
    wide = {"class_path": "tiny_models.TinyGenerator", "init_args": {"size": 9}}
    return {
        "checkpoint": str(write_tiny_checkpoint(folder / "tiny")),
        "unguided": str(write_tiny_checkpoint(folder / "unguided", training={"condition_dropout": 0.0})),
        "unknown": str(write_tiny_checkpoint(folder / "unknown", generator=spec)),
        "unfit": str(write_tiny_checkpoint(folder / "unfit", generator=wide)),
        "here": str(folder),
    }


@pytest.fixture(autouse=True)
def in_a_clean_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def generate(places, *words, out="out"):
    """Runs generate on the tiny checkpoint and returns results.json."""
    options = [] if "--checkpoint" in words else ["--checkpoint", places["checkpoint"]]
    assert cli.main(["generate", *words, "--num=1", "--candidates=3", "--out", out, *options]) == 0
    with open(f"{out}/results.json", encoding="utf-8") as file:
        return json.load(file)


def latents(places, *words, out="out"):
    generate(places, *words, out=out)
    from safetensors.torch import load_file

    return load_file(f"{out}/latents.safetensors")["latents"]


def test_prompts_come_from_arguments_a_file_and_standard_input(places, tmp_path, monkeypatch):
    (tmp_path / "more.txt").write_text("night\n", encoding="utf-8")
    given = "\ufeffa hat\n\n  שלום \n".encode()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(given)))
    assert generate(places, "-", "--prompts-file", "more.txt")["prompts"] == ["a hat", "שלום", "night"]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(given)))
    assert generate(places, "a dog", "--prompts-file=-", out="two")["prompts"] == ["a dog", "a hat", "שלום"]


def test_a_template_a_mixture_and_a_picture_say_what_to_draw(places):
    filled = latents(places, "a photograph of a dog", out="one")
    assert latents(places, "a dog", "--template", "a photograph of {}", out="two").equal(filled)
    picture = f"{places['here']}/photo.png"
    strong = "--guidance=100"  # the tiny prior heeds its condition little
    drawn = [latents(places, prompt, strong, out=name) for name, prompt in (("a", "a hat"), ("b", picture))]
    ends = [f"a hat::{1 - share} | {picture}::{share}" for share in (0, 1)]
    for end, prompt, name in zip(drawn, ends, ("c", "d"), strict=True):
        torch.testing.assert_close(latents(places, prompt, strong, out=name), end, rtol=1e-3, atol=1e-3)
    assert not drawn[0].allclose(drawn[1], atol=1e-2)


def test_a_negative_prompt_changes_the_images_and_is_recorded(places):
    plain = latents(places, "a hat", "--guidance=100", out="one")
    away = latents(places, "a hat", "--guidance=100", "--negative", "night | a dog", out="two")
    assert not away.allclose(plain, atol=1e-2)
    assert read_metadata("two/000-a-hat-0.png")["options"]["negative"] == "night | a dog"


def test_another_clip_chooses_and_is_named(places, capsys):
    clip = f"{places['here']}/clip.yaml"
    record = generate(places, "a hat", "a dog", "--rank", clip)
    assert record["options"]["rank"] == clip and len(record["models"]["rank"]["sha256"]) == 64
    assert record["models"]["rank"]["sha256"] != record["models"]["embedder"]["sha256"]
    plain = generate(places, "a hat", "a dog", out="plain")
    assert [entry["score"] for entry in record["images"]] != [entry["score"] for entry in plain["images"]]
    printed = capsys.readouterr()
    assert f"scores by {clip}" in printed.out and printed.err == ""
    Path("same.yaml").write_text("class_path: tiny_models.TinyEmbedder\n")
    same = generate(places, "a hat", "a dog", "--rank=same.yaml", out="same")
    assert [entry["candidate"] for entry in same["images"]] == [entry["candidate"] for entry in plain["images"]]
    assert "warning: --rank names the CLIP that the prior is conditioned on" in capsys.readouterr().err


def test_augclip_chooses(places, capsys):
    record = generate(places, "a hat", "--rank", "augclip")
    assert "scores by augclip" in capsys.readouterr().out and record["options"]["rank"] == "augclip"
    plain = generate(places, "a hat", out="plain")
    assert [entry["score"] for entry in record["images"]] != [entry["score"] for entry in plain["images"]]


def test_every_option_and_model_is_in_the_file(places):
    words = ["--sampler=ddim", "--eta=0.5", "--spacing=lambda", "--guidance-interval=[5,40]", "--guidance-limit=3"]
    generate(places, "a hat", *words, "--guidance-rescale=0.5", "--seed=4", "--steps=6", "--truncation=0.9")
    metadata = read_metadata("out/000-a-hat-0.png")
    expected = {
        "checkpoint": places["checkpoint"],
        "num": 1,
        "candidates": 3,
        "guidance": 2.0,
        "steps": 6,
        "sampler": "ddim",
        "truncation": 0.9,
        "seed": 4,
        "template": "{}",
        "negative": None,
        "rank": None,
        "spacing": "lambda",
        "eta": 0.5,
        "guidance_rescale": 0.5,
        "guidance_interval": [5, 40],
        "guidance_limit": 3.0,
    }
    assert metadata["options"] == expected
    assert {"generator", "embedder", "prior", "space", "bridge"} <= set(metadata["models"])


def test_prior_drawing_and_scoring_have_a_bar_each(places, monkeypatch):
    done = {}

    class Bar:
        def __init__(self, name, total):
            done[name] = [total]

        __enter__, __exit__ = (lambda self: self), (lambda self, *_: None)

    def bar(name, total):
        made = Bar(name, total)
        made.update = done[name].append
        return made

    monkeypatch.setattr(cli_generate, "progress_bar", bar)
    generate(places, "a hat", "a dog", "--chunk=4")
    assert done == {"prior": [6, 4, 2], "drawing": [6, 4, 2], "scoring": [6, 4, 2]}


def test_remake_draws_a_picture_again_to_the_bit(places, capsys):
    picture = f"{places['here']}/photo.png"
    record = generate(places, "a hat", f"{picture} | a dog", "night", "--chunk=4", "--negative=x", "--sampler=ddpm")
    files = [entry["file"] for entry in record["images"]]
    for file in files:
        assert cli.main(["remake", f"out/{file}"]) == 0
        assert "bit for bit" in capsys.readouterr().out
        made = f"out/{file[:-4]}-remade.png"
        assert (np.asarray(Image.open(made)) == np.asarray(Image.open(f"out/{file}"))).all()
        assert read_metadata(made) == read_metadata(f"out/{file}")
    assert cli.main(["remake", f"out/{files[0]}"]) == 2
    assert "remade.png exists" in capsys.readouterr().err
    assert cli.main(["remake", f"out/{files[0]}", "--overwrite"]) == 0
    assert cli.main(["remake", f"out/{files[0]}", "--out", "nowhere/a.png"]) == 2
    assert "no folder" in capsys.readouterr().err


def test_a_chunk_that_does_not_fit_is_halved_and_said_so(places, monkeypatch, capsys):
    whole = latents(places, "a hat", "a dog", "--sampler=ddpm", "--chunk=2", out="one")
    synthesize = TinyGenerator.synthesize

    def small(self, rows):
        if len(rows) > 3:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return synthesize(self, rows)

    monkeypatch.setattr(TinyGenerator, "synthesize", small)
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        halved = latents(places, "a hat", "a dog", "--sampler=ddpm", "--chunk=5", out="two")
    assert halved.equal(whole)
    assert capsys.readouterr().err == "warning: out of memory: the chunk is halved to 2\n"


ERRORS = {
    "empty part": (["a hat |"], "empty part"),
    "no weight": (["a hat::x | a dog"], "'x' is not a weight"),
    "template without a place": (["a", "--template", "a photo"], "template='a photo'"),
    "empty negative": (["a", "--negative", ""], "prompt 1 of 1 is empty"),
    "negative without guidance": (["a", "--negative", "b", "--guidance=1"], "no effect at guidance 1"),
    "endless weight": (["a::" + "x" * 9000 + "|b"], "is not a weight"),
    "missing picture": (["nope.png"], "no picture nope.png"),
    "unreadable picture": (["{here}/broken.png"], "broken.png cannot be read: not a picture"),
    "half a picture": (["a | {here}/photo.jpg"], "photo.jpg cannot be read"),
    "missing embedder file": (["a", "--rank", "nope.yaml"], "nope.yaml"),
    "no embedder": (["a", "--rank", "{here}/generator.yaml"], "not an embedder"),
    "unknown rank": (["a", "--rank", "clip"], "rank='clip'"),
    "file that is not UTF-8": (["--prompts-file", "{here}/latin.txt"], "not a text file"),
    "unknown generator": (["a", "--checkpoint", "{unknown}"], "nowhere.Generator"),
    "generator that does not fit": (["a", "--checkpoint", "{unfit}"], "init_args"),
    "guidance never trained": (["a", "--checkpoint", "{unguided}", "--guidance=2"], "without condition dropout"),
    "unknown spacing": (["a", "--spacing=x"], "spacing='x'"),
    "eta of another sampler": (["a", "--eta=0.5"], "eta=0.5"),
    "interval of one": (["a", "--guidance-interval=[3]"], "guidance_interval"),
}


@pytest.mark.parametrize("case", ERRORS)
def test_a_users_error_is_one_line_and_exit_code_2(case, places, tmp_path, capsys):
    words, message = ERRORS[case]
    words = [word.format(**places) if "{" in word and word != "{}" else word for word in words]
    checkpoint = [] if "--checkpoint" in words else ["--checkpoint", places["checkpoint"]]
    assert cli.main(["generate", *words, *checkpoint]) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith("error: ") and printed.err.count("\n") == 1 and message in printed.err
    assert printed.out == "" and len(printed.err) < 1100 and not any(tmp_path.iterdir())


@pytest.mark.parametrize("error", [MemoryError(), torch.cuda.OutOfMemoryError("CUDA out of memory.")])
def test_running_out_of_memory_while_loading_is_one_line(error, places, tmp_path, capsys, monkeypatch):
    def full(*_):
        raise error

    monkeypatch.setattr(TinyGenerator, "__init__", full)
    assert cli.main(["generate", "a", "--checkpoint", places["checkpoint"]]) == 2
    printed = capsys.readouterr().err
    assert printed.startswith("error: out of memory") and printed.count("\n") == 1 and not any(tmp_path.iterdir())


def test_a_prior_never_trained_for_guidance_is_drawn_without(places):
    assert generate(places, "a", "--checkpoint", places["unguided"])["options"]["guidance"] == 1.0
    words = ["a", "--checkpoint", places["unguided"], "--negative=b", "--guidance=2"]
    assert generate(places, *words, out="two")["options"]["guidance"] == 2.0


@pytest.mark.parametrize("file", ["grid.png", "results.json", "none.png"])
def test_what_cannot_be_remade_is_named(file, places, capsys):
    generate(places, "a")
    capsys.readouterr()
    assert cli.main(["remake", f"out/{file}"]) == 2
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1 and f"out/{file}" in printed
