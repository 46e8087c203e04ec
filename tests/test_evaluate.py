"""Evaluation: every row of the table, the retrieval against brute force, the judge's share, the record's inputs."""

import json
import math
from typing import ClassVar

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_checkpoint import write_tiny_checkpoint
from tiny_models import TinyEmbedder

from clip2latent import cli
from clip2latent import evaluate as evaluation
from clip2latent.evaluate import Plan, critics, evaluate
from clip2latent.fidelity import fidelity
from clip2latent.images import from_uint8
from clip2latent.pages import page_of
from clip2latent.prompts import Prompt, read_prompts
from clip2latent.references import best_of_each, drawn, fitting_attributes, random_latents, retrieve
from clip2latent.report import gaps_closed, markdown
from clip2latent.text2image import Sampling, TextToImage

PLAN = Plan(num=3, guidances=(1.0, 2.0), candidates=4, repeats=2, retrieval=40, fidelity=12)
SAMPLING = Sampling(steps=3, chunk=16)


class GreyWorld:
    """Pictures of one grey: a tone, and whether there is a frame; a black tone hides the frame."""

    ATTRIBUTES: ClassVar = {"tone": ("black", "grey", "white"), "frame": ("none", "thin", "thick")}

    def sample_attributes(self, rng):
        return {name: values[rng.integers(3)] for name, values in self.ATTRIBUTES.items()}

    def visible(self, attributes):
        return {k: v for k, v in attributes.items() if k != "frame" or attributes["tone"] != "black"}

    def draw(self, attributes, rng):
        value = {"black": 0, "grey": 120, "white": 200}[attributes["tone"]]
        value += {"none": 0, "thin": 20, "thick": 40}[attributes["frame"]]
        return np.full((8, 8, 3), value + rng.integers(2), dtype=np.uint8)


class GreyJudge:
    """Reads a grey world without mistakes."""

    attributes = GreyWorld.ATTRIBUTES

    def classify(self, images):
        grey = ((images.mean((1, 2, 3)) + 1) * 127.5).round().long()
        frame = torch.where(grey < 100, grey, (grey - 120) % 80) // 20
        return {"tone": (grey >= 100).long() + (grey >= 200).long(), "frame": frame.clamp(0, 2)}

    def features(self, images):
        return images.mean((2, 3))


PROMPTS = [
    Prompt("a white picture", {"tone": "white"}),
    Prompt("a frame", {"frame": "any"}),
    Prompt("grey, no frame", {"tone": "grey", "frame": "none"}),
    Prompt("anything", {}),
]


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    return TextToImage.from_pretrained(write_tiny_checkpoint(tmp_path_factory.mktemp("prior") / "tiny"))


@pytest.fixture(scope="module")
def report(pipeline):
    return evaluate(pipeline, PROMPTS, PLAN, SAMPLING, GreyJudge(), GreyWorld())


def test_every_row_is_measured_and_real_pictures_are_the_ceiling(report):
    rows = {row["key"]: row for row in report.record["rows"]}
    assert list(rows) == ["random", "random_best", "prior_1", "prior", "prior_best", "retrieval", "real"]
    assert rows["prior"]["row"] == "prior, guidance 2 (recommended)"
    assert rows["real"]["judge_accuracy"] == 1.0 and rows["random"]["judge_accuracy"] < 1.0
    assert rows["real"]["judged_pairs"] == 3 * 4 and rows["random_best"]["judged_pairs"] == 2 * 4
    assert rows["retrieval"]["clip_score"] >= rows["random_best"]["clip_score"] >= rows["random"]["clip_score"]
    assert rows["prior_best"]["clip_score"] >= rows["prior"]["clip_score"]
    assert all(math.isfinite(row["diversity"]) for row in rows.values())


def test_the_record_is_plain_and_holds_its_inputs(report):
    record = json.loads(json.dumps(report.record, allow_nan=False))
    assert (
        record["plan"]["retrieval"] == 40 and record["sampling"]["steps"] == 3 and record["sampling"]["guidance"] == 2
    )
    assert record["prompts"] == [prompt.text for prompt in PROMPTS]
    assert {len(record["models"][part]["sha256"]) for part in ("generator", "embedder", "prior")} == {64}
    table = markdown(record)
    assert table.count("\n| ") == 7 and "real pictures" in table and "of the way" in table.lower()
    assert report.picture.width > 7 * 128 and report.picture.height > 4 * 128


def test_a_held_out_clip_scores_the_same_images_apart(pipeline, report):
    prompts, plan = PROMPTS[:3], Plan(num=2, guidances=(), candidates=2, repeats=1, retrieval=0, fidelity=0)
    same, other = (
        evaluate(pipeline, prompts, plan, SAMPLING, holdout=held).record
        for held in (pipeline.embedder, TinyEmbedder(seed=7))
    )
    for row, twin in zip(same["rows"], other["rows"], strict=True):
        assert row["holdout_score"] == pytest.approx(row["clip_score"]) == pytest.approx(twin["clip_score"])
        assert row["holdout_r_precision"] == row["r_precision"] == twin["r_precision"]
        assert twin["holdout_score"] != pytest.approx(twin["clip_score"])
    assert row["r_precision"]["distractors"] == 2 and "holdout_score" not in report.record["rows"][0]
    assert same["models"]["holdout"]["sha256"] == same["models"]["embedder"]["sha256"]
    assert "| hold-out CLIP score |" in markdown(other) and "hold-out" not in markdown(report.record)
    assert "hold-out CLIP score" in str(page_of(other)) and "R-precision, hold-out" in str(page_of(other))


def test_the_chunk_changes_no_number(pipeline, report):
    other = evaluate(pipeline, PROMPTS, PLAN, Sampling(steps=3, chunk=7), GreyJudge(), GreyWorld())
    for row, twin in zip(report.record["rows"], other.record["rows"], strict=True):
        assert row["clip_score"] == pytest.approx(twin["clip_score"], abs=1e-4), row["key"]


def test_without_attributes_only_scores_and_diversity(pipeline):
    prompts = [Prompt("a", {}), Prompt("b", {})]
    assert critics(prompts, "demo") == (None, None)
    record = evaluate(pipeline, prompts, Plan(num=1, candidates=2, repeats=1, retrieval=0), SAMPLING).record
    assert [row["key"] for row in record["rows"]] == [
        "random",
        "random_best",
        "prior_1",
        "prior",
        "prior_3",
        "prior_best",
    ]
    assert all(row["judge_accuracy"] is None and row["diversity"] is None for row in record["rows"])
    assert record["gap_closed"] == {"clip_score": None, "judge_accuracy": None} and record["generator"] is None
    assert markdown(record).count("| - | - |") == 6


def test_an_attribute_the_judge_does_not_know_is_an_error_before_any_image(pipeline):
    with pytest.raises(ValueError, match="does not know the attribute 'hat'"):
        evaluate(pipeline, [Prompt("a", {"hat": "cap"})], PLAN, SAMPLING, GreyJudge())


def test_retrieval_agrees_with_brute_force_and_does_not_depend_on_the_chunk(pipeline):
    text = pipeline.embed_text(["a", "bb", "ccc"])
    latents = torch.cat(list(random_latents(pipeline.generator, 600, (3,))))
    scores = text @ pipeline.embedder.embed_images(pipeline.draw(latents)).mT
    expected = latents[scores.topk(5).indices]
    for chunk in (64, 500):
        torch.testing.assert_close(retrieve(pipeline, text, 600, 5, (3,), chunk), expected)
    assert torch.cat(list(random_latents(pipeline.generator, 300, (3,)))).equal(latents[:300])


def test_best_of_each_takes_every_groups_best(pipeline):
    text = pipeline.embed_text(["a", "bb"])
    chunks = list(drawn(pipeline, random_latents(pipeline.generator, 24, (0,)), 12, chunk=5))
    best = best_of_each(chunks, text, repeats=3, candidates=4)
    latents = torch.cat([chunk.latents for chunk in chunks]).unflatten(0, (2, 3, 4))
    embeddings = torch.cat([chunk.embeddings for chunk in chunks]).unflatten(0, (2, 3, 4))
    places = torch.einsum("prce,pe->prc", embeddings, text).argmax(-1)
    for prompt in range(2):
        for group in range(3):
            torch.testing.assert_close(best[prompt, group], latents[prompt, group, places[prompt, group]])


def test_fitting_attributes_hold_what_is_named_and_show_it():
    rng = np.random.default_rng(0)
    for _ in range(50):
        attributes = fitting_attributes(GreyWorld(), {"frame": "any"}, rng)
        assert attributes["frame"] != "none" and attributes["tone"] != "black"
    with pytest.raises(ValueError, match="hides another"):
        fitting_attributes(GreyWorld(), {"tone": "black", "frame": "thin"}, rng)


def test_fidelity_of_renders_is_near_its_floor_and_of_noise_far():
    world, rng = GreyWorld(), np.random.default_rng(9)
    honest = from_uint8(np.stack([world.draw(world.sample_attributes(rng), rng) for _ in range(400)]))
    close = fidelity([honest], GreyJudge(), world, 400, (1,))
    far = fidelity([torch.full((400, 3, 8, 8), -1.0)], GreyJudge(), world, 400, (1,))
    assert close["normalised_frechet"] < 0.05 and close["mean_total_variation"] < 0.1
    assert far["normalised_frechet"] > 0.5 and far["total_variation"]["tone"] > 0.5
    assert far["real_against_real"] == close["real_against_real"]


def test_gaps_closed_is_the_share_of_the_way_to_retrieval():
    rows = [{"key": key, "clip_score": score} for key, score in (("random", 0.1), ("prior", 0.4), ("retrieval", 0.5))]
    assert gaps_closed(rows)["clip_score"] == pytest.approx(0.75) and gaps_closed(rows)["judge_accuracy"] is None
    assert gaps_closed(rows[:2])["clip_score"] is None


@pytest.mark.parametrize("wrong", [{"num": 0}, {"retrieval": 2}, {"fidelity": 1}, {"guidances": (math.nan,)}])
def test_a_plan_names_its_impossible_numbers(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong)).replace("guidances", "guidance")):
        Plan(**wrong)


def test_the_command_writes_metrics_and_a_picture(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    checkpoint = write_tiny_checkpoint(tmp_path / "tiny")
    (tmp_path / "prompts.txt").write_text("a dog\na hat\n")
    options = ["--num=2", "--retrieval=20", "--candidates=2", "--repeats=1", "--guidance=[1]", "--checkpoint", "tiny"]
    assert cli.main(["evaluate", "--prompts", "prompts.txt", *options, "--out", "scores"]) == 0
    record = json.loads((tmp_path / "scores" / "metrics.json").read_text())
    assert sorted(path.name for path in (tmp_path / "scores").iterdir()) == sorted(record["files"])
    assert record["options"]["checkpoint"] == checkpoint.name and "torch" in record["versions"]
    assert [row["key"] for row in record["rows"]][-1] == "retrieval"
    assert "| random latents | " in capsys.readouterr().out


def test_a_killed_evaluation_goes_on_with_the_row_it_was_in(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_tiny_checkpoint(tmp_path / "tiny")
    (tmp_path / "prompts.txt").write_text("a dog\na hat\n")
    options = ["--num=2", "--retrieval=20", "--candidates=2", "--repeats=1", "--guidance=[1]", "--checkpoint", "tiny"]
    command = ["evaluate", "--prompts", "prompts.txt", *options]
    assert cli.main([*command, "--out", "whole"]) == 0
    made, collect = [], evaluation.collect

    def killed(*arguments):
        made.append(arguments)
        if len(made) == 3:
            raise KeyboardInterrupt
        return collect(*arguments)

    monkeypatch.setattr(evaluation, "collect", killed)
    with pytest.raises(SystemExit) as end:
        cli.main([*command, "--out", "parts"])
    assert end.value.code == 130 and "--out parts goes on" in capsys.readouterr().err
    assert cli.main([*command, "--out", "parts", "--seed=1"]) == 2
    assert "an evaluation of other settings (sampling)" in capsys.readouterr().err
    assert cli.main([*command, "--out", "parts"]) == 0
    whole, parts = (json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("whole", "parts"))
    assert parts["rows"] == whole["rows"] and len(made) == 2 + 1 + len(whole["rows"]) - 2
    assert Image.open("parts/grid.png").tobytes() == Image.open("whole/grid.png").tobytes()
    assert not (tmp_path / "parts/unfinished").exists()


def test_the_demo_follows_prompts(request):
    prompts = read_prompts(request.config.rootpath / "configs" / "prompts" / "demo.jsonl")[:16]
    judge, world = critics(prompts, "demo")
    plan = Plan(num=4, guidances=(), candidates=8, repeats=1, retrieval=0, fidelity=0)
    rows = {
        row["key"]: row
        for row in evaluate(TextToImage.from_pretrained("demo"), prompts, plan, Sampling(), judge, world).record["rows"]
    }
    assert rows["real"]["judge_accuracy"] > 0.9
    assert rows["prior"]["judge_accuracy"] > rows["random"]["judge_accuracy"] + 0.2
    assert rows["prior"]["clip_score"] > rows["random"]["clip_score"] + 0.2
