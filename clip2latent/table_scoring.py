"""What a table's rows are scored by: features that know what the prompts ask for, and real pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clip2latent.assets import names
from clip2latent.evaluate import Bar, critics
from clip2latent.extractors import Extractor, embedder_extractor, load_extractor
from clip2latent.folder_scores import Measuring
from clip2latent.interfaces import Embedder
from clip2latent.judge import load_judge
from clip2latent.pairing import list_pictures
from clip2latent.prompts import Prompt
from clip2latent.references import World
from clip2latent.seen_pictures import SeenPictures, see
from clip2latent.table import draw_real

RENDERS, EACH = "renders", 8
"""The reference that the demo's worlds draw, so many pictures of each prompt."""
USE = 21
"""Theirs of a seed."""


def choose_features(prompts: Sequence[Prompt], features: str | None) -> str | None:
    """Returns the features asked for; else the embedded judge that knows the prompts' attributes; None for none."""
    named = {name for prompt in prompts for name in prompt.attributes}
    if features is not None or not named:
        return features
    for judge in (name for name in names() if name.endswith("judge")):
        if named <= set(load_judge(judge).attributes):
            return judge
    return None


def load_features(features: str | None, embedder: Embedder, source: str, device: torch.device | str) -> Extractor:
    """Loads features by name; the embedder's own for None."""
    return embedder_extractor(embedder, source) if features is None else load_extractor(features, device)


def world_of(prompts: Sequence[Prompt], features: str | None) -> World | None:
    """Returns the demo's world that prompts speak of, judged by `features`; None for others."""
    judge = features if features is not None and features in names() else None
    return critics(prompts, judge)[1]


def see_reference(
    reference: str | None,
    world: World | None,
    prompts: Sequence[Prompt],
    folder: Path,
    extractor: Extractor,
    how: Measuring,
    device: torch.device | str,
    bar: Bar,
) -> SeenPictures | None:
    """Looks at the reference pictures, a folder's or the world's, which are drawn to `folder`/renders.

    Raises:
        ValueError: for renders of prompts that no world of the demo knows.
    """
    if reference is None:
        return None
    source = Path(reference)
    if reference == RENDERS:
        if world is None:
            raise ValueError("reference=renders: only for prompts of the demo's worlds, with attributes; name a folder")
        source = folder / RENDERS
        draw_real(world, prompts, source, EACH, (how.seed, USE))
    return see(list_pictures(source), (), extractor, how.chunk, device, bar, "reference")


def plain_inputs(
    embedders: Sequence[dict[str, Any]], extractor: Extractor, seen: SeenPictures | None, how: Measuring, views: int
) -> dict[str, Any]:
    """Returns what rows are measured by, plain types."""
    measuring = {name: value for name, value in asdict(how).items() if name != "chunk"}
    found = {"embedders": list(embedders), "features": extractor.identity, "measuring": measuring, "views": views}
    return found | {"reference": None if seen is None else seen.record["sha256"]}


def targets_of(embedder: Embedder, prompts: Sequence[Prompt]) -> Tensor:
    """Embeds prompts [P, E], on the CPU; each alone, so that none depends on the others."""
    with torch.no_grad():
        return torch.cat([embedder.embed_text([prompt.text]).float().cpu() for prompt in prompts])
