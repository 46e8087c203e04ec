"""How much memory a process may still take."""

from __future__ import annotations

import os
from pathlib import Path

_ENDLESS = 1 << 62


def available_memory() -> int:
    """Returns the bytes that can be taken without swapping, as the system and the process's container say.

    Where neither does, a number larger than any memory.
    """
    return min(_of_system(), _of_container())


def _of_system() -> int:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
    except (OSError, ValueError, StopIteration):
        try:
            return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        except (AttributeError, OSError, ValueError):
            return _ENDLESS


def _of_container() -> int:
    """What a control group of version 2 leaves; its file cache gives way and is not counted as taken."""
    group = Path("/sys/fs/cgroup")
    try:
        limit = int((group / "memory.max").read_text())
        taken = int((group / "memory.current").read_text())
        cached = [line.split()[1] for line in (group / "memory.stat").read_text().splitlines() if line[:5] == "file "]
        return max(0, limit - taken + sum(map(int, cached)))
    except (OSError, ValueError):
        return _ENDLESS
