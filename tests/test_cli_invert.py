"""invert: its files, what reads them, pictures of any kind, Ctrl-C and users' errors."""

import json
from pathlib import Path

import pytest
import safetensors.torch
import torch
from PIL import Image
from tiny_checkpoint import write_tiny_checkpoint
from tiny_models import TinyGenerator

from clip2latent import cli, cli_invert
from clip2latent.images import read_metadata, read_picture, save_png, to_pil


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return str(write_tiny_checkpoint(tmp_path_factory.mktemp("tiny") / "tiny"))


@pytest.fixture(autouse=True)
def in_a_clean_folder(tmp_path, monkeypatch):
    """With a picture that the tiny generator drew, and one that is wide, in colours that it does not draw."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CLIP2LATENT_CACHE", str(tmp_path / "cache"))
    own = TinyGenerator().synthesize(torch.full((1, 3, 4), 0.3))
    save_png(to_pil(own)[0], Path("own.png"))
    Image.effect_noise((40, 20), 90).convert("RGB").save("wide.jpg")


def invert(*words, out="out", code=0):
    assert cli.main(["invert", *words, "--perceptual=crops", "--steps=30", "--out", out]) == code
    return json.loads(Path(out, "results.json").read_text()), json.loads(Path(out, "inversion.json").read_text())


def latents(folder):
    return safetensors.torch.load_file(f"{folder}/latents.safetensors")["latents"]


def test_pictures_become_results_that_the_edits_take(checkpoint, capsys):
    results, told = invert(str(Path("own.png").absolute()), "wide.jpg", "--checkpoint", checkpoint)
    said = capsys.readouterr().out
    assert "wide.jpg is 40 x 20: its middle square is taken, 20 pixels a side" in said and "own.png is" not in said
    assert results["prompts"] == ["own.png", "wide.jpg"] and latents("out").shape == (2, 1, 3, 4)
    assert all(Path("out", name).is_file() for name in results["files"])
    own, wide = told["pictures"]
    assert own["after"]["pixels"] < 0.2 * own["before"]["pixels"]
    assert all(sum(entry["after"].values()) < sum(entry["before"].values()) for entry in (own, wide))
    file = Path("out", results["images"][0]["file"])
    assert file.name == "000-own-png-0.png" and results["options"]["pictures"][0] == str(Path("own.png").absolute())
    assert read_metadata(file)["options"]["command"] == "invert"
    error = (read_picture(file) - read_picture("own.png")).square().mean()
    assert float(error) == pytest.approx(own["after"]["pixels"], abs=1e-3)
    assert cli.main(["interpolate", "out", "--video=none", "--frames=3", "--out", "way"]) == 0
    assert latents("way")[0, 0].equal(latents("out")[0, 0])
    assert cli.main(["edit", "out", "--truncation=0.5", "--out", "edited"]) == 0


def test_a_picture_comes_out_the_same_beside_others_and_again(checkpoint):
    invert("wide.jpg", "own.png", "--checkpoint", checkpoint, "--chunk=1")
    invert("own.png", "--checkpoint", checkpoint, out="alone")
    assert latents("out")[1].equal(latents("alone")[0])


def test_w_plus_meets_a_picture_more_closely(checkpoint):
    (alike,) = invert("wide.jpg", "--checkpoint", checkpoint, "--space=w")[1]["pictures"]
    (apart,) = invert("wide.jpg", "--checkpoint", checkpoint, out="apart")[1]["pictures"]
    assert sum(apart["after"].values()) < sum(alike["after"].values())
    assert not latents("apart")[0, 0, 0].equal(latents("apart")[0, 0, 1])
    assert latents("out")[0, 0, 0].equal(latents("out")[0, 0, 1])


def test_a_generator_without_a_prior_starts_at_random(checkpoint):
    for kind in ("Generator", "Embedder"):
        Path(f"{kind}.yaml").write_text(f"class_path: tiny_models.Tiny{kind}")
    models = ["--generator=Generator.yaml", "--embedder=Embedder.yaml", "--candidates=20"]
    results, told = invert("own.png", *models)
    assert results["models"]["generator"]["class_path"] == "tiny_models.TinyGenerator"
    assert "checkpoint" not in results["options"]
    assert told["pictures"][0]["after"]["pixels"] < 0.05 < told["pictures"][0]["before"]["pixels"]


def test_ctrl_c_writes_the_best_so_far(checkpoint, monkeypatch, capsys):
    watch = cli_invert._watch

    def interrupted(bar):
        show = watch(bar)

        def stop(state):
            show(state)
            if int(state.step) == 30:
                raise KeyboardInterrupt

        return stop

    monkeypatch.setattr(cli_invert, "_watch", interrupted)
    words = [
        "invert",
        "own.png",
        "wide.jpg",
        "--chunk=1",
        "--perceptual=crops",
        "--out=out",
        "--checkpoint",
        checkpoint,
    ]
    with pytest.raises(SystemExit) as end:
        cli.main(words)
    assert end.value.code == 130 and "1 pictures were not begun" in capsys.readouterr().err
    (entry,) = json.loads(Path("out/inversion.json").read_text())["pictures"]
    assert entry["after"]["pixels"] < entry["before"]["pixels"] and latents("out").shape[0] == 1
    assert json.loads(Path("out/results.json").read_text())["options"]["interrupted"] is True


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "no picture"),
        (["none.png"], "no picture none.png"),
        (["a smile"], "expected one picture file"),
        (["own.png | a smile::0.5"], "expected one picture file"),
        (["broken.png"], "cannot be read"),
        (["own.png", "--space=z"], "space"),
        (["own.png", "--perceptual=far"], "perceptual"),
        (["own.png", "--pixel_weight=-1"], "weights"),
        (["own.png", "--chunk=0"], "chunk"),
        (["own.png", "--candidates=0"], "candidates"),
        (["own.png", "--perceptual=features"], "--perceptual crops"),
    ],
)
def test_users_errors_are_one_line_and_write_nothing(checkpoint, words, message, capsys):
    Path("broken.png").write_text("no picture")
    assert cli.main(["invert", *words, "--out=out", "--checkpoint", checkpoint]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and message in error
    assert not Path("out").exists()
