"""The commands that search: their files, what they say, and one line for the user's errors."""

import json
from pathlib import Path

import pytest
import safetensors.torch
from PIL import Image

from clip2latent import cli
from clip2latent.bank import Bank, Banks
from clip2latent.prompts import read_prompts

ROOT = Path(__file__).parents[1]
SMALL, LEAST = ["--candidates=4", "--bank=bank"], ["--candidates=2", "--bank=bank"]


@pytest.fixture(autouse=True)
def in_a_clean_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_search_writes_what_generate_does(tmp_path, capsys):
    words = ["search", "a red fish", "a blue cat", "--num=2", "--labels=2", "--out=out", *SMALL]
    assert cli.main(words) == 0
    said = capsys.readouterr().out
    assert "a red fish: searched fish, " in said and "a blue cat: searched cat, " in said
    record = json.loads((tmp_path / "out" / "results.json").read_text())
    assert sorted(record["files"]) == sorted(path.name for path in (tmp_path / "out").iterdir())
    assert record["prompts"] == ["a red fish", "a blue cat"] and len(record["images"]) == 4
    assert record["options"]["classes"]["a red fish"][0] == "fish" and record["models"]["generator"]["sha256"]
    tensors = safetensors.torch.load_file("out/latents.safetensors")
    assert tensors["latents"].shape == (2, 2, 1, 72) and (tensors["scores"].diff(dim=1) <= 0).all()
    Image.open(tmp_path / "out" / "grid.png").verify()
    assert cli.main(words) == 2  # never overwrites
    assert cli.main([*words[:-3], "--out=again", *SMALL]) == 0  # from the bank
    assert safetensors.torch.load_file("again/latents.safetensors")["latents"].equal(tensors["latents"])


@pytest.mark.parametrize("labels", [0, 3])
def test_ctrl_c_writes_the_best_of_what_was_drawn(labels, tmp_path, monkeypatch, capsys):
    read, reads = Bank.read, []
    monkeypatch.setattr(Banks.of, "__defaults__", (0, None, 2))

    def interrupted(self, *arguments):
        reads.append(arguments)
        if len(reads) > 2:
            raise KeyboardInterrupt
        return read(self, *arguments)

    monkeypatch.setattr(Bank, "read", interrupted)
    words = ["search", "a red fish", "--num=3", f"--labels={labels}", "--candidates=12", "--bank=off", "--out=out"]
    with pytest.raises(SystemExit) as end:
        cli.main(words)
    assert end.value.code == 130 and "interrupted: the best of what was drawn" in capsys.readouterr().err
    record = json.loads((tmp_path / "out" / "results.json").read_text())
    assert record["options"]["interrupted"] and 1 <= len(record["images"]) <= 3
    scores = [image["score"] for image in record["images"]]
    assert scores == sorted(scores, reverse=True) and scores[-1] > -1
    reads[:] = [None] * 9
    assert cli.main([*words[:-1], "--out=none"]) == 130 and not (tmp_path / "none").exists()  # nothing was drawn


def test_search_of_a_generator_without_classes_is_of_all_its_latents_and_may_recheck(tmp_path):
    words = ["search", "a man", "--generator=demo-avatars", "--num=1", "--candidates=3", "--bank=off", "--out=out"]
    assert cli.main([*words, "--views=2"]) == 0
    options = json.loads((tmp_path / "out" / "results.json").read_text())["options"]
    assert options["labels"] == 0 and options["views"] == 2 and "classes" not in options


def test_study_writes_tables_numbers_and_pictures(tmp_path, capsys):
    (tmp_path / "prompts.jsonl").write_text(
        '{"prompt": "a red fish", "attributes": {"class": "fish", "color": "red"}}\n{"prompt": "a cat"}\n'
    )
    words = ["search_study", "--prompts=prompts.jsonl", "--labels=[1]", "--seeds=1", "--out=out", *LEAST]
    assert cli.main(words) == 0
    record = json.loads((tmp_path / "out" / "label-search.json").read_text())
    assert sorted(record["files"]) == sorted(path.name for path in (tmp_path / "out").iterdir())
    assert [row["k"] for row in record["rows"]] == [1, 20] and record["real_score"] > 0.3
    text = (tmp_path / "out" / "label-search.md").read_text()
    assert text.strip() in capsys.readouterr().out
    assert "--labels=[1]" in text and "judge accuracy" in text and "Fréchet" in text


def test_study_of_a_captions_file_and_a_folder_of_pictures(tmp_path):
    (tmp_path / "captions.txt").write_text("a fish\n")
    for number in range(3):
        Image.new("RGB", (8, 8), (80 * number, 9, 9)).save(tmp_path / f"{number}.png")
    words = ["search_study", "--prompts=captions.txt", "--labels=[1]", "--seeds=1", "--pictures=.", "--threshold=0.9"]
    words.append(f"--generator={ROOT / 'configs/generator/demo-objects.yaml'}")
    assert cli.main([*words, "--out=out", *LEAST]) == 0
    record = json.loads((tmp_path / "out" / "label-search.json").read_text())
    assert record["thresholds"][0]["score"] == 0.9 and record["rows"][0]["frechet"]["mean"] > 0
    assert record["real_score"] is None and "judge" not in record["rows"][0]


def test_the_demo_s_prompts_name_what_their_words_say():
    from demo import single_objects

    prompts = read_prompts(ROOT / "configs/prompts/demo-objects.jsonl")
    assert len(prompts) == 60 and all(single_objects.parse(text) == named for text, named in prompts)
    classes = [named["class"] for _, named in prompts]
    assert all(classes.count(name) == 3 for name in single_objects.ATTRIBUTES["class"])


ERRORS = {
    "no prompt": (["search"], "no prompt"),
    "labels": (["search", "a", "--labels=-1"], "labels=-1"),
    "too many labels": (["search", "a", "--labels=21"], "labels=21: expected 0 to 20"),
    "views": (["search", "a", "--views=-1"], "views=-1"),
    "num": (["search", "a", "--num=9", *SMALL], "keep=9"),
    "no classes": (["search", "a", "--labels=2", "--generator=demo-avatars"], "has no classes"),
    "generator": (["search", "a", "--generator=nope"], "nope"),
    "generator's yaml": (["search", "a", "--generator=nope.yaml"], "no generator file nope.yaml"),
    "embedder": (["search", "a", "--embedder=nope"], "nope"),
    "chunk": (["search", "a", "--chunk=0"], "chunk=0"),
    "no bank": (["search_study", "--prompts={prompts}", "--bank=off"], "bank=off"),
    "no pictures": (["search_study", "--prompts={prompts}", "--pictures=nowhere"], "pictures=nowhere"),
    "no prompts file": (["search_study", "--prompts=nope.txt"], "nope.txt"),
}


@pytest.mark.parametrize("case", ERRORS)
def test_a_users_error_is_one_line_and_exit_code_2(case, tmp_path_factory, tmp_path, capsys):
    prompts = tmp_path_factory.mktemp("prompts") / "prompts.txt"
    prompts.write_text("a fish\n")
    args, message = ERRORS[case]
    assert cli.main([word.format(prompts=prompts) for word in args]) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith("error: ") and printed.err.count("\n") == 1 and message in printed.err
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("command", ["search", "search_study"])
def test_help_teaches_every_option(command, capsys):
    with pytest.raises(SystemExit) as end:
        cli.main([command, "--help"])
    printed = capsys.readouterr().out
    assert not end.value.code and "--labels" in printed and "--bank" in printed
