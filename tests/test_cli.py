"""The command line: files and exit codes, one line for the user's errors, nothing half-written."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
from PIL import Image
from tiny_checkpoint import write_tiny_checkpoint

from clip2latent import cli, results
from clip2latent.arguments import in_order
from clip2latent.images import read_metadata

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return str(write_tiny_checkpoint(tmp_path_factory.mktemp("prior") / "tiny", "tiny_checkpoint.ChoosyEmbedder"))


@pytest.fixture(autouse=True)
def in_a_clean_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def run_sample(*args, **options):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(ROOT / "sample.py"), *args]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, **options)


def cpu_seconds_of_children():
    """Processor time, which does not grow with what else the machine does; on one thread no less than the clock's."""
    times = os.times()
    return times.children_user + times.children_system


@pytest.mark.parametrize("args", [["generate", "--help"], ["evaluate", "--help"]])
def test_help_is_instant_and_imports_nothing_heavy(args):
    script = (
        "import sys; from clip2latent.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit as end: assert not end.code\n"
        "assert not {'torch', 'open_clip', 'numpy'} & set(sys.modules)"
    )
    started = cpu_seconds_of_children()
    done = subprocess.run([sys.executable, "-c", script, *args], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert cpu_seconds_of_children() - started < 3
    assert "generate" in done.stdout or "--seed" in done.stdout or "clip2latent" in done.stdout


def test_generate_writes_a_grid_pictures_results_and_latents(checkpoint, tmp_path, capsys):
    prompts = ["a red hat", "a hat / red \N{GRINNING FACE} " + "x" * 300]
    assert cli.main(["generate", prompts[0], "--checkpoint", checkpoint, "--num", "2", prompts[1], "--seed=5"]) == 0
    folder = tmp_path / "outputs" / "a-red-hat-1"
    record = json.loads((folder / "results.json").read_text())
    assert sorted(record["files"]) == sorted(path.name for path in folder.iterdir())
    assert record["prompts"] == prompts and record["options"]["seed"] == 5 and record["options"]["candidates"] == 16
    assert record["options"]["guidance"] == 2.0 and len(record["models"]["generator"]["sha256"]) == 64
    assert [entry["prompt_index"] for entry in record["images"]] == [0, 0, 1, 1]
    for entry in record["images"]:
        metadata = read_metadata(folder / entry["file"])
        assert metadata == {**entry, "options": record["options"], "models": record["models"]}
    tensors = safetensors.torch.load_file(folder / "latents.safetensors")
    assert tensors["latents"].shape == (2, 2, 3, 4) and tensors["scores"].shape == (2, 2)
    Image.open(folder / "grid.png").verify()
    printed = capsys.readouterr()
    assert str(Path("outputs/a-red-hat-1/grid.png")) in printed.out


def test_the_same_command_gives_the_same_pictures_in_a_new_folder(checkpoint, tmp_path):
    for _ in range(2):
        assert cli.main(["generate", "a red hat", "--num", "1", "--checkpoint", checkpoint]) == 0
    first, second = (tmp_path / "outputs" / f"a-red-hat-{n}" / "000-a-red-hat-0.png" for n in (1, 2))
    assert (np.asarray(Image.open(first)) == np.asarray(Image.open(second))).all()


def test_prompts_come_from_files_too(checkpoint, tmp_path):
    (tmp_path / "more.txt").write_text("a hat\n\n  red  \n")
    (tmp_path / "more.jsonl").write_text('{"prompt": "a hat", "attributes": {"hat": "cap"}}\n')
    options = ["--num=1", "--candidates=1", "--checkpoint", checkpoint, "--out"]
    assert cli.main(["generate", "red", "--prompts-file", "more.txt", *options, "one"]) == 0
    assert json.loads((tmp_path / "one" / "results.json").read_text())["prompts"] == ["red", "a hat", "red"]
    assert cli.main(["generate", "--prompts-file", "more.jsonl", *options, "two"]) == 0
    assert json.loads((tmp_path / "two" / "results.json").read_text())["prompts"] == ["a hat"]


def test_an_output_folder_with_files_is_kept_unless_overwriting(checkpoint, tmp_path, capsys):
    options = ["--num=1", "--checkpoint", checkpoint, "--out", "out"]
    assert cli.main(["generate", "red", *options]) == 0
    assert cli.main(["generate", "hat", *options]) == 2
    assert capsys.readouterr().err.startswith("error: output folder out exists")
    assert json.loads((tmp_path / "out" / "results.json").read_text())["prompts"] == ["red"]
    assert cli.main(["generate", "hat", *options, "--overwrite"]) == 0
    assert sorted(path.name for path in (tmp_path / "out").glob("0*.png")) == ["000-hat-0.png"]


def test_words_the_clip_never_saw_are_named_in_a_warning(checkpoint, capsys):
    assert cli.main(["generate", "a red unicorn", "a unicorn and a hat", "--num=1", "--checkpoint", checkpoint]) == 0
    err = capsys.readouterr().err
    assert err == "warning: the demo never saw 'unicorn', 'and': it knows avatars and objects only\n"


ERRORS = {
    "no command": ([], "expected a command"),
    "unknown command": (["draw"], "'draw'"),
    "no prompt": (["generate"], "no prompt"),
    "empty prompt": (["generate", "a", ""], "prompt 2 of 2 is empty"),
    "blank prompt": (["generate", " \t"], "prompt 1 of 1 is empty"),
    "unknown option": (["generate", "a", "--sede", "3"], "unknown option --sede; did you mean --seed?"),
    "text where none belongs": (["evaluate", "a dog", "--prompts", "{prompts}"], "unexpected 'a dog'"),
    "wrong type": (["generate", "a", "--num", "two"], "--num: expected a whole number, got 'two'"),
    "wrong union type": (["generate", "a", "--guidance", "high"], "--guidance: expected a number, got 'high'"),
    "wrong list": (["evaluate", "--prompts=p.txt", "--guidance=x"], "a list of numbers such as [1,2,3], got 'x'"),
    "no value": (["generate", "a", "--num"], "--num"),
    "num 0": (["generate", "a", "--num", "0"], "num=0"),
    "negative steps": (["generate", "a", "--steps", "-5"], "steps=-5"),
    "too many steps": (["generate", "a", "--steps", "51", "--checkpoint", "{checkpoint}"], "at most 50"),
    "too few candidates": (["generate", "a", "--candidates", "3"], "candidates=3"),
    "negative seed": (["generate", "a", "--seed", "-1"], "seed=-1"),
    "infinite guidance": (["generate", "a", "--guidance", ".inf"], "guidance=inf"),
    "unknown sampler": (["generate", "a", "--sampler", "euler"], "dpmpp, ddim, ddpm"),
    "missing prompts file": (["generate", "--prompts-file", "nope.txt"], "nope.txt"),
    "empty prompts file": (["generate", "--prompts-file", "{empty}"], "holds no prompts"),
    "binary prompts file": (["generate", "--prompts-file", "{binary}"], "not a text file"),
    "malformed prompts file": (["evaluate", "--prompts", "{malformed}"], "line 2"),
    "prompts missing": (["evaluate"], "--prompts"),
    "missing checkpoint": (["generate", "a", "--checkpoint", "nope.ckpt"], "nope.ckpt"),
    "unreadable checkpoint": (["generate", "a", "--checkpoint", "{binary}"], "not a checkpoint"),
    "folder without a prior": (["generate", "a", "--checkpoint", "."], "not an exported prior"),
    "mismatched generator": (["generate", "a", "--checkpoint", "{mismatched}"], "sha256"),
    "output is a file": (["generate", "a", "--out", "{binary}"], "is a file"),
    "output below a file": (["generate", "a", "--out", "{binary}/x"], "cannot be made"),
    "negative retrieval": (["evaluate", "--prompts", "{prompts}", "--retrieval=-1"], "retrieval=-1"),
    "guidance list below 0": (["evaluate", "--prompts", "{prompts}", "--guidance=[1,-1]"], "guidance=[1.0, -1.0]"),
}


@pytest.fixture(scope="module")
def places(checkpoint, tmp_path_factory):
    folder = tmp_path_factory.mktemp("places")
    (folder / "empty.txt").write_text("\n \n")
    (folder / "binary.ckpt").write_bytes(bytes(range(256)))
    (folder / "malformed.jsonl").write_text('{"prompt": "a"}\n{"prompt": 3}\n')
    (folder / "prompts.txt").write_text("a hat\n")
    generator = {"class_path": "tiny_models.TinyGenerator", "init_args": {"seed": 1}, "sha256": "0" * 64}
    return {
        "checkpoint": checkpoint,
        "empty": folder / "empty.txt",
        "binary": folder / "binary.ckpt",
        "malformed": folder / "malformed.jsonl",
        "prompts": folder / "prompts.txt",
        "mismatched": write_tiny_checkpoint(folder / "mismatched", generator=generator),
    }


@pytest.mark.parametrize("case", ERRORS)
def test_a_users_error_is_one_line_and_exit_code_2(case, places, tmp_path, capsys):
    args, message = ERRORS[case]
    assert cli.main([word.format(**places) for word in args]) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith("error: ") and printed.err.count("\n") == 1 and message in printed.err
    assert printed.out == "" and not any(tmp_path.iterdir())


def test_an_error_ends_the_program_with_code_2_and_without_a_traceback():
    done = run_sample("generate", "a", "--steps", "many")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1) and "Traceback" not in done.stderr


@pytest.mark.parametrize("moment", [1, 3])
def test_an_interruption_leaves_no_files_and_code_130(moment, checkpoint, tmp_path, capsys, monkeypatch):
    saved = []

    def interrupted(*args):
        saved.append(args)
        if len(saved) == moment:
            raise KeyboardInterrupt

    monkeypatch.setattr(results, "save_png", interrupted)
    assert cli.main(["generate", "a red hat", "--out", "out", "--checkpoint", checkpoint]) == 130
    assert capsys.readouterr().err == "interrupted: nothing was written\n" and not any(tmp_path.iterdir())


def test_options_and_texts_may_stand_in_any_order():
    words = ["generate", "a", "--num", "2", "b", "--overwrite", "c", "--prompts-file=x-y", "--", "--d", "-e"]
    assert in_order(words, {"--overwrite"}) == [
        "generate", "--num", "2", "--overwrite", "--prompts_file=x-y", "--", "a", "b", "c", "--d", "-e"
    ]  # fmt: skip
    assert in_order(["--help"], set()) == ["--help"] and in_order([], set()) == []


def test_the_readmes_first_command_takes_at_most_15_seconds(tmp_path):
    started = cpu_seconds_of_children()
    done = run_sample("generate", "an old man with glasses and a red hat", cwd=tmp_path)
    seconds = cpu_seconds_of_children() - started
    assert done.returncode == 0 and done.stderr == ""
    assert (tmp_path / "outputs" / "an-old-man-with-glasses-and-a-red-hat-1" / "grid.png").is_file()
    assert seconds < 15
