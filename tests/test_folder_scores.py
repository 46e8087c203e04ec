"""Scores of folders: the command end to end, its numbers against the plain ones, damaged pictures, and the pages."""

import json
import re
import shutil
import threading
import weakref

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_models import TinyEmbedder

from clip2latent import cli, picture_stream, seen_pictures
from clip2latent.extractors import embedder_extractor, load_extractor
from clip2latent.folder_scores import Measuring, score_folder
from clip2latent.html_page import number
from clip2latent.images import from_uint8, read_picture
from clip2latent.judge import load_judge
from clip2latent.metrics import clip_score, diversity, frechet_distance
from clip2latent.pages import report_html
from clip2latent.pairing import Pairing
from clip2latent.picture_stream import Reading
from clip2latent.progress import progress_bar

EMBEDDER = "class_path: tiny_models.TinyEmbedder\ninit_args: {seed: SEED}\n"
TEXTS = [f"picture {n}" for n in range(6)]


def write_pictures(path, num, side=8, seed=0):
    path.mkdir()
    pixels = np.random.default_rng(seed).integers(0, 256, (num, side, side, 3), dtype=np.uint8)
    for index, picture in enumerate(pixels):
        Image.fromarray(picture).save(path / f"{index}.png")
    return from_uint8(pixels)


@pytest.fixture
def scene(tmp_path, monkeypatch):
    """18 pictures of 6 captions, 20 reference pictures, and two CLIPs."""
    monkeypatch.chdir(tmp_path)
    images = write_pictures(tmp_path / "made", 18)
    write_pictures(tmp_path / "real", 20, side=12, seed=1)
    (tmp_path / "captions.txt").write_text("\n".join(TEXTS))
    for seed in (1, 2):
        (tmp_path / f"clip{seed}.yaml").write_text(EMBEDDER.replace("SEED", str(seed)))
    return images


COMMAND = ["score", "made", "--captions", "captions.txt", "--embedder", "clip1.yaml", "--out", "scores"]


def scores(tmp_path, *options):
    assert cli.main([*COMMAND, *options]) == 0
    return json.loads((tmp_path / "scores" / "metrics.json").read_text())


def test_the_numbers_are_those_of_the_pictures_and_all_inputs_are_named(scene, tmp_path, capsys):
    record = scores(tmp_path, "--reference", "real", "--holdout", "clip2.yaml", "--chunk", "4")
    first, second = record["clip"]
    embeddings = TinyEmbedder(1).embed_images(scene).unflatten(0, (6, 3))
    plain = clip_score(embeddings, TinyEmbedder(1).embed_text(TEXTS))
    assert first["clip_score"] == pytest.approx(float(plain.mean()), abs=1e-6)
    assert first["best_of"]["3"] == pytest.approx(float(plain.amax(1).mean()), abs=1e-6)
    assert list(first["best_of"]) == ["1", "2", "3"] and first["best_of"]["1"] == pytest.approx(first["clip_score"])
    assert first["diversity"] == pytest.approx(float(diversity(embeddings).mean()), abs=1e-6)
    assert first["r_precision"]["distractors"] == 5 and len(first["r_precision"]["repeats"]) == 3
    held = clip_score(TinyEmbedder(2).embed_images(scene).unflatten(0, (6, 3)), TinyEmbedder(2).embed_text(TEXTS))
    assert second["embedder"] == "clip2.yaml" and second["clip_score"] == pytest.approx(float(held.mean()), abs=1e-6)
    real = torch.cat([TinyEmbedder(1).embed_images(read_picture(tmp_path / f"real/{n}.png")) for n in range(20)])
    expected = frechet_distance(real, embeddings.flatten(0, 1))
    assert record["reference"]["frechet_distance"] == pytest.approx(expected, rel=1e-4)
    assert (record["images"]["used"], record["reference"]["used"]) == (18, 20)
    assert {"torch", "clip2latent"} <= set(record["versions"]) and "commit" in record
    models = record["models"]
    assert len({models[part]["sha256"] for part in ("embedder", "holdout", "features")}) == 2  # the first one twice
    assert record["measuring"]["seed"] == 0 and record["options"]["captions"] == "captions.txt"
    assert sorted(path.name for path in (tmp_path / "scores").iterdir()) == record["files"]
    printed = capsys.readouterr().out
    assert "| clip2.yaml | " in printed and "KID" in printed and "report.html" in printed


def test_nothing_depends_on_the_chunk_and_another_byte_is_another_hash(scene, tmp_path):
    whole = scores(tmp_path, "--reference", "real")
    other = scores(tmp_path, "--reference", "real", "--chunk", "1", "--overwrite")
    assert other["images"] == whole["images"]
    assert other["clip"][0]["clip_score"] == pytest.approx(whole["clip"][0]["clip_score"], abs=1e-6)
    assert other["reference"]["precision"] == whole["reference"]["precision"]
    write = Image.open(tmp_path / "made/3.png")
    write.putpixel((0, 0), (1, 2, 3))
    write.save(tmp_path / "made/3.png")
    assert scores(tmp_path, "--overwrite")["images"]["sha256"] != whole["images"]["sha256"]


def test_damaged_pictures_are_named_and_the_others_keep_their_captions(scene, tmp_path, capsys):
    (tmp_path / "made/4.png").write_bytes(b"no picture")
    record = scores(tmp_path)
    assert [broken["file"] for broken in record["images"]["damaged"]] == ["made/4.png"]
    assert record["images"]["used"] == 17 and record["images"]["count"] == 18
    kept = TinyEmbedder(1).embed_images(scene)
    each = torch.cosine_similarity(kept, TinyEmbedder(1).embed_text(TEXTS).repeat_interleave(3, 0))
    means = [each[start : start + 3] for start in range(0, 18, 3)]
    means[1] = means[1][[0, 2]]
    expected = float(torch.stack([part.mean() for part in means]).mean())
    assert record["clip"][0]["clip_score"] == pytest.approx(expected, abs=1e-6)
    assert "made/4.png" in capsys.readouterr().err and "no picture" not in (tmp_path / "scores/report.html").read_text()
    write_pictures(tmp_path / "few", 3)
    assert cli.main([*COMMAND, "--overwrite", "--reference", "few"]) == 2
    assert "18 pictures and 3 reference pictures: at least 4" in capsys.readouterr().err
    for path in (tmp_path / "made").iterdir():
        path.write_bytes(b"no picture")
    assert cli.main([*COMMAND, "--overwrite"]) == 2
    assert "none of the 18 pictures" in capsys.readouterr().err


def test_a_page_stands_alone_and_escapes_what_it_shows(scene, tmp_path):
    (tmp_path / "captions.txt").write_text("\n".join(["<script>alert(1)</script>", *TEXTS[1:]]))
    record = scores(tmp_path, "--reference", "real")
    page = (tmp_path / "scores/report.html").read_text()
    assert "<script" not in page and page.count("data:image/png;base64,") == len(record["pictures"]) == 1
    assert not re.search(r'(src|href)="(?!data:)', page) and "url(" not in page and page.count("<svg") == 1
    assert "Against 20 reference pictures" in page and "biased upwards" not in page
    titles = {title: b"png" for title in record["pictures"].values()}
    assert report_html(record, titles).count("<h2>The first captions</h2>") == 1
    (tmp_path / "scores/report.html").unlink()
    assert cli.main(["report", "scores"]) == 0
    assert (tmp_path / "scores/report.html").read_text() == page


def test_results_are_compared_on_one_page_and_what_differs_is_said(scene, tmp_path, capsys):
    first = scores(tmp_path, "--reference", "real", "--holdout", "clip2.yaml")
    write_pictures(tmp_path / "other", 12, seed=5)
    command = ["score", "other", "--captions", "captions.txt", "--embedder"]
    assert cli.main([*command, "clip1.yaml", "--reference", "real", "--out", "second"]) == 0
    assert cli.main([*command, "clip2.yaml", "--out", "third"]) == 0
    assert cli.main(["report", "scores", "second", "--out", "both"]) == 0
    page = (tmp_path / "both/report.html").read_text()
    second = json.loads((tmp_path / "second/metrics.json").read_text())
    for record in (first, second):
        assert number(record["clip"][0]["clip_score"], record["clip"][0]["clip_score_stderr"]) in page
        assert f"<td>{number(record['reference']['frechet_distance'])}</td>" in page
    assert "are the same" in page and "judge accuracy</th>" not in page and page.count("data:image") == 2
    capsys.readouterr()
    assert cli.main(["report", "second", "third", "--out", "differ"]) == 0
    assert "do not have the same CLIP." in capsys.readouterr().out
    assert cli.main(["report", "second", "third", "--out", "differ"]) == 2
    assert cli.main(["report", "second", "--out", "differ"]) == 2
    assert cli.main(["report"]) == 2
    assert cli.main(["report", "both", "second"]) == 2
    assert "only what score, evaluate and table wrote" in capsys.readouterr().err


def test_report_refuses_what_is_not_a_result(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["report", "."]) == 2
    for content in ("{", "[]", '{"files": ["../x.png"]}'):
        (tmp_path / "metrics.json").write_text(content)
        assert cli.main(["report", "."]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 4 and all("evaluate, sweep" in line for line in errors)
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.json"]


def test_a_judge_gives_features_the_inception_score_and_its_accuracy(tmp_path):
    made = write_pictures(tmp_path / "made", 8, side=64)
    judge, extractor = load_judge("demo-class-judge"), load_extractor("demo-class-judge", "cpu")
    seen = extractor.see(made)
    assert seen.features.equal(judge.features(made)) and set(seen.probabilities) == set(judge.attributes)
    read = judge.classify(made)
    classes = [judge.attributes["class"][index] for index in read["class"].tolist()]
    attributes = [{"class": name} for name in classes[:7]] + [{"class": "dog" if classes[7] != "dog" else "cat"}]
    files = [tmp_path / f"made/{n}.png" for n in range(8)]
    pairing = Pairing(files, [f"text {n}" for n in range(8)], list(range(8)), attributes, 8)
    found = score_folder(pairing, [TinyEmbedder()], extractor, files, Measuring(splits=2), "cpu", progress_bar).record
    assert found["judge_accuracy"] == {"mean": 7 / 8, "by_attribute": {"class": 7 / 8}, "judged_pairs": 8}
    assert 1 <= found["inception_score"]["class"]["mean"] <= 20 and found["inception_score"]["class"]["parts"] == 2
    assert found["reference"]["frechet_distance"] == pytest.approx(0, abs=1e-3) and found["reference"]["recall"] == 1
    with pytest.raises(FileNotFoundError, match="demo-class-judge"):
        load_extractor("nowhere", "cpu")
    with pytest.raises(ValueError, match="no judge"):
        load_extractor("demo-clip", "cpu")


def test_one_clip_for_scores_and_features_sees_each_picture_once(tmp_path):
    write_pictures(tmp_path / "made", 6)
    calls = []

    class Counting(TinyEmbedder):
        def embed_images(self, images):
            calls.append(len(images))
            return super().embed_images(images)

    embedder = Counting()
    pairing = Pairing([tmp_path / f"made/{n}.png" for n in range(6)], ["a", "b"], [0, 0, 0, 1, 1, 1], [{}, {}], 2)
    how = Measuring(chunk=4)
    score_folder(pairing, [embedder], embedder_extractor(embedder, "tiny"), None, how, "cpu", progress_bar)
    assert calls == [4, 2]


def test_pictures_are_read_in_chunks_by_size(tmp_path):
    write_pictures(tmp_path / "a", 3, side=8)
    write_pictures(tmp_path / "b", 2, side=12)
    files = [tmp_path / name for name in ("a/0.png", "b/0.png", "a/1.png", "b/1.png", "a/2.png")]
    reading = Reading(files, 4)
    found = [(part.index.tolist(), part.images.shape[-1]) for part in reading]
    assert found == [([0, 2], 8), ([1, 3], 12), ([4], 8)] and not reading.damaged
    (tmp_path / "a/1.png").unlink()
    again = Reading(files, 4)
    assert sum(len(part.index) for part in again) == 4 and "a/1.png" in str(again.damaged[0][0])
    assert again.sha256() != reading.sha256()
    with pytest.raises(ValueError, match="chunk=0"):
        Reading(files, 0)


@pytest.mark.parametrize("wrong", [{"repeats": 0}, {"seed": -1}, {"subset_size": 1}, {"splits": 0}])
def test_impossible_numbers_are_named(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Measuring(**wrong)


def test_a_killed_score_goes_on_with_the_part_it_was_in(scene, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(seen_pictures, "PART", 4)
    whole = scores(tmp_path, "--reference", "real")
    assert not (tmp_path / "scores/unfinished").exists()
    shutil.rmtree(tmp_path / "scores")
    looked, look = [], seen_pictures._look

    def killed(files, *rest):
        looked.append(files[0].name)
        if len(looked) == 4:
            raise KeyboardInterrupt
        return look(files, *rest)

    monkeypatch.setattr(seen_pictures, "_look", killed)
    with pytest.raises(SystemExit) as end:
        cli.main([*COMMAND, "--reference", "real"])
    assert end.value.code == 130 and "--out scores goes on" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "scores").iterdir()] == ["unfinished"]
    assert cli.main([*COMMAND, "--reference", "real", "--embedder", "clip2.yaml"]) == 2
    assert "a score of other settings (models)" in capsys.readouterr().err
    Image.open(tmp_path / "made/1.png").save(tmp_path / "made/1.png", compress_level=1)  # same picture, another file
    again = scores(tmp_path, "--reference", "real")
    assert looked == [
        "0.png",
        "4.png",
        "8.png",
        "12.png",
        "0.png",
        "12.png",
        "16.png",
        *(f"{n}.png" for n in range(0, 20, 4)),
    ]
    for part in ("clip", "reference"):
        assert again[part] == whole[part]
    assert again["images"]["sha256"] != whole["images"]["sha256"] and not (tmp_path / "scores/unfinished").exists()


def test_memory_is_that_of_two_chunks_of_pictures(tmp_path, monkeypatch):
    write_pictures(tmp_path / "made", 40)
    alive, most, lock, read = [0], [0], threading.Lock(), picture_stream.read_picture

    def gone():
        with lock:
            alive[0] -= 1

    def counted(path):
        picture = read(path)
        with lock:
            alive[0] += 1
            most[0] = max(most[0], alive[0])
        weakref.finalize(picture, gone)
        return picture

    monkeypatch.setattr(picture_stream, "read_picture", counted)
    embedder = TinyEmbedder()
    extractor = embedder_extractor(embedder, "tiny")
    files = [tmp_path / f"made/{n}.png" for n in range(40)]
    found = seen_pictures.see(files, [embedder], extractor, 4, "cpu", progress_bar, "pictures")
    assert found.record["used"] == 40 and 4 <= most[0] <= 8
    assert found.embeddings[0] is found.features
