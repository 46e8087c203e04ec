"""The robustness studies: what an attack may do, what a variant changes, and that nothing is made twice."""

import sys
from xml.etree import ElementTree

import pytest
import torch
from tiny_models import TinyEmbedder, TinyGenerator
from torch import nn

from clip2latent.augment import Augment
from clip2latent.generators.class_latents import ClassLatents
from clip2latent.judge import AttributeJudge
from clip2latent.objectives import clip_objective
from clip2latent.prompts import Prompt
from demo import single_objects, studies, study_ablation, study_attack, study_start
from demo.evolution import Evolving, evolve
from demo.gaussian_classes import GaussianClasses
from demo.study_cells import Cell, Models, Scale, made, make_missing
from demo.study_report import markdown, plot, rows_of

NAMES = single_objects.ATTRIBUTES["class"]
PROMPTS = (Prompt("a dog", {"class": "dog"}), Prompt("a red cup", {"class": "cup", "color": "red"}))
SCALE = Scale(2, (4,), 2, PROMPTS, (12, 11), 6, 2, 0.02, 1, 0)


class TinyClasses(ClassLatents):
    """z [B, 4] and class vectors [B, 3] -> images [B, 3, 8, 8], through one linear map."""

    resolution = 8

    def __init__(self):
        super().__init__(4, 3, len(NAMES), NAMES)
        rng = torch.Generator().manual_seed(0)
        self.vectors = nn.Parameter(2 + torch.randn(len(NAMES), 3, generator=rng), requires_grad=False)
        self.weight = nn.Parameter(torch.randn(192, 7, generator=rng), requires_grad=False)

    def class_vectors(self, classes):
        return self.vectors[classes]

    def forward(self, z, class_vectors):
        return torch.tanh(torch.cat([z, class_vectors], dim=1) @ self.weight.T).view(-1, 3, 8, 8)


@pytest.fixture(scope="module")
def models():
    torch.manual_seed(0)
    return Models(TinyClasses(), TinyEmbedder(), AttributeJudge(single_objects.ATTRIBUTES, 16, 2, 4).eval())


@pytest.mark.parametrize("steps", [1, 10])
def test_an_attack_stays_within_its_budget_and_raises_the_score_it_attacks(steps):
    images = TinyGenerator().synthesize(TinyGenerator().sample_latents(6, torch.Generator().manual_seed(1)))
    objective = clip_objective(TinyEmbedder(), torch.randn(6, 5, generator=torch.Generator().manual_seed(2)))
    before, found = objective(images), {}
    for budget in (0.01, 0.05):
        moved = study_attack.attack(images, objective, budget, steps)
        assert (moved - images).abs().max() <= budget + 1e-6 and moved.abs().max() <= 1
        found[budget] = objective(moved)
        assert (found[budget] < before).all()
    assert found[0.05].mean() < found[0.01].mean()
    assert study_attack.attack(images, objective, 0.0, steps).equal(images)


@pytest.mark.parametrize("steps", [1, 10])
def test_an_attack_of_a_linear_score_reaches_the_corner(steps):
    rng = torch.Generator().manual_seed(0)
    images, slopes = (torch.rand(3, 3, 4, 4, generator=rng) - 0.5 for _ in range(2))
    moved = study_attack.attack(images, lambda x: (slopes * x).flatten(1).sum(1), 0.1, steps)
    torch.testing.assert_close(moved, images - 0.1 * slopes.sign())
    with pytest.raises(ValueError, match="steps=0"):
        study_attack.attack(images, lambda x: x.flatten(1).sum(1), 0.1, 0)


def test_an_attacks_targets_are_of_another_class_and_its_control_spends_the_budget(models):
    told = study_attack.pictures(models, 4, 0)
    assert all(one["class"] != other["class"] for one, other in zip(told.own, told.asked, strict=True))
    change = (study_attack.random_signs(torch.zeros(2, 3, 8, 8), 0.1, 0)).abs()
    torch.testing.assert_close(change, torch.full_like(change, 0.1))
    again = study_attack.pictures(models, 4, 1)
    assert not again.images.equal(told.images)


def test_leaving_a_policy_out_changes_the_views_there_and_nowhere_else():
    fields = {
        "color": {"brightness", "saturation", "contrast"},
        "translation": {"shift"},
        "resize": {"ratio"},
        "cutout": {"hole"},
    }
    found = study_ablation.variants(SCALE)
    whole = Augment().draw(8, torch.Generator().manual_seed(0))._asdict()
    for policy, changed in fields.items():
        drawn = found[f"without {policy}"].augment.draw(8, torch.Generator().manual_seed(0))._asdict()
        assert {name for name in whole if not drawn[name].equal(whole[name])} == changed
    for name, variant in found.items():  # one thing at a time
        changes = [one != other for one, other in zip(variant, found[study_ablation.WHOLE], strict=True)]
        assert sum(changes) == (name != study_ablation.WHOLE)


class Plain:
    """Latents [B, 1, 12] that are their images' numbers."""

    latent_shape, resolution = (1, 12), 2

    def synthesize(self, latents):
        return latents.view(-1, 3, 2, 2)

    def project(self, latents):
        return latents


def test_cma_es_reaches_the_optimum_of_a_quadratic_for_each_problem():
    pytest.importorskip("cma")
    goals = 0.5 * torch.tensor([[-1.0], [1.0], [0.5]]) * torch.ones(3, 12)

    def distance(to):
        return lambda images: (images.flatten(1) - to).square().sum(1)

    evolving = Evolving(rounds=80, population=12, sigma=0.3)
    start, unit = torch.zeros(3, 1, 12), torch.full((1, 12), 0.5)
    many = distance(goals.repeat_interleave(12, dim=0))
    found = evolve(Plain(), many, start, evolving, distance(goals), unit)
    assert (found.losses < 1e-3).all()
    torch.testing.assert_close(distance(goals)(found.latents.view(3, 3, 2, 2)), found.losses)
    worse = evolve(Plain(), lambda x: -many(x), start, Evolving(3, 12), distance(goals), unit)
    assert worse.latents.equal(start)  # never worse than where it began


def test_cma_es_without_its_package_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "cma", None)
    with pytest.raises(ModuleNotFoundError, match=r"clip2latent\[study\]"):
        evolve(Plain(), None, torch.zeros(1, 1, 12), Evolving(), None, torch.ones(1, 12))
    with pytest.raises(ValueError, match="population"):
        Evolving(population=1)


def test_gaussian_class_vectors_have_the_classes_moments_and_the_generators_z():
    generator = TinyClasses()
    gaussian = GaussianClasses(generator)
    latents = gaussian.sample_latents(20000, torch.Generator().manual_seed(0))[:, 0]
    torch.testing.assert_close(latents[:, 4:].mean(0), generator.vectors.mean(0), atol=0.05, rtol=0)
    torch.testing.assert_close(latents[:, 4:].std(0), generator.vectors.std(0), atol=0.05, rtol=0)
    own = generator.sample_latents(20000, torch.Generator().manual_seed(0))[:, 0]
    assert latents[:, :4].equal(own[:, :4]) and not (latents[:, None, 4:] == generator.vectors).all(-1).any()
    with pytest.raises(ValueError, match="TinyGenerator"):
        GaussianClasses(TinyGenerator())


def test_a_cell_is_made_once_and_an_interrupted_one_leaves_nothing(tmp_path):
    calls = []

    def cell(way, fails=False):
        def make():
            calls.append(way)
            if fails and calls.count(way) == 1:
                raise KeyboardInterrupt
            return {0: {"clip": [0.5]}}

        return Cell(way, 0, 0, make)

    cells = [cell("one, first"), cell("another", fails=True), cell("a third")]
    with pytest.raises(KeyboardInterrupt):
        make_missing(cells, tmp_path)
    assert [record["way"] for record in made(tmp_path)] == ["one, first"]
    for _ in range(2):
        make_missing(cells, tmp_path)
    assert calls == ["one, first", "another", "another", "a third"]
    assert [record["way"] for record in made(tmp_path)] == ["one, first", "another", "a third"]


def test_seeds_of_the_same_problems_are_averaged_and_others_stand_side_by_side():
    numbers = [[0.0, 1.0], [1.0, 1.0]]
    records = [
        {"way": "a", "seed": seed, "seconds": 1, "points": [{"at": 3, "numbers": {"clip": values}}]}
        for seed, values in enumerate(numbers)
    ]
    (averaged,), (joined,) = rows_of(records, True), rows_of(records, False)
    assert averaged["by_problem"]["clip"] == [0.5, 1.0] and averaged["problems"] == 2 and averaged["at"] == 3
    assert joined["by_problem"]["clip"] == [0.0, 1.0, 1.0, 1.0] and joined["clip"] == pytest.approx(0.75)
    assert averaged["clip_stderr"] == pytest.approx(0.25) and joined["clip_stderr"] == pytest.approx(0.25)


def test_the_studies_run_on_other_models_and_their_report_holds_them(models, tmp_path):
    found = {}
    for name, study in {"attack": study_attack, "start": study_start, "ablation": study_ablation}.items():
        cells = [cell for cell in study.cells(models, SCALE) if not cell.way.startswith("CMA")]
        make_missing(cells, tmp_path / name)
        found[name] = rows_of(made(tmp_path / name), name == "ablation")
        ElementTree.fromstring(plot(name, found[name], SCALE.settings()))
    start = {way: [row for row in found["start"] if row["way"] == way] for way in study_start.WAYS}
    assert [row["at"] for row in start["CLIP"]] == list(range(7))
    begins, ends = ([rows[place]["by_problem"] for rows in start.values()] for place in (0, -1))
    assert begins[0] == begins[1] and ends[0] != ends[1]
    assert all(rows[-1]["clip"] > rows[0]["clip"] for rows in (start["CLIP"],))
    settings = SCALE.settings()
    text = markdown({"settings": settings, "studies": found, "commit": None}, "studies")
    assert all(f"studies-{name}.svg" in text for name in found)
    assert "| without cutout |" in text and "| random signs | 4 |" in text and " ± " in text
    assert "Nothing is done yet" in markdown({"settings": settings, "studies": {}, "commit": None}, "studies")


def test_wrong_requests_are_refused_and_a_report_needs_no_models(tmp_path, capsys):
    words = ["--work", str(tmp_path / "work"), "--out", str(tmp_path / "out")]
    assert studies.main([*words, "--prompts", "1000"]) == 2
    assert "prompts=1000" in capsys.readouterr().err
    assert studies.main([*words, "--report"]) == 0
    assert "Nothing is done yet" in (tmp_path / "out.md").read_text()
    assert studies.main([*words, "--report", "--views", "3"]) == 2
    assert "other settings" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        studies.main([*words, "dogs"])
