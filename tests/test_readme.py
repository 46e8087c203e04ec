"""The documents' commands run as they stand there, in their order, in a folder that sees the repository's files.

A comment before a block changes how: `<!-- test: --count 500 ; --max_steps 9 -->` appends the first piece to the
block's first command, the second to its second, and so on; `<!-- test: skip, why -->` leaves the block out.
Installations and the test command itself are left out always.
"""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent
VISIBLE = ("clip2latent", "datagen", "demo", "configs", "sample.py", "train.py", "setup.cfg", "pyproject.toml")


class Block(NamedTuple):
    """A fenced block: its language, its text, and the pieces of the comment before it."""

    language: str
    text: str
    extras: tuple[str, ...]


def blocks(text):
    """Returns the bash and python blocks of a Markdown text that are to be run."""
    pattern = r"(?:<!-- *test: *(?P<extras>.*?) *-->\s*\n)?^[ ]*```(?P<language>bash|python)\n(?P<text>.*?)^[ ]*```"
    found = []
    for match in re.finditer(pattern, text, re.DOTALL | re.MULTILINE):
        extras = match["extras"] or ""
        if not extras.startswith("skip"):
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


def run(block, folder):
    """Runs a block in a folder, and fails with what it printed."""
    words = [["python", "-c", block.text]] if block.language == "python" else commands(block)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(folder)}
    for command in words:
        command = [_found(word, folder) for word in command]
        program = sys.executable if command[0] in ("python", "python3") else Path(sys.executable).parent / command[0]
        done = subprocess.run(
            [str(program), *command[1:]], cwd=folder, env=environment, capture_output=True, text=True, timeout=900
        )
        assert done.returncode == 0, (
            f"{shlex.join(command)} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
        )


def _found(word, folder):
    """Replaces "..." in a path by the folder that is there, the newest first."""
    if "/.../" not in word:
        return word
    matches = sorted(folder.glob(word.replace("/.../", "/**/")), key=lambda path: path.stat().st_mtime)
    assert matches, f"nothing matches {word}"
    return str(matches[-1].relative_to(folder))


DOCUMENTS = ("README.md", "docs/search-and-refine.md", "docs/evaluation.md")
BLOCKS = {
    f"{name}, block {number}": block
    for name in DOCUMENTS
    for number, block in enumerate(blocks((ROOT / name).read_text(encoding="utf-8")), 1)
}


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    folder = tmp_path_factory.mktemp("documents")
    for name in VISIBLE:
        (folder / name).symlink_to(ROOT / name)
    return folder


@pytest.mark.parametrize("block", BLOCKS.values(), ids=BLOCKS)
def test_a_block_of_a_document_runs(block, workplace):
    run(block, workplace)


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


def test_a_failing_command_fails_with_its_words(tmp_path):
    run(Block("python", "assert 1 + 1 == 2", ()), tmp_path)
    with pytest.raises(AssertionError, match="ended with 3"):
        run(Block("bash", "python -c 'exit(3)'", ()), tmp_path)


def test_a_checkpoints_folder_is_found(tmp_path):
    (tmp_path / "runs" / "a" / "b").mkdir(parents=True)
    (tmp_path / "runs" / "a" / "b" / "best.ckpt").touch()
    assert _found("runs/.../best.ckpt", tmp_path) == "runs/a/b/best.ckpt"
