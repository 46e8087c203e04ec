"""Scores of any folder of pictures with captions, whatever made them, alone or beside reference pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from clip2latent.evaluate import Bar
from clip2latent.extractors import Extractor
from clip2latent.images import grid, read_picture
from clip2latent.interfaces import Embedder
from clip2latent.metrics import diversity, frechet_distance, judge_accuracy, mean_over_prompts, normalised_frechet
from clip2latent.metrics_retrieval import expected_best, r_precision
from clip2latent.metrics_sets import inception_score, kernel_distance, manifold
from clip2latent.pairing import Pairing
from clip2latent.prompts import texts_sha256
from clip2latent.seen_pictures import SeenPictures, see

TEXTS = 256
"""Captions embedded at once."""
SHOWN, COLUMNS = 8, 4


@dataclass(frozen=True)
class Measuring:
    """How to measure.

    Attributes:
        distractors: other captions among which R-precision looks for an image's own; fewer where there are not so many.
        repeats: how often they are drawn.
        splits: of the inception score.
        subsets: of the kernel distance.
        subset_size: images in each of these.
        neighbours: k of precision, recall, density and coverage.
        seed: of all that is drawn.
        chunk: pictures held at once.
    """

    distractors: int = 99
    repeats: int = 3
    splits: int = 10
    subsets: int = 100
    subset_size: int = 1000
    neighbours: int = 3
    seed: int = 0
    chunk: int = 16

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            least = {"seed": 0, "subset_size": 2}.get(name, 1)
            if value < least:
                raise ValueError(f"{name}={value}: expected at least {least}")


class FolderReport(NamedTuple):
    """Scores as a record of plain types, and pictures of what was scored, by title."""

    record: dict[str, Any]
    pictures: dict[str, Image.Image]


def score_folder(
    pairing: Pairing,
    embedders: Sequence[Embedder],
    extractor: Extractor,
    reference: Sequence[Path] | SeenPictures | None,
    how: Measuring,
    device: torch.device | str,
    bar: Bar,
    parts: Path | None = None,
) -> FolderReport:
    """Measures pictures with their captions; memory is that of two chunks, and of a row of numbers for each picture.

    Args:
        pairing: the pictures and their captions.
        embedders: CLIPs, at least one; the first one orders the pictures shown.
        extractor: what sets of pictures are compared by.
        reference: real pictures, or what the extractor saw of them; None for no comparison.
        how: how to measure.
        device: where the models are.
        bar: makes progress bars.
        parts: folder of what the same models have seen already, and where more of it is kept; None for none.

    Raises:
        ValueError: where too few pictures can be read.
    """
    if isinstance(reference, SeenPictures):
        _check_enough(len(pairing.pictures), len(reference.kept), how)
    elif reference is not None:
        _check_enough(len(pairing.pictures), len(reference), how)
    with bar("captions", len(pairing.texts) * len(embedders)) as progress:
        texts = [_embed(embedder, pairing.texts, progress) for embedder in embedders]
    seen = see(pairing.pictures, embedders, extractor, how.chunk, device, bar, "pictures", parts)
    own = torch.tensor(pairing.own)[seen.kept]
    clips = [_clip(images, text, own, how) for images, text in zip(seen.embeddings, texts, strict=True)]
    record: dict[str, Any] = {"measuring": asdict(how)}
    captions = {"captions": pairing.captions, "different_captions": len(pairing.texts)}
    record["images"] = {**seen.record, **captions, "texts_sha256": texts_sha256(pairing.texts)}
    record["clip"] = [numbers for numbers, _ in clips]
    record["inception_score"] = {
        name: inception_score(found, min(how.splits, len(found)), how.seed)._asdict()
        for name, found in seen.probabilities.items()
    }
    record["judge_accuracy"] = _judged(seen.probabilities, pairing, own, extractor)
    record["reference"] = None
    if reference is not None:
        real = reference
        if not isinstance(real, SeenPictures):
            real = see(real, (), extractor, how.chunk, device, bar, "reference", parts)
        record["reference"] = {**real.record, **_compare(real.features, seen.features, how)}
    shown = _pictures(pairing, seen.kept, own, clips[0][1])
    return FolderReport(record, shown)


@torch.no_grad()
def _embed(embedder: Embedder, texts: Sequence[str], progress: Any) -> Tensor:
    """Embeds captions, many at once."""
    parts = []
    for start in range(0, len(texts), TEXTS):
        parts.append(embedder.embed_text(texts[start : start + TEXTS]).float().cpu())
        progress.update(len(parts[-1]))
    return torch.cat(parts)


def _clip(images: Tensor, texts: Tensor, own: Tensor, how: Measuring) -> tuple[dict[str, Any], Tensor]:
    """One CLIP's numbers, and the scores [n] of the pictures."""
    scores = F.cosine_similarity(images, texts[own], dim=-1).double()
    present, counts = own.unique(return_counts=True)
    rows = [
        part.tolist() for part in torch.arange(len(own)).split(counts.tolist())
    ]  # a caption's pictures lie together
    each, fewest = [scores[row] for row in rows], int(counts.min())
    sizes = sorted({*(2**power for power in range(fewest.bit_length())), fewest})
    best = {str(size): float(torch.stack([expected_best(row, size) for row in each]).mean()) for size in sizes}
    several = [float(diversity(images[row][None])) for row in rows if len(row) > 1]
    numbers: dict[str, Any] = {**mean_over_prompts("clip_score", [float(row.mean()) for row in each]), "best_of": best}
    numbers |= mean_over_prompts("diversity", several)
    distractors = min(how.distractors, len(texts) - 1)
    found = r_precision(images, texts, own, distractors, how.repeats, how.seed) if distractors else None
    return {**numbers, "r_precision": found._asdict() if found else None, "captions": len(present)}, scores


def _compare(real: Tensor, fake: Tensor, how: Measuring) -> dict[str, Any]:
    _check_enough(len(fake), len(real), how)
    return {
        "features": real.shape[1],
        "frechet_distance": frechet_distance(real, fake),
        "normalised_frechet": normalised_frechet(real, fake),
        "kernel_distance": kernel_distance(real, fake, how.subsets, how.subset_size, how.seed)._asdict(),
        **manifold(real, fake, how.neighbours)._asdict(),
    }


def _check_enough(pictures: int, reference: int, how: Measuring) -> None:
    if min(pictures, reference) <= how.neighbours:
        raise ValueError(
            f"{pictures} pictures and {reference} reference pictures: at least {how.neighbours + 1} of each are needed"
        )


def _judged(
    probabilities: dict[str, Tensor], pairing: Pairing, own: Tensor, extractor: Extractor
) -> dict[str, Any] | None:
    """How much of what captions ask for a judge sees; None without attributes or without a judge."""
    if not extractor.classes or not any(pairing.attributes):
        return None
    seen = {name: found.argmax(1)[:, None] for name, found in probabilities.items()}
    found = judge_accuracy(seen, [pairing.attributes[index] for index in own.tolist()], extractor.classes)
    return {"mean": found.mean, "by_attribute": found.by_attribute, "judged_pairs": found.count}


def _pictures(pairing: Pairing, kept: Tensor, own: Tensor, scores: Tensor) -> dict[str, Image.Image]:
    """Grids of the first captions, and of those whose pictures are nearest and farthest."""
    present, counts = own.unique(return_counts=True)
    starts = counts.cumsum(0) - counts
    means = torch.stack([part.mean() for part in scores.split(counts.tolist())])
    ranked = means.argsort(descending=True)
    chosen = {"The first captions": torch.arange(len(present))[:SHOWN]}
    if len(present) > SHOWN:
        chosen |= {"The captions best met": ranked[:SHOWN], "The captions worst met": ranked.flip(0)[:SHOWN]}
    columns, made = min(COLUMNS, int(counts.min())), {}
    for title, rows in chosen.items():
        places = torch.stack([starts[row] + torch.arange(columns) for row in rows])  # [p, columns]
        files = [pairing.pictures[index] for index in kept[places.flatten()].tolist()]
        side = (128, 128)
        images = torch.cat([F.interpolate(read_picture(file), side, mode="area") for file in files])
        labels = [pairing.texts[int(present[row])] for row in rows]
        made[title] = grid(images.unflatten(0, places.shape), labels, scores[places])
    return made
