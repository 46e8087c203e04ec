"""Pages of evaluations and sweeps, as the commands write them."""

import json
from html import unescape

import pytest
from tiny_checkpoint import write_tiny_checkpoint

from clip2latent import cli
from clip2latent.html_page import Page, Table, html, markdown, number
from clip2latent.pages import page_of


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "prompts.txt").write_text("a dog & a hat\na <b>\n")
    return ["--prompts", "prompts.txt", "--checkpoint", str(write_tiny_checkpoint(tmp_path / "tiny")), "--out", "out"]


def test_evaluate_writes_a_page_with_every_row_a_curve_and_its_picture(tiny, tmp_path):
    options = ["--num=2", "--retrieval=0", "--candidates=2", "--repeats=1", "--guidance=[1,3]"]
    assert cli.main(["evaluate", *tiny, *options]) == 0
    page = (tmp_path / "out/report.html").read_text()
    record = json.loads((tmp_path / "out/metrics.json").read_text())
    for row in record["rows"]:
        assert f"<td>{row['row']}</td>" in page and number(row["clip_score"], row["clip_score_stderr"]) in page
    assert page.count("<svg") == 1 and page.count("<circle") == 2 * 3  # two measures at three guidances
    assert page.count("data:image/png;base64,") == 1 and "<b>" not in page
    shown = page[page.index("<pre>") + 5 : page.index("</pre>")]
    assert json.loads(unescape(shown)) == record


def test_a_sweep_writes_a_page_which_report_makes_anew(tiny, tmp_path):
    options = ["--num=2", "--guidance=[1,2]", "--steps=[2,3]", "--samplers=[ddim]", "--reference=ddpm-3-2"]
    assert cli.main(["sweep", *tiny, *options]) == 0
    page = (tmp_path / "out/report.html").read_text()
    (tmp_path / "out/report.html").unlink()
    assert cli.main(["report", "out"]) == 0
    assert (tmp_path / "out/report.html").read_text() == page
    rows = json.loads((tmp_path / "out/metrics.json").read_text())["rows"]
    assert len(rows) == 5 and all(f"<td>{row['name']}</td>" in page for row in rows)
    assert page.count("<svg") == 2 and "against the number of steps" in page and "against the guidance" in page


def test_tables_in_both_forms_and_missing_numbers():
    table = Table("Title", ["", "a"], [["x", number(None)], ["y", number(0.12345, 0.5)]], "a < b")
    assert markdown(table) == "|  | a |\n| --- | --- |\n| x | - |\n| y | 0.123 ± 0.500 |"
    page = html(Page("T", ["lead"], [table]), {}, {"key": "</pre>"})
    assert "a &lt; b" in page and page.count("</pre>") == 1 and "<td>0.123 ± 0.500</td>" in page
    with pytest.raises(ValueError, match="none of evaluate, sweep, table and score"):
        page_of({"rows": []})
