"""Tables of ways: what each way finds, what it costs and is scored by, and tables that go on where they were killed."""

import json

import pytest
import torch
from tiny_checkpoint import write_tiny_checkpoint

from clip2latent import cli, table
from clip2latent.bank import Banks
from clip2latent.diffusion import row_generators
from clip2latent.html_page import number
from clip2latent.images import read_metadata, read_picture
from clip2latent.metrics import clip_score
from clip2latent.pages import page_of
from clip2latent.progress import progress_bar
from clip2latent.prompts import Prompt
from clip2latent.refine import entropy
from clip2latent.table_scoring import choose_features, world_of
from clip2latent.text2image import TextToImage
from clip2latent.ways import PRIOR, WAYS, Effort, Setting

TEXTS = ["a dog", "a hat", "night"]
EFFORT = Effort(candidates=4, random=30, retrieval=300, basis=2, views=2, steps=3, optimising=4)


@pytest.fixture(scope="module")
def setting(tmp_path_factory):
    pipeline = TextToImage.from_pretrained(write_tiny_checkpoint(tmp_path_factory.mktemp("prior") / "tiny"), "cpu")
    bank = Banks(pipeline.generator, pipeline.embedder).of(0)
    targets = torch.nn.functional.normalize(torch.randn(3, 5, generator=torch.Generator().manual_seed(4)), dim=1)
    return Setting(pipeline, TEXTS, targets, bank, EFFORT)


def found(setting, key, rows=(0, 1, 2)):
    latents = WAYS[key].make(setting, list(rows))
    assert latents.shape == (len(rows), 3, 4)
    embeddings = setting.models.embedder.embed_images(setting.models.draw(latents))
    return latents, clip_score(embeddings[:, None], setting.targets[list(rows)])[:, 0]


@pytest.mark.parametrize("key", WAYS)
def test_a_prompts_latent_depends_on_its_own_index_alone(setting, key):
    whole, _ = found(setting, key)
    alone, _ = found(setting, key, (1,))
    torch.testing.assert_close(alone[0], whole[1], rtol=1e-3, atol=1e-3)
    assert not whole[0].equal(whole[1])


def test_more_candidates_and_optimisation_score_higher(setting):
    scores = {key: found(setting, key)[1] for key in ("search", "retrieval", "clip")}
    latents = setting.bank.read(0).latents[:30]
    embeddings = setting.models.embedder.embed_images(setting.models.draw(latents))
    best = torch.stack([torch.cosine_similarity(embeddings, target[None]).max() for target in setting.targets])
    torch.testing.assert_close(scores["search"], best, rtol=0, atol=1e-5)
    assert (scores["retrieval"] >= scores["search"] - 1e-6).all() and scores["retrieval"].sum() > scores["search"].sum()
    assert (scores["clip"] >= scores["search"] - 1e-6).all() and scores["clip"].sum() > scores["search"].sum() + 1e-3


def test_the_prior_is_drawn_as_generate_draws_it(setting):
    samples = setting.models.generate([TEXTS[2]], 1, 4, steps=3, seed=entropy(0, PRIOR, 2))
    assert found(setting, "prior", (2,))[0].equal(samples.latents[:, 0])
    full = setting.models.generate([TEXTS[2]], 1, 4, steps=50, sampler="ddpm", seed=entropy(0, PRIOR, 2))
    assert found(setting, "prior-full", (2,))[0].equal(full.latents[:, 0])
    assert len(row_generators(0, 1, 4)) == 4


@pytest.fixture
def command(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_tiny_checkpoint(tmp_path / "tiny")
    (tmp_path / "prompts.txt").write_text("\n".join(TEXTS))
    efforts = ["--candidates=4", "--random=30", "--retrieval=40", "--basis=2", "--views=2", "--optimising=3"]
    return ["table", "--prompts", "prompts.txt", "--checkpoint", "tiny", *efforts, "--together=2", "--out", "found"]


def record_of(tmp_path):
    return json.loads((tmp_path / "found/metrics.json").read_text())


def test_the_command_makes_every_way_that_there_can_be(tmp_path, command, capsys):
    assert cli.main(command) == 0
    record = record_of(tmp_path)
    assert [row["key"] for row in record["ways"]] == list(WAYS)
    for row in record["ways"]:
        files = sorted((tmp_path / "found/ways" / row["key"]).iterdir())
        told = [read_metadata(path) for path in files]
        assert [one["prompt"] for one in told] == TEXTS and row["images"]["used"] == 3
        assert row["seconds"] == pytest.approx(sum(one["seconds"] for one in told) / 3) and row["seconds"] > 0
        assert row["clip"][0]["r_precision"]["distractors"] == 2 and -1 <= row["augclip"] <= 1
    assert record["bank"]["rows"] == 40 and record["bank"]["seconds"] > 0 and "torch" in record["versions"]
    assert len(record["models"]["prior"]["sha256"]) == 64 and record["device"] == "cpu"
    page = (tmp_path / "found/report.html").read_text()
    assert page.count("data:image/png;base64,") == 1 and all(
        f"<td>{row['name']}</td>" in page for row in record["ways"]
    )
    assert (tmp_path / "found/metrics.md").read_text().count("\n|") == 1 + len(WAYS)
    assert "| s per image | CLIP score | AugCLIP |" in capsys.readouterr().out
    (tmp_path / "found/report.html").unlink()
    assert cli.main(["report", "found"]) == 0 and (tmp_path / "found/report.html").read_text() == page


def test_a_killed_table_goes_on_and_more_ways_are_added(tmp_path, command, capsys, monkeypatch):
    short = [*command, "--methods=[random,prior]"]
    saved = []

    def killed(picture, path, *rest):
        saved.append(path.name)
        if len(saved) == 5:
            raise KeyboardInterrupt
        save_png(picture, path, *rest)

    save_png = table.save_png
    with monkeypatch.context() as patch:
        patch.setattr(table, "save_png", killed)
        with pytest.raises(SystemExit) as end:
            cli.main(short)
    assert end.value.code == 130 and "the same command with --out found goes on" in capsys.readouterr().err
    assert len(list((tmp_path / "found/ways/random").iterdir())) == 3
    before = read_metadata(tmp_path / "found/ways/prior/00000.png")
    assert cli.main(short) == 0 and read_metadata(tmp_path / "found/ways/prior/00000.png") == before
    rows = record_of(tmp_path)["ways"]
    monkeypatch.setattr(table, "score_folder", None)  # what is scored is not scored again
    assert cli.main(short) == 0 and record_of(tmp_path)["ways"] == rows
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    assert cli.main([*command, "--methods=[search]"]) == 0 and len(record_of(tmp_path)["ways"]) == 1
    assert cli.main([*command, "--seed=1"]) == 2
    assert "holds a table of other settings (effort)" in capsys.readouterr().err
    assert cli.main([*short, "--seed=1", "--overwrite"]) == 0
    assert not (tmp_path / "found/ways/search").exists()


def test_a_generator_without_a_prior_and_impossible_ways(tmp_path, command, capsys):
    (tmp_path / "generator.yaml").write_text("class_path: tiny_models.TinyGenerator\n")
    (tmp_path / "clip.yaml").write_text("class_path: tiny_models.TinyEmbedder\n")
    own = [*command, "--generator", "generator.yaml", "--embedder", "clip.yaml"]
    assert cli.main([*own, "--methods=[random,augclip]", "--holdout", "clip.yaml"]) == 0
    rows = record_of(tmp_path)["ways"]
    for row in rows:
        same, other = row["clip"]
        assert same["clip_score"] == pytest.approx(other["clip_score"], abs=1e-6)
    assert rows[1]["augclip"] > rows[0]["augclip"]
    captions = ["--captions", "prompts.txt", "--embedder", "clip.yaml"]
    assert cli.main(["score", "found/ways/random", *captions, "--out", "scored"]) == 0
    assert cli.main(["report", "found", "scored", "--out", "both"]) == 0
    page = (tmp_path / "both/report.html").read_text()
    shown = number(rows[0]["clip"][0]["clip_score"], rows[0]["clip"][0]["clip_score_stderr"])
    assert page.count(f"<td>{shown}</td>") >= 2 and "found: random latent" in page  # a folder's score is the table's
    for wrong, said in (
        (["--methods=[prior]"], "leave --generator out"),
        (["--methods=[real]"], "real needs prompts"),
        (["--methods=[dalle]"], "'dalle' is none of random"),
        (["--reference=renders"], "name a folder"),
        (["--together=0"], "together=0"),
        (["--basis=31"], "basis=31"),
    ):
        assert cli.main([*own, *wrong]) == 2
        assert said in capsys.readouterr().err


def test_prompts_of_the_demo_are_judged_and_set_beside_renders(tmp_path):
    pytest.importorskip("demo.avatars")
    prompts = [Prompt("a man", {"gender": "man"}), Prompt("a sad woman", {"gender": "woman", "expression": "sad"})]
    assert choose_features(prompts, None) == "demo-judge" and choose_features(prompts, "inception") == "inception"
    assert choose_features([Prompt("a red car", {"class": "car"})], None) == "demo-class-judge"
    assert (
        choose_features([Prompt("a horn", {"horn": "long"})], None) is choose_features([Prompt("a", {})], None) is None
    )
    world = world_of(prompts, "demo-judge")
    table.draw_real(world, prompts, tmp_path / "real", 2, (0, 1))
    files = sorted((tmp_path / "real").iterdir())
    assert [read_metadata(path)["prompt"] for path in files] == ["a man", "a man", "a sad woman", "a sad woman"]
    assert not read_picture(files[0]).equal(read_picture(files[1])) and world_of(prompts, None) is None


def test_a_bank_is_filled_once_and_its_seconds_are_kept(setting, tmp_path):
    table.fill_bank(setting, WAYS["search"], tmp_path, progress_bar)
    noted = table.bank_seconds(tmp_path)
    assert noted["rows"] == 30 and table.bank_seconds(tmp_path / "none") is None
    table.fill_bank(setting, WAYS["clip"], tmp_path, progress_bar)
    assert table.bank_seconds(tmp_path) == noted
    table.fill_bank(setting, WAYS["retrieval"], tmp_path, progress_bar)
    assert table.bank_seconds(tmp_path)["rows"] == 300 and table.bank_seconds(tmp_path)["seconds"] > noted["seconds"]


def test_the_inception_score_of_a_judge_is_the_mean_of_its_classifications():
    score = {"mean": 2.0, "deviation": 0.5, "parts": 2, "size": 3}
    clip = {"clip_score": 0.5, "clip_score_stderr": None, "diversity": None, "diversity_stderr": None}
    row = {"key": "a", "name": "way a", "seconds": 1.5, "augclip": 0.25, "augclip_stderr": 0.01, "images": {"used": 3}}
    row |= {"clip": [clip | {"r_precision": None}], "judge_accuracy": None, "reference": None}
    row["inception_score"] = {"x": score, "y": score | {"mean": 4.0}}
    record = {"ways": [row], "options": {"generator": None, "checkpoint": "demo", "prompts": "p"}, "bank": None}
    record |= {"prompts": ["a"], "views": 64, "together": 1, "device": "cpu", "threads": 1, "versions": {}}
    page = page_of(record | {"commit": None})
    assert [table.rows for table in page.tables] == [
        [["way a", "1.5", "0.500", "0.250 ± 0.010"]],
        [["way a", "3.000 ± 0.500"]],
    ]
    assert any("mean of those" in line for line in page.lead)
    row["inception_score"] = {"class": score, "x": score | {"mean": 4.0}}
    page = page_of(record | {"commit": None})
    assert page.tables[1].rows == [["way a", "2.000 ± 0.500"]] and not any(
        "mean of those" in line for line in page.lead
    )
    row["inception_score"] = {"x": score | {"parts": 1}}
    assert page_of(record | {"commit": None}).tables[1].rows == [
        ["way a", "2.000"]
    ]  # of one part, no deviation is known


@pytest.mark.parametrize("wrong", [{"views": 0}, {"lr": -1.0}, {"seed": -1}, {"retrieval": 0}])
def test_impossible_efforts_are_named(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Effort(**wrong)
