"""The noise study's command, in its smoke preset: what it writes, and that nothing done is done again."""

import itertools
import json
import xml.etree.ElementTree as ElementTree

import pytest

from clip2latent import plot
from clip2latent.checkpoint import load_prior
from demo import noise_report, noise_runs, noise_sweep
from demo.noise_runs import Way

COMMON = ["--preset", "smoke", "--guidance", "1", "2"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A sweep that was interrupted after its first run, and taken up by the same command with another scale."""
    folder = tmp_path_factory.mktemp("sweep")
    started = []

    def interrupted(arguments, train=noise_runs._train):
        started.append(arguments)
        return train(arguments) if len(started) != 2 else 130

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(noise_runs, "_train", interrupted)
        assert sweep(folder, "--alphas", "0") == 1
        assert not list(folder.glob("noise.*"))
        assert sweep(folder, "--alphas", "0") == 0
    names = [next(word.split("/")[-1] for word in words if "default_root_dir" in word) for words in started]
    assert names == ["plain-0", "centred-0.5", "centred-0.5"]
    return folder


def sweep(folder, *options):
    return noise_sweep.main(
        ["--work", str(folder / "work"), "--out", str(folder / "noise"), *COMMON, "--centred", "0.5", *options]
    )


def test_each_way_is_trained_as_its_name_says(folder):
    for way in (Way(0.0, False), Way(0.5, True)):
        config = load_prior(folder / "work" / way.name / "best.ckpt").config
        assert (config["noise_scale"], config["centred"]) == (way.alpha, way.centred)


def test_table_plot_and_record_say_the_same(folder):
    record = json.loads((folder / "noise.json").read_text())
    assert [(row["way"], row["guidance"]) for row in record["rows"]] == [
        ("plain-0", 1.0),
        ("plain-0", 2.0),
        ("centred-0.5", 1.0),
        ("centred-0.5", 2.0),
    ]
    assert record["settings"]["pairs"] == 64 and record["settings"]["prompts"] == 4
    assert len(record["models"]["judge"]["sha256"]) == 64 and "versions" in record
    text = (folder / "noise.md").read_text()
    for row in record["rows"]:
        assert 0 <= row["judge_accuracy"] <= 1 and f"{row['clip_score']:.3f}" in text and row["step"] == 4
    assert "](noise.svg)" in text and "| real pictures |" in text and "highest" in text
    ElementTree.parse(folder / "noise.svg")


def test_what_is_done_is_not_done_again(folder, monkeypatch):
    def never(*_):
        raise AssertionError("was done already")

    monkeypatch.setattr(noise_runs, "_train", never)
    monkeypatch.setattr("clip2latent.evaluate.evaluate", never)
    before = (folder / "noise.json").read_text()
    assert sweep(folder, "--alphas", "0") == 0
    assert (folder / "noise.json").read_text() == before


def test_other_settings_are_not_mixed_in(folder, capsys):
    assert sweep(folder, "--alphas", "0", "--steps", "5") == 2
    assert "holds a run of other settings" in capsys.readouterr().err


def test_wrong_options_are_named(tmp_path, capsys):
    assert sweep(tmp_path, "--alphas=-1") == 2
    assert "expected noise scales from 0" in capsys.readouterr().err
    assert sweep(tmp_path, "--data", str(tmp_path)) == 2
    assert "holds no finished dataset" in capsys.readouterr().err


def rows(**changes):
    measures = {f"{name}{end}": value for name in noise_report.MEASURES for end, value in (("", 0.5), ("_stderr", 0.1))}
    return [
        {"alpha": alpha, "centred": centred, "guidance": 1.0, **measures, **changes}
        for alpha in (0.0, 1.0)
        for centred in (False, True)
    ]


def test_the_plot_marks_every_row_in_both_panels():
    tree = ElementTree.fromstring(noise_report.svg(rows(), [1.0]))
    marks = [element for element in tree.iter() if element.tag.endswith("circle")]
    assert len(marks) == 8 and len({mark.get("fill") for mark in marks}) == 2
    side = float(tree.get("width"))
    assert all(0 < float(mark.get("cx")) < side and 0 < float(mark.get("cy")) < 400 for mark in marks)


def test_without_a_judge_its_panel_says_so():
    text = noise_report.svg(rows(judge_accuracy=None, judge_accuracy_stderr=None), [1.0])
    assert text.count("<circle") == 4 and "no judge accuracy" in text


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.25), (0.512, 0.603), (0.5, 0.5), (-0.1, 0.9)])
def test_ticks_enclose_what_is_shown(low, high):
    ticks = plot.ticks(low, high)
    assert ticks[0] <= low + 1e-9 and ticks[-1] >= high - 1e-9 and 2 <= len(ticks) <= 9
    steps = [after - before for before, after in itertools.pairwise(ticks)]
    assert max(steps) - min(steps) < 1e-9
