"""The commands of sample.py. Whatever is slow to import is imported inside the commands, so that --help is instant."""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from inspect import signature
from typing import Any, NamedTuple

from jsonargparse import ArgumentError, ArgumentParser

import clip2latent
from clip2latent.arguments import in_order, one_line
from clip2latent.chunking import ChunkHalved, is_out_of_memory
from clip2latent.cli_compose import compose
from clip2latent.cli_configs import configs
from clip2latent.cli_direction import direction
from clip2latent.cli_doctor import doctor
from clip2latent.cli_edit import edit, interpolate, mix
from clip2latent.cli_evaluate import evaluate
from clip2latent.cli_generate import generate, remake
from clip2latent.cli_invert import invert
from clip2latent.cli_refine import refine
from clip2latent.cli_score import report, score
from clip2latent.cli_search import search
from clip2latent.cli_search_study import search_study
from clip2latent.cli_share import export, push
from clip2latent.cli_sweep import sweep
from clip2latent.cli_table import table
from clip2latent.cli_web import SEVERAL, web


def convert(
    source: str,
    out: str,
    family: str | None = None,
    preset: str | None = None,
    space: str | None = None,
    arguments: dict[str, Any] | None = None,
    sha256: str | None = None,
    overwrite: bool = False,
) -> None:
    """Writes a generator as a folder, config.json and model.safetensors, that every command and config can name.

    Args:
        source: A file, a folder, an embedded generator's name, http(s)://... or hf://owner/name/file.
        out: Output folder.
        family: stylegan2, stylegan3, biggan, biggan_deep or sagan, for a file that does not say.
        preset: A known configuration such as biggan-256, in place of family and arguments.
        space: The latents of a StyleGAN: w, w3, w+ or z (default: w).
        arguments: Further arguments of the generator, as {"resolution": 64}: what the file does not say.
        sha256: The file's hash, where it is known; another file is refused.
        overwrite: Write into an output folder that already holds files.
    """
    from clip2latent import convert as conversion

    given = {**(arguments or {}), **({"space": space} if space is not None else {})}
    folder = conversion.convert(source, out, family, preset, sha256, given, overwrite)
    print(f"{folder}{os.sep}config.json, model.safetensors: give {folder} as the source of a generator")
    print(conversion.LICENCE)


def main(args: Sequence[str] | None = None) -> int:
    """Runs a command and returns the exit code: 0; 2 after one line for the user's errors; 130 when interrupted.

    Set JSONARGPARSE_DEBUG to see an error's traceback.
    """
    parser, commands = _parser()
    options = [option for command in commands.values() for option in command.options]
    try:
        words = in_order(
            sys.argv[1:] if args is None else args, flags={"--offline", "--help", *(f"--{name}" for name in _FLAGS)}
        )
        config = parser.parse_args(words)
        name = config.pop("subcommand")
        with _network(not config[name].pop("offline")), _plain_warnings():
            commands[name].run(**config[name])
    except KeyboardInterrupt:
        print("interrupted: nothing was written", file=sys.stderr)
        return 130
    except (ArgumentError, ValueError, OSError) as error:
        if os.environ.get("JSONARGPARSE_DEBUG"):
            raise
        print(f"error: {_shortened(one_line(error, options))}", file=sys.stderr)
        return 2
    except (RuntimeError, MemoryError) as error:
        if os.environ.get("JSONARGPARSE_DEBUG") or not is_out_of_memory(error):
            raise
        print("error: out of memory: free some, give a smaller --chunk, or run on another device", file=sys.stderr)
        return 2
    return 0


class _Command(NamedTuple):
    run: Callable[..., None]
    options: list[str]


def _parser() -> tuple[ArgumentParser, dict[str, _Command]]:
    name = "clip2latent" if os.path.basename(sys.argv[0]).startswith("clip2latent") else "sample.py"
    description = f"Text-driven sampling of frozen image generators. Every command: {name} COMMAND --help"
    parser = ArgumentParser(prog=name, description=description, exit_on_error=False, allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"clip2latent {clip2latent.__version__}")
    subcommands = parser.add_subcommands(required=True)
    commands = {}
    for run in (
        generate,
        remake,
        refine,
        invert,
        edit,
        mix,
        interpolate,
        compose,
        search,
        direction,
        evaluate,
        score,
        report,
        sweep,
        table,
        search_study,
        convert,
        export,
        push,
        configs,
        doctor,
        web,
    ):
        summary = (run.__doc__ or "").splitlines()[0]
        child = ArgumentParser(description=summary, exit_on_error=False, allow_abbrev=False)
        texts = _TEXTS.get(run.__name__, {})
        for name, options in texts.items():
            child.add_argument(name, type=str, **options)
        skipped = {*_FLAGS, *(name.lstrip("-") for name in texts)}
        child.add_function_arguments(run, as_group=False, as_positional=False, skip=skipped)
        for name in _FLAGS.keys() & signature(run).parameters:
            child.add_argument(f"--{name}", action="store_true", help=_FLAGS[name])
        child.add_argument("--offline", action="store_true", help="Never touch the network; use what is here already.")
        subcommands.add_subcommand(run.__name__, child, help=summary)
        options = [f"--{name}" for name in signature(run).parameters if name not in texts]
        commands[run.__name__] = _Command(run, [*options, "--offline"])
    return parser, commands


_FLAGS = {
    "overwrite": "Write into an output folder that holds files.",
    "private": "Make a new repository visible to its owner alone.",
}
_TEXTS: dict[str, dict[str, dict[str, Any]]] = {
    "generate": {
        "prompts": {
            "nargs": "*",
            "help": 'Texts in quotes, pictures, and mixtures as "photo.png | a smile::0.5"; - reads standard input.',
        }
    },
    "search": {"prompts": {"nargs": "*", "help": 'Texts in quotes, and pictures: search "a red fish"'}},
    "remake": {"image": {"help": "A PNG that generate wrote."}},
    "refine": {"sources": {"nargs": "*", "help": 'Prompts, or results: refine "an old man" outputs/a-boy-1'}},
    "invert": {"pictures": {"nargs": "*", "help": "Picture files of any size: invert photo.png"}},
    "edit": {"sources": {"nargs": "*", "help": 'Prompts, or results: edit "a man" outputs/a-boy-1 --directions old=1'}},
    "mix": {"sources": {"nargs": "*", "help": 'What is kept and what is taken (or random): mix "a man" "a girl"'}},
    "interpolate": {"sources": {"nargs": "*", "help": 'Prompts, or results, in order: interpolate "a boy" "a man"'}},
    "compose": {
        "prompt": {
            "nargs": "?",
            "help": 'What the whole shows: compose "a red fish and a boat" --foreground "a red fish"',
        }
    },
    "score": {"images": {"help": "A folder of pictures, whatever made them."}},
    "report": {"folders": {"nargs": "*", "help": "What evaluate, sweep, table or score wrote; several are compared."}},
    "convert": {
        "source": {"help": "A file, a folder, an embedded generator's name, http(s)://... or hf://owner/name/file."},
        "out": {"help": "Output folder."},
    },
    "export": {
        "checkpoint": {"help": "A .ckpt file, an exported folder, owner/name on the Hub, or demo."},
        "out": {"help": "Output folder."},
    },
    "web": {f"--{name}": {"action": "append", "help": text} for name, text in SEVERAL.items()},
    "push": {
        "folder": {"help": "A folder that export wrote."},
        "repo": {"help": "owner/name on the Hub; made where there is none."},
    },
}


def _shortened(text: str, longest: int = 1000) -> str:
    """Leaves out the middle of a long text, such as one that quotes a prompt of thousands of letters."""
    half = longest // 2
    return text if len(text) <= longest else f"{text[:half]} ... {text[-half:]}"


@contextlib.contextmanager
def _plain_warnings() -> Iterator[None]:
    """Prints the warnings that are meant for users in one line each, as errors are."""
    usual = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
        if issubclass(category, ChunkHalved):
            print(f"warning: {message}", file=sys.stderr)
        else:
            usual(message, category, *where, **more)

    warnings.showwarning = show
    try:
        yield
    finally:
        warnings.showwarning = usual


@contextlib.contextmanager
def _network(allowed: bool) -> Iterator[None]:
    """Tells every downloader of this process, by the variables they read, to stay offline where it is not allowed."""
    before = {name: os.environ.get(name) for name in ("CLIP2LATENT_OFFLINE", "HF_HUB_OFFLINE")}
    os.environ.update({} if allowed else dict.fromkeys(before, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
