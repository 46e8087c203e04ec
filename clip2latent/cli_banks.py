"""A generator and a CLIP without a prior, as commands name them. Whatever is slow to import is imported inside."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def load_banks(generator: str, embedder: str, bank: str, chunk: int) -> tuple[Any, dict[str, Any]]:
    """Loads a generator and a CLIP, onto CUDA where there is one, and returns their banks and what they are.

    Args:
        generator: see `generator_spec`.
        embedder: as for `ranking.load_ranker`.
        bank: the folder of what was drawn before; auto for the cache's, off for none.
        chunk: images drawn at once.

    Returns:
        A `bank.Banks`, and {"generator", "embedder"} as `spec.ModelSpec`s.

    Raises:
        ValueError: for a chunk under 1, and what cannot be loaded.
    """
    if chunk < 1:
        raise ValueError(f"chunk={chunk}: expected at least 1")
    import torch

    from clip2latent.bank import Banks, bank_folder
    from clip2latent.ranking import load_ranker
    from clip2latent.spec import ModelSpec

    folder = None if bank == "off" else bank_folder() if bank == "auto" else Path(bank)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    spec = generator_spec(generator)
    draws = spec.build().to(device).eval().requires_grad_(False)
    clip = load_ranker(embedder).to(device).eval().requires_grad_(False)
    models = {
        "generator": ModelSpec.of(spec.class_path, spec.init_args, draws),
        "embedder": ModelSpec.of(embedder, {}, clip),
    }
    return Banks(draws, clip, folder, device, chunk), models


def generator_spec(source: str) -> Any:
    """Returns what a yaml file as in configs/generator/ says, or how any other source is loaded.

    Args:
        source: a yaml file, or what `generators.load_generator` takes.

    Returns:
        A `spec.ModelSpec`.

    Raises:
        FileNotFoundError: for a yaml file that is not there.
        ValueError: for one that describes no generator.
    """
    from clip2latent.spec import ModelSpec

    if not source.lower().endswith((".yaml", ".yml")):
        return ModelSpec("clip2latent.generators.load_generator", {"source": source})
    import yaml

    if not Path(source).is_file():
        raise FileNotFoundError(f"no generator file {source}: name a yaml file as in configs/generator/")
    try:
        record = yaml.safe_load(Path(source).read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{source} is not yaml: {error}") from error
    if not isinstance(record, dict):
        raise ValueError(f"{source}: expected class_path and init_args of a generator")
    return ModelSpec.from_dict(record)
