"""Versions of Python and of the packages, beside the ranges that this version asks for."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Callable, Sequence
from configparser import ConfigParser
from pathlib import Path
from typing import NamedTuple

import clip2latent
from clip2latent.doctor import FAULT, GOOD, NOTE, Finding

NAME = "clip2latent"


class Ranges(NamedTuple):
    """What is asked for.

    Attributes:
        python: a range, as >=3.10.
        packages: requirements, as torch>=2.4.
        extras: name -> requirements of what not everybody needs.
    """

    python: str
    packages: list[str]
    extras: dict[str, list[str]]


def read_ranges(folder: Path | None = None) -> Ranges:
    """Returns the ranges in the checkout's setup.cfg, or those that were recorded when the package was installed.

    Args:
        folder: where setup.cfg would be; None for the folder that the package is in.

    Raises:
        ValueError: where there are neither.
    """
    folder = Path(clip2latent.__file__).parents[1] if folder is None else folder
    parser = ConfigParser(interpolation=None)
    parser.read(folder / "setup.cfg", encoding="utf-8")
    if parser.get("metadata", "name", fallback="") == NAME:
        extras = parser["options.extras_require"] if parser.has_section("options.extras_require") else {}
        return Ranges(
            parser.get("options", "python_requires", fallback=""),
            _lines(parser.get("options", "install_requires", fallback="")),
            {name: _lines(text) for name, text in extras.items()},
        )
    try:
        record = importlib.metadata.metadata(NAME)
    except importlib.metadata.PackageNotFoundError:
        raise ValueError(f"no setup.cfg of {NAME} in {folder}, and it is not installed: pip install {NAME}") from None
    plain, extras = [], {name: [] for name in record.get_all("Provides-Extra") or []}
    for line in record.get_all("Requires-Dist") or []:
        requirement, _, marker = line.partition(";")
        owners = [name for name in extras if f'"{name}"' in marker.replace("'", '"')]
        for kept in [extras[name] for name in owners] or [plain]:
            kept.append(requirement.strip())
    return Ranges(record.get("Requires-Python") or "", plain, extras)


def check_python(wanted: str, version: str | None = None) -> list[Finding]:
    """Compares Python's version.

    Args:
        wanted: a range, as >=3.10.
        version: to compare; None for that of this process.
    """
    from packaging.specifiers import SpecifierSet

    version = version or platform.python_version()
    said = f"{version}, on {platform.system()} {platform.machine()}"
    if SpecifierSet(wanted).contains(version, prereleases=True):
        return [Finding(GOOD, "python", said)]
    fix = f"install a Python {wanted}, make an environment of it (python -m venv), and pip install {NAME} there"
    return [Finding(FAULT, "python", f"{said}: {wanted} is asked for", fix)]


def check_packages(
    wanted: Sequence[str], version_of: Callable[[str], str] = importlib.metadata.version
) -> list[Finding]:
    """Compares the versions of the packages that everybody needs.

    Args:
        wanted: requirements.
        version_of: a package's version, or PackageNotFoundError.
    """
    found, right = [], []
    for line, name, version, fits in _compared(wanted, version_of):
        if fits:
            right.append(f"{name} {version}")
        else:
            said = f"not installed, {line} is asked for" if version is None else f"{version}, {line} is asked for"
            found.append(Finding(FAULT, name, said, f'pip install "{line}"'))
    return [Finding(GOOD, "packages", ", ".join(right) or "none"), *found]


def check_extras(
    wanted: dict[str, list[str]], version_of: Callable[[str], str] = importlib.metadata.version
) -> list[Finding]:
    """Says which extras are there; one in another version than asked for is a note, one that is missing is none."""
    there, missing, found = [], [], []
    for extra, lines in wanted.items():
        rows = list(_compared(lines, version_of))
        (there if all(version is not None for _, _, version, _ in rows) else missing).append(extra)
        for line, name, version, fits in rows:
            if version is not None and not fits:
                fix = f'pip install "{line}", if you use {extra}'
                found.append(Finding(NOTE, name, f"{version}, {line} is asked for", fix))
    said = f"installed: {', '.join(there) or 'none'}; not installed: {', '.join(missing) or 'none'}"
    fix = f'pip install "{NAME}[{missing[0]}]", and so on, where you want them' if missing else ""
    return [Finding(GOOD, "extras", said, fix), *found]


def _compared(wanted: Sequence[str], version_of: Callable[[str], str]) -> list[tuple[str, str, str | None, bool]]:
    """Each requirement for this platform, its package's name and version, None where it is missing, and the verdict."""
    from packaging.requirements import Requirement

    rows = []
    for line in wanted:
        requirement = Requirement(line)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            version = version_of(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            version = None
        fits = version is not None and requirement.specifier.contains(version, prereleases=True)
        rows.append((line.replace(" ", ""), requirement.name, version, fits))
    return rows


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]
