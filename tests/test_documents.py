"""The documents hold together: links and pictures exist, every command is explained, the README stays short."""

import ast
import inspect
import re
import runpy
from pathlib import Path
from urllib.parse import unquote

import pytest
from PIL import Image, ImageChops, ImageStat

from clip2latent import cli
from datagen.__main__ import datagen

ROOT = Path(__file__).parents[1]
PAGES = sorted(path.relative_to(ROOT).as_posix() for path in [*ROOT.glob("*.md"), *ROOT.glob("d*/*.md")])
GUIDES = [name for name in PAGES if name.startswith(("README", "docs/"))]
PICTURES = ROOT / "docs" / "pictures"


def without_code(text):
    """Returns a Markdown text without its fenced blocks and spans of code, in which brackets are no links."""
    return re.sub(r"`[^`\n]*`", "", re.sub(r"^[ ]*```.*?^[ ]*```", "", text, flags=re.DOTALL | re.MULTILINE))


def links(text):
    """Returns the targets of a Markdown text's links and pictures."""
    return re.findall(r"\]\(<?([^()\s>]+)>?(?: \"[^\"]*\")?\)", without_code(text))


def anchors(text):
    """Returns the names that GitHub gives a Markdown text's headings."""
    headings = re.findall(r"^#+ +(.*)$", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def broken(page, root=ROOT):
    """Returns the links of a page that lead nowhere."""
    path = root / page
    text, wrong = path.read_text(encoding="utf-8"), []
    for link in links(text):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = unquote(link).partition("#")
        target = path.parent / name if name else path
        if not target.exists() or (anchor and anchor not in anchors(target.read_text(encoding="utf-8"))):
            wrong.append(link)
    return wrong


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_somewhere(page):
    assert broken(page) == []


def test_a_broken_link_is_found(tmp_path):
    (tmp_path / "a.md").write_text(
        "# One thing, so\n[1](a.md) [2](b.md) ![3](c.png) [4](a.md#one-thing-so) [5](#two)\n"
    )
    assert broken("a.md", tmp_path) == ["b.md", "c.png", "#two"]
    (tmp_path / "a.md").write_text("`[1](b.md)` [2](https://example.org/b.md)\n```\n[3](b.md)\n```\n")
    assert broken("a.md", tmp_path) == []


def messages():
    """Returns the texts in the packages' sources, each in one piece, ... in the place of what is filled in."""
    for path in [path for package in ("clip2latent", "datagen") for path in (ROOT / package).rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                yield "".join(str(part.value) if isinstance(part, ast.Constant) else "..." for part in node.values)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


def test_the_errors_that_are_explained_are_those_that_are_raised():
    page = (ROOT / "docs" / "faq.md").read_text(encoding="utf-8")
    quoted = [
        text for bold in re.findall(r"^\*\*(.*?)\*\*", page, re.MULTILINE) for text in re.findall(r'"(.*?)"', bold)
    ]
    raised = list(messages())
    unknown = [text for text in quoted if not any(all(part in one for part in text.split(" ... ")) for one in raised)]
    assert len(quoted) > 8 and unknown == []


def commands():
    """Returns the names of sample.py's commands, read from the source of its table."""
    tree = ast.parse((ROOT / "clip2latent" / "cli.py").read_text(encoding="utf-8"))
    loops = [node for node in ast.walk(tree) if isinstance(node, ast.For) and isinstance(node.iter, ast.Tuple)]
    names = [[item.id for item in loop.iter.elts if isinstance(item, ast.Name)] for loop in loops]
    return next(found for found in names if "generate" in found)


def test_every_command_is_in_a_document():
    told = "\n".join((ROOT / name).read_text(encoding="utf-8") for name in GUIDES)
    missing = [name for name in commands() if not re.search(rf"(?:sample\.py|clip2latent) {name}\b|`{name}`", told)]
    assert len(commands()) > 15 and missing == []


def test_every_page_is_in_the_list_of_pages():
    index = links((ROOT / "docs" / "README.md").read_text(encoding="utf-8"))
    pages = {path.name for path in (ROOT / "docs").iterdir() if path.suffix in (".md", ".ipynb")}
    assert pages - {"README.md", "index.md"} <= set(index), pages - set(index)


def test_every_page_is_in_the_tree_of_pages():
    for index in (ROOT / "docs" / "index.md", ROOT / "docs" / "api" / "index.md"):
        trees = re.findall(r"^```\{toctree\}\n(.*?)^```", index.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
        listed = [line for tree in trees for line in tree.splitlines() if line and not line.startswith(":")]
        pages = {path.stem for path in index.parent.glob("*.md")} - {"README", "index"}
        assert len(listed) == len(set(listed)) and set(listed) - {"api/index"} == pages


def test_the_readme_is_short_and_begins_with_its_two_commands():
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 110
    first, second = (position for position, line in enumerate(lines) if line.startswith("pip install"))
    assert lines[first] == 'pip install -e . && python sample.py generate "an old man with glasses and a red hat"'
    assert lines[second] == 'pip install -e ".[test]" && python -m pytest'
    assert second < 20 and not any("sample.py" in line for line in lines[:first])


def test_pictures_are_small_made_by_their_script_and_shown():
    tree = ast.parse((PICTURES / "make.py").read_text(encoding="utf-8"))
    made = next(node for node in tree.body if isinstance(node, ast.AnnAssign) and node.target.id == "PICTURES")
    names = {item.id for item in made.value.elts}
    files = {path.stem: path.stat().st_size for path in PICTURES.glob("*.webp")}
    assert set(files) == names and max(files.values()) <= 60_000 and sum(files.values()) <= 500_000
    shown = links((ROOT / "docs" / "sampling.md").read_text(encoding="utf-8"))
    assert {f"pictures/{name}.webp" for name in names} <= set(shown)


def test_pictures_are_those_of_the_shipped_models():
    made = runpy.run_path(str(PICTURES / "make.py"))
    anew = made["seeds"](made["TextToImage"].from_pretrained("demo", "cpu"))
    kept = Image.open(PICTURES / "seeds.webp").convert("RGB")
    assert anew.size == kept.size
    another_row = ImageChops.offset(kept, 0, anew.height // 3)
    same, other = (ImageStat.Stat(ImageChops.difference(anew, picture)).mean for picture in (kept, another_row))
    assert max(same) < 7 < 14 < min(other)  # of 255: what compression changes, and what other images would


def test_the_citation_names_the_three_papers():
    yaml = pytest.importorskip("yaml")
    record = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert record["cff-version"] == "1.2.0" and {"message", "title", "authors"} <= set(record)
    titles = " ".join(paper["title"] for paper in record["references"])
    assert len(record["references"]) == 3 and all(paper["authors"] and paper["type"] for paper in record["references"])
    assert all(name in titles for name in ("clip2latent", "FuseDream", "CLIP-guided Zero-Shot"))
    version = re.search(r"^version = (.*)$", (ROOT / "setup.cfg").read_text(encoding="utf-8"), re.MULTILINE)
    assert record["version"] == version[1]


@pytest.mark.filterwarnings("ignore")
def test_the_pages_and_the_api_build_without_warnings(tmp_path, capsys):
    build = pytest.importorskip("sphinx.cmd.build", reason="needs pip install -e '.[docs]'")
    pytest.importorskip("furo", reason="needs pip install -e '.[docs]'")
    pytest.importorskip("myst_parser", reason="needs pip install -e '.[docs]'")
    folders = [str(ROOT / "docs"), str(tmp_path / "pages")]
    code = build.main(["-W", "--keep-going", "-q", "-b", "dummy", "-d", str(tmp_path / "read"), *folders])
    assert code == 0, capsys.readouterr().err


OPTION = r"(?<![\w-])--[a-z][\w-]*"
LIGHTNING = {"--help", "--ckpt_path", "--data", "--model", "--trainer", "--validation"}
TORCHRUN = {"--nnodes", "--nproc_per_node", "--rdzv_backend", "--rdzv_endpoint"}


def test_options_in_documents_are_options():
    _, commands = cli._parser()
    known = LIGHTNING | TORCHRUN | {f"--{name}" for name in cli._FLAGS}
    known |= {option for command in commands.values() for option in command.options}
    known |= {name for texts in cli._TEXTS.values() for name in texts}
    known |= {f"--{name}" for name in inspect.signature(datagen).parameters}
    sources = [*ROOT.glob("demo/*.py"), *ROOT.glob("benchmarks/*.py"), ROOT / "datagen/__main__.py"]
    for path in sources:
        known |= set(re.findall(f'"({OPTION})"', path.read_text(encoding="utf-8")))
    for page in PAGES:
        found = set(re.findall(OPTION, (ROOT / page).read_text(encoding="utf-8")))
        assert found <= known, f"{page}: {found - known}"
