"""Redirects: followed within http, and nowhere else."""

import pytest
from loopback import DATA, SHA256, empty_cache, kept, ranges, redirect, running, send

from clip2latent import transfer
from clip2latent.downloads import DownloadError, cached_file

server = pytest.fixture(running)
cache = pytest.fixture(autouse=True)(empty_cache)


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_redirects_are_followed_within_http(server, code):
    server.script = [redirect("/there", code), redirect(f"{server.url}/and/there", code), send()]
    path = cached_file(f"{server.url}/models/weights.pkl", SHA256)
    assert path.read_bytes() == DATA and path.suffix == ".pkl"
    assert [path for _, path, _ in server.requests] == ["/models/weights.pkl", "/there", "/and/there"]


def test_the_rest_is_asked_for_behind_a_redirect_too(server):
    server.script = [redirect("/there"), send(first=3000), redirect("/there"), send()]
    assert cached_file(f"{server.url}/weights", SHA256).read_bytes() == DATA
    assert ranges(server)[3] == "bytes=3000-"


@pytest.mark.parametrize("target", ["file:///etc/passwd?secret", "ftp://127.0.0.1/weights?secret", "data:,secret"])
def test_redirects_to_anything_else_are_refused(server, cache, target):
    server.script = [redirect(target)]
    with pytest.raises(DownloadError, match="refused to follow a redirect") as refused:
        cached_file(f"{server.url}/weights")
    assert "?secret" not in str(refused.value) and kept(cache) == []


def test_redirects_never_leave_encryption():
    request = transfer.urllib.request.Request("https://example.org/weights")
    with pytest.raises(DownloadError, match="refused to follow a redirect to http://example"):
        transfer._Redirects().redirect_request(request, None, 302, "", {}, "http://example.org/weights")


def test_a_circle_of_redirects_ends(server):
    server.script = [redirect("/weights")]
    with pytest.raises(DownloadError, match="302"):
        cached_file(f"{server.url}/weights")
