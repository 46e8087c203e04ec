"""The command that composes: its files, one another's results as their start, and one line for the user's errors."""

import json

import pytest
import torch
from PIL import Image
from tiny_models import TinyEmbedder, TinyGenerator

from clip2latent import cli, generators, ranking
from clip2latent.images import read_metadata
from clip2latent.saved import read_saved

SHORT = ["--steps=4", "--candidates=20", "--views=2", "--perceptual=crops", "--scales=[0.25,0.5]"]


def load_tiny(source: str) -> TinyGenerator:
    return TinyGenerator(seed=len(source))


def load_another(source: str) -> TinyGenerator:
    return TinyGenerator(seed=99)


@pytest.fixture(autouse=True)
def tiny_models(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CLIP2LATENT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(generators, "load_generator", load_tiny)
    monkeypatch.setattr(ranking, "load_ranker", lambda source: TinyEmbedder())


def run(*words):
    return cli.main(["compose", *words])


def test_a_composition_and_all_that_was_tried_are_written(tmp_path, capsys):
    assert run("a hat and a dog", "--foreground", "a hat", *SHORT, "--locations=[top,left]") == 0
    folder = tmp_path / "outputs" / "compose-a-hat-and-a-dog-1"
    record = json.loads((folder / "results.json").read_text())
    assert sorted(record["files"]) == sorted(path.name for path in folder.iterdir())
    assert record["prompts"] == ["a hat and a dog"] and len(record["candidates"]) == 4
    options = record["options"]
    assert (options["foreground"], options["background"]) == ("a hat", "a hat and a dog")
    best = record["images"][0]
    metadata = read_metadata(folder / best["file"])
    assert metadata["prompt"] == "a hat and a dog" and metadata["options"] == options
    assert {name: metadata[name] for name in ("scale", "location", "score", "perceptual")}.items() <= best.items()
    assert record["candidates"][0].items() <= best.items() and best["steps"] == 4
    for name in (best["file"], "foreground.png", "background.png", "grid.png"):
        Image.open(folder / name).verify()
    saved = read_saved(folder / "foreground.safetensors")
    assert saved.labels == ["a hat and a dog"] and saved.latents.shape == (1, 4, 3, 4)
    assert saved.generator == record["models"]["background"]
    printed = capsys.readouterr().out
    assert "AugCLIP score" in printed and "grid.png" in printed


def test_a_seed_gives_the_same_picture_and_another_does_not():
    for out, seed in (("one", 3), ("two", 3), ("other", 4)):
        assert run("a hat", *SHORT, "--locations=[centre]", f"--seed={seed}", "--out", out) == 0
    one, two, other = (read_saved(f"{out}/background.safetensors").latents for out in ("one", "two", "other"))
    assert one.equal(two) and not one.equal(other)


def test_results_are_sources_and_nothing_is_overwritten(tmp_path, capsys):
    assert run("a hat", *SHORT, "--locations=[centre]", "--out", "one") == 0
    words = ["--foreground", "one/foreground.safetensors", "--foreground_generator", "other-tiny", "--steps=0"]
    assert run("a dog", *SHORT, *words, "--basis=1", "--locations=[centre]", "--out", "two") == 0
    before, after = (read_saved(f"{name}/foreground.safetensors").latents[0, 0] for name in ("one", "two"))
    torch.testing.assert_close(before, after)
    record = json.loads((tmp_path / "two" / "results.json").read_text())
    assert "generator" not in record["models"] and record["models"]["foreground"] != record["models"]["background"]
    assert run("a dog", *SHORT, "--out", "two") == 2
    assert "not empty" in capsys.readouterr().err


def test_an_interruption_writes_the_best_so_far(tmp_path, capsys, monkeypatch):
    from clip2latent import compose

    calls = iter(range(100))
    advance = compose._Search.advance

    def interrupted(self, *state):
        if next(calls) == 2:
            raise KeyboardInterrupt
        return advance(self, *state)

    monkeypatch.setattr(compose._Search, "advance", interrupted)
    with pytest.raises(SystemExit) as end:
        run("a hat", *SHORT, "--out", "cut")
    assert end.value.code == 130
    record = json.loads((tmp_path / "cut" / "results.json").read_text())
    assert record["options"]["interrupted"] and len(record["candidates"]) == 18
    assert "interrupted: the best so far was written; sample.py compose --resume cut goes on" in capsys.readouterr().err
    monkeypatch.setattr(compose._Search, "advance", advance)
    assert run("--resume=cut", "--every=20") == 0
    assert run("a hat", *SHORT, "--out", "whole") == 0
    for name in ("foreground", "background"):  # to the bit, as if it had never been stopped
        ended, whole = (read_saved(f"{out}/{name}.safetensors").latents for out in ("cut", "whole"))
        assert ended.equal(whole)
    records = [json.loads((tmp_path / out / "results.json").read_text()) for out in ("cut", "whole")]
    assert records[0]["candidates"] == records[1]["candidates"] and not records[0]["options"]["interrupted"]
    assert (tmp_path / "cut" / "step-00020.png").is_file() and not list((tmp_path / "cut").glob("composing.*"))
    assert run("--resume=cut") == 2 and "no composition to go on with" in capsys.readouterr().err


def test_a_killed_composition_goes_on_from_what_was_saved_and_with_its_own_models_only(tmp_path, capsys, monkeypatch):
    from clip2latent import cli_compose_run, compose

    calls, advance = iter(range(100)), compose._Search.advance

    def killed(self, *state):
        if next(calls) == 3:
            raise RuntimeError("killed")
        return advance(self, *state)

    words = ["a hat", *SHORT, "--locations=[left,right]", "--chunk=2"]
    with monkeypatch.context() as patched:
        patched.setattr(compose._Search, "advance", killed)
        patched.setattr(cli_compose_run, "SAVE_EVERY", -1)
        with pytest.raises(RuntimeError, match="killed"):
            run(*words, "--out", "cut")
    assert not (tmp_path / "cut" / "results.json").exists()
    with monkeypatch.context() as patched:
        patched.setattr(generators, "load_generator", load_another)
        assert run("--resume=cut") == 2 and "began with another" in capsys.readouterr().err
    record = json.loads((tmp_path / "cut" / "composing.json").read_text())
    assert run("--resume=cut") == 0 and run(*words, "--out", "whole") == 0
    ended, whole = (read_saved(f"{out}/foreground.safetensors").latents for out in ("cut", "whole"))
    assert ended.equal(whole)
    (tmp_path / "cut" / "composing.json").write_text(json.dumps({**record, "placements": [[2, "left"]]}))
    assert run("--resume=cut") == 2 and "no composition to go on with" in capsys.readouterr().err
    (tmp_path / "cut" / "composing.safetensors").write_text("damaged")
    assert run("--resume=cut") == 2 and "cannot be read" in capsys.readouterr().err


ERRORS = {
    "no prompt": ([" "], "empty"),
    "nothing": ([], "nothing to compose"),
    "both": (["a hat", "--resume=out"], "leave 'a hat' out"),
    "nowhere": (["--resume=none"], "no composition to go on with"),
    "edges": (["a hat", "--edges=round"], "edges='round': expected one of hard, soft, seamless"),
    "every": (["a hat", "--every=0"], "every=0"),
    "way": (["a hat", "--way=both"], "way='both'"),
    "perceptual": (["a hat", "--perceptual=eyes"], "features, crops, lpips"),
    "no features": (["a hat", "--perceptual=features"], "--perceptual crops"),
    "scale": (["a hat", "--scales=[1.5]"], "scale=1.5"),
    "location": (["a hat", "--locations=[middle]"], "location='middle'"),
    "basis": (["a hat", "--basis=9", "--candidates=4"], "basis=9"),
    "no such latents": (["a hat", "--foreground=none.safetensors", "--perceptual=crops"], "no latents"),
}


@pytest.mark.parametrize("case", ERRORS)
def test_a_users_error_is_one_line_and_exit_code_2(case, tmp_path, capsys):
    words, message = ERRORS[case]
    assert run(*words, "--out", "out") == 2
    printed = capsys.readouterr()
    assert printed.err.startswith("error: ") and printed.err.count("\n") == 1 and message in printed.err
    assert not (tmp_path / "out").exists()


def test_help_teaches_every_option(capsys):
    with pytest.raises(SystemExit) as end:
        run("--help")
    printed = capsys.readouterr().out
    assert not end.value.code and "--foreground" in printed and "--perceptual" in printed
