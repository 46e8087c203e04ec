"""Replays: functions of tensors recorded as CUDA graphs, one for each size of their inputs."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable
from typing import NamedTuple

import torch
from torch import Tensor

Function = Callable[..., Tensor]

WARM_UPS = 2
MAX_RECORDED = 8


class Recorded(NamedTuple):
    """A function at fixed places in memory: fill the inputs, call `run`, read the output.

    The function is kept because a recording reads what the function refers to at its present address.
    """

    function: Function
    inputs: tuple[Tensor, ...]
    run: Callable[[], None]
    output: Tensor


def record_on_cuda(function: Function, *inputs: Tensor) -> Recorded:
    """Captures a function of these inputs as a CUDA graph."""
    # Libraries choose and allocate in their first calls, which a graph must not hold.
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(WARM_UPS):
            function(*inputs)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        output = function(*inputs)
    return Recorded(function, inputs, graph.replay, output)


class Replays:
    """Calls functions of batches through recordings: one launch in place of hundreds for each step.

    A recording serves all batches up to a power of two; what is computed beyond the batch is thrown away. The latest
    recordings are kept. Where recording fails but for memory, this warns once and calls the functions themselves.
    """

    def __init__(self, record: Callable[..., Recorded]) -> None:
        """Stores how to record (`record_on_cuda`); nothing is recorded yet."""
        self._record = record
        self._recorded: dict[Hashable, Recorded] = {}
        self._fails = False

    @torch.inference_mode(False)  # Its tensors could not be written again outside.
    @torch.no_grad()
    def __call__(self, key: Hashable, function: Function, *inputs: Tensor) -> Tensor:
        """Returns function(*inputs) [B, ...].

        Args:
            key: what the function does beside reading its inputs; equal keys share recordings.
            function: of tensors, whose first dimension may grow without a change in what was there. It must neither
                wait for the device nor draw random numbers.
            inputs: batches; the first input's and the output's first dimension are B.
        """
        shapes = tuple((1 << (len(value) - 1).bit_length(), *value.shape[1:]) for value in inputs)
        key = (key, shapes, inputs[0].dtype)
        if key not in self._recorded and not self._fails:
            places = [value.new_zeros(shape) for value, shape in zip(inputs, shapes, strict=True)]
            try:
                self._recorded[key] = self._record(function, *places)
            except torch.cuda.OutOfMemoryError:
                raise  # A smaller batch may do.
            except RuntimeError as error:
                self._fails = True
                warnings.warn(f"sampling goes on without CUDA graphs, slower: {error}", stacklevel=2)
        if key not in self._recorded:
            return function(*inputs)
        recorded = self._recorded[key] = self._recorded.pop(key)  # The latest used is the last.
        if len(self._recorded) > MAX_RECORDED:
            del self._recorded[next(iter(self._recorded))]
        for place, value in zip(recorded.inputs, inputs, strict=True):
            place[: len(value)].copy_(value)
        recorded.run()
        return recorded.output[: len(inputs[0])].clone()
