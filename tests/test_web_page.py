"""The web page over HTTP: prompts, errors, a full queue, attackers, and the command that serves it."""

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

import pytest
from web_checkpoints import write_checkpoints

from clip2latent import cli
from clip2latent.web.requests import Refine
from clip2latent.web.server import SESSIONS, start
from clip2latent.web.studio import make_offer

pytestmark = pytest.mark.skipif(importlib.util.find_spec("gradio") is None, reason="gradio is not installed")


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    return write_checkpoints(tmp_path_factory.mktemp("web"))


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
        ({"steps": 3.5}, "steps=3.5: expected a whole number from 1 to 100"),
        ({"guidance": "nan"}, "guidance=nan: expected a number from 0 to 20"),
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
        ("/gradio_api/call/draw", {"data": [float("nan")] * 11}, 400),
        ("/gradio_api/call/draw", {"data": []}, 400),
        ("/gradio_api/call/lambda", {"data": []}, 400),
        ("/gradio_api/queue/join", {"data": [], "fn_index": 999, "session_hash": "x"}, 400),
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


def test_a_proxy_says_what_the_pages_addresses_are(server):
    headers = {"Host": "pictures.example.org", "X-Forwarded-Proto": "https"}
    with urllib.request.urlopen(urllib.request.Request(server.url + "/config", headers=headers), timeout=30) as answer:
        assert json.load(answer)["root"] == "https://pictures.example.org"


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

    server.worker.submit(Refine(sources[1], "a red hat", steps=30))
    threads = [threading.Thread(target=one, args=(seed,)) for seed in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    full = [answer for answer in answers if "the queue is full: 4 requests are waiting; try again" in answer]
    drawn = [answer for answer in answers if "the best 1 of 64" in answer]
    assert len(answers) == 10 and len(full) + len(drawn) == 10 and full and drawn


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
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job's tests ignore it
    try:
        thread.start()
        models = ["--checkpoint", sources[0], "--checkpoint", sources[1]]
        code = cli.main(["web", *models, "--port", str(port), "--offline"])
        thread.join()
    finally:
        signal.signal(signal.SIGINT, handler)
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
