"""What belongs to one of the authors' published checkpoints: its configuration, its generator and its embedder.

| source | configuration | generator and embedder |
|---|---|---|
| FILE.ckpt, a path or an address | FILE.yaml beside it, or the entry `cfg` in it | as the configuration names them |
| FILE.yaml as in configs/sample/ | as it says, or as above | as it says, or as above |
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from clip2latent.downloads import cached_file, is_remote, shown, sibling

YAML = (".yaml", ".yml")
_OWN_KEYS = {"checkpoint", "config", "generator", "embedder", "guidance", "sha256"}
_GENERATOR, _EMBEDDER = "clip2latent.generators.load_generator", "clip2latent.released_embedder.load_released_embedder"


class Published(NamedTuple):
    """A published checkpoint's files, and what goes with it.

    Attributes:
        checkpoint: the file.
        name: the checkpoint as it may stand in messages.
        config: the authors' configuration, its interpolations resolved; None where there is no file of it.
        generator: class_path and init_args; None to take what the configuration names.
        embedder: the same.
        guidance: the recommended guidance scale.
    """

    checkpoint: Path
    name: str
    config: dict[str, Any] | None
    generator: dict[str, Any] | None = None
    embedder: dict[str, Any] | None = None
    guidance: float = 1.0


def find_published(source: str | Path) -> Published:
    """Finds a published checkpoint and its configuration, and downloads what is not here yet.

    Args:
        source: a checkpoint's path or address, or the path of a yaml file that names one.

    Raises:
        FileNotFoundError: a file is missing, or must not be downloaded.
        ValueError: a yaml file is not what it should be.
        OSError: the download failed.
    """
    if not _is_yaml(source):
        return Published(_local(str(source)), shown(str(source)), _beside(str(source)))
    path = Path(source)
    own = read_mapping(path)
    if "checkpoint" not in own or not set(own) <= _OWN_KEYS:
        hint = f": it is the authors' configuration; name {path.with_suffix('.ckpt')}" if "model" in own else ""
        raise ValueError(
            f"{path}: expected the key checkpoint and any of {', '.join(sorted(_OWN_KEYS - {'checkpoint'}))},"
            f" got {', '.join(sorted(own)) or 'none'}{hint}"
        )
    checkpoint = _relative(own["checkpoint"], path)
    config = read_config(_local(_relative(own["config"], path))) if own.get("config") else _beside(checkpoint)
    models = {role: _model(own[role], path) for role in ("generator", "embedder") if own.get(role)}
    guidance = float(own.get("guidance") or 1.0)
    return Published(_local(checkpoint, own.get("sha256")), shown(checkpoint), config, guidance=guidance, **models)


def read_config(path: Path) -> dict[str, Any]:
    """Reads a configuration of the authors and resolves its interpolations, ${model.network.dim}."""
    return resolved(read_mapping(path))


def resolved(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a configuration with every text that is one ${dotted.name} replaced by what the name leads to.

    Raises:
        ValueError: for a name that leads nowhere, or back to itself.
    """

    def value_of(value: Any, seen: tuple[str, ...]) -> Any:
        if isinstance(value, Mapping):
            return {str(key): value_of(item, seen) for key, item in value.items()}
        if isinstance(value, list):
            return [value_of(item, seen) for item in value]
        found = re.fullmatch(r"\$\{([\w.]+)\}", value) if isinstance(value, str) else None
        if not found:
            return value
        name, target = found[1], config
        for key in name.split("."):
            target = target.get(key) if isinstance(target, Mapping) else None
        if target is None or name in seen:
            where = "in a circle" if name in seen else "nowhere"
            raise ValueError(f"the configuration refers to ${{{name}}}, which leads {where}")
        return value_of(target, (*seen, name))

    return value_of(config, ())


def named_models(config: Mapping[str, Any], groups: tuple[int, ...], folder: Path) -> dict[str, dict[str, Any]]:
    """Returns the generator and the embedder that a configuration names, as class_path and init_args.

    Args:
        config: with data.sg_pkl, the generator's file or address, and data.clip_variant, OpenAI's name of a CLIP.
        groups: the latent rows of each token, which tell the latent space.
        folder: of the checkpoint; a generator's file that is not where the configuration says is looked for here.

    Raises:
        ValueError: for a configuration without these names.
    """
    data = config["data"]
    for key in ("sg_pkl", "clip_variant"):
        if not isinstance(data.get(key), str):
            raise ValueError(f"data.{key}: expected a text, got {data.get(key)!r}: name the models in a yaml file")
    source, beside = data["sg_pkl"], folder / Path(data["sg_pkl"]).name
    if not is_remote(source) and not Path(source).exists() and beside.is_file():
        source = str(beside)
    space = "w" if len(groups) == 1 else "w+" if max(groups) == 1 else f"w{len(groups)}"
    clip = data["clip_variant"].replace("@336px", "-336").replace("/", "-")
    return {
        "generator": {"class_path": _GENERATOR, "init_args": {"source": source, "space": space}},
        "embedder": {"class_path": _EMBEDDER, "init_args": {"model": f"{clip}-quickgelu", "pretrained": "openai"}},
    }


def read_mapping(path: Path) -> dict[str, Any]:
    """Reads a yaml file that holds a mapping.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it holds something else.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} does not exist") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not yaml: {' '.join(str(error).split())[:300]}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected a mapping of names to values, found {type(content).__name__}")
    return content


def _is_yaml(source: str | Path) -> bool:
    return not is_remote(str(source)) and Path(source).suffix in YAML


def _beside(checkpoint: str) -> dict[str, Any] | None:
    """The authors' configuration beside a checkpoint, of the same name."""
    if is_remote(checkpoint):
        stem = re.sub(r"\?.*|@[^/]*$", "", checkpoint).rpartition("/")[2].rpartition(".")[0]
        return read_config(cached_file(sibling(checkpoint, f"{stem}.yaml")))
    path = next((path for end in YAML if (path := Path(checkpoint).with_suffix(end)).is_file()), None)
    return read_config(path) if path else None


def _local(source: str, sha256: str | None = None) -> Path:
    if is_remote(source):
        return cached_file(source, sha256)
    if not Path(source).is_file():
        raise FileNotFoundError(f"checkpoint: {source} does not exist")
    return Path(source)


def _relative(source: str, path: Path) -> str:
    """A path in a yaml file starts at the file's folder."""
    return source if is_remote(source) else str(path.parent / source)


def _model(value: Any, path: Path) -> dict[str, Any]:
    """A model inline, or in a yaml file of its own."""
    return dict(value) if isinstance(value, Mapping) else read_mapping(Path(_relative(str(value), path)))
