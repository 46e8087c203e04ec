"""The web page over HTTP and in a browser: prompts, errors, two users, a cancelled refinement, and attackers."""

import importlib.util
import json
import os
import re
import signal
import socket
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from tiny_checkpoint import write_tiny_checkpoint
from tiny_models import TinyGenerator

from clip2latent import cli
from clip2latent.spec import ModelSpec
from clip2latent.web.server import SESSIONS, start
from clip2latent.web.studio import make_offer

CHROMIUM = "/usr/bin/chromium"
QUIET = ("quic", "background-networking", "component-update", "sync")
FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", *(f"--disable-{name}" for name in QUIET)]
gradio = pytest.mark.skipif(importlib.util.find_spec("gradio") is None, reason="gradio is not installed")
in_browser = pytest.mark.skipif(
    not Path(CHROMIUM).exists() or importlib.util.find_spec("playwright") is None,
    reason="chromium or playwright is not installed",
)
pytestmark = gradio


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """Two checkpoints: a quick one, and one whose generator waits in each call."""
    folder = tmp_path_factory.mktemp("web")
    slow = ModelSpec.of("tiny_models.TinyGenerator", {"delay": 0.03}, TinyGenerator()).to_dict()
    return str(write_tiny_checkpoint(folder / "quick")), str(write_tiny_checkpoint(folder / "slow", generator=slow))


@pytest.fixture(scope="module")
def server(sources):
    server = start(make_offer(sources), port=0, waiting=4)
    yield server
    server.close()


DRAW = {"num": 1, "candidates": 4, "guidance": "", "steps": 4, "seed": 0, "truncation": 1, "negative": ""}


def post(server, path, body, timeout=60):
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(server.url + path, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=timeout) as answer:
        return json.loads(answer.read() or b"null")


def call(server, name, values):
    """The last answer, [status, pictures], of an address that the page offers."""
    event = post(server, f"/gradio_api/call/{name}", {"data": values})["event_id"]
    with urllib.request.urlopen(f"{server.url}/gradio_api/call/{name}/{event}", timeout=60) as stream:
        lines = stream.read().decode().splitlines()
    kinds = [line.removeprefix("event: ") for line in lines if line.startswith("event: ")]
    data = [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]
    assert kinds[-1] == "complete", lines[-2:]
    return json.loads(data[-1])


def draw(server, model, prompt, picture="", weight=1, **changes):
    return call(server, "draw", [model, prompt, *(DRAW | changes).values(), picture, weight])


def test_a_prompt_becomes_pictures_with_scores(server, sources):
    status, pictures = draw(server, sources[0], "a red hat\na dog")
    assert "the best 1 of 4" in status and pictures.count("<figure>") == 2
    assert re.search(r"<b title=\"score\">0\.\d{3}</b>", pictures) and "data:application/zip" in pictures


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"prompt": ""}, "prompt: expected what the picture shows"),
        ({"prompt": "/etc/secret.png"}, "it ends like a picture&#x27;s file"),
        ({"prompt": "x" * 401}, "prompt 1 of 401 characters: expected at most 400"),
        ({"prompt": ["a"]}, "prompt=list: expected a text"),
        ({"model": "/etc"}, "model=&#x27;/etc&#x27;: expected one of"),
        ({"model": None}, "expected one of"),
        ({"num": -3}, "number=-3: expected a whole number from 1 to 16"),
        ({"num": 1e300}, "number=1e+300: expected"),
        ({"candidates": None}, "candidates=None: expected a whole number from 1 to 64"),
        ({"steps": float("nan")}, "steps=nan: expected"),
        ({"truncation": float("inf")}, "truncation=inf: expected"),
        ({"guidance": "much"}, "guidance=&#x27;much&#x27;: expected a number from 0 to 20"),
        ({"seed": True}, "seed=True: expected"),
        ({"negative": "secret.jpg"}, "negative prompt="),
        ({"picture": "/etc/passwd"}, "image prompt: expected an uploaded picture"),
        ({"picture": "http://127.0.0.1:1/x.png"}, "image prompt: expected an uploaded picture"),
        ({"guidance": 1, "negative": "a hat"}, "a negative prompt has no effect at guidance 1"),
    ],
)
def test_bad_input_is_answered_with_name_value_and_what_was_expected(server, sources, changes, words):
    status = draw(server, **({"model": sources[0], "prompt": "a red hat"} | changes))[0]
    assert "c2l-failure" in status and words in status and "Traceback" not in status


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/file=/etc/passwd",
        "/gradio_api/file=setup.cfg",
        "/gradio_api/file/etc/passwd",
        "/file=/etc/passwd",
        "/static/../../../../../../etc/passwd",
        "/static/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
        "/assets/..%2f..%2f..%2f..%2fetc%2fpasswd",
        "/gradio_api/proxy=http://127.0.0.1/",
        "/monitoring",
        "/docs",
        "/openapi.json",
        "/gradio_api/openapi.json",
    ],
)
def test_no_file_and_nothing_of_the_server_is_offered(server, path):
    with pytest.raises(urllib.error.HTTPError) as raised:
        urllib.request.urlopen(server.url + path, timeout=30)
    assert raised.value.code in (403, 404)
    assert b"root:" not in raised.value.read()


@pytest.mark.parametrize(
    ("path", "body", "code"),
    [
        ("/gradio_api/upload", b"--x\r\n", 404),
        ("/gradio_api/run/draw", {"data": []}, 404),
        ("/gradio_api/call/draw", {"data": [{"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}]}, 400),
        ("/gradio_api/call/draw", b"x" * (12 * 2**20), 413),
        ("/gradio_api/call/draw", b"not json", 400),
    ],
)
def test_hostile_requests_are_refused(server, path, body, code):
    with pytest.raises(urllib.error.HTTPError) as raised:
        post(server, path, body)
    assert raised.value.code == code


def test_answers_forbid_other_origins(server):
    with urllib.request.urlopen(server.url, timeout=30) as answer:
        assert "default-src 'self'" in answer.headers["content-security-policy"]
    request = urllib.request.Request(server.url + "/config", headers={"Origin": "http://evil.example"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        assert answer.headers.get("access-control-allow-origin") != "http://evil.example"


def test_what_gradio_keeps_of_visitors_is_bounded(server):
    for _ in range(SESSIONS + 4):
        draw(server, "no model", "a red hat")
    assert len(server.page.state_holder.session_data) <= SESSIONS
    assert server.page._queue.pending_messages_per_session.max_size == 32
    assert server.page.allowed_paths == [] and not server.page.analytics_enabled


def test_a_full_queue_is_answered(server, sources):
    """Of ten requests at once one runs and four wait; all are answered, the others with what to do."""
    answers = []

    def one(seed):
        answers.append(draw(server, sources[1], "a red hat", seed=seed, candidates=64)[0])

    server.worker.submit(_slow(sources))
    threads = [threading.Thread(target=one, args=(seed,)) for seed in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    full = [answer for answer in answers if "the queue is full: 4 requests are waiting; try again" in answer]
    drawn = [answer for answer in answers if "the best 1 of 64" in answer]
    assert len(answers) == 10 and len(full) + len(drawn) == 10 and full and drawn


def _slow(sources):
    from clip2latent.web.requests import Refine

    return Refine(sources[1], "a red hat", steps=30)


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


@in_browser
def test_a_prompt_typed_an_image_seen_a_bad_input_answered(browser, server, tmp_path):
    page = visit(browser, server)
    ask(page, "a red hat")
    image = page.wait_for_selector(".c2l-gallery figure img")
    assert page.locator(".c2l-gallery figure").count() == 4
    assert image.evaluate("image => image.naturalWidth") == 8
    with page.expect_download() as download:
        page.locator(".c2l-gallery figure a").first.click()
    from clip2latent.images import read_recipe

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


@in_browser
def test_an_uploaded_picture_is_part_of_the_prompt(browser, server, tmp_path):
    from PIL import Image

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


@in_browser
def test_two_users_at_once_see_their_own(browser, server):
    pages = [visit(browser, server), visit(browser, server)]
    for page, prompt in zip(pages, ("a red hat\nfirst", "a dog\nsecond"), strict=True):
        ask(page, prompt)
    for page, word in zip(pages, ("first", "second"), strict=True):
        page.wait_for_selector(".c2l-gallery h4")
        assert page.locator(".c2l-gallery h4").last.inner_text() == word
        page.close()


@in_browser
def test_a_refinement_is_watched_and_stopped(browser, server, sources):
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
    page.close()


def test_the_command_serves_and_ends_cleanly_when_interrupted(sources, capsys):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    seen = []

    def visit_and_interrupt():
        for _ in range(600):
            time.sleep(0.1)
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}", timeout=60) as page:
                    seen.append(page.status)
                break
            except urllib.error.URLError:
                continue
        time.sleep(0.3)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=visit_and_interrupt)
    thread.start()
    code = cli.main(["web", "--checkpoint", sources[0], "--checkpoint", sources[1], "--port", str(port), "--offline"])
    thread.join()
    printed = capsys.readouterr()
    assert code == 0 and seen == [200] and not printed.err
    assert printed.out.splitlines() == [f"clip2latent is at http://127.0.0.1:{port} - Ctrl-C ends it"]
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(f"http://127.0.0.1:{port}", timeout=5)


def test_a_port_that_is_taken_is_one_line(server, capsys):
    port = server.url.rpartition(":")[2]
    assert cli.main(["web", "--port", port]) == 2
    error = capsys.readouterr().err.strip()
    assert "\n" not in error and f"port {port}" in error and "--port" in error
