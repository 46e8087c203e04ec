"""Files of the Hub, as far as huggingface_hub asks it, from a server on this machine."""

import functools

import pytest
from loopback import DATA, SHA256, empty_cache, running, send

from clip2latent.downloads import DownloadError, cached_file

server = pytest.fixture(running)
cache = pytest.fixture(autouse=True)(empty_cache)


@pytest.fixture
def hub(server, tmp_path, monkeypatch):
    import huggingface_hub

    download, folder = huggingface_hub.hf_hub_download, tmp_path / "hub"
    local = functools.partial(download, endpoint=server.url, cache_dir=folder, token=False)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", local)
    server.script = [send(etag=f'"{SHA256}"', headers=[("X-Repo-Commit", "a" * 40)])]
    return server


def test_a_file_of_the_hub_is_fetched_once_through_its_cache(hub, tmp_path):
    path = cached_file("hf://owner/name/folder/weights.pkl", SHA256)
    assert path.read_bytes() == DATA and (tmp_path / "hub") in path.parents
    assert hub.requests[0][1] == "/owner/name/resolve/main/folder/weights.pkl"
    asked = len(hub.requests)
    assert cached_file("hf://owner/name/folder/weights.pkl", SHA256, offline=True) == path
    assert len(hub.requests) == asked
    cached_file("hf://owner/name/folder/weights.pkl@v1")
    assert hub.requests[asked][1] == "/owner/name/resolve/v1/folder/weights.pkl"


def test_an_altered_file_of_the_hub_is_refused_and_not_kept(hub, tmp_path):
    with pytest.raises(DownloadError, match=r"sha256.*not kept"):
        cached_file("hf://owner/name/weights.pkl", "0" * 64)
    assert not [path for path in (tmp_path / "hub").rglob("*") if path.is_file() and path.stat().st_size >= len(DATA)]
    with pytest.raises(FileNotFoundError, match="offline"):
        cached_file("hf://owner/name/weights.pkl", offline=True)


def test_a_file_that_the_hub_does_not_have(hub):
    hub.script = [send(b"", status=404, headers=[("X-Error-Code", "EntryNotFound")])]
    with pytest.raises(DownloadError, match="is the name right"):
        cached_file("hf://owner/name/weights.pkl")


@pytest.mark.parametrize("source", ["hf://name", "hf://owner/name", "hf://owner/name/../weights", "hf://a/b/c@"])
def test_other_addresses_of_the_hub_are_refused(source):
    with pytest.raises(ValueError, match="expected hf://owner/name/file"):
        cached_file(source)
