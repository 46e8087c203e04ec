"""What stands for PyTorch's and numpy's functions in a pickle: records of their arguments, checked when they are used.

A tensor's values lie in the pickle as the bytes of `torch.save` in its old format, five small pickles and the raw data
(torch/serialization.py, `_legacy_save`), which are read here without PyTorch's loader.
"""

from __future__ import annotations

import io
import math
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from clip2latent.generators.inert_pickle import Admitted, Name, Stateful, read_pickle

MAGIC = 0x1950A86A20F9469CFC6C
PROTOCOL = 1001
MAX_DIMENSIONS = 8
DTYPES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
NUMPY_DTYPES = frozenset(["f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1"])
STORAGE = Admitted(names=frozenset(f"torch.{name}" for name in DTYPES), persistent=lambda identity: identity)


class Storage(NamedTuple):
    """A tensor's memory: `numel` values of a type in raw bytes, which it shares with the file's."""

    dtype: torch.dtype
    numel: int
    data: memoryview


class TensorRecord(NamedTuple):
    """A view of a storage, in values."""

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


def load_from_bytes(data: bytes) -> Storage:
    """Stands for torch.storage._load_from_bytes: reads the storage that `torch.save` wrote in its old format.

    Raises:
        ValueError: for anything else.
    """
    if type(data) is not bytes:
        raise ValueError(f"refused: a storage of type {type(data).__name__}; expected bytes")
    stream = io.BytesIO(data)
    magic, protocol, system, identity, keys = (read_pickle(stream, STORAGE) for _ in range(5))
    little = isinstance(system, dict) and system.get("little_endian") is True
    if (magic, protocol) != (MAGIC, PROTOCOL) or not little:
        raise ValueError("damaged: a storage is not in PyTorch's little-endian format 1001")
    match identity:
        case ("storage", Name("torch", kind), str(key), str(), int(numel), None) if keys == [key] and numel >= 0:
            dtype = DTYPES[kind]
        case _:
            raise ValueError("damaged: a storage's description is not one of PyTorch's")
    start = stream.tell() + 8
    if int.from_bytes(data[start - 8 : start], "little") != numel or len(data) - start != numel * dtype.itemsize:
        raise ValueError(f"damaged or truncated: a storage of {numel} values of {dtype} has {len(data) - start} bytes")
    return Storage(dtype, numel, memoryview(data)[start:])


def rebuild_tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> TensorRecord:
    """Stands for torch._utils._rebuild_tensor_v2: a view, within its storage; requires_grad and hooks are ignored.

    Raises:
        ValueError: where the view leaves its storage, or is larger than it.
    """
    whole = (offset, *size, *stride) if type(size) is tuple and type(stride) is tuple else (None,)
    if not isinstance(storage, Storage) or any(type(number) is not int or number < 0 for number in whole):
        raise ValueError("damaged: a tensor's offset, size and stride are not whole numbers from 0 up over a storage")
    if len(size) != len(stride) or len(size) > MAX_DIMENSIONS:
        raise ValueError(f"damaged: a tensor of size {size[:9]} with stride {stride[:9]}")
    numel = math.prod(size)
    end = offset + sum((side - 1) * step for side, step in zip(size, stride, strict=True)) + 1 if numel else offset
    if numel > storage.numel or end > storage.numel:
        raise ValueError(f"damaged: a tensor of size {size} leaves its storage of {storage.numel} values")
    return TensorRecord(storage, offset, size, stride)


def rebuild_parameter(data: Any, *_: Any) -> TensorRecord:
    """Stands for torch._utils._rebuild_parameter: the tensor itself; requires_grad and hooks are ignored.

    Raises:
        ValueError: where it is none.
    """
    if not isinstance(data, TensorRecord):
        raise ValueError(f"damaged: a parameter of type {type(data).__name__}; expected a tensor")
    return data


def materialise(records: dict[str, TensorRecord]) -> dict[str, Tensor]:
    """Returns the tensors of records; tensors that shared a storage in the file share it still."""
    storages: dict[int, Tensor] = {}
    tensors = {}
    for name, record in records.items():
        storage = record.storage
        if id(storage) not in storages:
            # frombuffer takes no empty buffer, and warns of one that must not be written to.
            storages[id(storage)] = (
                torch.frombuffer(bytearray(storage.data), dtype=storage.dtype)
                if storage.numel
                else torch.empty(0, dtype=storage.dtype)
            )
        tensors[name] = storages[id(storage)].as_strided(record.size, record.stride, record.offset)
    return tensors


class NumpyDtype(Stateful):
    """Stands for numpy.dtype: numbers and booleans only."""

    def __init__(self, code: Any, *_: Any) -> None:
        self.code, self.order = code, "<"

    def set_state(self, state: Any) -> None:
        if type(state) is not tuple or len(state) < 2 or state[1] not in ("<", ">", "|", "="):
            raise ValueError("damaged: a numpy dtype's state is not numpy's")
        self.order = state[1]

    def dtype(self) -> np.dtype:
        if self.code not in NUMPY_DTYPES:
            raise ValueError(f"refused: numpy dtype {str(self.code)[:20]!r}; expected numbers or booleans")
        return np.dtype(self.order.replace("|", "<") + self.code)


class NumpyArray(Stateful):
    """Stands for numpy's arrays and scalars: a shape, a dtype and raw bytes."""

    def __init__(self, shape: Any = (0,), dtype: Any = None, data: Any = b"", fortran: bool = False) -> None:
        self.shape, self.numpy_dtype, self.data, self.fortran = shape, dtype, data, fortran

    @classmethod
    def scalar(cls, dtype: Any, data: Any) -> NumpyArray:
        """Stands for numpy._core.multiarray.scalar."""
        return cls((), dtype, data)

    @classmethod
    def reconstruct(cls, *_: Any) -> NumpyArray:
        """Stands for numpy._core.multiarray._reconstruct: an array that a state will fill."""
        return cls()

    @classmethod
    def from_buffer(cls, data: Any, dtype: Any, shape: Any, order: Any, *_: Any) -> NumpyArray:
        """Stands for numpy._core.numeric._frombuffer, which pickle protocol 5 uses."""
        return cls(shape, dtype, data, order == "F")

    def set_state(self, state: Any) -> None:
        if type(state) is not tuple or len(state) != 5:
            raise ValueError("damaged: a numpy array's state is not numpy's")
        _, self.shape, self.numpy_dtype, self.fortran, self.data = state

    def plain(self) -> Any:
        """Returns the values as a number, or as nested lists.

        Raises:
            ValueError: for objects and texts, and where the bytes do not fill the shape.
        """
        if not isinstance(self.numpy_dtype, NumpyDtype) or type(self.data) is not bytes:
            raise ValueError("refused: a numpy array that holds no plain numbers")
        shape, dtype = self.shape, self.numpy_dtype.dtype()
        sides_fit = type(shape) is tuple and len(shape) <= MAX_DIMENSIONS
        if not sides_fit or any(type(side) is not int or side < 0 for side in shape):
            raise ValueError(f"damaged: a numpy array of shape {str(shape)[:100]}")
        # The second condition keeps (0, 10**12) from becoming as many empty lists.
        cells = math.prod(max(side, 1) for side in shape)
        if math.prod(shape) * dtype.itemsize != len(self.data) or cells > max(len(self.data), 1):
            raise ValueError(f"damaged: a numpy array of shape {shape} and type {dtype} in {len(self.data)} bytes")
        return np.frombuffer(self.data, dtype).reshape(shape, order="F" if self.fortran else "C").tolist()


_CORES = ("numpy.core", "numpy._core")  # numpy 1 and 2
FUNCTIONS = {
    "torch.storage._load_from_bytes": load_from_bytes,
    "torch._utils._rebuild_tensor_v2": rebuild_tensor,
    "torch._utils._rebuild_parameter": rebuild_parameter,
    "numpy.dtype": NumpyDtype,
    **{f"{core}.multiarray.scalar": NumpyArray.scalar for core in _CORES},
    **{f"{core}.multiarray._reconstruct": NumpyArray.reconstruct for core in _CORES},
    **{f"{core}.numeric._frombuffer": NumpyArray.from_buffer for core in _CORES},
}
NAMES = frozenset({"numpy.ndarray"})
