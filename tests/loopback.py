"""A server on this machine that answers by a script, for tests of downloads."""

import contextlib
import hashlib
import http.server
import threading
import time

from clip2latent import transfer

DATA = bytes(range(256)) * 400
SHA256 = hashlib.sha256(DATA).hexdigest()
OTHER = DATA[::-1]


class Server(http.server.ThreadingHTTPServer):
    """Answers each request by the next function of `script`, the last one again and again; keeps the requests."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.script, self.requests = [send()], []
        self.url = f"http://127.0.0.1:{self.server_port}"


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.server.requests.append((self.command, self.path, dict(self.headers)))
        script = self.server.script
        with contextlib.suppress(ConnectionError):
            (script.pop(0) if len(script) > 1 else script[0])(self)
        self.close_connection = True

    do_HEAD = do_GET

    def log_message(self, *args):
        pass


def send(data=DATA, etag='"one"', first=None, pause=0.0, ranges=True, headers=(), length=True, status=None):
    """Sends data; only its `first` bytes before breaking off, with a pause after the first thousand."""

    def answer(handler):
        start, wanted = 0, handler.headers.get("Range")
        if wanted and ranges and handler.headers.get("If-Range") == etag:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
        handler.send_response(status or (206 if start else 200))
        if start:
            handler.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        if length:
            handler.send_header("Content-Length", str(len(data) - start))
        if etag:
            handler.send_header("ETag", etag)
        for name, value in headers:
            handler.send_header(name, value)
        handler.end_headers()
        if handler.command == "GET":
            body = data[start:] if first is None else data[start : start + first]
            handler.wfile.write(body[:1000])
            handler.wfile.flush()
            time.sleep(pause)
            handler.wfile.write(body[1000:])

    return answer


def refuse(code):
    return lambda handler: handler.send_error(code)


def redirect(target, code=302):
    return send(b"", status=code, headers=[("Location", target)])


def chunked(*chunks, end=True):
    def answer(handler):
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        for chunk in chunks:
            handler.wfile.write(b"%x\r\n%b\r\n" % (len(chunk), chunk))
        handler.wfile.write(b"0\r\n\r\n" if end else b"")

    return answer


def running():
    """A fixture: a server in a thread."""
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


def empty_cache(tmp_path, monkeypatch):
    """A fixture: the folder of a new cache, on a network that is allowed and has no proxy."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("CLIP2LATENT_CACHE", str(folder))
    for name in ("CLIP2LATENT_OFFLINE", "HF_HUB_OFFLINE", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(transfer, "PAUSE", 0.0)
    return folder


def kept(folder):
    """Files of a cache, without locks and records."""
    return sorted(path.name for path in folder.glob("*") if path.suffix not in (".lock", ".json"))


def ranges(server):
    return [headers.get("Range") for _, _, headers in server.requests]
