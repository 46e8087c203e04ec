"""The documents' commands run as they stand there, in their order, in a folder that sees the repository's files.

A comment before a block changes how: `<!-- test: --count 500 ; --max_steps 9 -->` appends the first piece to the
block's first command, the second to its second, and so on; `<!-- test: skip, why -->` leaves the block out, and
`<!-- test: as in docs/page.md -->` too, because that document has its commands, which is checked.
Installations and the test command itself are left out always. README's first block runs in a process of its own, as a
newcomer's does; the others run in this one, so that nothing is imported twice.
"""

import contextlib
import io
import os
import re
import runpy
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

ROOT = Path(__file__).parent.parent
VISIBLE = ("clip2latent", "datagen", "demo", "configs", "docs", "sample.py", "train.py", "setup.cfg", "pyproject.toml")


class Block(NamedTuple):
    """A fenced block: its language, its text, and the pieces of the comment before it."""

    language: str
    text: str
    extras: tuple[str, ...]


def blocks(text, left_out=False):
    """Returns the bash and python blocks of a Markdown text that are to be run, or those that are left out."""
    pattern = r"(?:<!-- *test: *(?P<extras>.*?) *-->\s*\n)?^[ ]*```(?P<language>bash|python)\n(?P<text>.*?)^[ ]*```"
    found = []
    for match in re.finditer(pattern, text, re.DOTALL | re.MULTILINE):
        extras = match["extras"] or ""
        if extras.startswith(("skip", "as in")) == left_out:
            pieces = tuple(piece.strip() for piece in extras.split(";"))
            found.append(Block(match["language"], match["text"], pieces))
    return found


def commands(block):
    """Returns a bash block's commands as words, without installations and test runs."""
    lines = re.sub(r"\\\n\s*", " ", block.text).splitlines()
    parts = [part for line in lines for part in _split(line)]
    kept = [
        part for part in parts if part and part[:2] != ["pip", "install"] and part[:3] != ["python", "-m", "pytest"]
    ]
    extras = [*block.extras, *[""] * len(kept)]
    return [words + shlex.split(extra) for words, extra in zip(kept, extras, strict=False)]


def _split(line):
    """Splits a line at && into commands; comments go."""
    words, parts = shlex.split(line, comments=True), [[]]
    for word in words:
        if word == "&&":
            parts.append([])
        else:
            parts[-1].append(word)
    return parts


def run(block, folder, apart=False):
    """Runs a block in a folder, each command apart from this process or in it, and fails with what it printed."""
    words = [["python", "-c", block.text]] if block.language == "python" else commands(block)
    for command in words:
        command = [_found(word, folder) for word in command]
        code, printed = (_process if apart else _here)(command, folder)
        assert code == 0, f"{shlex.join(command)} ended with {code}:\n{printed}"


def _process(command, folder):
    """Runs a command in a process of its own; returns its exit code and what it printed."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(folder)}
    program = sys.executable if command[0] in ("python", "python3") else Path(sys.executable).parent / command[0]
    done = subprocess.run(
        [str(program), *command[1:]], cwd=folder, env=environment, capture_output=True, text=True, timeout=900
    )
    return done.returncode, f"{done.stdout}\n{done.stderr}"


def _here(command, folder):
    """Runs a Python script, module or text in this process as `python` would; anything else in one of its own."""
    program, *words = command
    if program != "python":
        return _process(command, folder)
    printed, code = io.StringIO(), 0
    with _place(folder), contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        try:
            if words[0] == "-c":
                exec(compile(words[1], "block", "exec"), {"__name__": "__main__"})
            elif words[0] == "-m":
                sys.argv[:] = words[1:]
                runpy.run_module(words[1], run_name="__main__", alter_sys=True)
            else:
                sys.argv[:] = words
                runpy.run_path(words[0], run_name="__main__")
        except SystemExit as left:
            code = left.code or 0
    return code, printed.getvalue()


@contextlib.contextmanager
def _place(folder) -> Iterator[None]:
    """Puts the process into a folder, with one thread, and puts everything back."""
    before, argv, threads = Path.cwd(), list(sys.argv), torch.get_num_threads()
    os.chdir(folder)
    torch.set_num_threads(1)
    try:
        yield
    finally:
        os.chdir(before)
        sys.argv[:] = argv
        torch.set_num_threads(threads)


def _found(word, folder):
    """Replaces "..." in a path by the folder that is there, the newest first."""
    if "/.../" not in word:
        return word
    matches = sorted(folder.glob(word.replace("/.../", "/**/")), key=lambda path: path.stat().st_mtime)
    assert matches, f"nothing matches {word}"
    return str(matches[-1].relative_to(folder))


DOCUMENTS = (
    "README.md",
    "docs/train-your-own.md",
    "docs/how-good.md",
    "docs/sampling.md",
    "docs/search-and-refine.md",
    "docs/fusedream.md",
    "docs/evaluation.md",
    "docs/papers-tables.md",
    "docs/web.md",
    "docs/generators.md",
    "docs/embedders.md",
    "docs/hub.md",
    "docs/multi-gpu.md",
    "docs/training.md",
    "docs/faq.md",
)
TEXTS = {name: (ROOT / name).read_text(encoding="utf-8") for name in DOCUMENTS}
BLOCKS = {f"{name}, block {number}": block for name in DOCUMENTS for number, block in enumerate(blocks(TEXTS[name]), 1)}


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    folder = tmp_path_factory.mktemp("documents")
    for name in VISIBLE:
        (folder / name).symlink_to(ROOT / name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CLIP2LATENT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield folder


@pytest.mark.parametrize("name", BLOCKS)
def test_a_block_of_a_document_runs(name, workplace):
    run(BLOCKS[name], workplace, apart=name == "README.md, block 1")


def test_commands_that_another_document_runs_are_there():
    ran = {name: [shlex.join(words) for block in blocks(text) for words in commands(block._replace(extras=()))]
           for name, text in TEXTS.items() if name != "README.md"}  # fmt: skip
    for name, text in TEXTS.items():
        for block in blocks(text, left_out=True):
            reason = ";".join(block.extras)
            assert re.match(r"skip, \w|as in docs/[\w-]+\.md$", reason), f"{name}: no reason in {reason!r}"
            if reason.startswith("as in"):
                for words in commands(block._replace(extras=())):
                    assert shlex.join(words) in ran[reason.removeprefix("as in ")], f"{name}: {shlex.join(words)}"


def test_blocks_and_commands_are_found_as_they_stand():
    text = """
```bash
pip install -e . && python sample.py generate "an old man with a red hat"  # first
pip install -e ".[test]" && python -m pytest
```
<!-- test: --count 5 ; --max_steps 2 -->
```bash
python -m datagen --config a.yaml \\
    --out data
python train.py fit
python sample.py generate --checkpoint runs/.../best.ckpt "a dog"
```
<!-- test: skip, needs a GPU -->
```bash
nvidia-smi
```
```python
print(1)
```
```text
no code
```
"""
    found = blocks(text)
    assert [block.language for block in found] == ["bash", "bash", "python"]
    assert commands(found[0]) == [["python", "sample.py", "generate", "an old man with a red hat"]]
    assert commands(found[1]) == [
        ["python", "-m", "datagen", "--config", "a.yaml", "--out", "data", "--count", "5"],
        ["python", "train.py", "fit", "--max_steps", "2"],
        ["python", "sample.py", "generate", "--checkpoint", "runs/.../best.ckpt", "a dog"],
    ]


@pytest.mark.parametrize("apart", [False, True])
def test_a_failing_command_fails_with_its_words(tmp_path, apart):
    run(Block("python", "assert 1 + 1 == 2", ()), tmp_path, apart)
    with pytest.raises(AssertionError, match=r"ended with 3:\s+so it is"):
        run(Block("bash", "python -c 'print(\"so it is\"); exit(3)'", ()), tmp_path, apart)


def test_a_command_here_sees_its_words_and_its_folder(tmp_path):
    (tmp_path / "script.py").write_text("import os, sys\nprint(__name__, sys.argv[1:], os.listdir())", encoding="utf-8")
    before, argv = Path.cwd(), list(sys.argv)
    assert _here(["python", "script.py", "a b"], tmp_path) == (0, "__main__ ['a b'] ['script.py']\n")
    assert _here(["python", "-c", "raise SystemExit(4)"], tmp_path)[0] == 4
    assert (Path.cwd(), sys.argv) == (before, argv)


def test_a_checkpoints_folder_is_found(tmp_path):
    (tmp_path / "runs" / "a" / "b").mkdir(parents=True)
    (tmp_path / "runs" / "a" / "b" / "best.ckpt").touch()
    assert _found("runs/.../best.ckpt", tmp_path) == "runs/a/b/best.ckpt"
