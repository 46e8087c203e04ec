"""Downloads against a server on this machine: whole and checked, or refused and not kept."""

import errno
import json
import shutil
import socket
import threading
from collections import namedtuple

import pytest
from loopback import DATA, OTHER, SHA256, chunked, empty_cache, kept, ranges, refuse, running, send

from clip2latent import transfer
from clip2latent.downloads import DownloadError, cached_file, file_sha256, is_remote, shown, sibling

server = pytest.fixture(running)
cache = pytest.fixture(autouse=True)(empty_cache)


def test_a_file_is_fetched_once(server, cache):
    for sha256 in (None, SHA256, SHA256.upper(), ""):
        path = cached_file(f"{server.url}/models/a%20b.pkl?token=1", sha256)
        assert path.read_bytes() == DATA and path.parent == cache and path.suffix == ".pkl"
    assert len(server.requests) == 1 and kept(cache) == [path.name]


def test_addresses_are_kept_apart(server):
    server.script = [send(), send(OTHER)]
    paths = [cached_file(f"{server.url}/{version}/weights.bin") for version in ("one", "two")]
    assert [path.read_bytes() for path in paths] == [DATA, OTHER]


def test_a_slow_server_is_waited_for_and_a_silent_one_asked_again(server, monkeypatch):
    server.script = [send(pause=0.3)]
    assert cached_file(f"{server.url}/slow", SHA256).read_bytes() == DATA
    monkeypatch.setattr(transfer, "TIMEOUT", 0.3)
    server.script = [send(pause=2.0), send()]
    assert cached_file(f"{server.url}/silent", SHA256).read_bytes() == DATA
    assert ranges(server)[-1] == "bytes=1000-"


def test_a_truncated_download_is_taken_up_where_it_broke_off(server, cache):
    server.script = [send(first=1234), send(first=5000), send()]
    path = cached_file(f"{server.url}/weights", SHA256)
    assert path.read_bytes() == DATA and kept(cache) == [path.name]
    assert ranges(server) == [None, "bytes=1234-", "bytes=6234-"]
    assert server.requests[1][2]["If-Range"] == '"one"'


def test_a_download_that_stays_truncated_is_refused_and_taken_up_by_the_next_call(server, cache):
    server.script = [send(first=1000)]
    with pytest.raises(DownloadError, match="4000 of 102400 bytes"):
        cached_file(f"{server.url}/weights")
    assert [name for name in kept(cache) if not name.endswith(".part")] == []
    server.script = [send()]
    assert cached_file(f"{server.url}/weights").read_bytes() == DATA
    assert ranges(server)[-1] == "bytes=4000-"


def test_what_cannot_be_taken_up_is_not_kept(server, cache):
    server.script = [send(etag=None, first=1000)]
    with pytest.raises(DownloadError, match="1000 of 102400 bytes"):
        cached_file(f"{server.url}/weights")
    assert kept(cache) == [] and set(ranges(server)) == {None}


@pytest.mark.parametrize("etag", ['"one"', None])
def test_an_altered_download_is_refused_and_not_kept(server, cache, etag):
    server.script = [send(DATA[:-1] + b"x", etag=etag)]
    with pytest.raises(DownloadError, match=f"sha256.*expected {SHA256}"):
        cached_file(f"{server.url}/weights", SHA256)
    assert kept(cache) == [] and not list(cache.glob("*.json"))


def test_a_file_that_changed_between_attempts_is_fetched_anew(server):
    server.script = [send(first=3000), send(OTHER, etag='"two"', first=2000), send(OTHER, etag='"two"')]
    assert cached_file(f"{server.url}/weights").read_bytes() == OTHER
    assert ranges(server) == [None, "bytes=3000-", "bytes=2000-"]


def test_a_date_serves_where_the_etag_is_weak(server):
    date = "Sat, 21 Nov 2020 12:00:00 GMT"
    server.script = [send(etag='W/"one"', first=3000, headers=[("Last-Modified", date)]), send()]
    assert cached_file(f"{server.url}/weights").read_bytes() == DATA
    assert server.requests[1][2]["If-Range"] == date


def test_a_server_without_ranges_sends_all_again(server):
    server.script = [send(first=3000), send(ranges=False)]
    assert cached_file(f"{server.url}/weights", SHA256).read_bytes() == DATA


def test_a_beginning_that_the_server_no_longer_has_is_dropped(server):
    server.script = [send(first=3000), refuse(416), send(b"short")]
    assert cached_file(f"{server.url}/weights").read_bytes() == b"short"


@pytest.mark.parametrize("content_range", ["bytes 5-10/11", "bytes 3000-5/6", "bytes */11", ""])
def test_another_part_than_asked_for_is_refused(server, content_range):
    server.script = [
        send(first=3000),
        send(b"abcdef", status=206, ranges=False, headers=[("Content-Range", content_range)]),
    ]
    with pytest.raises(DownloadError, match="another part"):
        cached_file(f"{server.url}/weights")


def test_an_unknown_length_is_refused_unless_the_transfer_marks_its_end(server, cache):
    server.script = [send(length=False)]
    with pytest.raises(DownloadError, match="how long"):
        cached_file(f"{server.url}/a")
    server.script = [chunked(DATA[:7], DATA[7:])]
    assert cached_file(f"{server.url}/b").read_bytes() == DATA
    server.script = [chunked(DATA[:7], end=False)]
    with pytest.raises(DownloadError, match="IncompleteRead"):
        cached_file(f"{server.url}/c")
    assert len(kept(cache)) == 1


def test_compressed_answers_are_refused(server):
    server.script = [send(headers=[("Content-Encoding", "gzip")])]
    with pytest.raises(DownloadError, match="compresses"):
        cached_file(f"{server.url}/weights")


def test_errors_of_the_server(server, cache):
    server.script = [refuse(404)]
    with pytest.raises(DownloadError, match=r"404 Not Found.*by hand"):
        cached_file(f"{server.url}/weights")
    assert len(server.requests) == 1 and kept(cache) == []
    server.script = [refuse(503), refuse(429), send()]
    assert cached_file(f"{server.url}/weights").read_bytes() == DATA
    server.script = [refuse(500)]
    with pytest.raises(DownloadError, match="500"):
        cached_file(f"{server.url}/other")


def test_a_server_that_is_not_there(cache):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(DownloadError, match="URLError"):
        cached_file(f"http://127.0.0.1:{port}/weights")
    assert kept(cache) == []


def test_secrets_stay_out_of_messages_and_records(server, cache):
    server.script = [refuse(403)]
    with pytest.raises(DownloadError) as failed:
        cached_file(f"{server.url}/weights?token=secret")
    assert "secret" not in str(failed.value)
    server.script = [send()]
    cached_file(f"{server.url}/weights?token=secret")
    assert not any(b"secret" in path.read_bytes() for path in cache.glob("*.json"))
    with pytest.raises(ValueError, match="without a password") as failed:
        cached_file("http://me:secret@127.0.0.1/weights")
    assert "secret" not in str(failed.value)
    assert shown("https://a:secret@b.c/d?e=secret#secret") == "https://b.c/d" and shown("a/b?c") == "a/b?c"


@pytest.mark.parametrize("source", ["ftp://a.b/c", "file:///etc/passwd", "http:///c", "http://a:b/c", "http://[a/c"])
def test_other_addresses_are_refused(source):
    with pytest.raises(ValueError, match="expected http"):
        cached_file(source)


def test_a_malformed_hash_is_refused_first(server):
    with pytest.raises(ValueError, match="64 hexadecimal digits, got 'abc'"):
        cached_file(f"{server.url}/weights", "abc")
    assert server.requests == []


@pytest.mark.parametrize("how", ["argument", "CLIP2LATENT_OFFLINE", "HF_HUB_OFFLINE"])
def test_offline_never_touches_the_network(server, monkeypatch, how):
    path = cached_file(f"{server.url}/weights")
    if how != "argument":
        monkeypatch.setenv(how, "1")
    monkeypatch.setattr(socket, "socket", None)
    offline = True if how == "argument" else None
    assert cached_file(f"{server.url}/weights", SHA256, offline) == path
    for source in (f"{server.url}/other", "hf://owner/name/other.pkl"):
        with pytest.raises(FileNotFoundError, match=f"offline: {source} is not in .*cache.* by hand"):
            cached_file(source, None, offline)


def test_a_copy_that_was_changed_is_refused(server):
    path = cached_file(f"{server.url}/weights")
    with pytest.raises(ValueError, match="delete it"):
        cached_file(f"{server.url}/weights", "0" * 64)
    path.write_bytes(OTHER)
    for sha256 in (None, SHA256):
        with pytest.raises(ValueError, match="delete it"):
            cached_file(f"{server.url}/weights", sha256)
    path.unlink()
    assert file_sha256(cached_file(f"{server.url}/weights")) == SHA256


def test_two_at_once_fetch_once(server):
    server.script = [send(pause=0.2)]
    paths = []
    threads = [
        threading.Thread(target=lambda: paths.append(cached_file(f"{server.url}/weights", SHA256))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(paths) == 4 and len(set(paths)) == 1 and len(server.requests) == 1


def test_an_interruption_leaves_no_file_and_is_taken_up(server, cache, monkeypatch):
    server.script = [send(pause=0.1), send()]
    update = []

    def interrupted(bar, count):
        update.append(count)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("tqdm.tqdm.update", interrupted)
        with pytest.raises(KeyboardInterrupt):
            cached_file(f"{server.url}/weights")
    assert all(name.endswith(".part") for name in kept(cache))
    assert cached_file(f"{server.url}/weights", SHA256).read_bytes() == DATA
    assert ranges(server)[-1] is not None


def test_a_full_disk_is_named_before_and_while_it_fills(server, cache, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(shutil, "disk_usage", lambda path: namedtuple("Usage", "free")(1000))
        with pytest.raises(DownloadError, match=r"does not fit on the disk.*CLIP2LATENT_CACHE"):
            cached_file(f"{server.url}/weights")

    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(transfer.os, "fsync", full)
        with pytest.raises(DownloadError, match="does not fit on the disk"):
            cached_file(f"{server.url}/weights")
    assert kept(cache) == []


def test_what_stands_beside_a_file():
    assert sibling("https://a.b/c/config.json?d=e", "f.bin") == "https://a.b/c/f.bin?d=e"
    assert sibling("hf://a/b/c/config.json@main", "f.bin") == "hf://a/b/c/f.bin@main"
    assert is_remote("hf://a/b/c") and is_remote("HTTPS://a/b") and not is_remote("a/b") and not is_remote("C:\\a")


def test_a_record_tells_where_a_copy_is_from(server, cache):
    path = cached_file(f"{server.url}/weights")
    record = json.loads(path.with_name(path.name + ".json").read_text())
    assert record == {"url": f"{server.url}/weights", "sha256": SHA256, "size": len(DATA)}
