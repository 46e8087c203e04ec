"""The commands that edit: their files, one another's results as their start, and one line for the user's errors."""

import json

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image
from tiny_checkpoint import write_tiny_checkpoint

from clip2latent import cli
from clip2latent.directions import load_direction


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    folder = tmp_path_factory.mktemp("places")
    np.save(folder / "up.npy", np.array([0.0, 1.0, 0.0, -1.0], dtype=np.float32))
    np.save(folder / "wide.npy", np.ones((1, 9), dtype=np.float32))
    checkpoint = write_tiny_checkpoint(folder / "tiny")
    made = str(folder / "made")
    assert cli.main(["generate", "a hat", "night", "--num=2", "--checkpoint", str(checkpoint), "--out", made]) == 0
    (folder / "prompts.txt").write_text("a hat\na dog\n")
    return {"checkpoint": str(checkpoint), "made": made, "here": str(folder)}


@pytest.fixture(autouse=True)
def in_a_clean_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def latents_of(folder):
    return safetensors.torch.load_file(f"{folder}/latents.safetensors")["latents"]


def test_edit_of_results_moves_their_latents_and_keeps_the_changed_images(places, tmp_path):
    words = ["edit", places["made"], "--directions", f"{places['here']}/up.npy=2", "--layers=1-", "--num=2"]
    assert cli.main([*words, "--columns=3", "--out", "out"]) == 0
    before, after = latents_of(places["made"]), latents_of("out")
    assert after.shape == (4, 1, 3, 4) and after[:, 0, 0].equal(before.flatten(0, 1)[:, 0])
    step = torch.tensor([0.0, 2.0, 0.0, -2.0])
    torch.testing.assert_close(after[:, 0, 1:], before.flatten(0, 1)[:, 1:] + step)
    record = json.loads((tmp_path / "out" / "results.json").read_text())
    assert sorted(record["files"]) == sorted(path.name for path in (tmp_path / "out").iterdir())
    assert record["prompts"] == ["a hat", "a hat", "night", "night"] and len(record["images"]) == 4
    assert record["options"]["checkpoint"] == places["checkpoint"] and record["options"]["command"] == "edit"
    Image.open(tmp_path / "out" / "grid.png").verify()


def test_an_edit_undone_is_the_image_before(places):
    up = f"{places['here']}/up.npy"
    assert cli.main(["edit", places["made"], "--directions", f"{up}=1.5", "--out", "there"]) == 0
    assert cli.main(["edit", "there", "--directions", f"{up}=-1.5", "--columns=1", "--out", "back"]) == 0
    torch.testing.assert_close(latents_of("back"), latents_of(places["made"])[:, :1])


def test_edit_of_a_prompt_towards_the_mean(places):
    words = ["edit", "a hat", "--checkpoint", places["checkpoint"], "--truncation=0", "--cutoff=2"]
    assert cli.main(words) == 0
    latents = latents_of("outputs/edit-a-hat-1")
    torch.testing.assert_close(latents[0, 0, :2], torch.full((2, 4), 0.5))
    assert not torch.allclose(latents[0, 0, 2], torch.full((4,), 0.5))


def test_mix_makes_every_pair(places):
    words = ["mix", places["made"], "a dog", "--layers=2", "--num=1", "--checkpoint", places["checkpoint"]]
    assert cli.main([*words, "--out", "out"]) == 0
    mixed, kept = latents_of("out"), latents_of(places["made"])
    assert mixed.shape == (2, 1, 3, 4) and mixed[:, 0, :2].equal(kept[:, 0, :2])
    assert mixed[0, 0, 2].equal(mixed[1, 0, 2]) and not mixed[0, 0, 2].equal(kept[0, 0, 2])


def test_mix_with_random_latents(places):
    assert cli.main(["mix", places["made"], "--layers=0", "--num=2", "--seed=3", "--out", "out"]) == 0
    assert latents_of("out").shape == (4, 2, 3, 4)
    assert cli.main(["mix", places["made"], "--layers=0", "--num=2", "--seed=3", "--out", "again"]) == 0
    assert latents_of("out").equal(latents_of("again"))


@pytest.mark.parametrize("sources", [["a hat", "a dog", "night"], ["{made}"], ["{made}", "a dog"]])
def test_interpolate_writes_a_strip_and_a_video(sources, places, tmp_path):
    sources = [word.format(**places) for word in sources]
    words = ["interpolate", *sources, "--frames=3", "--checkpoint", places["checkpoint"], "--out", "out"]
    assert cli.main(words) == 0
    stops = {1: 2, 2: 3, 3: 3}[len(sources)]
    assert latents_of("out").shape == (1, (stops - 1) * 2 + 1, 3, 4)
    with Image.open(tmp_path / "out" / "video.webp") as video:
        assert 1 < video.n_frames <= 4 * (stops - 1)  # frames that are equal count once
    record = json.loads((tmp_path / "out" / "results.json").read_text())
    assert record["options"]["through"] == ("embeddings" if len(sources) == 3 else "latents")


def test_interpolate_without_a_video(places, tmp_path):
    assert cli.main(["interpolate", places["made"], "--frames=2", "--video=none", "--out", "out"]) == 0
    assert not (tmp_path / "out" / "video.webp").exists()


def test_direction_finds_saves_and_is_taken_by_edit(places, tmp_path, capsys):
    words = ["direction", "--positive", "{here}/prompts.txt".format(**places), "--negative", "night; noon"]
    words += ["--num=8", "--checkpoint", places["checkpoint"], "--out", "day.safetensors"]
    assert cli.main(words) == 0
    assert "8 held-out samples: accuracy" in capsys.readouterr().out
    found = load_direction("day.safetensors")
    assert found.description["positive"] == ["a hat", "a dog"] and found.description["negative"] == ["night", "noon"]
    assert cli.main(["edit", places["made"], "--directions", "day.safetensors=0.5", "--out", "out"]) == 0
    step = latents_of("out")[:, 0] - latents_of(places["made"])[:, 0]
    torch.testing.assert_close(step, (0.5 * found.vector).expand(2, 3, 4), rtol=1e-4, atol=1e-5)
    assert cli.main(words) == 2 and cli.main([*words, "--overwrite"]) == 0


def test_a_direction_of_another_generator_is_said(places, capsys):
    from clip2latent.directions import Direction, save_direction

    save_direction(Direction(torch.ones(1, 4), {"name": "up", "generator": {"sha256": "0"}}), "up.safetensors")
    assert cli.main(["edit", places["made"], "--directions=up.safetensors", "--out", "out"]) == 0
    assert capsys.readouterr().err == "warning: direction up was found in the latents of another generator\n"


ERRORS = {
    "nothing to edit": (["edit"], "nothing to edit"),
    "no change": (["edit", "{made}"], "no change"),
    "unknown direction": (["edit", "{made}", "--directions=smyle=1"], "no direction 'smyle'"),
    "no strength": (["edit", "{made}", "--directions=smile=x"], "'smile=x'"),
    "another width": (["edit", "{made}", "--directions={here}/wide.npy"], "[1, 4] or [3, 4]"),
    "layers": (["edit", "{made}", "--directions={here}/up.npy", "--layers=3"], "from 0 to 2"),
    "cutoff": (["edit", "{made}", "--truncation=0", "--cutoff=4"], "from 0 to 2"),
    "columns": (["edit", "{made}", "--truncation=0", "--columns=0"], "columns=0"),
    "num": (["edit", "{made}", "--truncation=0", "--num=0"], "num=0"),
    "missing results": (["edit", "nope.safetensors", "--truncation=0"], "no latents nope.safetensors"),
    "another checkpoint": (["edit", "{made}", "--truncation=0", "--checkpoint=demo"], "(3, 4) (L, D)"),
    "mix nothing": (["mix"], "got 0"),
    "mix three": (["mix", "a", "b", "c"], "got 3"),
    "mix layers": (["mix", "{made}", "--layers=a"], "'a'"),
    "from one prompt": (["interpolate", "a hat"], "two or more"),
    "from nothing": (["interpolate"], "no prompt"),
    "one frame": (["interpolate", "{made}", "--frames=1"], "frames=1"),
    "embeddings of results": (["interpolate", "{made}", "a", "--through=embeddings"], "between texts only"),
    "missing picture": (["edit", "nope.png", "--truncation=0"], "no picture nope.png"),
    "another way": (["interpolate", "a", "b", "--through=z"], "embeddings or latents"),
    "another video": (["interpolate", "a", "b", "--video=gif"], ".webp or .mp4"),
    "fps": (["interpolate", "{made}", "--fps=0"], "fps=0"),
    "no positive prompts": (["direction", "--positive= ", "--negative=a", "--out=a.safetensors"], "no prompt"),
    "same prompts": (["direction", "--positive=a", "--negative=a", "--out=a.safetensors"], "the same"),
    "method": (["direction", "--positive=a", "--negative=b", "--out=a.safetensors", "--method=x"], "mean, separator"),
    "out": (["direction", "--positive=a", "--negative=b", "--out=a.npy"], ".safetensors"),
    "no out": (["direction", "--positive=a", "--negative=b"], "--out"),
}


@pytest.mark.parametrize("case", ERRORS)
def test_a_users_error_is_one_line_and_exit_code_2(case, places, tmp_path, capsys):
    args, message = ERRORS[case]
    assert cli.main([word.format(**places) for word in args]) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith("error: ") and printed.err.count("\n") == 1 and message in printed.err
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("command", ["edit", "mix", "interpolate", "direction"])
def test_help_teaches_every_option(command, capsys):
    with pytest.raises(SystemExit) as end:
        cli.main([command, "--help"])
    printed = capsys.readouterr().out
    assert not end.value.code and "--checkpoint" in printed and "--seed" in printed
