"""What the web page's guard lets pass: addresses, bodies, their lengths, connections."""

import asyncio
import json

import pytest

from clip2latent.web import guard as guard_module
from clip2latent.web.guard import LARGE_AT_ONCE, MOST_BYTES, Guard, is_open, read_plain


@pytest.mark.parametrize(
    ("path", "passes"),
    [
        ("/", True),
        ("/gradio_api/queue/join", True),
        ("/gradio_api/call/draw/123", True),
        ("/assets/index.js", True),
        ("/gradio_api/file=/etc/passwd", False),
        ("/gradio_api/file/etc/passwd", False),
        ("/file=/etc/passwd", False),
        ("/gradio_api/upload", False),
        ("/gradio_api/proxy=http://127.0.0.1/", False),
        ("/gradio_api/stream/1", False),
        ("/gradio_api/component_server", False),
        ("/gradio_api/vibe-edit", False),
        ("/monitoring", False),
        ("/assets/../../etc/passwd", False),
        ("/static/..%2f..\\x", False),
        ("//etc/passwd", False),
        ("/gradio_api/", False),
    ],
)
def test_only_what_the_page_needs_is_open(path, passes):
    assert is_open(path) is passes


@pytest.mark.parametrize(
    ("body", "plain"),
    [
        (b"", True),
        (b'{"data": ["a", 1, null, true, ["x"]], "fn_index": 2}', True),
        (b'{"data": [{"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}]}', False),
        (b'{"data": [[{"path": "http://10.0.0.1/"}]]}', False),
        (b'{"data": {"path": "x"}}', False),
        (b'{"data": [' + b"1," * 100 + b"1]}", False),
        (b'{"data": [' + b"[" * 5000 + b"]" * 5000 + b"]}", False),
        (b'{"data": ["a", NaN]}', False),
        (b'{"data": [1e999]}', False),
        (b'{"data": [' + b"9" * 400 + b"]}", False),
        (b'{"data": ["\\ud800"]}', False),
        (b'{"data": ["\xc3\xa4 \\u00e4"]}', True),
        (b'{"data": [], "event_data": {"path": "/etc/passwd"}}', False),
        (b'{"data": [], "session_hash": "' + b"x" * 201 + b'"}', False),
        (b"[]", False),
        (b"x", False),
        (b"\xff\xfe", False),
    ],
)
def test_data_are_texts_numbers_and_lists(body, plain):
    assert (read_plain(body) is not None) is plain


JSON = (b"content-type", b"application/json")
FIELDS = {"draw": 1, "3": 1}


def ask(guard, method="GET", path="/", body=b"", headers=(JSON,), parts=1):
    """What a guard answers: the status, and the body that the application saw."""
    sent, step = [], max(1, len(body) // parts)
    pieces = [body[at : at + step] for at in range(0, len(body), step)] or [b""]

    async def receive():
        piece = pieces.pop(0) if pieces else b""
        return {"type": "http.request", "body": piece, "more_body": bool(pieces)}

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": method, "path": path, "headers": list(headers)}
    asyncio.run(guard(scope, receive, send))
    return sent[0]["status"], dict(sent[0]["headers"]), sent[-1].get("body", b"")


async def echo(scope, receive, send):
    body = (await receive())["body"] if scope["method"] == "POST" else b"page"
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


def test_the_guard_gives_on_what_it_read_and_refuses_what_is_too_long():
    guard, body = Guard(echo, FIELDS), json.dumps({"data": ["x" * 1000], "fn_index": 3}).encode()
    status, headers, answer = ask(guard, "POST", "/gradio_api/queue/join", body, parts=3)
    assert (status, answer) == (200, body) and b"content-security-policy" in headers
    assert ask(guard)[0] == 200 and ask(guard, path="/gradio_api/file=x")[0] == 404
    large = b"x" * (MOST_BYTES + 1)
    assert ask(guard, "POST", "/gradio_api/queue/join", large, parts=9)[0] == 413
    short = [JSON, (b"content-length", b"10")]
    assert ask(guard, "POST", "/gradio_api/queue/join", large, short, parts=9)[0] == 413
    assert ask(guard, "POST", "/gradio_api/queue/join", b'{"data": [{}]}')[0] == 400
    for event in ("call/draw", "call/draw/"):
        assert ask(guard, "POST", f"/gradio_api/{event}", b'{"data": [1]}')[0] == 200
    for event in ("call/paint", "call/draw/x", "queue/join"):
        assert ask(guard, "POST", f"/gradio_api/{event}", b'{"data": [1]}')[0] == 400
    assert ask(guard, "POST", "/gradio_api/call/draw", b'{"data": [1, 2]}')[0] == 400
    for kind in ([], [(b"content-type", b"text/plain")], [(b"content-type", b"multipart/form-data; boundary=x")]):
        assert ask(guard, "POST", "/gradio_api/queue/join", body, kind)[0] == 415
    assert guard.open == guard.large == 0
    guard.large = LARGE_AT_ONCE
    assert ask(guard, "POST", "/gradio_api/queue/join", body)[0] == 503
    small = [JSON, (b"content-length", str(len(body)).encode())]
    assert ask(guard, "POST", "/gradio_api/queue/join", body, small)[0] == 200


def test_a_body_that_does_not_come_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(guard_module, "PATIENCE", 0.01)
    guard, sent = Guard(echo, FIELDS), []

    async def receive():
        await asyncio.sleep(10)

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/gradio_api/queue/join", "headers": []}
    asyncio.run(guard(scope, receive, send))
    assert sent[0]["status"] == 408 and guard.large == 0
    asyncio.run(guard({"type": "websocket", "path": "/"}, receive, send))
    assert sent[-1]["type"] == "websocket.close"


def test_connections_are_bounded():
    inner = []

    async def nested(scope, receive, send):
        if not inner:
            inner.append(None)
            answers = []

            async def keep(message):
                answers.append(message)

            await guard(dict(scope), receive, keep)
            inner[0] = answers[0]["status"]
        await echo(scope, receive, send)

    guard = Guard(nested, {}, connections=1)
    assert ask(guard)[0] == 200 and inner == [503] and ask(guard)[0] == 200
