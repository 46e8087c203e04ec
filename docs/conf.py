"""Sphinx's configuration: python -m sphinx -W -b html docs build/docs (it needs: pip install -e ".[docs]")."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import clip2latent

project = "clip2latent"
author = "The clip2latent contributors"
release = clip2latent.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme = "furo"
html_title = f"clip2latent {release}"
exclude_patterns = ["README.md", "pictures/make.py"]

myst_heading_anchors = 3
# Links to code and configurations leave these pages; that they lead somewhere is tested (tests/test_documents.py).
suppress_warnings = ["myst.xref_missing", "ref.python"]

smartquotes = False
default_role = "code"
add_module_names = False
python_use_unqualified_type_names = True
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
napoleon_use_ivar = True


def as_text(line: str) -> str:
    """Escapes what reStructuredText would take for markup in a line of prose; what stands in backticks stays."""
    parts = re.split(r"(`+[^`]*`+)", line)
    parts[::2] = [re.sub(r"(?<=\w)_(?!\w)|[*|]", lambda mark: f"\\{mark[0]}", part) for part in parts[::2]]
    return "".join(parts)


def docstring(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Makes a docstring reStructuredText: tables and indented paragraphs stay as they are, other marks are text."""
    if what in ("data", "attribute") and lines:
        lines[0] = lines[0].replace(": ", ":\N{NO-BREAK SPACE}")  # napoleon takes what stands before it for a type
    made: list[str] = []
    verbatim, last = False, ""
    for line in lines:
        table = line.startswith("|") and line.endswith("|")
        if line.strip():
            apart = not made or not made[-1].strip()
            begins = table or (line.startswith("    ") and apart and not last.startswith(" "))
            if begins and not verbatim:
                made += ["::", ""]
            if verbatim and not table and not line.startswith("    "):
                verbatim = False
                made.append("")
            verbatim = verbatim or begins
            last = line
        made.append(f"    {line}" if verbatim and line.strip() else as_text(line))
    lines[:] = made


def skipped(app: Any, what: str, name: str, obj: Any, skip: bool, options: Any) -> bool:
    """Leaves out a NamedTuple's fields, which its class describes."""
    return skip or type(obj).__name__ == "_tuplegetter"


def setup(app: Any) -> None:
    """Puts the two in; docstrings are read before napoleon, whose sections they hold."""
    app.connect("autodoc-process-docstring", docstring, priority=400)
    app.connect("autodoc-skip-member", skipped)
