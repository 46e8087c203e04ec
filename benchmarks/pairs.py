"""The speed of reading pairs against the straightforward WebDataset chain: `python -m benchmarks.pairs`.

The same pairs (512 + 512 float32 numbers each, the paper's) are written as the original clip2latent wrote them, a
member for each row and a PAX header for each member, and in our layout. The straightforward chain is the original's:
tar -> shuffle(5000) -> decode -> to_tuple -> batched(512) -> tensor. All forms take turns in one process, so that what
else the machine does meets all of them; times are the least of the rounds. Files come from the page cache, so that
processors are compared and not disks; "cold" means that nothing is decoded yet.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import platform
import tarfile
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from clip2latent.data import LatentPairs, PairBatches, PairStream
from clip2latent.pair_cache import Wanted, load
from clip2latent.pair_reading import processors
from clip2latent.pair_sources import Access, Shard, find_shards

WIDTH, BATCH = 512, 512
MODELS = {"generator": {"class_path": "torch.nn.Identity"}, "embedder": {"class_path": "torch.nn.Identity"}}


def write_original(folder: Path, latents: np.ndarray, embeddings: np.ndarray, per_shard: int, pax: bool = True) -> None:
    """Writes one member for each row, with times that are fractions of a second, as files' are, or whole ones."""
    folder.mkdir()
    for first in range(0, len(latents), per_shard):
        name = f"{first // per_shard:05d}"
        with tarfile.open(folder / f"{name}.tar", "w") as tar:
            for row in range(first, min(first + per_shard, len(latents))):
                for field, array in (("img_feat", embeddings[row]), ("latent", latents[row, 0])):
                    content = _npy(array)
                    member = tarfile.TarInfo(f"data/pairs/{name}/{name}{row - first:04d}.{field}.npy")
                    member.size, member.mtime = len(content), 1.65e9 + row / 7 if pax else 1_650_000_000
                    tar.addfile(member, io.BytesIO(content))
    (folder / "pairs.json").write_text(json.dumps({**MODELS, "groups": [18]}))


def write_ours(folder: Path, latents: np.ndarray, embeddings: np.ndarray, per_shard: int) -> None:
    """Writes shards and dataset.json as datagen does."""
    from datagen.folder import Settings, finish
    from datagen.shards import Pairs, shard_name, write_shard

    folder.mkdir()
    shape = (18, WIDTH)
    settings = Settings(*MODELS.values(), shape, (18,), WIDTH, 0, len(latents), per_shard, 64)
    for index, first in enumerate(range(0, len(latents), per_shard)):
        rows = slice(first, first + per_shard)
        write_shard(folder / shard_name(index), Pairs(latents[rows], embeddings[rows]))
    finish(folder, settings, {})


def _npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def chain(folder: Path) -> int:
    """Reads all pairs as the original does and returns their number."""
    import webdataset

    paths = sorted(map(str, folder.glob("*.tar")))
    pairs = (
        webdataset.WebDataset(paths, shardshuffle=False)
        .shuffle(5000)
        .decode()
        .to_tuple("img_feat.npy", "latent.npy")
        .batched(BATCH)
        .map_tuple(torch.tensor, torch.tensor)
    )
    return sum(len(latents) for _, latents in pairs)


def cold(folder: Path, original: bool, hashed: bool, storage: str = "float32", threads: int = 0) -> int:
    """Decodes a dataset, checks for NaN, for the original layout computes statistics; nothing is kept on disk.

    With hashes it is what training does; the chain has none.
    """
    if original:
        shards, shape = find_shards(str(folder), Access()), None
    else:
        record = json.loads((folder / "dataset.json").read_text())
        shards = [
            Shard(it["name"], str(folder / it["name"]), it["count"], it["sha256"] if hashed else "")
            for it in record["shards"]
        ]
        shape = (1, WIDTH, WIDTH)
    wanted = Wanted(shape, storage, threads=threads, statistics=original, hashed=original and hashed)
    return sum(shard.count for shard in load(shards, wanted).shards)


def kept(folder: Path, cache: Path) -> int:
    """Reads what an earlier decoding kept on disk."""
    shards = find_shards(str(folder), Access())
    return sum(shard.count for shard in load(shards, Wanted(None, statistics=True), cache).shards)


def batches(source: PairBatches | PairStream) -> int:
    """Goes through all batches."""
    return sum(len(batch.embeddings) for batch in source)


def stream(shards: list[Shard], count: int, passes: int = 4) -> int:
    """Goes through some passes of a stream: it reads ahead of the last one, which a single pass would count in full."""
    one = PairStream(shards, count, BATCH)
    return batches(PairStream(shards, count, BATCH, length=passes * len(one)))


def microseconds(forms: dict[str, Callable[[], int]], rounds: int) -> dict[str, tuple[float, float]]:
    """Microseconds of the clock and of the processor for a pair, each the least of so many rounds, in each form."""
    best = {name: (math.inf, math.inf) for name in forms}
    for _ in range(rounds):
        for name, form in forms.items():
            clock, processor = time.perf_counter(), time.process_time()
            count = form()
            spent = (1e6 * (time.perf_counter() - clock) / count, 1e6 * (time.process_time() - processor) / count)
            best[name] = tuple(map(min, best[name], spent))
    return best


def main() -> None:
    """Measures and prints one line for each form."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--count", type=int, default=40_000, help="pairs")
    parser.add_argument("--per_shard", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3, help="how often each form is timed")
    parser.add_argument("--threads", type=int, default=0, help="that decode; 0 for one to each processor")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    threads = options.threads or processors()
    rng = np.random.default_rng(0)
    latents, embeddings = (rng.standard_normal((options.count, *size), np.float32) for size in ((1, WIDTH), (WIDTH,)))
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        write_original(root / "original", latents, embeddings, options.per_shard)
        write_original(root / "plain", latents, embeddings, options.per_shard, pax=False)
        write_ours(root / "ours", latents, embeddings, options.per_shard)
        write_ours(root / "small", latents, embeddings, options.per_shard // 10)  # as many shards as large data have
        streamed = LatentPairs(str(root / "small"), stream=True)
        streamed.setup("fit")
        module = LatentPairs(str(root / "ours"), holdout=1)
        module.setup("fit")
        half = LatentPairs(str(root / "ours"), holdout=1, storage="float16")
        half.setup("fit")
        kept(root / "original", root / "cache")
        forms = {
            "straightforward chain": lambda: chain(root / "original"),
            "the chain, without PAX headers": lambda: chain(root / "plain"),
            "cold load, original layout": lambda: cold(root / "original", True, False, threads=threads),
            "  with hashes": lambda: cold(root / "original", True, True, threads=threads),
            "  without PAX headers": lambda: cold(root / "plain", True, False, threads=threads),
            "cold load, our layout": lambda: cold(root / "ours", False, False, threads=threads),
            "  our layout with hashes": lambda: cold(root / "ours", False, True, threads=threads),
            "  to float16": lambda: cold(root / "ours", False, False, "float16", threads),
            "load of kept pairs": lambda: kept(root / "original", root / "cache"),
            "stream, our layout": lambda: stream(streamed._shards, options.count),
            "batches from RAM, float32": lambda: batches(PairBatches(module._pairs, BATCH)),
            "batches from RAM, float16": lambda: batches(PairBatches(half._pairs, BATCH)),
        }
        print(
            f"torch {torch.__version__}, {platform.machine()}, {options.count} pairs, {threads} thread(s) that decode"
        )
        best = microseconds(forms, options.rounds)
    first = best["straightforward chain"]
    for name, (clock, processor) in best.items():
        print(
            f"{name:34s} {clock:8.2f} us a pair ({processor:.2f} us of the processor),"
            f" {1e6 / clock:12,.0f} pairs/s, ratio {first[0] / clock:.1f} (processor {first[1] / processor:.1f})"
        )


if __name__ == "__main__":
    main()
