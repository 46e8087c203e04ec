"""`python -m datagen`: makes the prior's training data from a generator and an embedder."""

from __future__ import annotations

import argparse
import errno
import inspect
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentError, ArgumentParser, DefaultHelpFormatter
from jsonargparse.typing import NonNegativeInt, Path_fr, PositiveInt, register_type


class ModelOption:
    """A model as the user names it; not a dataclass, which jsonargparse would take apart.

    Attributes:
        record: {"class_path", "init_args"}.
    """

    def __init__(self, record: dict[str, Any]) -> None:
        self.record = record


def datagen(
    out: Path,
    generator: ModelOption,
    embedder: ModelOption,
    count: PositiveInt = 1_000_000,
    rows_per_shard: PositiveInt = 10_000,
    seed: NonNegativeInt = 0,
    batch_size: PositiveInt = 64,
    groups: list[PositiveInt] | None = None,
    device: str = "auto",
    rank: NonNegativeInt | None = None,
    world_size: PositiveInt | None = None,
) -> None:
    """Makes training data: latents drawn from a generator, beside the embeddings of the images they make.

    Try `python -m datagen --config configs/datagen/demo.yaml --out data/demo`. It can be interrupted or killed at any
    time: the same command goes on where it stopped and ends with the same bytes. The folder then holds shards of
    pairs (WebDataset tars) and dataset.json, which names both models; `python train.py fit --data.path <out>` reads
    it. Several processes or machines can share the work: start each with `--world_size n --rank i` (torchrun sets
    both); the last one to finish writes dataset.json.

    Args:
        out: Folder to make; or one that this command began earlier, to go on.
        generator: A yaml file with class_path and init_args, such as configs/generator/demo.yaml, or these two inline.
        embedder: The same for the embedder, such as configs/embedder/demo.yaml; prompts will need the same one.
        count: Pairs in all; the paper used a million, the demo is content with 30 000.
        rows_per_shard: Pairs in a file; at most this many are made again after a kill.
        seed: Of the latents; another seed gives other pairs.
        batch_size: Images made at once; larger is faster on a GPU, until its memory is full.
        groups: Latent rows that share one token of the prior, such as [4, 4, 10] for coarse, middle and fine styles;
            left out, one token serves all rows (the generator's w).
        device: auto, cpu, cuda or cuda:1; auto is a GPU where there is one.
        rank: Number of this process among those that share the folder; from the environment (torchrun), else 0.
        world_size: How many processes share the folder; from the environment, else 1.
    """
    rank, world_size = _place(rank, world_size)
    from datagen.folder import Settings, check_folder
    from datagen.generate import generate, load_models

    if device == "auto" and "LOCAL_RANK" in os.environ:
        import torch

        device = f"cuda:{os.environ['LOCAL_RANK']}" if torch.cuda.is_available() else "cpu"
    check_folder(out)
    models = load_models(generator.record, embedder.record, device)
    rows = models.generator.latent_shape[0]
    settings = Settings(
        generator=models.generator_spec.to_dict(),
        embedder=models.embedder_spec.to_dict(),
        latent_shape=tuple(models.generator.latent_shape),
        groups=(rows,) if groups is None else tuple(groups),
        embedding_dim=models.embedder.dim,
        seed=seed,
        count=count,
        rows_per_shard=rows_per_shard,
        batch_size=batch_size,
    )
    if generate(models, settings, out, rank, world_size):
        print(f"{out}: {count} pairs in {len(settings.row_counts)} shards and dataset.json, complete")
    else:
        print(f"{out}: the shards of rank {rank} are done; the last of {world_size} processes writes dataset.json")


def build_parser() -> ArgumentParser:
    """Returns the command's parser: its options are the signature of `datagen`."""
    # Paths in a yaml file are relative to it: jsonargparse reads them within that file's folder.
    failures = (ValueError, TypeError, OSError)
    register_type(ModelOption, lambda model: model.record, _read_model, failures, fail_already_registered=False)
    parser = ArgumentParser(
        prog="python -m datagen",
        description=inspect.cleandoc(datagen.__doc__ or "").split("\n\nArgs:")[0],
        formatter_class=_Formatter,
        exit_on_error=False,
    )
    parser.add_argument("--config", action="config", help="A yaml file of options, such as configs/datagen/demo.yaml.")
    parser.add_function_arguments(datagen, as_group=False, as_positional=False)
    return parser


def main(args: Sequence[str] | None = None) -> int:
    """Runs the command and returns the exit code: 0; 2 after one line for the user's errors; 130 when interrupted.

    Set JSONARGPARSE_DEBUG to see an error's traceback.
    """
    try:
        options = build_parser().parse_args(None if args is None else list(args))
        options.pop("config", None)
        datagen(**options)
    except KeyboardInterrupt:
        print("interrupted: finished shards are kept; the same command goes on where this one stopped", file=sys.stderr)
        return 130
    except (ArgumentError, ValueError, OSError, RuntimeError) as error:
        message = _explain(error)
        if os.environ.get("JSONARGPARSE_DEBUG") or not message:
            raise
        print(f"error: {message}", file=sys.stderr)
        return 2
    return 0


class _Formatter(DefaultHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Keeps the paragraphs of the description."""


def _explain(error: Exception) -> str:
    """One line for a user's error; empty for what is not the user's."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return (
            "the disk is full: free some space and run the same command again;"
            " finished shards are kept and nothing half-written is left"
        )
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.strerror}: {error.filename}"
    if isinstance(error, RuntimeError):
        return "the device's memory is full: give a smaller --batch_size" if "out of memory" in str(error) else ""
    return re.sub(r"\s+", " ", str(error)).strip() or type(error).__name__


def _place(rank: NonNegativeInt | None, world_size: PositiveInt | None) -> tuple[int, int]:
    """Rank and world size from the options, else from the environment; checked."""
    if world_size is None:
        world_size = int(os.environ.get("WORLD_SIZE", 1))
    if rank is None:
        rank = int(os.environ.get("RANK", 0))
    if world_size < 1 or not 0 <= rank < world_size:
        raise ValueError(f"rank must be from 0 to world_size - 1, got rank {rank} of world_size {world_size}")
    return rank, world_size


def _read_model(value: Any) -> ModelOption:
    """Reads a model from the path of a yaml file, or from its content."""
    import yaml

    if isinstance(value, (str, os.PathLike)):
        try:
            value = yaml.safe_load(Path(Path_fr(str(value)).absolute).read_text(encoding="utf-8"))
        except yaml.YAMLError as error:
            raise ValueError(f"{value} is not yaml: {error}") from error
    if not isinstance(value, dict) or "class_path" not in value:
        raise ValueError(
            "give a yaml file that holds class_path and init_args, such as configs/generator/demo.yaml,"
            " or both inline: '{class_path: ..., init_args: {...}}'"
        )
    return ModelOption(value)


if __name__ == "__main__":
    sys.exit(main())
