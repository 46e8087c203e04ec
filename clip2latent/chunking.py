"""Work in chunks of bounded memory: a chunk that does not fit is tried again in halves."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import TypeVar

Result = TypeVar("Result")

_SIGNS = ("out of memory", "can't allocate memory", "not enough memory", "_status_alloc_failed")


class ChunkHalved(RuntimeWarning):
    """A chunk did not fit into memory and was halved."""


def in_chunks(num: int, chunk: int, run: Callable[[int, int], Result]) -> Iterator[Result]:
    """Runs `num` rows in order, `chunk` at a time, and yields what each run returns.

    Where memory runs out the chunk is halved, with a warning, and the rows are run again; it stays halved.

    Args:
        num: rows to run.
        chunk: rows to run at once, at first.
        run: (start, stop) -> the result of rows start..stop-1; called again for rows at which memory ran out.

    Raises:
        ValueError: where memory does not suffice for one row.
    """
    start = 0
    while start < num:
        stop = min(start + chunk, num)
        results = _tried(run, start, stop)
        if results:
            yield results.pop()  # not kept here while the receiver works with it
            start = stop
            continue
        if stop - start == 1:
            raise ValueError("out of memory with one image at a time: free some memory, or run on another device")
        chunk = (stop - start) // 2
        _release()
        warnings.warn(f"out of memory: the chunk is halved to {chunk}", ChunkHalved, stacklevel=2)


def is_out_of_memory(error: BaseException) -> bool:
    """Tells whether an error says that memory ran out, of the processor or of an accelerator."""
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(sign in str(error).lower() for sign in _SIGNS)
    )


def _tried(run: Callable[[int, int], Result], start: int, stop: int) -> list[Result]:
    """Returns the result in a list, an empty one where memory ran out; then nothing of the run is kept alive."""
    try:
        return [run(start, stop)]
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return []


def _release() -> None:
    import torch  # here, because the command line imports this file before anything slow

    if torch.cuda.is_available():
        torch.cuda.empty_cache()
