"""Prompts and prompt files."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple


class Prompt(NamedTuple):
    """A prompt and what it asks for, where that is known: attribute -> value."""

    text: str
    attributes: dict[str, str]


def read_prompts(path: Path | str) -> list[Prompt]:
    """Reads a prompt file.

    Args:
        path: .jsonl, each line {"prompt": text, "attributes": {name: value}} with optional attributes; any other file
            is text, one prompt a line, as is standard input, "-". Blank lines are skipped.

    Raises:
        ValueError: for a malformed line, by its number, and for a file without prompts.
        OSError: for a file that cannot be read.
    """
    path, piped = Path(path), str(path) == "-"
    if not piped and not path.is_file():
        raise FileNotFoundError(f"prompts file {path} does not exist: name a .txt or .jsonl file, one prompt a line")
    name = "standard input" if piped else str(path)
    try:
        content = sys.stdin.buffer.read() if piped else path.read_bytes()
        lines = content.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{name} is not a text file in UTF-8") from error
    numbered = [(number, line.strip()) for number, line in enumerate(lines, 1) if line.strip()]
    if not numbered:
        raise ValueError(f"{name} holds no prompts")
    if path.suffix == ".jsonl":
        return [_from_json(line, f"{path}, line {number}") for number, line in numbered]
    return [Prompt(line, {}) for _, line in numbered]


def check_prompts(prompts: Sequence[str]) -> list[str]:
    """Returns the prompts as a list.

    Raises:
        ValueError: where there is none, or one is empty.
    """
    if isinstance(prompts, str):
        raise ValueError(f"prompts: expected a list of texts, got one text; write [{prompts!r}]")
    if not prompts:
        raise ValueError("no prompt: give at least one text")
    for number, prompt in enumerate(prompts, 1):
        if not isinstance(prompt, str) or not prompt.strip():
            raise ValueError(f"prompt {number} of {len(prompts)} is empty: {prompt!r}; write what the picture shows")
    return list(prompts)


def texts_sha256(texts: Iterable[str]) -> str:
    """Returns a hash of different texts, in whatever order."""
    return hashlib.sha256("\n".join(sorted(set(texts))).encode()).hexdigest()


def _from_json(line: str, where: str) -> Prompt:
    expected = 'expected {"prompt": "...", "attributes": {"name": "value"}}'
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"{where}: {expected}; not JSON: {error}") from error
    attributes = record.get("attributes", {}) if isinstance(record, dict) else None
    if not isinstance(attributes, dict) or not isinstance(record.get("prompt"), str) or not record["prompt"].strip():
        raise ValueError(f"{where}: {expected}, got {line[:200]}")
    return Prompt(record["prompt"], {str(name): str(value) for name, value in attributes.items()})
