"""The web page in headless Chromium: a prompt typed, a bad input, an upload, two users, a refinement stopped."""

import importlib.util
import re
from pathlib import Path

import pytest
from PIL import Image
from web_checkpoints import write_checkpoints

from clip2latent.images import read_recipe
from clip2latent.web import optimising
from clip2latent.web.server import start
from clip2latent.web.studio import make_offer

CHROMIUM = "/usr/bin/chromium"
QUIET = ("quic", "background-networking", "component-update", "sync")
FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", *(f"--disable-{name}" for name in QUIET)]
MISSING = [name for name in ("gradio", "playwright") if importlib.util.find_spec(name) is None]
MISSING += [] if Path(CHROMIUM).exists() else [CHROMIUM]
pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}")


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    return write_checkpoints(tmp_path_factory.mktemp("web"))


@pytest.fixture(scope="module")
def server(sources):
    server = start(make_offer(sources), port=0, waiting=4)
    yield server
    server.close()


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


def visit(browser, server, width=1200):
    page = browser.new_page(viewport={"width": width, "height": 900})
    page.set_default_timeout(60000)
    page.asked = []
    page.on("request", lambda request: page.asked.append(request.url))
    page.goto(server.url)
    page.wait_for_selector("#c2l-prompt textarea")
    return page


def ask(page, prompt):
    page.fill("#c2l-prompt textarea", prompt)
    page.click("#c2l-draw")


def test_a_prompt_typed_an_image_seen_a_bad_input_answered(browser, server, tmp_path):
    page = visit(browser, server)
    ask(page, "a red hat")
    image = page.wait_for_selector(".c2l-gallery figure img")
    assert page.locator(".c2l-gallery figure").count() == 4
    assert image.evaluate("image => image.naturalWidth") == 8
    with page.expect_download() as download:
        page.locator(".c2l-gallery figure a").first.click()
    file = tmp_path / download.value.suggested_filename
    download.value.save_as(file)
    assert file.name == "000-a-red-hat-0.png" and read_recipe(file)["candidates"] == 16
    ask(page, "secrets/photo.png")
    alert = page.wait_for_selector(".c2l-failure")
    assert "upload the picture" in alert.inner_text()
    ask(page, "<img src=x onerror=\"document.title='broken into'\"> ${document.title='broken into'} {{x}}\na dog")
    page.wait_for_selector(".c2l-gallery h4")
    assert "onerror" in page.locator(".c2l-gallery h4").first.inner_text() and page.title() == "clip2latent"
    foreign = [url for url in page.asked if not url.startswith((server.url, "data:", "blob:"))]
    assert not foreign
    page.close()


def test_an_uploaded_picture_is_part_of_the_prompt(browser, server, tmp_path):
    file = tmp_path / "..%2f..%2fetc passwd.png"
    Image.effect_noise((40, 30), 80).convert("RGB").save(file)
    page = visit(browser, server, width=400)
    page.get_by_text("Image prompt", exact=True).click()
    page.set_input_files("#c2l-picture input", file)
    page.wait_for_selector("#c2l-picture img")
    ask(page, "a red hat")
    page.wait_for_selector(".c2l-gallery figure img")
    assert page.locator(".c2l-gallery figure a").first.get_attribute("download") == "000-picture-1-a-red-hat-0.png"
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    assert not any("upload" in url for url in page.asked)
    page.close()


def test_two_users_at_once_see_their_own(browser, server):
    pages = [visit(browser, server), visit(browser, server)]
    for page, prompt in zip(pages, ("a red hat\nfirst", "a dog\nsecond"), strict=True):
        ask(page, prompt)
    for page, word in zip(pages, ("first", "second"), strict=True):
        page.wait_for_selector(".c2l-gallery h4")
        assert page.locator(".c2l-gallery h4").last.inner_text() == word
        page.close()


def test_a_refinement_is_watched_and_stopped_also_by_leaving(browser, server, sources, monkeypatch):
    monkeypatch.setattr(optimising, "PREVIEW_SECONDS", 0.2)
    page = visit(browser, server)
    page.get_by_label("Model").click()
    page.get_by_role("option", name=sources[1]).click()
    page.get_by_role("tab", name="Refine").click()
    page.get_by_label("number input for Steps").last.fill("300")
    page.get_by_role("button", name="Refine", exact=True).click()
    page.wait_for_selector(".c2l-pictures:visible figure")  # of a step on the way
    page.locator(".c2l-stop:visible").click()
    page.wait_for_selector(".c2l-all:visible")
    note = page.locator(".c2l-status:visible").inner_text()
    steps = int(re.match(r"(\d+) of 300 steps", note)[1])
    assert 0 < steps < 300 and "stopped" in note
    page.get_by_role("button", name="Refine", exact=True).click()
    page.get_by_text(re.compile(r"refining \d+ of 300")).wait_for()
    job = server.worker._running
    page.close()
    assert "stopped" in job.result(60).note


def test_a_slider_that_is_let_go_changes_the_picture(browser, server):
    page = visit(browser, server)
    page.get_by_role("tab", name="Edit").click()
    page.get_by_role("button", name="Options").locator("visible=true").click()
    slider = page.get_by_label("range slider for Truncation").locator("visible=true")
    box = slider.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + 3, box["y"] + box["height"] / 2, steps=3)
    page.mouse.up()
    page.wait_for_selector(".c2l-pictures:visible figure")
    assert re.search(r"truncation=0", page.locator(".c2l-status:visible").inner_text())
    page.close()
