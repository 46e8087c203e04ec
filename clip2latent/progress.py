"""Progress for people who watch."""

from __future__ import annotations

from typing import Any


def progress_bar(name: str, total: int) -> Any:
    """Returns a bar of images done, a context with update(done): shown on a terminal, nothing elsewhere."""
    from tqdm import tqdm

    return tqdm(total=total, desc=name, unit="image", leave=False, disable=None)
