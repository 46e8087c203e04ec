"""How a user names a generator or an embedder: a yaml file, its content, and single entries changed by options."""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jsonargparse.typing import Path_fr


class ModelOption:
    """A model as the user names it; not a dataclass, which jsonargparse would take apart.

    Attributes:
        record: {"class_path", "init_args"}.
    """

    def __init__(self, record: dict[str, Any]) -> None:
        self.record = record

    @classmethod
    def read(cls, value: Any) -> ModelOption:
        """Reads a model from the path of a yaml file, or from its content.

        A path in a yaml file is relative to that file: jsonargparse calls this within the file's folder.

        Raises:
            ValueError: where the value is neither.
        """
        import yaml

        if isinstance(value, (str, os.PathLike)):
            try:
                value = yaml.safe_load(Path(Path_fr(str(value)).absolute).read_text(encoding="utf-8"))
            except yaml.YAMLError as error:
                raise ValueError(f"{value} is not yaml: {error}") from error
        if not isinstance(value, dict) or "class_path" not in value:
            raise ValueError(
                "give a yaml file that holds class_path and init_args, such as configs/generator/demo.yaml,"
                " or both inline: '{class_path: ..., init_args: {...}}'"
            )
        return cls(value)


class Entry(NamedTuple):
    """One changed entry: `--generator.init_args.source x` is ("generator", ["init_args", "source"], "x")."""

    option: str
    keys: list[str]
    value: Any


def split_entries(args: Sequence[str], options: Sequence[str]) -> tuple[list[str], list[Entry]]:
    """Takes `--<option>.<key> value` and `--<option>.<key>=value` out of a command line.

    Other options may be spelled with hyphens, as --batch-size.

    Args:
        args: The command line.
        options: The options that name models.

    Returns:
        What is left, and the changed entries.

    Raises:
        ValueError: where a value is missing.
    """
    import yaml

    rest, entries, words = [], [], iter(args)
    for word in words:
        name, equals, value = word.partition("=")
        option, dot, keys = name.removeprefix("--").partition(".")
        if not (name.startswith("--") and dot and option in options):
            rest.append(f"--{name[2:].replace('-', '_')}{equals}{value}" if name.startswith("--") else word)
            continue
        if not equals:
            value = next(words, None)
        if value is None:
            raise ValueError(f"{name} needs a value")
        entries.append(Entry(option, keys.split("."), yaml.safe_load(value)))
    return rest, entries


def changed(model: ModelOption, entries: Sequence[Entry]) -> ModelOption:
    """Returns the model with entries changed.

    Raises:
        ValueError: where an entry lies within something that holds no entries.
    """
    record = copy.deepcopy(model.record)
    for option, keys, value in entries:
        holder: Any = record
        for key in keys[:-1]:
            holder = holder.setdefault(key, {}) if isinstance(holder, dict) else None
        if not isinstance(holder, dict):
            raise ValueError(f"--{option}.{'.'.join(keys)} cannot be set: {option} is {model.record}")
        holder[keys[-1]] = value
    return ModelOption(record)
