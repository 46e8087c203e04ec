"""The guard before the page: which addresses answer, how long a request may be, what a request may hold.

gradio serves far more than this page needs: uploads, files, proxies, monitoring. The page sends pictures as texts and
gets pictures as texts, so that none of it is open. Only JSON is taken, which a browser does not send to other origins
without asking. Plain ASGI, without a package.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

from clip2latent.web.limits import UPLOAD_BYTES

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

API = "/gradio_api/"
OPEN = ("/", "/config", "/theme.css", "/robots.txt", "/favicon.ico", "/manifest.json")
OPEN_API = ("info", "startup-events", "theme.css", "queue/join", "queue/data", "reset", "cancel")
OPEN_BELOW = ("/assets/", "/static/", f"{API}call/", f"{API}heartbeat/")
MOST_BYTES = UPLOAD_BYTES * 4 // 3 + 64 * 1024
"""Of a request's body: a picture as a text, and the rest."""
SMALL_BYTES, LARGE_AT_ONCE = 64 * 1024, 8
"""Of bodies longer than the first so many are read at once, so that they fill no memory."""
CONNECTIONS, PATIENCE = 256, 60.0
"""Requests at once, and seconds that a body may take."""
HEADERS = {
    "content-security-policy": "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; object-src 'none';"
    " base-uri 'self'; form-action 'self'; frame-ancestors 'self'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}


class Guard:
    """An ASGI application around another, which sees only what passes."""

    def __init__(self, app: App, fields: Mapping[str, int], connections: int = CONNECTIONS) -> None:
        """Takes the application.

        Args:
            app: any ASGI application.
            fields: how many values each event takes, by its name and by its number.
            connections: requests that are served at once; more are told to come again.
        """
        self.app, self.fields, self.most = app, fields, connections
        self.open = self.large = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request, or gives it on."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        if not is_open(scope.get("path", "")):
            await refuse(send, 404, "there is nothing here")
            return
        if self.open >= self.most:
            await refuse(send, 503, "too many connections: try again in a moment")
            return
        self.open += 1
        try:
            await self._pass(scope, receive, send)
        finally:
            self.open -= 1

    async def _pass(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def headed(message: Message) -> None:
            if message["type"] == "http.response.start":
                extra = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
                message = {**message, "headers": [*message.get("headers", []), *extra]}
            await send(message)

        if scope["method"] not in ("POST", "PUT", "PATCH", "DELETE"):
            await self.app(scope, receive, headed)
            return
        small = is_small(scope)
        if not small and self.large >= LARGE_AT_ONCE:
            await refuse(send, 503, "too many pictures at once: try again in a moment")
            return
        self.large += not small
        try:
            body = await asyncio.wait_for(read_body(receive, SMALL_BYTES if small else MOST_BYTES), PATIENCE)
        except asyncio.TimeoutError:
            await refuse(send, 408, f"the request took longer than {PATIENCE:.0f} s")
            return
        finally:
            self.large -= not small
        if body is None:
            await refuse(send, 413, f"the request is too long: expected at most {MOST_BYTES} bytes")
            return
        if body and not header(scope, b"content-type").startswith(b"application/json"):
            await refuse(send, 415, "expected a request in JSON, with content-type application/json")
            return
        record = read_plain(body)
        if record is None:
            await refuse(send, 400, "expected a request in JSON whose data are texts, numbers and lists of them")
            return
        event = asked_event(scope["path"], record)
        if event is not None and self.fields.get(event) != len(record.get("data") or []):
            await refuse(send, 400, f"expected a known event and its {self.fields.get(event, 0)} values")
            return
        given = False

        async def again() -> Message:
            nonlocal given
            if given:
                return await receive()
            given = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self.app(scope, again, headed)


def is_open(path: str) -> bool:
    """Tells whether an address is one that the page needs."""
    if ".." in path or "\\" in path or "//" in path or "\0" in path:
        return False
    return path in OPEN or path.removeprefix(API).rstrip("/") in OPEN_API or path.startswith(OPEN_BELOW)


def read_plain(body: bytes) -> dict[str, Any] | None:
    """Returns what a body in JSON says, {} for an empty one; None where it says more than a page does.

    Its data may be texts, finite numbers and lists of them: gradio takes some mappings for files to fetch. Everything
    else is a number or a short text.
    """
    if not body:
        return {}
    try:
        record = json.loads(body.decode("utf-8"))
    except (ValueError, RecursionError):
        return None
    data = (record.get("data") or []) if isinstance(record, dict) else None
    if not isinstance(data, list) or len(data) > 64:
        return None
    flat = [part for item in data for part in (item if isinstance(item, list) else [item])]
    rest = [value for name, value in record.items() if name != "data"]
    short = all(not isinstance(value, str) or len(value) <= 200 for value in rest)
    return record if len(flat) <= 256 and short and all(map(_is_plain, [*flat, *rest])) else None


def asked_event(path: str, record: Mapping[str, Any]) -> str | None:
    """Returns the name or the number of the event that a request asks for; None where it asks for none."""
    if path.startswith(f"{API}call/"):
        return path.removeprefix(f"{API}call/").rstrip("/")
    return str(record.get("fn_index")) if path.rstrip("/") == f"{API}queue/join" else None


def _is_plain(value: Any) -> bool:
    if isinstance(value, (int, float)):
        return abs(value) < 2**63 if isinstance(value, int) else math.isfinite(value)
    if isinstance(value, str):
        return not any("\ud800" <= letter <= "\udfff" for letter in value) if not value.isascii() else True
    return value is None


def header(scope: Scope, name: bytes) -> bytes:
    """Returns a header's value in small letters, b"" where there is none."""
    return dict(scope.get("headers", [])).get(name, b"").lower()


def is_small(scope: Scope) -> bool:
    """Tells whether a request says that its body is short; one that says nothing may be of any length."""
    told = header(scope, b"content-length")
    return told.isdigit() and int(told[:12]) <= SMALL_BYTES


async def read_body(receive: Receive, most: int) -> bytes | None:
    """Returns a request's body; None where it is too long, or its sender has left."""
    parts, length = [], 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return None
        parts.append(message.get("body", b""))
        length += len(parts[-1])
        if length > most:
            return None
        if not message.get("more_body"):
            return b"".join(parts)


async def refuse(send: Send, status: int, text: str) -> None:
    """Answers with a status and a line."""
    content = json.dumps({"detail": text}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(content)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content})
