"""What a command has done so far, kept in its output folder until it is finished or for good."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clip2latent.outputs import write_json


def kept_work(settings: Path, folder: Path, given: Mapping[str, Any], what: str, overwrite: bool = False) -> Path:
    """Returns the folder of what is done, made where it is missing; all in it is of the same settings.

    Args:
        settings: file that says of which ones, written where it is missing.
        folder: of what is done.
        given: settings now, plain types.
        what: the work's name, for the error.
        overwrite: begin anew where what is done is of other settings.

    Raises:
        ValueError: for work of other settings that is not to be overwritten.
    """
    plain = json.loads(json.dumps(given))
    if settings.is_file():
        before = json.loads(settings.read_text(encoding="utf-8"))
        if before != plain:
            if not overwrite:
                names = sorted(name for name in {*before, *plain} if before.get(name) != plain.get(name))
                raise ValueError(
                    f"{settings.parent} holds {what} of other settings ({', '.join(names)}): give another name, or"
                    " --overwrite to begin anew"
                )
            shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(settings, plain)
    return folder
