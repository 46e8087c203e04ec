"""Results as a page for a browser: tables, curves and pictures in one file that needs nothing beside it."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, NamedTuple

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 1100px; margin: 2em auto; padding: 0 1em; color: #14141a; }
table { border-collapse: collapse; margin: 1em 0; }
th, td { padding: 0.25em 0.9em; text-align: right; border-bottom: 1px solid #e2e2e6; }
th:first-child, td:first-child { text-align: left; }
td:first-child { min-width: 12em; }
td:not(:first-child) { white-space: nowrap; }
.wide { overflow-x: auto; }
img, svg { max-width: 100%; height: auto; }
pre { background: #f6f6f8; padding: 1em; overflow-x: auto; font-size: 13px; }
p.note { color: #52525b; }
""".strip()

LONG = 12
"""Rows of tables after which curves go first."""


class Table(NamedTuple):
    """A table: a title, the columns' names, the rows' cells, and a sentence on what stands in it."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""


class Page(NamedTuple):
    """What a page says.

    Attributes:
        title: of the page.
        lead: sentences on what was measured.
        tables: in order.
        curves: SVG pictures, as `plot.svg` draws them; above the tables where these are long.
    """

    title: str
    lead: Sequence[str]
    tables: Sequence[Table]
    curves: Sequence[str] = ()


def html(page: Page, pictures: Mapping[str, bytes], record: Mapping[str, Any]) -> str:
    """Returns a page in HTML that loads nothing.

    Args:
        page: what it says.
        pictures: title -> PNG file, shown below tables and curves.
        record: shown at the end, folded: all inputs and numbers.
    """
    parts = [f"<h1>{escape(page.title)}</h1>", *(f"<p>{escape(text)}</p>" for text in page.lead)]
    tables = [_table(table) for table in page.tables]
    curves = [f'<div class="wide">{curve.strip()}</div>' for curve in page.curves]
    parts += curves + tables if sum(len(table.rows) for table in page.tables) > LONG else tables + curves
    for title, png in pictures.items():
        data = base64.b64encode(png).decode("ascii")
        parts.append(f'<h2>{escape(title)}</h2><img alt="{escape(title)}" src="data:image/png;base64,{data}">')
    numbers = escape(json.dumps(record, indent=2, ensure_ascii=False))
    parts.append(f"<details><summary>All inputs and numbers (metrics.json)</summary><pre>{numbers}</pre></details>")
    body = "\n".join(parts)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(page.title)}</title>\n<style>\n{STYLE}\n</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def markdown(table: Table) -> str:
    """Returns a table in Markdown."""
    lines = [table.columns, ["---"] * len(table.columns), *table.rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def number(value: float | None, error: float | None = None) -> str:
    """Returns a number of three decimals with its error, "-" for none."""
    if value is None:
        return "-"
    return f"{value:.3f}" + (f" ± {error:.3f}" if error is not None else "")


def _table(table: Table) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in table.columns)
    rows = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in table.rows)
    title = f"<h2>{escape(table.title)}</h2>" if table.title else ""
    note = f'<p class="note">{escape(table.note)}</p>' if table.note else ""
    return f'{title}<div class="wide"><table><tr>{head}</tr>{rows}</table></div>{note}'
