"""The web page's work on tiny models: the files are the command line's, pictures are remade, optimisations stop."""

import importlib.util
import io
import json
import re
import subprocess
import sys
import zipfile

import pytest
import torch
from PIL import Image
from tiny_checkpoint import write_tiny_checkpoint

from clip2latent import cli
from clip2latent.directions import Direction, save_direction
from clip2latent.images import read_metadata, read_recipe
from clip2latent.remake import remake
from clip2latent.text2image import TextToImage
from clip2latent.web import optimising
from clip2latent.web.outcome import Stopped, Watch
from clip2latent.web.pictures import encode
from clip2latent.web.requests import Compose, Draw, Edit, Mix, Options, Picture, Refine
from clip2latent.web.studio import Studio, make_offer
from clip2latent.web.worker import Worker


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    folder = tmp_path_factory.mktemp("web")
    one = str(write_tiny_checkpoint(folder / "one", "tiny_checkpoint.ChoosyEmbedder"))
    return one, str(write_tiny_checkpoint(folder / "two", guidance=1.0))


@pytest.fixture(scope="module")
def studio(sources, tmp_path_factory):
    file = tmp_path_factory.mktemp("direction") / "up.safetensors"
    save_direction(Direction(torch.ones(1, 4), {"name": "up"}), file)
    return Studio(make_offer(sources, ["demo-objects"], [str(file)]), "cpu")


def files(outcome):
    with zipfile.ZipFile(io.BytesIO(outcome.archive)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def pixels(png):
    return Image.open(io.BytesIO(png)).tobytes()


@pytest.mark.parametrize(
    ("options", "flags"),
    [
        (Options(num=2, candidates=5, seed=3), ["--num", "2", "--candidates", "5", "--seed", "3"]),
        (
            Options(num=1, candidates=3, guidance=3, steps=4, truncation=0.5, negative="a hat"),
            ["--num=1", "--candidates=3", "--guidance=3", "--steps=4", "--truncation=0.5", "--negative=a hat"],
        ),
    ],
)
def test_a_drawing_is_what_the_command_line_writes(studio, sources, tmp_path, options, flags):
    prompts = ("a red hat", "a dog | a cat::0.5")
    outcome = studio.run(Draw(sources[0], prompts, options))
    folder = tmp_path / "out"
    assert cli.main(["generate", *prompts, "--checkpoint", sources[0], "--out", str(folder), *flags]) == 0
    ours = files(outcome)
    assert sorted(ours) == sorted(path.name for path in folder.iterdir())
    for path in folder.glob("*.png"):
        copy = tmp_path / path.name
        copy.write_bytes(ours[path.name])
        assert pixels(ours[path.name]) == pixels(path.read_bytes())
        assert read_metadata(copy) == read_metadata(path)
        if path.name != "grid.png":
            assert read_recipe(copy) == read_recipe(path)
    assert ours["latents.safetensors"] == (folder / "latents.safetensors").read_bytes()
    names = [entry["file"] for entry in json.loads(ours["results.json"])["images"]]
    assert [shot.name for shot in outcome.shots] == names and all(ours[shot.name] == shot.png for shot in outcome.shots)
    assert {shot.heading for shot in outcome.shots} == set(prompts) and "never saw 'dog'" in outcome.note


def test_a_picture_is_a_part_of_the_prompt_and_can_be_remade(studio, sources, tmp_path):
    picture = Picture(encode(Image.effect_noise((16, 16), 60)), 2.0)
    plain = studio.run(Draw(sources[0], ("a red hat",), Options(num=1)))
    outcome = studio.run(Draw(sources[0], ("a red hat",), Options(num=1), picture))
    assert outcome.shots[0].png != plain.shots[0].png
    assert [shot.name for shot in outcome.shots] == ["000-picture-2-a-red-hat-0.png"]
    for name, content in files(outcome).items():
        assert not re.search(rb"clip2latent-(?!recipe)", content), f"{name} names the server's temporary folder"
    file = tmp_path / "downloaded.png"
    file.write_bytes(outcome.shots[0].png)
    assert remake(TextToImage.from_pretrained(sources[0], "cpu"), file).differing == 0
    alone = studio.run(Draw(sources[0], (), Options(num=1), picture))
    assert alone.shots[0].name == "000-picture-0.png" and alone.shots[0].png != outcome.shots[0].png


def test_one_model_is_in_memory_and_a_changed_choice_replaces_it(studio, sources):
    for source in (*sources, sources[0]):
        studio.run(Draw(source, ("a red hat",), Options(num=1, candidates=1)))
        assert studio.held[0] == ("checkpoint", source)
    before = studio.held[1]
    studio.run(Draw(sources[0], ("a red hat",), Options(num=1, candidates=1)))
    assert studio.held[1] is before
    for request in (Draw("/etc", ("a",)), Draw("demo", ("a",)), Refine("../two", "a")):
        with pytest.raises(ValueError, match=r"^model=.*: expected one of"):
            studio.run(request)
    with pytest.raises(ValueError, match=r"^generator="):
        studio.run(Compose("demo-avatars", "a"))


def test_errors_of_the_model_are_answers(studio, sources):
    with pytest.raises(ValueError, match="negative prompt has no effect at guidance 1"):
        studio.run(Draw(sources[0], ("a red hat",), Options(guidance=1, negative="a hat")))
    with pytest.raises(ValueError, match="steps=60: expected at most 50"):
        studio.run(Draw(sources[0], ("a red hat",), Options(steps=60)))
    with pytest.raises(ValueError, match="layers"):
        studio.run(Mix(sources[0], "a red hat", layers="2-9"))
    with pytest.raises(ValueError, match="direction='smile': expected one of up"):
        studio.run(Edit(sources[0], "a red hat", directions=(("smile", 1),)))


def test_edits_and_mixtures(studio, sources):
    request = Edit(sources[0], "a red hat", 2, directions=(("up", 1.5),))
    edited = studio.run(request)
    assert [shot.caption for shot in edited.shots] == ["unchanged", "changed"] * 2
    assert edited.shots[0].name == "" and pixels(edited.shots[0].png) != pixels(edited.shots[1].png)
    assert json.loads(files(edited)["results.json"])["options"]["directions"] == "up=1.5"
    same = studio.run(Edit(sources[0], "a red hat", 2, directions=(("up", 0),)))
    assert pixels(same.shots[0].png) == pixels(same.shots[1].png) == pixels(edited.shots[0].png)
    mixed = studio.run(Mix(sources[0], "a red hat", "a hat", "0-2", 2))
    assert len(mixed.shots) == 4 and mixed.sheet == files(mixed)["grid.png"]
    other = studio.run(Edit(sources[0], "a hat", 2))
    assert pixels(mixed.shots[0].png) == pixels(other.shots[0].png)  # all layers are the other's
    assert len(studio.run(Mix(sources[0], "a red hat", "", "1", 1)).shots) == 1
    assert len(studio.starts._found) <= 32


def test_edits_and_mixtures_are_what_the_command_line_writes(studio, sources, tmp_path):
    vector = studio.offer.directions[sources[0]]["up"]
    file = str(save_direction(vector, tmp_path / "up.safetensors"))
    edited = studio.run(Edit(sources[0], "a red hat", 2, 3, (("up", 1.5),), 0.5))
    mixed = studio.run(Mix(sources[0], "a red hat", "", "1-", 2, 3))
    same = ["--checkpoint", sources[0], "--num", "2", "--seed", "3", "--out"]
    changes = ["--directions", f"{file}=1.5", "--truncation", "0.5"]
    assert cli.main(["edit", "a red hat", *changes, *same, str(tmp_path / "edit")]) == 0
    assert cli.main(["mix", "a red hat", "--layers", "1-", *same, str(tmp_path / "mix")]) == 0
    for outcome, folder in ((edited, "edit"), (mixed, "mix")):
        written = {path.name: pixels(path.read_bytes()) for path in (tmp_path / folder).glob("00*.png")}
        assert {shot.name: pixels(shot.png) for shot in outcome.shots if shot.name} == written


def test_a_refinement_shows_its_way_and_ends_when_stopped(studio, sources, monkeypatch, tmp_path):
    monkeypatch.setattr(optimising, "PREVIEW_SECONDS", 0.0)
    seen = []
    watch = Watch(seen.append, lambda: len(seen) >= 5)
    outcome = studio.run(Refine(sources[0], "a red hat", 2, steps=50), watch)
    assert len(seen) == 5 and [progress.done for progress in seen] == [0, 1, 2, 3, 4] and len(seen[-1].shots) == 2
    assert "5 of 50 steps" in outcome.note and "stopped" in outcome.note and len(outcome.shots) == 2
    whole = studio.run(Refine(sources[0], "a red hat", 2, steps=4))
    assert "4 of 4 steps" in whole.note and "stopped" not in whole.note
    options = ["--num", "2", "--steps", "4", "--seed", "0", "--out", str(tmp_path / "refined")]
    assert cli.main(["refine", "a red hat", "--checkpoint", sources[0], *options]) == 0
    command = {path.name: pixels(path.read_bytes()) for path in (tmp_path / "refined").glob("000*.png")}
    assert {shot.name: pixels(shot.png) for shot in whole.shots} == command


def test_what_is_stopped_before_there_is_anything_to_show(studio, sources):
    for request in (Draw(sources[0], ("a red hat",)), Refine(sources[0], "a red hat"), Mix(sources[0], "a", "b")):
        with pytest.raises(Stopped):
            studio.run(request, Watch(stopped=lambda: True))


def test_a_composition_of_the_demo_stops_with_its_best(studio, monkeypatch):
    monkeypatch.setattr(optimising, "CANDIDATES", 8)
    monkeypatch.setattr(optimising, "VIEWS", 2)
    seen = []
    request = Compose("demo-objects", "a red fish", background="a blue boat", locations=("top", "left"), steps=4)
    outcome = studio.run(request, Watch(seen.append, lambda: len(seen) >= 4))
    assert seen[-1].total > 0 and "stopped" in outcome.note
    assert [shot.name for shot in outcome.shots] == ["000-a-red-fish-0.png", "foreground.png", "background.png"]
    assert {"foreground.safetensors", "results.json", "grid.png"} <= set(files(outcome))
    assert studio.held[0] == ("generator", "demo-objects")


def test_a_server_starts_with_readable_checkpoints_only(sources, tmp_path):
    with pytest.raises((ValueError, FileNotFoundError)):
        make_offer(["/nowhere/at/all"])
    with pytest.raises(FileNotFoundError):
        make_offer(sources, ["no-generator"])
    with pytest.raises(FileNotFoundError):
        make_offer(sources, [], [str(tmp_path / "x.npy")])


def test_the_worker_carries_out_the_studios_work(studio, sources):
    worker = Worker(studio.run)
    try:
        job = worker.submit(Draw(sources[0], ("a red hat",), Options(num=1)))
        assert len(job.result(60).shots) == 1
    finally:
        worker.close()


def test_a_missing_gradio_is_one_line_that_names_the_extra(monkeypatch, capsys):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if name == "gradio" else find(name, *more)
    )
    assert cli.main(["web"]) == 2
    error = capsys.readouterr().err.strip()
    assert "\n" not in error and 'pip install "clip2latent[web]"' in error


@pytest.mark.parametrize("flags", [["--queue", "0"], ["--port", "70000"], ["--port", "x"]])
def test_wrong_options_of_the_command_are_one_line(flags, capsys):
    assert cli.main(["web", *flags]) == 2
    error = capsys.readouterr().err.strip()
    assert "\n" not in error and flags[0].strip("-") in error and "expected" in error


def test_help_loads_neither_torch_nor_gradio():
    script = (
        "import sys; from clip2latent.cli import main\n"
        "try: main(['web', '--help'])\n"
        "except SystemExit as end: assert not end.code\n"
        "assert not {'torch', 'gradio', 'numpy', 'PIL', 'starlette'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "--checkpoint" in done.stdout and "--port" in done.stdout
