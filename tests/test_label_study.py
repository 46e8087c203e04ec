"""The study of searches: its curves are those of searches done one by one, and its tables say what was measured."""

import math
import re

import pytest
import torch
from test_bank import TARGETS, Classy
from tiny_models import TinyEmbedder

from clip2latent.bank import Banks
from clip2latent.initial import Picking, from_labels
from clip2latent.label_study import Real, Settings, needed_for, study
from clip2latent.label_study_report import markdown, plot
from clip2latent.prompts import Prompt

PROMPTS = [Prompt("a hat", {"tone": "light"}), Prompt("night", {"tone": "dark"}), Prompt("a dog at noon", {})]
SETTINGS = Settings(candidates=24, labels=(1, 2), seeds=2, seed=3)


class ToneJudge:
    """Reads off whether an image is light."""

    def __init__(self):
        self.attributes = {"tone": ("dark", "light")}

    def classify(self, images):
        return {"tone": (images.mean(dim=(1, 2, 3)) > 0).long()}


@pytest.fixture(scope="module")
def banks(tmp_path_factory):
    return Banks(Classy(), TinyEmbedder(), tmp_path_factory.mktemp("banks"))


@pytest.fixture(scope="module")
def made(banks):
    real = Real(torch.nn.functional.normalize(torch.randn(40, 5, generator=torch.Generator().manual_seed(0))), 0.3)
    return study(banks, PROMPTS, TARGETS, SETTINGS, real, ToneJudge())


def test_every_curve_is_that_of_searches_of_so_many_images(made, banks):
    assert [row["k"] for row in made.record["rows"]] == [1, 2, 3]
    for row in made.record["rows"]:
        for number in SETTINGS.steps():
            by_seed = []
            for seed in (3, 4):
                found = from_labels(banks, Picking(1, number, seed), row["k"])([text for text, _ in PROMPTS], TARGETS)
                by_seed.append(float(found.scores.mean()))
            assert row["curve"][number]["seeds"] == pytest.approx(by_seed, abs=1e-5)
            assert row["curve"][number]["mean"] == pytest.approx(sum(by_seed) / 2, abs=1e-5)
            deviation = abs(by_seed[0] - by_seed[1]) / math.sqrt(2)
            assert row["curve"][number]["std"] == pytest.approx(deviation, abs=1e-5)
        assert row["best"] == row["curve"][24]


def test_the_judge_sees_the_best_image_of_each_prompt(made, banks):
    assert SETTINGS.judged() == [1, 10, 24]
    for row in made.record["rows"]:
        for number in SETTINGS.judged():
            by_seed = []
            for seed in (3, 4):
                found = from_labels(banks, Picking(1, number, seed), row["k"])([text for text, _ in PROMPTS], TARGETS)
                light = banks.draw(found.latents[:, 0]).mean(dim=(1, 2, 3)) > 0
                by_seed.append((float(light[0]) + float(~light[1])) / 2)  # the third prompt names nothing
            assert row["judge"][number]["seeds"] == by_seed


def test_the_distance_is_nought_where_the_pictures_are_the_search_s_own(banks):
    from clip2latent.label_search import embed_candidates, label_embeddings, lay_out, nearest_classes

    nearest = nearest_classes(TARGETS, label_embeddings(Classy.class_names, TinyEmbedder()), 3)
    own = embed_candidates(lay_out(nearest, 24, 3), 24, banks).flatten(0, 1)
    settings = Settings(candidates=24, labels=(1,), seeds=1, seed=3)
    rows = study(banks, PROMPTS, TARGETS, settings, Real(own, None)).record["rows"]
    assert rows[1]["frechet"]["mean"] == pytest.approx(0, abs=1e-4) and rows[0]["frechet"]["mean"] > 0.01


def test_thresholds_are_the_real_pictures_and_the_unguided_search(made):
    by_name = {one["name"]: one for one in made.record["thresholds"]}
    assert list(by_name) == ["real pictures", "all classes, their last image"]
    assert by_name["real pictures"]["score"] == 0.3
    for one in by_name.values():
        for row in made.record["rows"]:
            needed = one["needed"][row["k"]]["seeds"]
            for index, number in enumerate(needed):
                for step in SETTINGS.steps():
                    passed = row["curve"][step]["seeds"][index] > one["score"]
                    assert passed == (number is not None and number <= step)


@pytest.mark.parametrize("threshold, number", [(0.0, 1), (0.1, 3), (0.25, 4), (0.3, None)])
def test_images_needed_to_pass(threshold, number):
    assert needed_for([0.1, 0.1, 0.2, 0.3], threshold) == number


def test_a_threshold_may_be_given_and_nothing_else_is_needed(banks):
    settings = Settings(candidates=5, seeds=1, threshold=2.0)
    record = study(banks, PROMPTS, TARGETS, settings).record
    assert record["settings"]["labels"] == [1, 2, 3] and record["settings"]["steps"] == [1, 2, 5]
    assert record["thresholds"][0]["score"] == 2.0
    assert all(needed["mean"] is None for needed in record["thresholds"][0]["needed"].values())
    assert "judge" not in record["rows"][0] and record["rows"][0]["best"]["std"] is None


def test_the_report_tells_the_record(made):
    models = {"generator": {"name": "tiny"}, "embedder": {"name": "small"}}
    record = {**made.record, "models": models, "command": "it", "commit": None}
    text = markdown(record, "a.svg", "a.png")
    assert "tiny with small, 3 prompts, 24 images for each, 2 seeds" in text and "k = 3 (all)" in text
    best = made.record["rows"][1]["best"]
    assert f"{best['mean']:.4f} ± {best['std']:.4f}" in text and f"{best['seeds'][0]:.6f}" in text
    widths = {line.count("|") for line in text.splitlines() if line.startswith("|")}
    assert widths == {5}
    picture = plot(record)
    assert picture.startswith("<svg") and "k = 3 (all)" in picture
    assert len(re.findall("<circle", picture)) == 3 * len(SETTINGS.steps()) + 3


def test_pictures_of_the_best_images_come_with_their_scores(made, banks):
    assert made.shown == [text for text, _ in PROMPTS]
    assert made.images.shape == (3, 3, 3, 8, 8) and made.scores.shape == (3, 3)
    for column in range(3):
        embeddings = TinyEmbedder().embed_images(made.images[:, column])
        torch.testing.assert_close(made.scores[:, column], torch.cosine_similarity(embeddings, TARGETS, dim=-1))


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda banks: Settings(candidates=0), "candidates=0"),
        (lambda banks: Settings(seeds=0), "seeds=0"),
        (lambda banks: Settings(seed=-1), "seed=-1"),
        (lambda banks: study(banks, PROMPTS, TARGETS, Settings(labels=(4,))), "k=4"),
        (
            lambda banks: study(banks, [Prompt("a", {"age": "old"})], TARGETS[:1], SETTINGS, None, ToneJudge()),
            "does not know the attribute 'age'",
        ),
    ],
)
def test_what_does_not_fit_is_named(call, message, banks):
    with pytest.raises(ValueError, match=message):
        call(banks)
