"""The notebook runs from top to bottom, and every cell that ends in a picture shows one."""

import ast
import importlib.util
import json
import re
from pathlib import Path

import pytest
from PIL import Image

NOTEBOOK = Path(__file__).parents[1] / "docs" / "clip2latent.ipynb"
MAGIC = re.compile(r"^(\s*)%(\w+) (.*)$", re.MULTILINE)


@pytest.fixture(scope="module")
def cells():
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    assert (notebook["nbformat"], notebook["metadata"]["language_info"]["name"]) == (4, "python")
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def run_cell(cell, names):
    """Runs a cell as a notebook does and returns what it would show: the value of a last line that is an expression.

    A line's magic is called as `magic(name, words)`, with expressions in braces filled in.
    """
    tree = ast.parse(MAGIC.sub(r'\1magic("\2", f"\3")', "".join(cell["source"])))
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, str(NOTEBOOK), "exec"), names)
    return eval(compile(ast.Expression(last.value), str(NOTEBOOK), "eval"), names) if last else None


def test_the_notebook_runs_from_top_to_bottom(cells, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "__main__"}  # no magic: nothing may be installed where the package is there
    shown = [run_cell(cell, names) for cell in cells]
    assert shown[0] is None and all(isinstance(picture, Image.Image) for picture in shown[1:])
    assert names["pink"].description["separation"]["accuracy"] > 0.8
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pink-hair.safetensors", "way.webp"]


def test_the_first_cell_installs_a_wheel_or_a_checkout_beside_it(cells, tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    (tmp_path / "notes").mkdir()
    monkeypatch.chdir(tmp_path / "notes")
    called = []
    names = {"__name__": "__main__", "magic": lambda *words: called.append(words)}
    with pytest.raises(AssertionError, match="upload the package's wheel"):
        run_cell(cells[0], names)
    (tmp_path / "notes" / "cloned" / "clip2latent" / "assets").mkdir(parents=True)
    run_cell(cells[0], names)
    (tmp_path / "notes" / "clip2latent-0.1.0-py3-none-any.whl").touch()
    run_cell(cells[0], names)
    installed = ("cloned", "clip2latent-0.1.0-py3-none-any.whl")
    assert called == [("pip", f"install --quiet {tmp_path / 'notes' / name}") for name in installed]


def test_the_notebook_starts_in_five_lines_and_holds_no_output(cells):
    assert "".join(cells[1]["source"]).startswith("from clip2latent import TextToImage")
    assert len("".join(cells[1]["source"]).splitlines()) <= 5
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells)
