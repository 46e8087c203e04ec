"""MetricsFile: a run's metrics.csv, which goes on where a run goes on."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities import rank_zero_only

METRICS = "metrics.csv"


class MetricsFile(Logger):
    """A logger that writes one row per step: step, then the metrics in the order they came up.

    A run that goes on keeps the rows before it and replaces those of steps it does again.
    """

    def __init__(self, folder: str | Path) -> None:
        """Takes the run's folder."""
        super().__init__()
        self.folder = Path(folder)
        self._rows: list[dict[str, str]] | None = None
        self._columns: list[str] = ["step"]

    @property
    def name(self) -> str:
        """Empty: the file lies in the run's folder itself."""
        return ""

    @property
    def version(self) -> str:
        """Empty."""
        return ""

    @property
    def save_dir(self) -> str:
        """The run's folder."""
        return str(self.folder)

    @property
    def experiment(self) -> None:
        """None."""
        return None

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Does nothing: config.yaml lies beside the file."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Adds metrics to the row of a step."""
        path, step = self.folder / METRICS, step or 0
        values = {name: repr(float(value)) for name, value in metrics.items() if name != "epoch"}
        fresh = self._rows is None
        if self._rows is None:
            self._rows = _read(path, before=step)
            self._columns += [name for row in self._rows[:1] for name in row if name != "step"]
        new = [name for name in values if name not in self._columns]
        self._columns += new
        same = bool(self._rows) and self._rows[-1]["step"] == str(step)
        if same:
            self._rows[-1].update(values)
        else:
            self._rows.append({"step": str(step), **values})
        if fresh or new or same or not path.exists():
            self._write(path)
        else:
            with open(path, "a", newline="", encoding="utf-8") as file:
                csv.DictWriter(file, self._columns).writerow(self._rows[-1])

    def _write(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.partial")
        try:
            with open(temporary, "w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, self._columns)
                writer.writeheader()
                writer.writerows(self._rows or [])
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def _read(path: Path, before: int) -> list[dict[str, str]]:
    """Returns the rows of earlier steps."""
    if not path.is_file():
        return []
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file, restval=""))
    return [row for row in rows if (row.get("step") or "").isdigit() and int(row["step"]) < before]
