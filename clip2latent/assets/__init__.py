"""The embedded demo: trained models as safetensors and json, made by `python -m demo.make`."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parent


def asset(name: str) -> Path:
    """Returns the folder of an embedded model, one of `names()`.

    Raises:
        FileNotFoundError: there is no such asset; lists those there are.
    """
    folder = FOLDER / name
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"no embedded model {name!r}; there are: {', '.join(names()) or 'none'}")
    return folder


def configs_folder() -> Path:
    """Returns the folder of configurations: the repository's, or the one that is installed with the package."""
    package = FOLDER.parent
    return package / "configs" if (package / "configs").is_dir() else package.parent / "configs"


def names() -> list[str]:
    """Names of the embedded models."""
    return sorted(path.parent.name for path in FOLDER.glob("*/config.json"))


def locate(source: str | Path, argument: str = "source") -> Path:
    """Returns the folder that source names: an existing folder with a config.json, else an embedded model.

    Raises:
        FileNotFoundError: neither exists; names the argument.
    """
    folder = Path(source)
    if (folder / "config.json").is_file():
        return folder
    try:
        return asset(str(source))
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{argument}: {source!r} is not a folder with a config.json, and {error}") from None
