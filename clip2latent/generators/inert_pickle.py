"""Reads a pickle as data: builds lists, dicts and records from its opcodes and never calls, imports or makes an object.

Python's own unpickler looks up whatever a pickle names and calls it, allocates as much as the pickle says, and sets
attributes of what it made. This reader knows the opcodes that hold data; the names a caller admits stand for the
caller's own functions, which see only data; everything else is refused.
"""

from __future__ import annotations

import os
import pickletools
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO, NamedTuple

MAX_OPCODES = 3_000_000
MAX_LINE = 1024
MAX_INT_BITS = 128

Function = Callable[..., Any]


class Name(NamedTuple):
    """A global that a pickle names, as data."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


class RefusedName(ValueError):
    """A pickle names a global that is not admitted: `name`."""

    def __init__(self, name: Name) -> None:
        super().__init__(f"refused: the file names the global {str(name)[:200]!r}; nothing was run")
        self.name = name


class Stateful:
    """A record whose state a pickle sets after making it (BUILD); nothing else accepts a state."""

    def set_state(self, state: Any) -> None:
        """Takes the state.

        Raises:
            ValueError: for a state of another form than expected.
        """
        raise NotImplementedError


class Admitted(NamedTuple):
    """What a pickle may name, by "module.name".

    Attributes:
        functions: our stand-ins for what the pickle calls; they get data and return data.
        classes: our stand-ins for classes made without a constructor's call (NEWOBJ).
        names: may be named, but not called.
        persistent: reads a persistent id; None refuses them.
    """

    functions: Mapping[str, Function] = {}
    classes: Mapping[str, Function] = {}
    names: frozenset[str] = frozenset()
    persistent: Function | None = None

    def __contains__(self, name: object) -> bool:
        return name in self.functions or name in self.classes or name in self.names


class Bounded:
    """A binary stream that never allocates more than it holds."""

    def __init__(self, stream: BinaryIO) -> None:
        self.stream = stream
        start = stream.tell()
        self.size = stream.seek(0, os.SEEK_END)
        stream.seek(start)

    def tell(self) -> int:
        return self.stream.tell()

    def read(self, count: int) -> bytes:
        return self.stream.read(max(0, min(count, self.size - self.stream.tell())))

    def readline(self) -> bytes:
        line = self.stream.readline(MAX_LINE)
        if not line.endswith(b"\n"):
            raise ValueError("a line without an end")
        return line


def read_pickle(stream: BinaryIO, admitted: Admitted) -> Any:
    """Returns the data of the pickle that starts at the stream's position; leaves the stream behind its end.

    Raises:
        RefusedName: the pickle names a global that is not admitted.
        ValueError: it calls or changes what is not for that, uses an opcode that is not for data, or is damaged.
    """
    reader = _Reader(admitted)
    operations = pickletools.genops(Bounded(stream))
    for _ in range(MAX_OPCODES):
        try:
            opcode, argument, position = next(operations)
        except (ValueError, OverflowError, MemoryError) as error:
            raise ValueError(f"damaged or truncated: {error}") from None
        if opcode.name == "STOP":
            return reader.result()
        action = _ACTIONS.get(opcode.name)
        if action is None:
            what = f"{opcode.name} {str(argument or '')[:200]}".rstrip()
            raise ValueError(f"refused: opcode {what} at byte {position} is not for data; nothing was run")
        try:
            action(reader, argument)
        except (IndexError, KeyError, TypeError) as error:
            raise ValueError(f"damaged: opcode {opcode.name} at byte {position}: {error!r}") from None
    raise ValueError(f"refused: more than {MAX_OPCODES} opcodes")


class _Reader:
    """The stack machine. `stack` is what lies above the last mark; `below` keeps the parts under the marks."""

    def __init__(self, admitted: Admitted) -> None:
        self.admitted = admitted
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []
        self.memo: dict[int, Any] = {}

    def result(self) -> Any:
        if len(self.stack) != 1 or self.below:
            raise ValueError("damaged: the pickle ends with more or less than one object")
        return self.stack[0]

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def push_int(self, value: int) -> None:
        if value.bit_length() > MAX_INT_BITS:
            raise ValueError(f"refused: a number of {value.bit_length()} bits")
        self.stack.append(value)

    def mark(self, _: None) -> None:
        self.below.append(self.stack)
        self.stack = []

    def since_mark(self) -> list[Any]:
        items, self.stack = self.stack, self.below.pop()
        return items

    def pop(self, _: None) -> None:
        self.stack.pop()

    def duplicate(self, _: None) -> None:
        self.stack.append(self.stack[-1])

    def put(self, index: int) -> None:
        self.memo[index] = self.stack[-1]

    def memoize(self, _: None) -> None:
        self.memo[len(self.memo)] = self.stack[-1]

    def get(self, index: int) -> None:
        self.stack.append(self.memo[index])

    def tuple_of(self, count: int) -> None:
        items = [self.stack.pop() for _ in range(count)]
        self.stack.append(tuple(reversed(items)))

    def append(self, items: list[Any]) -> None:
        _expect(self.stack[-1], list).extend(items)

    def add(self, items: list[Any]) -> None:
        _expect(self.stack[-1], set).update(map(hashable, items))

    def set_items(self, items: list[Any]) -> None:
        _expect(self.stack[-1], dict).update(pairs(items))

    def name(self, argument: str) -> None:
        module, _, name = argument.partition(" ")
        self.push_name(module, name)

    def stack_name(self, _: None) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        self.push_name(_expect(module, str), _expect(name, str))

    def push_name(self, module: str, name: str) -> None:
        found = Name(module, name)
        if str(found) not in self.admitted:
            raise RefusedName(found)
        self.stack.append(found)

    def call(self, functions: Mapping[str, Function]) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        if not isinstance(function, Name) or str(function) not in functions:
            what = str(function) if isinstance(function, Name) else f"an object of type {type(function).__name__}"
            raise ValueError(f"refused: the file calls {what}; nothing was run")
        self.stack.append(functions[str(function)](*_expect(arguments, tuple)))

    def build(self, _: None) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if not isinstance(target, Stateful):
            what = str(target) if isinstance(target, Name) else f"an object of type {type(target).__name__}"
            raise ValueError(f"refused: the file sets attributes of {what}; nothing was run")
        target.set_state(state)

    def persistent(self, _: None) -> None:
        identity = self.stack.pop()
        if self.admitted.persistent is None:
            raise ValueError("refused: the file names a persistent id; nothing was run")
        self.stack.append(self.admitted.persistent(identity))


def hashable(value: Any) -> Any:
    """Returns a key or a set's member, which must be a text or a number: hashing deep tuples would exhaust the stack.

    Raises:
        ValueError: for anything else.
    """
    if not isinstance(value, (str, int, float)):
        raise ValueError(f"refused: a key of type {type(value).__name__}; expected a text or a number")
    return value


def pairs(items: list[Any]) -> dict[Any, Any]:
    """Returns {items[0]: items[1], items[2]: items[3], ...}."""
    if len(items) % 2:
        raise ValueError("damaged: a key without a value")
    return {hashable(key): value for key, value in zip(items[::2], items[1::2], strict=True)}


def _expect(value: Any, kind: type) -> Any:
    if type(value) is not kind:
        raise ValueError(f"refused: expected a {kind.__name__}, found {type(value).__name__}; nothing was run")
    return value


_Action = Callable[[_Reader, Any], None]
_ACTIONS: dict[str, _Action] = {
    **dict.fromkeys(("PROTO", "FRAME"), lambda reader, _: None),
    **dict.fromkeys(("BININT", "BININT1", "BININT2", "LONG1", "LONG4"), _Reader.push_int),
    **dict.fromkeys(("BINFLOAT", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"), _Reader.push),
    **dict.fromkeys(("SHORT_BINBYTES", "BINBYTES", "BINBYTES8"), _Reader.push),
    "BYTEARRAY8": lambda reader, argument: reader.push(bytes(argument)),
    "NONE": lambda reader, _: reader.push(None),
    "NEWTRUE": lambda reader, _: reader.push(True),
    "NEWFALSE": lambda reader, _: reader.push(False),
    "EMPTY_LIST": lambda reader, _: reader.push([]),
    "EMPTY_DICT": lambda reader, _: reader.push({}),
    "EMPTY_SET": lambda reader, _: reader.push(set()),
    "EMPTY_TUPLE": lambda reader, _: reader.push(()),
    "LIST": lambda reader, _: reader.push(reader.since_mark()),
    "TUPLE": lambda reader, _: reader.push(tuple(reader.since_mark())),
    "DICT": lambda reader, _: reader.push(pairs(reader.since_mark())),
    "FROZENSET": lambda reader, _: reader.push(set(map(hashable, reader.since_mark()))),
    "TUPLE1": lambda reader, _: reader.tuple_of(1),
    "TUPLE2": lambda reader, _: reader.tuple_of(2),
    "TUPLE3": lambda reader, _: reader.tuple_of(3),
    "APPEND": lambda reader, _: reader.append([reader.stack.pop()]),
    "APPENDS": lambda reader, _: reader.append(reader.since_mark()),
    "ADDITEMS": lambda reader, _: reader.add(reader.since_mark()),
    "SETITEM": lambda reader, _: reader.set_items([reader.stack.pop(-2), reader.stack.pop()]),
    "SETITEMS": lambda reader, _: reader.set_items(reader.since_mark()),
    "MARK": _Reader.mark,
    "POP": _Reader.pop,
    "POP_MARK": lambda reader, _: reader.since_mark() and None,
    "DUP": _Reader.duplicate,
    **dict.fromkeys(("BINPUT", "LONG_BINPUT"), _Reader.put),
    **dict.fromkeys(("BINGET", "LONG_BINGET"), _Reader.get),
    "MEMOIZE": _Reader.memoize,
    "GLOBAL": _Reader.name,
    "STACK_GLOBAL": _Reader.stack_name,
    "REDUCE": lambda reader, _: reader.call(reader.admitted.functions),
    "NEWOBJ": lambda reader, _: reader.call(reader.admitted.classes),
    "BUILD": _Reader.build,
    "BINPERSID": _Reader.persistent,
}
