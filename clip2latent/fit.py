"""Whether a prior, a generator and an embedder belong together."""

from __future__ import annotations

from typing import Any

from torch import nn

from clip2latent.interfaces import Embedder, Generator
from clip2latent.latents import LatentSpace
from clip2latent.spec import ModelSpec


def check_fit(
    prior: nn.Module, space: LatentSpace, generator: Generator, embedder: Embedder, config: dict[str, Any]
) -> None:
    """Refuses a generator or embedder of another shape than the prior's, naming both sides.

    Args:
        prior: has `config` with its "embedding_dim".
        space: of the prior's latents.
        generator: to draw them.
        embedder: to embed prompts.
        config: the checkpoint's description, which may name both.

    Raises:
        ValueError: where they do not fit.
    """
    names = {part: ModelSpec.from_dict(config[part]) for part in ("generator", "embedder") if part in config}
    wanted, found = (space.num_rows, space.width), tuple(generator.latent_shape)
    if wanted != found:
        raise ValueError(
            f"the prior makes latents {wanted} (L, D), but the generator {names.get('generator', type(generator))}"
            f" takes {found}: give the generator that the prior was trained for"
        )
    width = prior.config["embedding_dim"]
    if width != embedder.dim:
        raise ValueError(
            f"the prior reads embeddings of width {width}, but the embedder {names.get('embedder', type(embedder))}"
            f" makes {embedder.dim}: give the embedder that the prior was trained with"
        )
    if "embedder" in names:
        names["embedder"].check_identity(embedder)
