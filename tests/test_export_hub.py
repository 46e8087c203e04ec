"""Pushing an exported prior and loading it by its name, against a Hub on this machine."""

import functools
import json
import socket

import huggingface_hub
import pytest
import tiny_hub
from loopback import empty_cache
from tiny_checkpoint import write_tiny_checkpoint

from clip2latent import cli
from clip2latent.checkpoint import load_prior
from clip2latent.hub import UploadError, push

hub = pytest.fixture(tiny_hub.running)
cache = pytest.fixture(autouse=True)(empty_cache)
EMBEDDED = {
    "generator": {"class_path": "clip2latent.generators.load_generator", "init_args": {"source": "demo-avatars"}},
    "embedder": {"class_path": "clip2latent.embedders.load_embedder", "init_args": {"source": "demo"}},
}


@pytest.fixture
def folder(tmp_path):
    """An export, beside whose files somebody left others."""
    folder = write_tiny_checkpoint(tmp_path / "exported")
    config = json.loads((folder / "config.json").read_text()) | EMBEDDED
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "README.md").write_text("---\ntags: [a]\n---\n# A prior\n")
    (folder / "notes.txt").write_text("private")
    return folder


@pytest.fixture
def token(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", tiny_hub.TOKEN)


@pytest.fixture
def reading(hub, tmp_path, monkeypatch):
    """Reads go to the Hub of this machine."""
    monkeypatch.setenv("HF_TOKEN", "")
    local = functools.partial(
        huggingface_hub.hf_hub_download, endpoint=hub.url, cache_dir=tmp_path / "hub", token=False
    )
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", local)
    return hub


def test_what_is_pushed_is_loaded_by_its_name(folder, reading, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", tiny_hub.TOKEN)
    url = push(folder, "owner/prior", private=True, endpoint=reading.url)
    assert url == f"{reading.url}/owner/prior/commit/{1:040x}"
    assert reading.created == [{"name": "prior", "organization": "owner", "visibility": "private"}]
    (files,) = reading.repos["owner/prior"].values()
    assert sorted(files) == ["README.md", "config.json", "model.safetensors"]
    expected = load_prior(folder)
    for source in ("owner/prior", "hf://owner/prior", f"owner/prior@{1:040x}"):
        loaded = load_prior(source)
        assert loaded.config == expected.config and loaded.space.mean.equal(expected.space.mean)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    asked = len(reading.asked)
    assert load_prior("owner/prior").config == expected.config and len(reading.asked) == asked


def test_both_files_are_of_one_commit(folder, reading, monkeypatch):
    """A push between the reading of config.json and that of the weights mixes nothing."""
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    reading.repos["owner/prior"] = {"a" * 40: files}
    download = huggingface_hub.hf_hub_download

    def while_another_pushes(repo, name, **options):
        path = download(repo, name, **options)
        reading.repos["owner/prior"]["b" * 40] = {**files, "model.safetensors": b"another"}
        return path

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", while_another_pushes)
    assert load_prior("owner/prior").config["guidance"] == 2.0


def test_a_name_that_is_nowhere(reading):
    with pytest.raises(FileNotFoundError, match=r"owner/nothing does not exist here; on the Hub: .*is the name right"):
        load_prior("owner/nothing")


def test_offline_nothing_is_looked_for(reading, monkeypatch):
    monkeypatch.setenv("CLIP2LATENT_OFFLINE", "1")
    with pytest.raises(FileNotFoundError, match="offline"):
        load_prior("owner/prior")
    assert reading.asked == []


def test_a_folder_that_exists_is_never_looked_for_on_the_hub(folder, reading, monkeypatch):
    monkeypatch.chdir(folder.parent.parent)
    assert load_prior(f"{folder.parent.name}/{folder.name}").config["guidance"] == 2.0 and reading.asked == []


def test_a_downloaded_prior_names_models_of_this_package_only(folder, reading):
    config = json.loads((folder / "config.json").read_text())
    config["embedder"] = {"class_path": "tiny_models.TinyEmbedder", "init_args": {}}
    (folder / "config.json").write_text(json.dumps(config))
    reading.repos["owner/prior"] = {"a" * 40: {path.name: path.read_bytes() for path in folder.iterdir()}}
    assert load_prior(folder).embedder.class_path == "tiny_models.TinyEmbedder"
    with pytest.raises(ValueError, match=r"owner/prior names the embedder 'tiny_models.TinyEmbedder'"):
        load_prior("owner/prior")


def test_without_a_token_nothing_is_sent(folder, hub, monkeypatch):
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    with pytest.raises(ValueError, match=r"no token .*hf auth login.*HF_TOKEN"):
        push(folder, "owner/prior", endpoint=hub.url)
    assert hub.asked == []


def test_refusals_of_the_hub_say_why(folder, hub, token, monkeypatch):
    with pytest.raises(UploadError, match="others/prior: the token has no right to write"):
        push(folder, "others/prior", endpoint=hub.url)
    hub.full = True
    with pytest.raises(UploadError, match="the Hub answers 413"):
        push(folder, "owner/prior", endpoint=hub.url)
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(UploadError, match="does not accept the token"):
        push(folder, "owner/prior", endpoint=hub.url)
    assert hub.repos == {}


def test_a_hub_that_cannot_be_reached(folder, token):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    with pytest.raises(UploadError, match="could not be reached"):
        push(folder, "owner/prior", endpoint=f"http://127.0.0.1:{port}")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{folder}", "prior"], "repo: expected owner/name, got 'prior'"),
        (["{empty}", "owner/prior"], "holds no README.md: write it by"),
        (["{folder}", "owner/prior", "--offline"], "push needs the network"),
        (["{folder}"], "--repo"),
    ],
)
def test_a_users_error_is_one_line(arguments, message, folder, token, tmp_path, capsys):
    places = {"folder": folder, "empty": tmp_path}
    assert cli.main(["push", *(word.format(**places) for word in arguments)]) == 2
    printed = capsys.readouterr().err
    assert printed.startswith("error: ") and printed.count("\n") == 1 and message in printed
