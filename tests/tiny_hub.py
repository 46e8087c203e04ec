"""A Hugging Face Hub on this machine, as much of it as pushing a folder and reading it again asks for."""

import base64
import http.server
import json
import re
import threading

TOKEN = "hf_right"


class Server(http.server.ThreadingHTTPServer):
    """Keeps repositories as {owner/name: {commit: {path: bytes}}} and what was asked for."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.repos, self.created, self.asked, self.full = {}, [], [], False
        self.url = f"http://127.0.0.1:{self.server_port}"


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.asked.append(self.path)
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self.answer(401, {"error": "Invalid credentials"})
        if self.path == "/api/repos/create":
            request = json.loads(body)
            if request.get("organization") == "others":
                return self.answer(403, {"error": "You don't have the rights"})
            self.server.created.append(request)
            name = f"{request['organization']}/{request['name']}"
            return self.answer(200, {"url": f"{self.server.url}/{name}", "name": name})
        if self.path == "/api/validate-yaml":
            return self.answer(200, {"errors": [], "warnings": []})
        action, repo = self.model_action()
        if action == "preupload":
            files = [{**file, "uploadMode": "regular", "shouldIgnore": False} for file in json.loads(body)["files"]]
            return self.answer(200, {"files": files, "commitOid": "0" * 40})
        if action == "commit" and not self.server.full:
            lines = [json.loads(line) for line in body.splitlines()]
            files = {
                line["value"]["path"]: base64.b64decode(line["value"]["content"])
                for line in lines
                if line["key"] == "file"
            }
            commits = self.server.repos.setdefault(repo, {})
            commit = f"{len(commits) + 1:040x}"
            commits[commit] = files
            return self.answer(200, {"commitUrl": f"{self.server.url}/{repo}/commit/{commit}", "commitOid": commit})
        return self.answer(413 if action == "commit" else 404, {"error": "no room"})

    def do_GET(self):
        self.server.asked.append(self.path)
        found = re.fullmatch(r"/([\w-]+/[\w.-]+)/resolve/([^/]+)/(.+)", self.path)
        commits = self.server.repos.get(found[1], {}) if found else {}
        commit = list(commits)[-1] if found and commits and found[2] == "main" else found and found[2]
        data = commits.get(commit, {}).get(found[3]) if found else None
        if data is None:
            return self.answer(404, {"error": "not there"}, [("X-Error-Code", "EntryNotFound")])
        return self.answer(200, data, [("ETag", f'"{hash(data):x}"'), ("X-Repo-Commit", commit)])

    do_HEAD = do_GET

    def model_action(self):
        found = re.fullmatch(r"/api/models/([\w-]+/[\w.-]+)/(preupload|commit)/[^?]+(?:\?.*)?", self.path)
        return (found[2], found[1]) if found else ("", "")

    def answer(self, status, content, headers=()):
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, *args):
        pass


def running():
    """A fixture: a Hub in a thread."""
    server = Server()
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()
