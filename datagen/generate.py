"""Latents and the embeddings of their images: each shard is a function of (seed, index), whichever process makes it."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn
from tqdm import tqdm

from clip2latent.interfaces import Embedder, Generator
from clip2latent.latents import expand, reduce
from clip2latent.spec import ModelSpec
from datagen.folder import DATASET, Settings, check_pairs, finish, missing_shards, open_folder, versions
from datagen.shards import Pairs, shard_name, write_shard


class Models(NamedTuple):
    """A frozen generator and a frozen embedder on one device, and how to name them."""

    generator: Generator
    embedder: Embedder
    generator_spec: ModelSpec
    embedder_spec: ModelSpec
    device: torch.device


def load_models(generator: dict[str, Any], embedder: dict[str, Any], device: str = "auto") -> Models:
    """Builds both models from {"class_path", "init_args"}.

    Args:
        generator: The generator's specification.
        embedder: The embedder's.
        device: "auto" for a GPU where there is one, else a name that torch knows.

    Raises:
        ValueError: where a model cannot be built, or is not what it should be, or there is no such device.
    """
    place = choose_device(device)
    built = []
    for option, record, protocol in (("generator", generator, Generator), ("embedder", embedder, Embedder)):
        spec = ModelSpec.from_dict(record)
        model = spec.build()
        if not isinstance(model, protocol):
            raise ValueError(f"{option}: {spec} is not a {protocol.__name__} (see clip2latent/interfaces.py)")
        # The hash is taken where the weights were loaded: it must not depend on the device.
        built.append((model, ModelSpec.of(spec.class_path, spec.init_args, model)))
    for model, _ in built:
        if isinstance(model, nn.Module):
            model.to(place).eval().requires_grad_(False)
    (generator_model, generator_spec), (embedder_model, embedder_spec) = built
    return Models(generator_model, embedder_model, generator_spec, embedder_spec, place)


def choose_device(name: str) -> torch.device:
    """Returns the named device; "auto" is a GPU where there is one.

    Raises:
        ValueError: where torch does not know it or this machine lacks it.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0][:100]
        raise ValueError(f"device {name!r} cannot be used here: give auto, cpu or cuda ({reason})") from error
    return device


def shard_rng(seed: int, index: int) -> torch.Generator:
    """Returns the random stream of one shard."""
    digest = hashlib.sha256(f"clip2latent datagen {seed} {index}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))


@torch.no_grad()
def make_pairs(
    models: Models, groups: tuple[int, ...], num: int, rng: torch.Generator, batch_size: int, done: Callable[[int], Any]
) -> Pairs:
    """Draws `num` latents and embeds the images they make.

    The image is that of the reduced latents, expanded again: what a prior over these groups can reach.

    Args:
        models: The generator and the embedder.
        groups: Latent rows that share a token.
        num: Rows.
        rng: The shard's random stream.
        batch_size: Images made at once.
        done: Called after each batch with its number of images.
    """
    tokens = reduce(models.generator.sample_latents(num, rng), groups).to(models.device)
    embeddings = []
    for batch in tokens.split(batch_size):
        images = models.generator.synthesize(expand(batch, groups))
        embeddings.append(models.embedder.embed_images(images).float().cpu())
        done(len(batch))
    return Pairs(tokens.float().cpu().numpy(), torch.cat(embeddings).numpy())


@torch.no_grad()
def mean_of_texts(embedder: Embedder, texts: Sequence[str], batch_size: int = 256) -> list[float]:
    """Returns the mean embedding [E] of texts, summed in float64."""
    parts = [embedder.embed_text(texts[start : start + batch_size]) for start in range(0, len(texts), batch_size)]
    return torch.cat(parts).double().mean(dim=0).tolist()


def generate(
    models: Models, settings: Settings, out: Path, rank: int = 0, world_size: int = 1, texts: Sequence[str] = ()
) -> bool:
    """Makes the shards of this process that are missing, then dataset.json once all shards are there.

    Args:
        models: What `settings` name.
        settings: What to make.
        out: A new or empty folder, or one where the same data set was begun.
        rank: This process's number; it makes the shards whose index is `rank` modulo `world_size`.
        world_size: Number of processes that share the folder.
        texts: Their mean embedding goes into dataset.json; none for no such entry.

    Returns:
        Whether the data set is complete: False where other processes have shards to make.

    Raises:
        ValueError: where the folder does not fit, or a row is not finite.
    """
    begun_with = open_folder(out, settings, rank, world_size)
    _warn_of_other_versions(out, begun_with)
    counts = settings.row_counts
    missing = missing_shards(out, settings)
    mine = [index for index in missing if index % world_size == rank]
    total = sum(counts[rank::world_size])
    left = sum(counts[index] for index in mine)
    with tqdm(total=total, initial=total - left, unit=" images", disable=not mine, dynamic_ncols=True) as bar:
        for index in mine:
            bar.set_description(f"shard {index + 1} of {len(counts)}")
            path = out / shard_name(index)
            rng = shard_rng(settings.seed, index)
            pairs = make_pairs(models, settings.groups, counts[index], rng, settings.batch_size, bar.update)
            check_pairs(pairs, counts[index], settings.shape, str(path))
            write_shard(path, pairs, f"rank{rank}")
    if missing_shards(out, settings):
        return False
    if missing or not (out / DATASET).exists():
        finish(out, settings, begun_with, rank, mean_of_texts(models.embedder, texts) if texts else None)
    return True


def _warn_of_other_versions(out: Path, begun_with: dict[str, str]) -> None:
    now = versions()
    names = [name for name in {**begun_with, **now} if begun_with.get(name) != now.get(name)]
    if names:
        changes = ", ".join(f"{name} {begun_with.get(name)} -> {now.get(name)}" for name in names)
        print(f"warning: {out} was begun with other versions ({changes}): numbers may differ slightly", file=sys.stderr)
