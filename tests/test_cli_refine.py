"""refine and generate --refine: their files, one another's results as sources, Ctrl-C, going on, and users' errors."""

import json
from pathlib import Path

import pytest
import safetensors.torch
import torch
from PIL import Image
from tiny_checkpoint import write_tiny_checkpoint

from clip2latent import cli, cli_refine_run
from clip2latent.images import read_metadata

QUICK = ["--steps=20", "--lr=0.05", "--views=4", "--basis=2"]


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    folder = tmp_path_factory.mktemp("places")
    checkpoint = str(write_tiny_checkpoint(folder / "tiny"))
    made = str(folder / "made")
    assert cli.main(["generate", "a hat", "night", "--num=4", "--checkpoint", checkpoint, "--out", made]) == 0
    latents = safetensors.torch.load_file(f"{made}/latents.safetensors")["latents"]
    safetensors.torch.save_file({"latents": latents}, folder / "bare.safetensors")
    return {"checkpoint": checkpoint, "made": made, "bare": str(folder / "bare.safetensors"), "here": str(folder)}


@pytest.fixture(autouse=True)
def in_a_clean_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def refine(places, *words, out="out"):
    """Runs refine and returns results.json."""
    options = QUICK if not any(word.startswith("--resume") for word in words) else []
    named = ["--checkpoint", places["checkpoint"], "--out", out] if options else []
    assert (
        cli.main(["refine", *words, *named, *[word for word in options if word.split("=")[0] not in str(words)]]) == 0
    )
    return json.loads(Path(f"{out}/results.json").read_text())


def tensors(folder, name="latents"):
    return safetensors.torch.load_file(f"{folder}/{name}.safetensors")


def test_prompts_are_drawn_refined_and_written_as_generate_does(places, capsys):
    record = refine(places, "a hat", "night", "--num=2")
    assert tensors("out")["latents"].shape == (2, 2, 3, 4)
    files = [entry["file"] for entry in record["images"]]
    assert files == ["000-a-hat-0.png", "000-a-hat-1.png", "001-night-0.png", "001-night-1.png"]
    assert all(Path("out", name).is_file() for name in record["files"])
    metadata = read_metadata(Path("out", files[0]))
    assert metadata["prompt"] == "a hat" and metadata["options"]["refine"]["refining"]["steps"] == 20
    told = json.loads(Path("out/refining.json").read_text())["images"]
    assert [entry["after"] for entry in told] == [entry["score"] for entry in record["images"]]
    assert all(entry["after"] > entry["before"] for entry in told)
    assert "AugCLIP" in capsys.readouterr().out


def test_a_run_is_reproducible_and_seeds_differ(places):
    words = ["a hat", "--noise=0.01"]
    (
        refine(places, *words, out="one"),
        refine(places, *words, out="two"),
        refine(places, *words, "--seed=1", out="three"),
    )
    assert tensors("one")["latents"].equal(tensors("two")["latents"])
    assert not tensors("one")["latents"].allclose(tensors("three")["latents"])


def test_results_are_refined_towards_their_own_prompts_or_another(places):
    record = refine(places, places["made"])
    assert record["prompts"] == ["a hat", "night"] and tensors("out", "refining")["task.basis"].shape == (2, 2, 3, 4)
    made = tensors(places["made"])["latents"]
    assert tensors("out", "refining")["task.basis"].equal(made[:, :2])
    other = refine(places, places["made"], "a dog", "--towards", "a red dog", out="other")
    assert other["prompts"] == ["a red dog"] * 3
    bare = refine(places, places["bare"], "--towards", "night", "--num=4", out="bare")
    assert bare["prompts"] == ["night"] * 2 and tensors("bare")["latents"].shape == (2, 4, 3, 4)


def test_refined_results_are_sources_of_the_other_commands(places):
    refine(places, "a hat", out="refined-a"), refine(places, "night", out="refined-b")
    assert cli.main(["interpolate", "refined-a", "refined-b", "--frames=4", "--out", "way"]) == 0
    way = tensors("way")["latents"]
    ends = [tensors(name)["latents"][0, 0] for name in ("refined-a", "refined-b")]
    torch.testing.assert_close(way[0, [0, -1]], torch.stack(ends))
    assert Path("way/video.webp").is_file() and Path("way/grid.png").is_file()
    assert cli.main(["edit", "refined-a", "--truncation=0.5", "--out", "edited"]) == 0
    assert json.loads(Path("edited/results.json").read_text())["prompts"] == ["a hat"]
    assert refine(places, "refined-a", out="twice")["prompts"] == ["a hat"]


def test_generate_refines_too(places):
    words = ["generate", "a hat", "--checkpoint", places["checkpoint"], "--num=2", "--refine=10", "--out", "out"]
    assert cli.main(words) == 0
    record = json.loads(Path("out/results.json").read_text())
    assert len(record["images"]) == 2 and record["options"]["num"] == 2 and record["options"]["candidates"] == 16
    assert record["options"]["refine"]["refining"]["steps"] == 10 and record["options"]["steps"] == 8
    plain = ["refine", "a hat", "--checkpoint", places["checkpoint"], "--num=2", "--steps=10", "--out", "plain"]
    assert cli.main(plain) == 0
    torch.testing.assert_close(tensors("out")["latents"], tensors("plain")["latents"])
    assert cli.main(["refine", "--resume", "out", "--steps=12"]) == 0
    assert json.loads(Path("out/results.json").read_text())["options"]["refine"]["done"] == 12


def test_pictures_are_drawn_on_the_way_when_asked(places):
    refine(places, "a hat", "night", "--every=8")
    assert sorted(path.name for path in Path("out").glob("step-*")) == ["step-00008.png", "step-00016.png"]
    plain = Image.open("out/grid.png").size
    assert Image.open("out/step-00016.png").size == plain
    refine(places, "a hat", "--overwrite")
    assert not list(Path("out").glob("step-*"))  # of other prompts


class Bar:
    """Records what a bar is told; presses Ctrl-C after `patience` updates."""

    def __init__(self, patience=None):
        self.total, self.updates, self.told, self.patience = 0, [], [], patience

    def __call__(self, name, total):
        self.total = total
        return self

    __enter__, __exit__ = (lambda self: self), (lambda self, *_: None)

    def update(self, done):
        self.updates.append(done)

    def set_postfix(self, **told):
        self.told.append(told)
        if self.patience is not None and len(self.told) > self.patience:
            raise KeyboardInterrupt


def test_progress_tells_score_best_and_images(places, monkeypatch):
    bar = Bar()
    monkeypatch.setattr(cli_refine_run, "progress_bar", bar)
    refine(places, places["made"])
    assert bar.total == 40 and sum(bar.updates) == 40 and len(bar.told) == 21
    best = [float(told["best"]) for told in bar.told]
    assert best == sorted(best) and best[-1] > best[0] and all("score" in told for told in bar.told)


def test_ctrl_c_keeps_the_best_so_far_and_says_how_to_go_on(places, monkeypatch, capsys):
    refine(places, "a hat", out="whole")
    monkeypatch.setattr(cli_refine_run, "progress_bar", Bar(patience=13))
    words = ["refine", "a hat", *QUICK, "--checkpoint", places["checkpoint"], "--out", "out"]
    with pytest.raises(SystemExit) as end:
        cli.main(words)
    assert end.value.code == 130
    assert "interrupted after 13 of 20 steps" in (said := capsys.readouterr().err) and "--resume out" in said
    best = json.loads(Path("out/results.json").read_text())["images"][0]["score"]
    assert Path("out/000-a-hat-0.png").is_file() and Path("out/grid.png").is_file()
    monkeypatch.setattr(cli_refine_run, "progress_bar", Bar())
    assert cli.main(["refine", "--resume", "out"]) == 0
    assert tensors("out")["latents"].equal(tensors("whole")["latents"])
    assert json.loads(Path("out/results.json").read_text())["images"][0]["score"] >= best
    assert cli.main(["refine", "--resume", "out"]) == 2
    assert "has done 20 of 20 steps" in capsys.readouterr().err


def test_a_run_that_is_killed_goes_on_from_its_last_saved_state(places, monkeypatch):
    refine(places, "a hat", out="whole")

    class Killed(Exception):
        pass

    def killed(self, state):
        if state.step == 11:
            raise Killed
        self.save(state)

    monkeypatch.setattr(cli_refine_run._Watch, "__call__", killed)
    with pytest.raises(Killed):
        cli.main(["refine", "a hat", *QUICK, "--checkpoint", places["checkpoint"], "--out", "out"])
    monkeypatch.setattr(cli_refine_run._Watch, "__call__", lambda self, state: None)
    assert cli.main(["refine", "--resume", "out"]) == 0
    assert tensors("out")["latents"].equal(tensors("whole")["latents"])


def test_a_loss_that_is_no_number_is_said_and_the_best_is_written(places, monkeypatch, capsys):
    from tiny_models import TinyEmbedder

    embed, calls = TinyEmbedder.embed_images, []

    def breaking(self, images):
        calls.append(images.requires_grad)
        return embed(self, images) * (float("nan") if sum(calls) > 12 and images.requires_grad else 1.0)

    monkeypatch.setattr(TinyEmbedder, "embed_images", breaking)
    record = refine(places, "a hat")
    assert "warning: 'a hat': a loss was not a number" in capsys.readouterr().err
    told = json.loads(Path("out/refining.json").read_text())["images"][0]
    assert told["stopped"] == "not a number" and record["images"][0]["score"] == told["after"] > told["before"]


ERRORS = {
    "nothing to refine": (["refine"], "nothing to refine"),
    "num": (["refine", "a", "--num=0"], "num=0"),
    "steps": (["refine", "a", "--steps=-1"], "steps=-1"),
    "weights": (["refine", "a", "--weights=all"], "weights='all'"),
    "space": (["refine", "a", "--space=z"], "space='z'"),
    "pull_to": (["refine", "a", "--pull-to=w"], "pull_to='w'"),
    "every": (["refine", "a", "--every=0"], "every=0"),
    "few candidates": (["refine", "a", "--num=3", "--candidates=2"], "num=3: expected at most 2"),
    "few results": (["refine", "{made}", "--num=5"], "num=5: expected at most 4"),
    "no prompt known": (["refine", "{bare}"], "by --towards"),
    "missing results": (["refine", "nope.safetensors"], "no latents nope.safetensors"),
    "nothing to resume": (["refine", "--resume=nowhere"], "no refinement to go on with in nowhere"),
    "not a refinement": (["refine", "--resume={made}"], "has no refining.json"),
    "resume with sources": (["refine", "a", "--resume=nowhere"], "leave 'a' out"),
    "steps of generate": (["generate", "a", "--refine=-1"], "steps=-1"),
}


@pytest.mark.parametrize("case", ERRORS)
def test_a_users_error_is_one_line_and_exit_code_2(case, places, tmp_path, capsys):
    args, message = ERRORS[case]
    checkpoint = [] if any("--resume" in word for word in args) else ["--checkpoint", places["checkpoint"]]
    assert cli.main([*[word.format(**places) for word in args], *checkpoint]) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith("error: ") and printed.err.count("\n") == 1 and message in printed.err
    assert not any(tmp_path.iterdir())


def test_a_damaged_state_and_another_generator_are_refused(places, capsys):
    refine(places, "a hat")
    whole = Path("out/refining.json").read_text()
    record = json.loads(whole)
    record["models"]["generator"]["sha256"] = "0" * 64
    Path("out/refining.json").write_text(json.dumps(record))
    assert cli.main(["refine", "--resume", "out", "--steps=30"]) == 2
    assert "another generator" in capsys.readouterr().err
    for damage in (whole[:50], whole.replace('"views"', '"news"'), whole.replace('"a hat"', '"a hat", "b"', 1)):
        Path("out/refining.json").write_text(damage)
        assert cli.main(["refine", "--resume", "out", "--steps=30"]) == 2
        assert "cannot be read" in capsys.readouterr().err
    Path("out/refining.json").write_text(whole)
    Path("out/refining.safetensors").write_bytes(b"no tensors")
    assert cli.main(["refine", "--resume", "out", "--steps=30"]) == 2
    assert "cannot be read" in capsys.readouterr().err


def test_help_teaches_every_option(capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(["refine", "--help"])
    printed = capsys.readouterr().out
    assert not end.value.code and "--towards" in printed and "--resume" in printed


def test_results_of_a_search_are_refined_without_a_prior(places, monkeypatch, capsys):
    for name, kind in (("generator", "TinyGenerator"), ("clip", "TinyEmbedder")):
        Path(f"{name}.yaml").write_text(f"class_path: tiny_models.{kind}\n")
    models = ["--generator=generator.yaml", "--embedder=clip.yaml", "--bank=off"]
    assert cli.main(["search", "a hat", "night", *models, "--num=4", "--candidates=20", "--out=found"]) == 0
    assert cli.main(["refine", "found", *QUICK, "--out=out"]) == 0
    record = json.loads(Path("out/results.json").read_text())
    assert record["prompts"] == ["a hat", "night"] and "checkpoint" not in record["options"]
    assert record["models"]["generator"]["class_path"] == "tiny_models.TinyGenerator"
    assert tensors("out", "refining")["task.basis"].equal(tensors("found")["latents"][:, :2])
    assert all(
        entry["after"] > entry["before"] for entry in json.loads(Path("out/refining.json").read_text())["images"]
    )
    assert cli.main(["refine", "--resume=out", "--steps=25"]) == 0
    assert cli.main(["refine", "out", *QUICK, "--out=again"]) == 0
    assert json.loads(Path("again/results.json").read_text())["options"]["generator"] == "generator.yaml"
    capsys.readouterr()
    assert cli.main(["refine", "found", places["made"], *QUICK, "--out=mixed"]) == 2
    assert "results of the same models only" in capsys.readouterr().err
