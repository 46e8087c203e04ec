"""Files from the network, each fetched once: whole, checked and in a cache, or not there at all.

Addresses: http(s)://... and hf://owner/name/file[@revision] on the Hugging Face Hub. The latter live in
huggingface_hub's own cache; the former below $CLIP2LATENT_CACHE (default ~/.cache/clip2latent). Nothing is fetched
where CLIP2LATENT_OFFLINE or HF_HUB_OFFLINE is set to 1.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from clip2latent.transfer import BY_HAND, CHUNK, DownloadError, fetch, forget, without_secrets

__all__ = ["DownloadError", "cached_file", "check_sha256", "file_sha256", "is_offline", "is_remote", "shown", "sibling"]


def is_remote(source: str) -> bool:
    """Tells whether a source is an address rather than a name or a path."""
    return re.match(r"[a-z][a-z0-9+.-]+://", source, re.IGNORECASE) is not None


def is_offline() -> bool:
    """Tells whether the environment forbids the network."""
    names = ("CLIP2LATENT_OFFLINE", "HF_HUB_OFFLINE")
    return any(os.environ.get(name, "").strip().lower() in ("1", "true", "yes", "on") for name in names)


def cache_folder() -> Path:
    """Returns the folder that downloads from http(s) addresses are kept in."""
    return Path(os.environ.get("CLIP2LATENT_CACHE") or Path.home() / ".cache" / "clip2latent")


def cached_file(source: str, sha256: str | None = None, offline: bool | None = None) -> Path:
    """Returns the local copy of a remote file, after fetching it where there is none yet.

    A download that breaks off is taken up again, here and by the next call. Two processes that want the same file wait
    for each other.

    Args:
        source: http(s)://... or hf://owner/name/file[@revision].
        sha256: of the file, as 64 hexadecimal digits, where it is known. Without it a copy is compared with the hash
            it had when it was fetched.
        offline: never touch the network; the environment's word when None.

    Raises:
        FileNotFoundError: offline, and the file is not in the cache.
        DownloadError: the server could not be reached or refused, or what it sent is truncated or has another hash.
        ValueError: source or sha256 is malformed, or the copy in the cache has another hash.
    """
    if sha256 and not re.fullmatch(r"[0-9a-fA-F]{64}", sha256):
        raise ValueError(f"sha256: expected 64 hexadecimal digits, got {sha256!r}")
    offline = is_offline() if offline is None else offline
    scheme = source.partition("://")[0].lower()
    if scheme == "hf":
        return _from_hub(source, sha256, offline)
    try:
        parts = urlsplit(source)
        port_is_number = parts.port is None or parts.port > 0
    except ValueError:
        port_is_number = False
    if scheme not in ("http", "https") or not port_is_number or not parts.hostname or "@" in parts.netloc:
        raise ValueError(
            f"source: expected http(s)://host/..., without a password, or hf://owner/name/file, got {shown(source)!r}"
        )
    return _from_web(source, sha256, offline)


def check_sha256(path: Path, sha256: str) -> None:
    """Compares a file's hash.

    Raises:
        ValueError: it is another.
    """
    found = file_sha256(path)
    if found != sha256.lower():
        raise ValueError(f"sha256: {path} has {found}, expected {sha256.lower()}: it is another file, or was changed")


def file_sha256(path: Path) -> str:
    """Returns a file's hash as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def shown(source: str) -> str:
    """Returns a source as it may stand in messages and records: an address without password and query."""
    if not is_remote(source) or source.lower().startswith("hf://"):
        return source
    try:
        return without_secrets(source)
    except ValueError:
        return source.partition("://")[0] + "://..."


def sibling(source: str, name: str) -> str:
    """Returns the address of the file `name` beside that of a source; a query or revision is kept."""
    if source.lower().startswith("hf://"):
        path, at, revision = source.partition("@")
        return f"{path.rpartition('/')[0]}/{name}{at}{revision}"
    parts = urlsplit(source)
    return urlunsplit(parts._replace(path=f"{parts.path.rpartition('/')[0]}/{name}"))


def _from_web(url: str, sha256: str | None, offline: bool) -> Path:
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", urlsplit(url).path.rpartition("/")[2])[-80:].lstrip(".") or "file"
    path = cache_folder() / f"{hashlib.sha256(url.encode()).hexdigest()[:16]}-{name}"
    if path.is_file():
        return _checked(path, url, sha256)
    if offline:
        raise FileNotFoundError(
            f"offline: {shown(url)} is not in the cache {path.parent}: run once with the network, {BY_HAND}"
        )
    from filelock import FileLock

    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock"):
        if path.is_file():  # fetched by another process meanwhile
            return _checked(path, url, sha256)
        part = path.with_name(f"{path.name}.part")
        size = fetch(url, part)
        found = file_sha256(part)
        if sha256 and found != sha256.lower():
            forget(part)
            raise DownloadError(
                f"{shown(url)}: the file's sha256 is {found}, expected {sha256.lower()}: it was altered or replaced;"
                " it was not kept"
            )
        record = {"url": shown(url), "sha256": found, "size": size}
        _record(path).write_text(json.dumps(record), encoding="utf-8")
        os.replace(part, path)
        forget(part)
    return path


def _checked(path: Path, url: str, sha256: str | None) -> Path:
    try:
        expected = sha256 or json.loads(_record(path).read_text(encoding="utf-8"))["sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        expected = None
    if expected is None or file_sha256(path) != expected.lower():
        raise ValueError(
            f"sha256: {path}, the copy of {shown(url)}, has not the hash {expected}: it was changed, or another file"
            " was meant; delete it to fetch it again"
        )
    return path


def _record(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def _from_hub(source: str, sha256: str | None, offline: bool) -> Path:
    found = re.fullmatch(r"hf://([\w.-]+)/([\w.-]+)/([^@]+?)(?:@([\w./-]+))?", source, re.IGNORECASE)
    if not found or ".." in found[3].split("/"):
        raise ValueError(f"source: expected hf://owner/name/file or hf://owner/name/file@revision, got {source!r}")
    owner, name, file, revision = found.groups()
    from huggingface_hub import errors, hf_hub_download

    try:
        path = Path(hf_hub_download(f"{owner}/{name}", file, revision=revision, local_files_only=offline))
    except errors.LocalEntryNotFoundError:
        if offline:
            raise FileNotFoundError(
                f"offline: {source} is not in huggingface_hub's cache: run once with the network, {BY_HAND}"
            ) from None
        raise DownloadError(f"{source}: the Hub could not be reached; try again later, {BY_HAND}") from None
    except (errors.HfHubHTTPError, errors.HFValidationError, OSError) as error:
        raise DownloadError(
            f"{source}: {type(error).__name__}: is the name right, and the file public? Correct it, {BY_HAND}"
        ) from None
    wrong = file_sha256(path) if sha256 else ""
    if wrong != (sha256 or "").lower():
        for copy in {path.resolve(), path}:
            copy.unlink(missing_ok=True)
        raise DownloadError(
            f"{source}: the file's sha256 is {wrong}, expected {sha256}: it was altered or replaced; it was not kept"
        )
    return path
