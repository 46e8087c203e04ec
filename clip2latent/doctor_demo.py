"""The models: the embedded ones whole, the caches, whether published weights can be reached, and an image drawn."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import clip2latent
from clip2latent.assets import FOLDER
from clip2latent.doctor import FAULT, GOOD, NOTE, Finding, size_of
from clip2latent.downloads import cache_folder, is_offline

ADDRESSES = {
    "published priors": "https://huggingface.co/lambdalabs/clip2latent/resolve/main/ffhq-sg2-510.yaml",
    "StyleGAN (NVIDIA)": "https://api.ngc.nvidia.com/v2/models/nvidia/research/stylegan2/versions/1/files/"
    "stylegan2-ffhq-1024x1024.pkl",
    "BigGAN-deep": "https://s3.amazonaws.com/models.huggingface.co/biggan/biggan-deep-128-pytorch_model.bin",
}
"""Weights that configs/ name, one for each server."""
TIMEOUT = 3.0
PROMPT, CANDIDATES = "an old man with glasses and a red hat", 4
PLAUSIBLE = (0.55, 0.85)
"""Between these is the best of `CANDIDATES` scores of `PROMPT`, whatever the seed; random images are far below."""
SLOW = 5.0


class Drawn(NamedTuple):
    """An image that was drawn: its score, the deviation of its pixels, and the seconds to load and to draw."""

    score: float
    deviation: float
    loading: float
    drawing: float


def check_assets(folder: Path = FOLDER) -> list[Finding]:
    """Compares the embedded models with the hashes that were recorded when they were made."""
    fix = "install clip2latent again, or take the folder from its repository (git checkout clip2latent/assets)"
    try:
        hashes = json.loads((folder / "MANIFEST.json").read_text(encoding="utf-8"))["sha256"]
    except (OSError, ValueError, KeyError) as error:
        return [Finding(FAULT, "demo's files", f"their list in {folder} cannot be read: {error}", fix)]
    missing = [name for name in hashes if not (folder / name).is_file()]
    found = {name: (folder / name).read_bytes() for name in hashes if name not in missing}
    damaged = [name for name, data in found.items() if hashlib.sha256(data).hexdigest() != hashes[name]]
    if missing or damaged:
        kinds = [("missing", missing), ("not as they were made", damaged)]
        said = "; ".join(f"{', '.join(names)}: {kind}" for kind, names in kinds if names)
        return [Finding(FAULT, "demo's files", said, fix)]
    return [Finding(GOOD, "demo's files", f"{len(hashes)}, {size_of(sum(map(len, found.values())))}, all as made")]


def caches() -> dict[str, Path]:
    """Returns where downloads are kept, by us, by huggingface_hub and by torch."""
    import torch
    from huggingface_hub.constants import HF_HUB_CACHE

    return {"cache": cache_folder(), "Hub's cache": Path(HF_HUB_CACHE), "torch's cache": Path(torch.hub.get_dir())}


def folders() -> dict[str, Path]:
    """Returns where the commands write."""
    kept = {name: folder for name, folder in caches().items() if name != "torch's cache"}
    return {"results": Path("outputs"), "temporary": Path(tempfile.gettempdir()), **kept}


def check_caches(folders: Mapping[str, Path]) -> list[Finding]:
    """Says what the caches of downloads hold; unfinished downloads are a note.

    Args:
        folders: whose -> the folder.
    """
    said, parts = [], []
    for name, folder in folders.items():
        files = [Path(root) / file for root, _, files in os.walk(folder) for file in files]
        files = [file for file in files if file.is_file() and not file.is_symlink()]
        said.append(f"{name} {size_of(sum(file.stat().st_size for file in files))} in {len(files)} files")
        parts += [file for file in files if file.name.endswith((".part", ".incomplete"))]
    if parts:
        fix = f"their next use goes on with them; or remove {parts[0]}{' and so on' if parts[1:] else ''}"
        return [Finding(NOTE, "downloads", f"{'; '.join(said)}; {len(parts)} of them unfinished", fix)]
    return [Finding(GOOD, "downloads", "; ".join(said))]


def check_network(
    addresses: Mapping[str, str] | None = None, timeout: float = TIMEOUT, offline: bool | None = None
) -> list[Finding]:
    """Asks the servers of published weights for the head of a file, all at once; not where one stays offline.

    Args:
        addresses: what is there -> the file's address; None for `ADDRESSES`.
        timeout: seconds to wait for each.
        offline: None for the environment's word.
    """
    if is_offline() if offline is None else offline:
        return [Finding(GOOD, "weights", "offline: not asked for; the demo needs none")]
    addresses = ADDRESSES if addresses is None else addresses
    with ThreadPoolExecutor(max(1, len(addresses))) as pool:
        failures = list(pool.map(lambda address: _failure(address, timeout), addresses.values()))
    reached = [name for name, failure in zip(addresses, failures, strict=True) if not failure]
    missed = [f"{name} ({failure})" for name, failure in zip(addresses, failures, strict=True) if failure]
    if not missed:
        return [Finding(GOOD, "weights", f"can be fetched: {', '.join(reached)}")]
    said = f"cannot be fetched: {', '.join(missed)}; can be: {', '.join(reached) or 'none'}"
    fix = (
        "look at the connection and its proxy (HTTPS_PROXY), or download by hand and name the file; the demo needs none"
    )
    return [Finding(NOTE, "weights", said, fix)]


def check_drawing(draw: Callable[[], Drawn] | None = None) -> list[Finding]:
    """Draws an image by the demo and looks at it, at its score and at the time it took.

    Args:
        draw: None for `draw_demo`.
    """
    drawn = (draw or draw_demo)()
    said = f"{PROMPT!r}: score {drawn.score:.3f}, {drawn.drawing:.1f} s after {drawn.loading:.1f} s of loading"
    low, high = PLAUSIBLE
    if not drawn.deviation > 0.1:  # NaN too
        fix = "the generator draws nothing: are the demo's files whole, and does torch's own test pass on this machine?"
        return [Finding(FAULT, "drawing", f"{said}; the image is empty", fix)]
    if not low <= drawn.score <= high:
        fix = "the models or torch compute something else than they should: compare the packages' versions above"
        return [Finding(FAULT, "drawing", f"{said}; expected {low} to {high}", fix)]
    if drawn.drawing > SLOW:
        return [Finding(NOTE, "drawing", said, "slow: other work, or too few processors; see above")]
    return [Finding(GOOD, "drawing", said)]


def draw_demo() -> Drawn:
    """Draws `CANDIDATES` images of `PROMPT` by the demo and keeps the best."""
    started = time.monotonic()
    from clip2latent.text2image import TextToImage

    pipeline = TextToImage.from_pretrained("demo")
    loaded = time.monotonic()
    samples = pipeline.generate([PROMPT], num=1, candidates=CANDIDATES)
    ended = time.monotonic()
    return Drawn(float(samples.scores[0, 0]), float(samples.images.std()), loaded - started, ended - loaded)


def _failure(address: str, timeout: float) -> str:
    """Returns why a file cannot be fetched, "" where it can."""
    headers = {"User-Agent": f"clip2latent/{clip2latent.__version__}"}
    try:
        request = urllib.request.Request(address, method="HEAD", headers=headers)
        with urllib.request.urlopen(request, timeout=timeout):
            return ""
    except urllib.error.HTTPError as error:
        return f"the server answers {error.code} {error.reason}"
    except (OSError, ValueError) as error:
        return str(getattr(error, "reason", None) or error)
