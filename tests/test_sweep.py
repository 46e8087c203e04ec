"""Sweeps: every way of sampling is drawn once, survives a kill, agrees with evaluate, and says what it left out."""

import json
import xml.etree.ElementTree as ElementTree
from functools import partial

import pytest
import torch
from test_evaluate import PROMPTS, GreyJudge
from tiny_checkpoint import write_tiny_checkpoint

from clip2latent import cli, sweep_drawing
from clip2latent.evaluate import Plan, evaluate
from clip2latent.metrics import clip_score
from clip2latent.plot import Panel, Point, svg
from clip2latent.schedule import uniform_log_snr_times
from clip2latent.sweep import Cell, Grid, sweep
from clip2latent.sweep_drawing import draw, load_drawn, save_drawn
from clip2latent.sweep_report import curves
from clip2latent.text2image import Sampling, TextToImage

GRID = Grid((1.0, 2.0), (3, 50), ("dpmpp", "ddpm", "clip2latent-skip"), num=3, reference="ddpm-50-2")
COMMON = Sampling(chunk=16)


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    return TextToImage.from_pretrained(write_tiny_checkpoint(tmp_path_factory.mktemp("prior") / "tiny"))


@pytest.fixture(scope="module")
def record(pipeline, tmp_path_factory):
    return sweep(pipeline, PROMPTS, GRID, COMMON, tmp_path_factory.mktemp("cells"), GreyJudge()).record


def test_every_combination_is_measured_the_reference_first(record):
    assert record["reference"] == "ddpm-50-2" and json.loads(json.dumps(record, allow_nan=False)) == record
    assert [row["name"] for row in record["rows"]] == [
        "ddpm-50-2",
        *("dpmpp-3-2", "ddpm-3-2", "dpmpp-50-2"),
        *("dpmpp-3-1", "ddpm-3-1", "dpmpp-50-1", "ddpm-50-1"),
    ]
    assert all(row["seconds_per_image"] > row["prior_seconds_per_image"] > 0 for row in record["rows"])


def test_what_cannot_be_is_left_out_with_its_reason(record):
    whys = {out["name"]: out["why"] for out in record["left_out"]}
    assert "as many steps as divide 50" in whys["clip2latent-skip-3-1"]
    # With as many steps as the training had, the original's sampling is ddpm.
    assert whys["clip2latent-skip-50-2"] == "takes the very steps of ddpm-50-2" and len(whys) == 4


def test_a_row_is_the_one_that_evaluate_has(pipeline, record):
    plan = Plan(3, (1.0, 2.0), candidates=1, repeats=1, retrieval=0, fidelity=0)
    others = evaluate(pipeline, PROMPTS, plan, Sampling(steps=3, chunk=16), GreyJudge()).record["rows"]
    rows = {row["name"]: row for row in record["rows"]}
    for name, key in (("dpmpp-3-1", "prior_1"), ("dpmpp-3-2", "prior")):
        other = next(row for row in others if row["key"] == key)
        for measure in ("clip_score", "clip_score_stderr", "judge_accuracy", "diversity", "diversity_stderr"):
            assert rows[name][measure] == pytest.approx(other[measure], abs=1e-5), (name, measure)


def test_the_reference_differs_from_itself_by_nothing(record):
    versus = dict(record["rows"][0]["versus_reference"])
    assert versus.pop("images_per_prompt") == 3
    assert all(abs(number) < 1e-12 for measure in versus.values() for number in measure.values())
    other = record["rows"][1]["versus_reference"]["clip_score"]
    difference = record["rows"][1]["clip_score"] - record["rows"][0]["clip_score"]
    assert other["difference"] == pytest.approx(difference) and other["difference_stderr"] > 0


def test_what_was_drawn_before_a_kill_is_not_drawn_again(pipeline, record, tmp_path, monkeypatch):
    drawn = []

    def killed(*arguments):
        drawn.append(arguments[-1])
        if len(drawn) == 3:
            raise KeyboardInterrupt
        return draw(*arguments)

    monkeypatch.setattr("clip2latent.sweep.draw", killed)
    with pytest.raises(KeyboardInterrupt):
        sweep(pipeline, PROMPTS, GRID, COMMON, tmp_path, GreyJudge())
    again = sweep(pipeline, PROMPTS, GRID, COMMON, tmp_path, GreyJudge()).record
    assert len(drawn) == 9 and drawn[2] == drawn[3]
    timings = ("seconds_per_image", "prior_seconds_per_image")
    for row, twin in zip(again["rows"], record["rows"], strict=True):
        assert {key: row[key] for key in row if key not in timings} == {
            key: twin[key] for key in twin if key not in timings
        }


def test_what_other_steps_drew_is_drawn_again(pipeline, tmp_path, monkeypatch):
    grid, cells = Grid((2.0,), (3,), ("dpmpp",), num=2, reference="dpmpp-3-2"), []
    for low in (-5.0, -5.0, -1.0):
        monkeypatch.setattr("clip2latent.steps.uniform_log_snr_times", partial(uniform_log_snr_times, low=low))
        sweep(pipeline, PROMPTS, grid, COMMON, tmp_path)
        cells.append(len(list(tmp_path.iterdir())))
    assert cells == [1, 1, 2]


def test_a_cell_of_fewer_images_holds_the_first_of_many(pipeline, tmp_path):
    sampling = Sampling(2.0, 3, "ddpm", chunk=5)
    many, few = (draw(pipeline, PROMPTS, sampling, num, GreyJudge()) for num in (5, 2))
    save_drawn(many, tmp_path / "cell.safetensors")
    kept = load_drawn(tmp_path / "cell.safetensors", 2)
    for one, other in zip(few.found, kept.found, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5)
    assert kept.pictures.equal(many.pictures) and kept.pictures.shape == (4, 8, 8, 3)
    assert load_drawn(tmp_path / "cell.safetensors", 6) is None and load_drawn(tmp_path / "none.safetensors", 1) is None
    assert kept.seconds == many.seconds and [path.name for path in tmp_path.iterdir()] == ["cell.safetensors"]


def test_tokens_are_the_priors_own(pipeline):
    """Standardised again, without the channels that do not vary: truncation 0 leaves none of their spread."""
    found = draw(pipeline, PROMPTS, Sampling(2.0, 3, truncation=0.0), 2).found
    assert found.tokens.abs().max() < 1e-6 and found.tokens.shape == (4, 2, 4)
    assert not found.named.any() and not found.hits.any()


def test_many_steps_and_other_guidances_draw_fewer_images():
    grid = Grid(num=32, num_other=8, steps_per_prompt=600, reference="ddpm-1000-2")
    reference = grid.cells(3.0)[0]
    numbers = {(8, 2.0): 32, (50, 2.0): 12, (8, 1.0): 8, (250, 2.0): 4, (1000, 1.0): 4}
    assert {key: grid.images(Cell("ddim", *key), reference) for key in numbers} == numbers
    assert grid.images(reference, reference) == 32 and Grid(num=5).images(Cell("ddim", 9, 1.0), reference) == 5
    assert Grid().cells(3.0)[0] == Cell("ddpm", 50, 3.0)


def test_truncations_and_candidates_are_varied_too(pipeline, tmp_path):
    grid = Grid((2.0,), (3,), ("ddpm",), (0.5, 1.0), (1, 2), num=3, reference="ddpm-3-2-t0.5-best2")
    found = sweep(pipeline, PROMPTS, grid, COMMON, tmp_path, GreyJudge())
    rows = {row["name"]: row for row in found.record["rows"]}
    assert list(rows) == ["ddpm-3-2-t0.5-best2", "ddpm-3-2-t0.5", "ddpm-3-2", "ddpm-3-2-best2"]
    assert [Cell.named(name).name for name in rows] == list(rows) and list(found.pictures) == list(rows)[1:3]
    assert len(list(tmp_path.iterdir())) == 2  # what is chosen from is drawn once
    text = pipeline.embed_text([prompt.text for prompt in PROMPTS])
    whole = draw(pipeline, PROMPTS, Sampling(2.0, 3, "ddpm", chunk=16), 6)
    scores = clip_score(whole.found.embeddings, text)  # [4, 6]
    assert rows["ddpm-3-2"]["clip_score"] == pytest.approx(float(scores[:, :3].mean()), abs=1e-5)
    best = rows["ddpm-3-2-best2"]
    assert best["clip_score"] == pytest.approx(float(scores.unflatten(1, (3, 2)).amax(2).mean()), abs=1e-5)
    assert best["images_per_prompt"] == 3 and best["seconds_per_image"] == pytest.approx(
        2 * rows["ddpm-3-2"]["seconds_per_image"]
    )
    assert rows["ddpm-3-2-t0.5"]["latent_std_overall"] < rows["ddpm-3-2"]["latent_std_overall"]
    plots = curves(found.record["rows"])
    assert len(plots) == 2 and "candidates 2" in plots[0] and "number of candidates" in plots[1]
    marks = sum(element.tag.endswith("circle") for element in ElementTree.fromstring(plots[0]).iter())
    assert marks == 3 * 4  # three measures, two truncations, two numbers of candidates


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"truncations": (-0.5,)}, "truncation=-0.5"),
        ({"candidates": (0,)}, "candidates=0"),
        ({"reference": "ddpm-50-2-best0"}, "candidates=0"),
        ({"steps": ()}, "steps is empty"),
        ({"steps": (0,)}, "steps=0"),
        ({"samplers": ("euler",)}, "sampler='euler'"),
        ({"guidances": (-1.0,)}, "guidance=-1"),
        ({"num": 0}, "num=0"),
        ({"steps_per_prompt": 0}, "steps_per_prompt=0"),
        ({"reference": "ddpm-50"}, "such as ddpm-1000-2"),
    ],
)
def test_a_grid_names_what_is_wrong(wrong, said):
    with pytest.raises(ValueError, match=said):
        Grid(**wrong)


def test_a_reference_that_cannot_be_is_an_error(pipeline, tmp_path):
    with pytest.raises(ValueError, match=r"reference=ddpm-51-2.*at most 50"):
        sweep(pipeline, PROMPTS, Grid(reference="ddpm-51-2"), COMMON, tmp_path)


@pytest.fixture
def command(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_tiny_checkpoint(tmp_path / "tiny")
    (tmp_path / "prompts.txt").write_text("a dog\na hat\n")
    options = ["--checkpoint", "tiny", "--guidance=[1,2]", "--steps=[2,3]", "--samplers=[dpmpp,ddim]", "--num=2"]
    return ["sweep", "--prompts", "prompts.txt", *options, "--out", "found"]


def test_the_command_writes_record_table_and_plot(tmp_path, command, capsys):
    assert cli.main(command) == 0
    record = json.loads((tmp_path / "found/metrics.json").read_text())
    assert record["reference"] == "ddpm-3-2" and len(record["rows"]) == 9 and record["grid"]["num"] == 2
    assert len(record["models"]["prior"]["sha256"]) == 64 and "torch" in record["versions"]
    table = (tmp_path / "found/metrics.md").read_text()
    assert "## Against ddpm-3-2" in table and "](metrics.svg)" in table
    assert table.count("\n| dpmpp | ") == 2 and table.count("| dpmpp | ") == 6
    tree = ElementTree.parse(tmp_path / "found/metrics.svg")
    assert sum(element.tag.endswith("circle") for element in tree.iter()) == 2 * 5
    assert "9 of 9, ddim-3-1: CLIP score" in capsys.readouterr().out
    page = (tmp_path / "found/report.html").read_text()
    assert page.count("data:image/png;base64,") == 1 and page.count("<svg") == 2 and "<td>ddim-3-1</td>" in page
    assert {path.name for path in (tmp_path / "found").iterdir()} == {*record["files"], "cells", "sweep.json"}


def test_a_begun_folder_goes_on_and_another_sweeps_does_not(tmp_path, command, capsys, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("clip2latent.sweep.save_drawn", killed)
        with pytest.raises(SystemExit) as end:
            cli.main(command)
    assert end.value.code == 130 and "the same command goes on" in capsys.readouterr().err
    assert not (tmp_path / "found/metrics.json").exists()
    assert cli.main(command) == 0
    monkeypatch.setattr("clip2latent.sweep.draw", killed)
    assert cli.main(command) == 0  # nothing is left to draw
    assert cli.main([*command, "--seed=1"]) == 2
    assert "holds a sweep of other settings (seed)" in capsys.readouterr().err
    monkeypatch.setattr("clip2latent.sweep.draw", sweep_drawing.draw)
    assert cli.main([*command, "--seed=1", "--overwrite"]) == 0
    assert json.loads((tmp_path / "found/metrics.json").read_text())["seed"] == 1


def test_a_folder_of_other_files_is_refused(tmp_path, command, capsys):
    (tmp_path / "found").mkdir()
    (tmp_path / "found" / "letter.txt").touch()
    assert cli.main(command) == 2 and "not empty" in capsys.readouterr().err


def test_a_plot_keeps_its_points_inside_and_its_colours_by_name():
    lines = {"one": [Point(4, 0.5, 0.1), Point(1000, 0.6)], "two <b>": [Point(8, -0.2)]}
    panels = [
        Panel("left", "steps", lines, True),
        Panel("right", "x", {"two <b>": [Point(0, 0)]}),
        Panel("empty", "", {}),
    ]
    tree = ElementTree.fromstring(svg("a title", panels))
    marks = [element for element in tree.iter() if element.tag.endswith("circle")]
    assert [mark.get("fill") for mark in marks] == ["#1f5fbf", "#1f5fbf", "#c2410c", "#c2410c"]
    assert all(55 <= float(mark.get("cx")) <= 845 and 40 <= float(mark.get("cy")) <= 290 for mark in marks)
    assert "no empty" in "".join(tree.itertext())
