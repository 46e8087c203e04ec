"""Fetches one http(s) address into one file, in as many attempts as the connection needs.

An unfinished download stays beside a record of the server's version of the file, and is taken up again with a request
for the rest (RFC 9110, sections 13.1.5 and 14.2); where the server's file has changed meanwhile it starts anew.
"""

from __future__ import annotations

import contextlib
import errno
import http.client
import json
import os
import re
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit, urlunsplit

import clip2latent

TIMEOUT = 30.0  # seconds without a byte
ATTEMPTS = 4
PAUSE = 0.5  # seconds before the second attempt; doubled for each further one
CHUNK = 1 << 20
BUSY = (http.client.REQUEST_TIMEOUT, http.client.TOO_MANY_REQUESTS)
BY_HAND = "or download it by hand and give the file's path"


class DownloadError(OSError):
    """A download failed, was refused, or is not what was expected; no such file is in the cache."""


class _BrokenOff(Exception):
    """The connection ended before the file did."""


class _Extent(NamedTuple):
    """Where what the server sends begins in the file, and how long the file is; None where it does not say."""

    start: int
    total: int | None


def without_secrets(url: str) -> str:
    """Returns an address as it may stand in messages and records: without user, password, query and fragment."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def fetch(url: str, part: Path) -> int:
    """Downloads an address into the file `part`, after what an earlier call left there; returns the size in bytes.

    Args:
        url: http(s)://...
        part: the file; beside it, <part>.json records whose beginning it is until `forget` is called.

    Raises:
        DownloadError: the server refuses or cannot be reached, the connection breaks again and again, the server does
            not say how long the file is, or the disk is full.
    """
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(PAUSE * 2 ** (attempt - 1))
        try:
            return _attempt(url, part)
        except urllib.error.HTTPError as error:
            failure = f"the server answers {error.code} {error.reason}"
            if error.code < 500 and error.code not in BUSY:
                break
        except (TimeoutError, ConnectionError, http.client.HTTPException, urllib.error.URLError, _BrokenOff) as error:
            failure = f"{type(error).__name__.lstrip('_')}: {getattr(error, 'reason', None) or error}"
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            forget(part)
            raise DownloadError(_no_room(url, part)) from None
    if not _validator_of(part):
        forget(part)
    raise DownloadError(f"{without_secrets(url)}: {failure}; try again later, {BY_HAND}")


def forget(part: Path) -> None:
    """Removes an unfinished download and its record."""
    part.unlink(missing_ok=True)
    _record(part).unlink(missing_ok=True)


def _attempt(url: str, part: Path) -> int:
    """One request: the rest of an unfinished download where the server still has the same file, else all of it."""
    validator = _validator_of(part)
    have = part.stat().st_size if validator and part.is_file() else 0
    headers = {"User-Agent": f"clip2latent/{clip2latent.__version__}", "Accept-Encoding": "identity"}
    if have:
        headers |= {"Range": f"bytes={have}-", "If-Range": validator}
    try:
        response = _opener().open(urllib.request.Request(url, headers=headers), timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code != http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise
        forget(part)
        raise _BrokenOff("the server's file is no longer the one that was begun") from None
    with response:
        extent = _extent(response, have)
        if extent.total is not None and shutil.disk_usage(part.parent).free < extent.total - extent.start:
            raise DownloadError(_no_room(url, part))
        etag = response.headers.get("ETag", "")
        validator = etag if etag.startswith('"') else response.headers.get("Last-Modified")
        _record(part).write_text(json.dumps({"validator": validator}), encoding="utf-8")
        size = _receive(response, part, extent)
    if extent.total is not None and size != extent.total:
        raise _BrokenOff(f"{size} of {extent.total} bytes came")
    return size


def _extent(response: Any, have: int) -> _Extent:
    url = without_secrets(response.url)
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise DownloadError(f"{url}: the server compresses the file, which cannot be checked; choose another address")
    if response.status == http.client.PARTIAL_CONTENT:
        found = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", response.headers.get("Content-Range", "").strip())
        if not have or not found or int(found[1]) != have or int(found[2]) < have:
            raise DownloadError(f"{url}: the server sends another part of the file than was asked for; {BY_HAND[3:]}")
        return _Extent(have, int(found[2]))
    length = response.headers.get("Content-Length", "")
    # A chunked transfer marks its own end; without either, a file that broke off looks like a whole one.
    if not length.isdecimal() and not response.chunked:
        raise DownloadError(f"{url}: the server does not say how long the file is; {BY_HAND[3:]}")
    return _Extent(0, int(length) if length.isdecimal() else None)


def _receive(response: Any, part: Path, extent: _Extent) -> int:
    """Writes what comes into `part` from extent.start on; returns the file's size."""
    with part.open("r+b" if extent.start else "wb") as file, _bar(response.url, extent) as bar:
        file.seek(extent.start)
        while chunk := response.read1(CHUNK):
            file.write(chunk)
            bar.update(len(chunk))
        file.truncate()
        file.flush()
        os.fsync(file.fileno())
        return file.tell()


@contextlib.contextmanager
def _bar(url: str, extent: _Extent) -> Iterator[Any]:
    """A progress bar on a terminal, nothing elsewhere."""
    from tqdm import tqdm

    units = {"unit": "B", "unit_scale": True, "unit_divisor": 1024}
    name = urlsplit(url).path.rpartition("/")[2]
    with tqdm(total=extent.total, initial=extent.start, desc=name, leave=False, disable=None, **units) as bar:
        yield bar


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects between http and https, never from https to http."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        scheme, before = urlsplit(newurl).scheme.lower(), urlsplit(req.full_url).scheme.lower()
        if scheme not in ("http", "https") or (before == "https" and scheme == "http"):
            raise DownloadError(
                f"{without_secrets(req.full_url)}: refused to follow a redirect to {without_secrets(newurl)}"
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)

    def http_error_302(self, req: Any, fp: Any, code: int, msg: str, headers: Any) -> Any:
        # The library's own refusal of other schemes would quote the address with its query.
        target = urlsplit(headers.get("location") or headers.get("uri") or "")
        if target.scheme and target.scheme.lower() not in ("http", "https"):
            self.redirect_request(req, fp, code, msg, headers, target.geturl())
        return super().http_error_302(req, fp, code, msg, headers)

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302


def _opener() -> urllib.request.OpenerDirector:
    """An opener of http and https alone, with the environment's proxies."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        _Redirects(),
    ):
        opener.add_handler(handler)
    return opener


def _no_room(url: str, part: Path) -> str:
    return (
        f"{without_secrets(url)} does not fit on the disk of {part.parent}: make room there, or set CLIP2LATENT_CACHE"
        " to another folder"
    )


def _record(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _validator_of(part: Path) -> str | None:
    """What tells the server's version of the file, of which `part` is the beginning: a strong ETag or a date."""
    try:
        return json.loads(_record(part).read_text(encoding="utf-8")).get("validator")
    except (OSError, ValueError, AttributeError):
        return None
