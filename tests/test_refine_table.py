"""The table of refinements: its verdict, its rows, and runs that go on where they ended."""

import pytest
from test_bank import Classy
from tiny_checkpoint import write_tiny_checkpoint
from tiny_models import TinyEmbedder

from clip2latent.priorless import Priorless, sampled_space
from clip2latent.refine import Refining
from clip2latent.text2image import TextToImage
from demo import refine_table, refine_ways
from demo.refine_report import markdown
from demo.refine_worlds import objects

NUMBERS = {"clip": 0.5, "clip_stderr": 0.01, "judge": 0.9, "judge_stderr": None, "augclip_stderr": 0.02}


def row(key, steps, seconds, augclip):
    own = {"key": key, "name": f"{key} {steps}", "steps": steps, "images": steps + 16}
    return {**NUMBERS, **own, "seconds_per_prompt": seconds, "augclip": augclip, "deviation": 1.2}


def record(*rows):
    used = {"prompts": ["a", "b"], "views": 8, "lr": 0.02, "seed": 0, "world": "avatars", "decay": "cosine"}
    return {"settings": used, "rows": rows, "unseen_views": 64, "commit": None}


def test_the_verdict_is_the_first_refined_row_that_passes_the_longest_run():
    rows = [row("refined", 25, 1.0, 0.30), row("refined", 50, 2.0, 0.42), row("refined", 100, 4.0, 0.45)]
    long = [row("fusedream", 500, 20.0, 0.35), row("fusedream", 1000, 40.0, 0.40)]
    text = markdown(record(*rows, *long))
    assert "with 50 steps passes the AugCLIP of FuseDream's 1000 steps in 5 % of its time" in text
    assert "| refined 50 | 66 | 2.0 | 0.420 ± 0.020 | 0.500 ± 0.010 | 0.900 ± 0.000 | 1.20 |" in text
    assert "stays below FuseDream's 1000" in markdown(record(rows[0], *long))
    held = markdown(record(*rows, row("held", 100, 5.0, 0.41), *long))
    assert "with 50 steps passes" in held and "with a pull and 100 steps passes" in held and "in 12 %" in held
    assert "not done yet" in markdown(record(*rows))


@pytest.fixture
def setting(tmp_path):
    pipeline = TextToImage.from_pretrained(write_tiny_checkpoint(tmp_path / "tiny"), "cpu")
    texts = ["a hat", "night"]
    return refine_ways.Setting(pipeline, texts, pipeline.embed_text(texts), 3, 0, tmp_path)


@pytest.mark.parametrize("plain", [False, True])
def test_a_way_goes_on_where_it_ended_and_is_not_run_twice(setting, plain, monkeypatch):
    basis, seconds = refine_ways.from_bank(setting, 20, 2)
    assert basis.shape == (2, 2, 3, 4) and seconds >= 0
    refining = Refining(75, 0.02, patience=None, check=25)

    def run(key):
        return refine_ways.optimised(setting, key, basis, refining, (25, 75), plain)

    whole = run("whole")
    assert [found.steps for found in whole] == [25, 75] and whole[0].seconds < whole[1].seconds
    called = refine_ways._Track.__call__

    def interrupting(self, state):
        if state.step == 40:
            raise KeyboardInterrupt
        called(self, state)

    with monkeypatch.context() as patched:
        patched.setattr(refine_ways._Track, "__call__", interrupting)
        with pytest.raises(KeyboardInterrupt):
            run("parts")
    for one, other in zip(whole, run("parts"), strict=True):
        assert one.latents.equal(other.latents)
    monkeypatch.setattr(refine_ways, "refine", None)  # what is done is not done again
    assert [found.latents.equal(one.latents) for found, one in zip(run("parts"), whole, strict=True)] == [True, True]


def test_the_prior_and_the_bank_are_drawn_once(setting, monkeypatch):
    latents, _ = refine_ways.from_prior(setting, 4, 2)
    assert latents.shape == (2, 2, 3, 4)
    monkeypatch.setattr(TextToImage, "generate", None)
    assert refine_ways.from_prior(setting, 4, 2)[0].equal(latents)


def test_what_is_not_done_is_not_done_for_a_report(setting):
    asked = setting._replace(go=False)
    with pytest.raises(refine_ways.NotDone):
        refine_ways.from_prior(asked, 4, 2)
    basis, _ = refine_ways.from_bank(setting, 8, 2)
    assert refine_ways.from_bank(asked, 8, 2)[0].equal(basis)
    refining = Refining(50, 0.02, check=25)
    assert refine_ways.optimised(asked, "way", basis, refining, (25, 50)) == []
    refine_ways.optimised(setting, "way", basis, refining, (25,))
    assert [found.steps for found in refine_ways.optimised(asked, "way", basis, refining, (25, 50))] == [25]


def test_ways_without_a_prior_are_searches_and_what_starts_from_them(tmp_path):
    class Five(Classy):
        class_names = ("hat", "dog", "night", "boat", "fish")

    generator, embedder, texts = Five(), TinyEmbedder(), ["a hat", "a boat at night"]
    models = Priorless(generator, embedder, sampled_space(generator), "cpu", {})
    setting = refine_ways.Setting(models, texts, embedder.embed_text(texts), 2, 0, tmp_path)
    rows = [row for found in objects(setting, 0.1, "cosine", True) for row in found]
    assert [key for key, *_ in rows] == [*["labels"] * 2, "refined", "guided", "direct", "same", "fusedream", "random"]
    assert [found.images for *_, found in rows] == [16, 16, 41, 41, 41, 57, 57, 57]
    assert all(found.latents.shape == (2, 3, 4) and found.seconds > 0 for *_, found in rows)
    assert len({tuple(found.latents.flatten().tolist()) for *_, found in rows}) > 5


def test_a_work_folder_of_other_settings_is_refused(tmp_path, capsys):
    refine_ways.check_work(tmp_path, {"seed": 0})
    refine_ways.check_work(tmp_path, {"seed": 0})
    with pytest.raises(ValueError, match="other settings"):
        refine_ways.check_work(tmp_path, {"seed": 1})
    (tmp_path / "plain.txt").write_text("a hat\n")
    words = ["--work", str(tmp_path / "work"), "--out", str(tmp_path / "out")]
    assert refine_table.main([*words, "--prompts", str(tmp_path / "plain.txt")]) == 2
    assert "names no attributes" in capsys.readouterr().err
