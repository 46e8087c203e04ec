"""The notebook runs from top to bottom, and every cell that ends in a picture shows one."""

import ast
import json
from pathlib import Path

import pytest
from PIL import Image

NOTEBOOK = Path(__file__).parents[1] / "docs" / "clip2latent.ipynb"


@pytest.fixture(scope="module")
def cells():
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    assert (notebook["nbformat"], notebook["metadata"]["language_info"]["name"]) == (4, "python")
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def run_cell(source, names):
    """Runs a cell as a notebook does and returns what it would show: the value of a last line that is an expression."""
    tree = ast.parse(source)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, str(NOTEBOOK), "exec"), names)
    return eval(compile(ast.Expression(last.value), str(NOTEBOOK), "eval"), names) if last else None


def test_the_notebook_runs_from_top_to_bottom(cells, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "__main__"}
    shown = [run_cell("".join(cell["source"]), names) for cell in cells]
    assert all(isinstance(picture, Image.Image) for picture in shown)
    assert names["pink"].description["separation"]["accuracy"] > 0.8
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pink-hair.safetensors", "way.webp"]


def test_the_notebook_starts_in_five_lines_and_holds_no_output(cells):
    assert len("".join(cells[0]["source"]).splitlines()) <= 5
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells)
