"""What a dataset of pairs says of itself: dataset.json, or the description that shards without one are given."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from clip2latent.downloads import cached_file, is_remote
from clip2latent.pair_sources import MANIFEST, PIPE, Access, Shard, find_shards
from clip2latent.spec import ModelSpec

_KEYS = {
    "generator",
    "embedder",
    "latent_shape",
    "groups",
    "embedding_dim",
    "count",
    "shards",
    "latent_mean",
    "latent_std",
}
_DESCRIPTION = {"generator", "embedder", "groups"}


def read_dataset(path: str | Path) -> dict[str, Any]:
    """Reads and checks a dataset's description.

    Args:
        path: the folder that `python -m datagen` wrote.

    Returns:
        dataset.json's content.

    Raises:
        ValueError: where there is no dataset, an unfinished one, or one of another format.
    """
    folder = Path(path)
    manifest = folder / MANIFEST
    if not manifest.is_file():
        started = folder.is_dir() and any(folder.glob("*.tar*"))
        fix = (
            "run the same datagen command again, it goes on where it stopped (or, for shards of another program, say"
            " with --data.description what they hold)"
            if started
            else "make one: python -m datagen"
        )
        raise ValueError(f"no {'finished ' if started else ''}dataset in {folder} ({manifest} is missing): {fix}")
    return _checked(manifest)


def find_dataset(path: str, described: bool, access: Access) -> tuple[dict[str, Any] | None, list[Shard]]:
    """Finds shards and the dataset.json that goes with them.

    Args:
        path: a folder or an address with dataset.json; shards of such a folder; or other shards.
        described: whether the user says what the shards hold.
        access: what may be reached.

    Returns:
        The description, None where the user's is needed, and the shards.

    Raises:
        ValueError: where there is nothing, or two descriptions or none.
    """
    access.check(path)
    local = not is_remote(path) and not path.startswith(PIPE)
    names_shards = path.startswith(PIPE) or path.endswith(".tar") or "{" in path
    folder = Path(path).parent if names_shards else Path(path)
    if local and (folder / MANIFEST).is_file():
        if described:
            raise ValueError(f"{folder} has a {MANIFEST}: leave data.description out")
        dataset = read_dataset(folder)
        return (
            _some_shards(dataset, find_shards(path, access))
            if names_shards
            else (dataset, listed_shards(dataset, path))
        )
    if not local and not names_shards and not described:
        dataset = _checked(cached_file(f"{path.rstrip('/')}/{MANIFEST}"))
        return dataset, listed_shards(dataset, path)
    if not described and not names_shards:
        read_dataset(path)  # says what is missing
    shards = find_shards(path, access)
    if not described:
        raise ValueError(
            f"no {MANIFEST} says what the shards {path} hold: give --data.description FILE, a yaml file with the"
            " generator, embedder and groups they are of"
        )
    return None, shards


def describe_shards(
    description: Mapping[str, Any], shards: Sequence[Shard], statistics: Mapping[str, list]
) -> dict[str, Any]:
    """Makes what dataset.json would hold, from a user's description and what was read.

    Args:
        description: from `read_description`.
        shards: with their counts and hashes.
        statistics: latent_mean and latent_std [K, D], embedding_mean [E].

    Raises:
        ValueError: where the shards do not hold what the description says.
    """
    mean, std, dim = statistics["latent_mean"], statistics["latent_std"], len(statistics["embedding_mean"])
    groups = description["groups"]
    if len(mean) != len(groups):
        raise ValueError(f"description: groups {groups} are {len(groups)} rows of latents, the shards hold {len(mean)}")
    texts = description.get("text_mean")
    if texts is not None and len(texts) != dim:
        raise ValueError(f"description: text_mean has {len(texts)} numbers, the shards' embeddings {dim}")
    if any((mean[row], std[row]) == (mean[row + 1], std[row + 1]) for row in range(len(mean) - 1)):
        warnings.warn(
            "two rows of latents are equal throughout: the original clip2latent took the sizes of w3's groups for"
            " their indices and never stored the coarse row; a prior of these pairs cannot draw what they show",
            stacklevel=2,
        )
    return {
        "format": 1,
        **description,
        "latent_shape": [sum(groups), len(mean[0])],
        "embedding_dim": dim,
        "count": sum(shard.count or 0 for shard in shards),
        "shards": [{"name": shard.name, "count": shard.count, "sha256": shard.sha256} for shard in shards],
        **statistics,
    }


def listed_shards(dataset: Mapping[str, Any], folder: str) -> list[Shard]:
    """Returns the shards that a description lists, below a folder or an address."""
    place = (lambda name: f"{folder.rstrip('/')}/{name}") if is_remote(folder) else lambda name: str(Path(folder, name))
    records = dataset["shards"]
    return [Shard(place(it["name"]), place(it["name"]), it["count"], it.get("sha256", "")) for it in records]


def read_description(path: str | Path) -> dict[str, Any]:
    """Reads what shards without dataset.json are made of: a yaml or json file.

    It has `generator` and `embedder` (each class_path and init_args, or the path of a yaml file that holds them) and
    `groups`, the generator's latent rows that share each stored row: [18] for w of an 18-row generator, [4, 4, 10] for
    w3; `space` (a name) and `text_mean` (E numbers) if known.

    Raises:
        ValueError: where something is missing, unknown or malformed.
    """
    import yaml

    try:
        record = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"description {path} is missing") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"description {path} is not valid yaml: {' '.join(str(error).split())}") from error
    if (
        not isinstance(record, dict)
        or _DESCRIPTION - set(record)
        or set(record) - _DESCRIPTION - {"space", "text_mean"}
    ):
        found = sorted(record) if isinstance(record, dict) else record
        raise ValueError(
            f"description {path} must have generator, embedder and groups, and may have space and text_mean;"
            f" got {found}"
        )
    groups = record["groups"]
    if not isinstance(groups, list) or not groups or not all(isinstance(size, int) and size > 0 for size in groups):
        raise ValueError(f"description {path}: groups must be a list of positive numbers of rows, got {groups!r}")
    for name in ("generator", "embedder"):
        model = record[name]
        if isinstance(model, str):
            try:
                model = yaml.safe_load(Path(model).read_text(encoding="utf-8"))
            except (OSError, yaml.YAMLError) as error:
                raise ValueError(f"description {path}: {name} {record[name]!r} cannot be read: {error}") from error
        if not isinstance(model, dict):
            raise ValueError(f"description {path}: {name} must be class_path and init_args, or a yaml file's path")
        record[name] = ModelSpec.from_dict(model).to_dict()
    return record


def _checked(manifest: Path) -> dict[str, Any]:
    try:
        dataset = json.loads(manifest.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{manifest} is not valid JSON: {error}") from error
    if not isinstance(dataset, dict) or dataset.get("format") != 1:
        found = dataset.get("format") if isinstance(dataset, dict) else None
        raise ValueError(f"{manifest} has format {found!r}, this version reads format 1")
    missing = _KEYS - set(dataset)
    if missing:
        raise ValueError(f"{manifest} lacks {', '.join(sorted(missing))}")
    counts = sum(shard["count"] for shard in dataset["shards"])
    if counts != dataset["count"]:
        raise ValueError(f"{manifest} says count {dataset['count']}, but its shards hold {counts} pairs together")
    strange = [shard["name"] for shard in dataset["shards"] if Path(shard["name"]).name != shard["name"]]
    if strange:
        raise ValueError(f"{manifest} names a shard outside its folder: {strange[0]!r}")
    return dataset


def _some_shards(dataset: Mapping[str, Any], shards: list[Shard]) -> tuple[dict[str, Any], list[Shard]]:
    """A choice of a dataset's shards; models, groups and statistics stay those of the whole."""
    records = {record["name"]: record for record in dataset["shards"]}
    strange = [shard.location for shard in shards if Path(shard.location).name not in records]
    if strange:
        raise ValueError(f"path: {strange[0]} is not among the shards of the {MANIFEST} beside it")
    chosen = [records[Path(shard.location).name] for shard in shards]
    count = sum(record["count"] for record in chosen)
    known = [
        Shard(shard.location, shard.location, record["count"], record.get("sha256", ""))
        for shard, record in zip(shards, chosen, strict=True)
    ]
    return {**dataset, "shards": chosen, "count": count}, known
