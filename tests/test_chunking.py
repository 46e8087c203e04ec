"""Chunks: every row once and in order, halved where memory runs out, and never for another error."""

import pytest
import torch

from clip2latent.chunking import ChunkHalved, in_chunks, is_out_of_memory

OUT_OF_MEMORY = [
    MemoryError(),
    torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory: you tried"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
]


@pytest.mark.parametrize("num, chunk", [(7, 3), (6, 3), (2, 64), (0, 4)])
def test_every_row_once_and_in_order(num, chunk):
    parts = list(in_chunks(num, chunk, lambda start, stop: list(range(start, stop))))
    assert [row for part in parts for row in part] == list(range(num)) and all(len(part) <= chunk for part in parts)


@pytest.mark.parametrize("error", OUT_OF_MEMORY)
def test_a_chunk_that_does_not_fit_is_halved_and_stays_so(error):
    assert is_out_of_memory(error)

    def run(start, stop):
        if stop - start > 3:
            raise error
        return list(range(start, stop))

    with pytest.warns(ChunkHalved) as said:
        parts = list(in_chunks(10, 8, run))
    assert parts == [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9]]
    assert [str(warning.message)[-1] for warning in said] == ["4", "2"]


def test_too_little_memory_for_one_row_is_the_users_error():
    def run(start, stop):
        raise MemoryError

    with pytest.warns(ChunkHalved), pytest.raises(ValueError, match="one image at a time"):
        list(in_chunks(4, 2, run))


@pytest.mark.parametrize("error", [RuntimeError("shapes do not fit"), ValueError("out of memory of mine")])
def test_other_errors_pass(error):
    def run(start, stop):
        raise error

    with pytest.raises(type(error), match=str(error)):
        list(in_chunks(4, 2, run))
