"""Ranking: what the candidates of a prompt are compared by, the prior's own CLIP or anything else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import yaml
from torch import Tensor
from torch.nn import functional as F

from clip2latent.conditions import embed_targets
from clip2latent.embedders import load_embedder, load_open_clip
from clip2latent.interfaces import Embedder, Objective
from clip2latent.metrics import clip_score
from clip2latent.mixtures import Mixture
from clip2latent.objectives import augclip_objective
from clip2latent.samples import Chunk
from clip2latent.spec import ModelSpec

AUGCLIP = "augclip"

Ranking = Callable[[Sequence[Mixture]], Sequence[Objective]]
"""P mixtures -> an objective for each; the candidates of lowest loss are kept, and 1 - loss is their score."""


def rank_by(
    embedder: Embedder,
    device: torch.device | str = "cpu",
    make: Callable[[Embedder, Tensor], Objective] | None = None,
) -> Ranking:
    """Returns the ranking by how near an image is to its prompt, or to the mean of a mixture's parts.

    A CLIP that the prior is not conditioned on cannot be flattered by what the prior learnt of its own.

    Args:
        embedder: of any width.
        device: where it is.
        make: (embedder, target [E]) -> an objective, such as `augclip`'s; None for `cosine_objective`.
    """

    def objectives(mixtures: Sequence[Mixture]) -> list[Objective]:
        return [
            (make or cosine_objective)(embedder, target.to(device))
            for target in embed_targets(embedder, mixtures, device)
        ]

    return objectives


def cosine_objective(embedder: Embedder, target: Tensor) -> Objective:
    """Returns the objective 1 - cosine of an image's embedding and a target [E], of any norms."""

    def loss(images: Tensor) -> Tensor:
        return 1 - F.cosine_similarity(embedder.embed_images(images), target[None], dim=-1)

    return loss


def augclip(views: int = 16, seed: int = 0, chunk: int = 64) -> Callable[[Embedder, Tensor], Objective]:
    """Returns what makes AugCLIP objectives for `rank_by`: the mean over views that are the same for all images.

    An image that is good for CLIP in one view only does not come first (FuseDream, arXiv:2112.01573, section 3.1).

    Args:
        views: of each image.
        seed: of the views.
        chunk: views embedded at once.
    """

    def make(embedder: Embedder, target: Tensor) -> Objective:
        rng = torch.Generator().manual_seed(seed)
        return augclip_objective(embedder, target, views=views, rng=rng, chunk=chunk, fixed=True)

    return make


def chunk_scores(
    chunk: Chunk, targets: Tensor, objectives: Sequence[Objective] | None, device: torch.device | str
) -> Tensor:
    """Returns the scores [B] of a chunk's images, each for its own prompt.

    Args:
        chunk: B images of any of P prompts.
        targets: [P, E], which the chunk's embeddings are compared with.
        objectives: of P prompts, in place of that comparison; None for none.
        device: where the objectives want images.
    """
    if objectives is None:
        return clip_score(chunk.embeddings[:, None], targets[chunk.prompt])[:, 0]
    scores = torch.empty(len(chunk.prompt))
    for index in chunk.prompt.unique().tolist():
        own = chunk.prompt == index
        scores[own] = 1 - objectives[index](chunk.images[own].to(device)).float().cpu()
    return scores


def load_ranker(source: str) -> Embedder:
    """Loads an embedder by whatever names one.

    Args:
        source: a yaml file as in configs/embedder/, a folder, "demo", a name and a tag of open_clip such as
            "ViT-B-32-quickgelu/openai", or "hf-hub:owner/name".

    Raises:
        FileNotFoundError: where a file is missing.
        ValueError: where the source names no embedder.
    """
    if source.lower().endswith((".yaml", ".yml")):
        return _from_yaml(Path(source))
    if source == "demo" or Path(source).is_dir():
        return load_embedder(source)
    if source.startswith("hf-hub:"):
        return load_open_clip(source)
    model, slash, tag = source.partition("/")
    if not slash:
        raise ValueError(
            f"rank={source!r}: expected a yaml file of an embedder, a folder, demo, MODEL/TAG of open_clip such as"
            " ViT-B-32-quickgelu/openai, or hf-hub:owner/name"
        )
    return load_open_clip(model, tag)


def _from_yaml(path: Path) -> Embedder:
    if not path.is_file():
        raise FileNotFoundError(f"no embedder file {path}: name a yaml file as in configs/embedder/")
    try:
        record = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not yaml: {error}") from error
    if not isinstance(record, dict):
        raise ValueError(f"{path}: expected class_path and init_args of an embedder")
    embedder = ModelSpec.from_dict(record).build()
    if not isinstance(embedder, Embedder):
        raise ValueError(f"{path} names {record['class_path']}, which is not an embedder")
    return embedder
