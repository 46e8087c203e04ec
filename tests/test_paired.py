"""Measures with standard errors over prompts: against the usual formulas, and what pairing takes away."""

import math

import pytest
import torch

from clip2latent.metrics import clip_score, diversity
from clip2latent.paired import MEASURES, Found, compare, estimate, measures

PROMPTS, NUM = 12, 6


def made(seed=0, num=NUM, spread=1.0, level=None):
    rng = torch.Generator().manual_seed(seed)
    level = torch.randn(PROMPTS, 1, 5, generator=rng) if level is None else level
    embeddings = level + torch.randn(PROMPTS, num, 5, generator=rng)
    tokens = level.mean(-1, keepdim=True) + spread * torch.randn(PROMPTS, num, 400, generator=rng)
    named = torch.arange(PROMPTS) % 3
    hits = (torch.rand(PROMPTS, num, generator=rng) * (named[:, None] + 1)).long().clamp(max=named[:, None])
    return Found(embeddings, tokens, hits, named)


TEXT = torch.randn(PROMPTS, 5, generator=torch.Generator().manual_seed(9))


def test_measures_are_what_their_names_say():
    found = made()
    values = {name: estimate(measure).value for name, measure in measures(found, TEXT).items()}
    assert tuple(values) == MEASURES
    assert values["clip_score"] == pytest.approx(float(clip_score(found.embeddings, TEXT).mean()), abs=1e-6)
    assert values["diversity"] == pytest.approx(float(diversity(found.embeddings).mean()), abs=1e-6)
    assert values["judge_accuracy"] == pytest.approx(float(found.hits.sum() / (NUM * found.named.sum())))
    overall = found.tokens.flatten(0, 1).std(0, correction=0).mean()
    assert values["latent_std_overall"] == pytest.approx(float(overall), abs=1e-5)
    within = found.tokens.var(1).mean(0).sqrt().mean()
    assert values["latent_std_within"] == pytest.approx(float(within), abs=1e-5)


def test_the_error_of_a_mean_is_the_usual_one():
    found = made()
    by_prompt = clip_score(found.embeddings.double(), TEXT.double()).mean(1)
    expected = float(by_prompt.std() / math.sqrt(PROMPTS))
    assert estimate(measures(found, TEXT)["clip_score"]).stderr == pytest.approx(expected, rel=1e-9)


def test_the_deviation_within_a_prompt_does_not_depend_on_the_number_of_images():
    level = torch.zeros(PROMPTS, 1, 5)
    few, many = (estimate(measures(made(1, num, 0.5, level), TEXT)["latent_std_within"]).value for num in (4, 40))
    assert few == pytest.approx(0.5, abs=0.01) and many == pytest.approx(0.5, abs=0.01)


def test_pairing_takes_away_what_makes_prompts_hard():
    found = made()
    twin = found._replace(embeddings=found.embeddings * 2, hits=found.hits, tokens=found.tokens * 1.1)
    ours, theirs = measures(twin, TEXT), measures(found, TEXT)
    same = compare(ours["clip_score"], theirs["clip_score"])
    assert max(map(abs, (*same.absolute, *same.relative))) < 1e-9  # a cosine does not see a length
    assert estimate(ours["clip_score"]).stderr > 0.01
    wider = compare(ours["latent_std_within"], theirs["latent_std_within"])
    assert wider.relative.value == pytest.approx(0.1) and wider.relative.stderr < 1e-9 < wider.absolute.stderr


def test_the_error_of_a_difference_is_that_of_the_prompts_differences():
    one, other = (clip_score(made(seed).embeddings.double(), TEXT.double()).mean(1) for seed in (0, 1))
    found = compare(measures(made(0), TEXT)["clip_score"], measures(made(1), TEXT)["clip_score"])
    assert found.absolute.value == pytest.approx(float((one - other).mean()))
    assert found.absolute.stderr == pytest.approx(float((one - other).std() / math.sqrt(PROMPTS)))
    assert found.relative.value == pytest.approx(float(one.mean() / other.mean() - 1))


def test_errors_cover_the_truth():
    """Of 200 estimates of a deviation that is 1, about two thirds are within one standard error."""
    level, near = torch.zeros(PROMPTS, 1, 5), 0
    for seed in range(200):
        found = made(seed, 3, 1.0, level)
        value, error = estimate(measures(found._replace(tokens=found.tokens[..., :4]), TEXT)["latent_std_within"])
        near += abs(value - 1) < error
    assert 100 < near < 165


def test_what_cannot_be_measured_is_not_there():
    single = made().first(1)
    assert set(measures(single, TEXT)) == {"clip_score", "judge_accuracy", "latent_std_overall"}
    unnamed = made()._replace(named=torch.zeros(PROMPTS, dtype=torch.int64))
    assert "judge_accuracy" not in measures(unnamed, TEXT)
    assert estimate(None) == (None, None) and compare(None, measures(made(), TEXT)["diversity"]) is None
    alone = Found(*(part[:1] for part in made()))
    assert estimate(measures(alone, TEXT[:1])["clip_score"]).stderr is None


def test_other_prompts_are_not_compared():
    fewer = Found(*(part[:5] for part in made()))
    with pytest.raises(ValueError, match="same prompts, got 5 and 12"):
        compare(measures(fewer, TEXT[:5])["clip_score"], measures(made(), TEXT)["clip_score"])
