"""What works on this machine, and what to do about what does not: findings, each from a check of its own.

The checks stand in doctor_packages.py, doctor_machine.py and doctor_demo.py; each is a function that returns findings.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

GOOD, NOTE, FAULT = "ok", "note", "FAULT"


class Finding(NamedTuple):
    """What a check found.

    Attributes:
        state: GOOD; NOTE for what costs speed, or a part of what the program can do; FAULT for what stops it.
        name: what was looked at.
        said: what was found.
        fix: what to do about it; "" where there is nothing to do.
    """

    state: str
    name: str
    said: str
    fix: str = ""


Check = Callable[[], Sequence[Finding]]


def diagnose(checks: Mapping[str, Check]) -> Iterator[Finding]:
    """Runs checks by name, one after the other; one that fails itself is a fault, and the others go on.

    Args:
        checks: name -> check.
    """
    for name, check in checks.items():
        try:
            yield from check()
        except Exception as error:  # a broken package may raise anything, and is what is looked for
            said = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no more is said'}"
            yield Finding(FAULT, name, said, "the packages above say what to install; else report this as a bug")


def shown(finding: Finding, width: int = 110) -> str:
    """Returns a finding as lines of text; what to do stands beneath what was found."""
    head = f"{finding.state:<6}{finding.name:<14}"
    texts = [finding.said, f"-> {finding.fix}" if finding.fix else ""]
    room = {"width": width - len(head), "break_long_words": False, "break_on_hyphens": False}
    lines, fix = (textwrap.wrap(text, **room) for text in texts)
    return head + ("\n" + " " * len(head)).join([*lines, *fix] or [""])


def verdict(findings: Sequence[Finding]) -> str:
    """Returns what all findings come to, in one line."""
    counts = {state: sum(finding.state == state for finding in findings) for state in (GOOD, NOTE, FAULT)}
    if counts[FAULT]:
        names = ", ".join(dict.fromkeys(finding.name for finding in findings if finding.state == FAULT))
        return f"{counts[FAULT]} faults: {names}. What to do stands beside each."
    notes = f"; {counts[NOTE]} notes, which stop nothing" if counts[NOTE] else ""
    return f"everything that matters works{notes}"


def size_of(count: float) -> str:
    """Returns a number of bytes for people, as 1.5 GiB."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"
