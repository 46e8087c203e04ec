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

from jsonargparse import ArgumentError, ArgumentParser, DefaultHelpFormatter
from jsonargparse.typing import NonNegativeInt, Path_fr, PositiveInt, register_type

from clip2latent.arguments import one_line
from clip2latent.prompts import read_prompts
from datagen.model_option import ModelOption, changed, split_entries

MODELS = ("generator", "embedder")


def datagen(
    out: Path,
    generator: ModelOption,
    embedder: ModelOption,
    count: PositiveInt = 1_000_000,
    rows_per_shard: PositiveInt = 10_000,
    seed: NonNegativeInt = 0,
    batch_size: PositiveInt = 64,
    groups: list[int] | None = None,
    texts: Path_fr | None = None,
    device: str = "auto",
    rank: int | None = None,
    world_size: int | None = None,
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
            Single entries can be changed: --generator.init_args.source my-folder.
        embedder: The same for the embedder, such as configs/embedder/demo.yaml; prompts will need the same one.
        count: Pairs in all; the paper used a million, the demo is content with 30 000.
        rows_per_shard: Pairs in a file; at most this many are made again after a kill.
        seed: Of the latents; another seed gives other pairs.
        batch_size: Images made at once; larger is faster on a GPU, until its memory is full.
        groups: Latent rows that share one token of the prior, such as [4, 4, 10] for coarse, middle and fine styles;
            left out, those of the generator's latent space (its w unless it says otherwise: one token for all rows).
        texts: A file of prompts, one a line, such as those the prior will be asked for; their mean embedding is
            recorded, for a prior that is trained with centre=True. A few hundred are enough.
        device: auto, cpu, cuda or cuda:1; auto is a GPU where there is one.
        rank: Number of this process among those that share the folder; from the environment (torchrun), else 0.
        world_size: How many processes share the folder; from the environment, else 1.
    """
    rank, world_size = _place(rank, world_size)
    from datagen.folder import DEFAULT_SPACE, Settings, check_folder, sha256_of
    from datagen.generate import generate, load_models

    if device == "auto" and "LOCAL_RANK" in os.environ:
        import torch

        device = f"cuda:{os.environ['LOCAL_RANK']}" if torch.cuda.is_available() else "cpu"
    check_folder(out)
    prompts = tuple(prompt.text for prompt in read_prompts(texts.absolute)) if texts else ()
    models = load_models(generator.record, embedder.record, device)
    rows = models.generator.latent_shape[0]
    if groups is None:
        groups = getattr(models.generator, "groups", (rows,))
    settings = Settings(
        generator=models.generator_spec.to_dict(),
        embedder=models.embedder_spec.to_dict(),
        latent_shape=tuple(models.generator.latent_shape),
        groups=tuple(groups),
        space=getattr(models.generator, "space", DEFAULT_SPACE),
        embedding_dim=models.embedder.dim,
        seed=seed,
        count=count,
        rows_per_shard=rows_per_shard,
        batch_size=batch_size,
        texts_sha256=sha256_of(prompts),
    )
    if generate(models, settings, out, rank, world_size, prompts):
        print(f"{out}: {count} pairs in {len(settings.row_counts)} shards and dataset.json, complete")
    else:
        print(f"{out}: the shards of rank {rank} are done; the last of {world_size} processes writes dataset.json")


def build_parser() -> ArgumentParser:
    """Returns the command's parser: its options are the signature of `datagen`."""
    failures = (ValueError, TypeError, OSError)
    register_type(ModelOption, lambda model: model.record, ModelOption.read, failures, fail_already_registered=False)
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
    parser = build_parser()
    try:
        rest, entries = split_entries(sys.argv[1:] if args is None else args, MODELS)
        options = parser.parse_args(rest)
        options.pop("config", None)
        models = {name: changed(options.pop(name), [e for e in entries if e.option == name]) for name in MODELS}
        datagen(**options, **models)
    except KeyboardInterrupt:
        print("interrupted: finished shards are kept; the same command goes on where this one stopped", file=sys.stderr)
        return 130
    except (ArgumentError, ValueError, OSError, RuntimeError) as error:
        message = _explain(error, [name for action in parser._actions for name in action.option_strings])
        if os.environ.get("JSONARGPARSE_DEBUG") or not message:
            raise
        print(f"error: {message}", file=sys.stderr)
        return 2
    return 0


class _Formatter(DefaultHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Keeps the paragraphs of the description."""


def _explain(error: Exception, options: list[str]) -> str:
    """One line for a user's error; empty for what is not the user's."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return (
            "the disk is full: free some space and run the same command again;"
            " finished shards are kept and nothing half-written is left"
        )
    if isinstance(error, RuntimeError):
        return "the device's memory is full: give a smaller --batch_size" if "out of memory" in str(error) else ""
    text = re.sub(r'^Parser key "(\w+)": Not of type \w+: ', r"--\1: ", one_line(error, options))
    text = text.replace("invalid literal for int() with base 10:", "expected a whole number, got")
    for rule, least in (("v>0", 1), ("v>=0", 0)):
        text = re.sub(rf"does not conform to restriction {rule}$", f"is too small: give {least} or more", text)
    return text


def _place(rank: int | None, world_size: int | None) -> tuple[int, int]:
    """Rank and world size from the options, else from the environment; checked."""
    if world_size is None:
        world_size = int(os.environ.get("WORLD_SIZE", 1))
    if rank is None:
        rank = int(os.environ.get("RANK", 0))
    if world_size < 1 or not 0 <= rank < world_size:
        raise ValueError(f"rank must be from 0 to world_size - 1, got rank {rank} of world_size {world_size}")
    return rank, world_size


if __name__ == "__main__":
    sys.exit(main())
