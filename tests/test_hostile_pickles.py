"""Files that are no honest network pickles: nothing in them runs."""

import collections
import contextlib
import functools
import io
import operator
import os
import pickle
import re
import struct
import subprocess
import time

import numpy as np
import pytest
import torch
from network_pickles import (
    ARGUMENTS,
    OLD,
    network_pickle,
    persistent,
    tiny_generator,
    writer,
)

from clip2latent.generators import load_generator
from clip2latent.generators.inert_pickle import Admitted, read_pickle
from clip2latent.generators.nvidia_pickle import read_network_pickle
from clip2latent.generators.torch_records import load_from_bytes

tiny = pytest.fixture(scope="module")(tiny_generator)
written = pytest.fixture(writer)


# Hostile files. Most would write the file TOUCH if they were read as Python's unpickler reads them.

TOUCH = "touched"
SHELL = f"touch {TOUCH}"
PYTHON = f"open({TOUCH!r}, 'w').close()"


class Call:
    """Pickles as function(*arguments), with a state if any."""

    def __init__(self, function, *arguments, state=None):
        self.reduced = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self):
        return self.reduced

    def __call__(self):
        """The pickler wants to see something callable where a call's result is called."""


def runs_when_loaded():
    return pickle.dumps(Call(os.system, SHELL), 2)


def object_array():
    stream = io.BytesIO()
    np.save(stream, np.array([Call(os.system, SHELL)], dtype=object), allow_pickle=True)
    return stream.getvalue()


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def opcodes(*parts: bytes) -> bytes:
    return b"\x80\x04" + b"".join(parts) + b"."


SYSTEM = os.system.__module__  # posix or nt
RUNNING = {
    "os.system": (lambda: Call(os.system, SHELL), f"{SYSTEM}.system"),
    "eval": (lambda: Call(eval, PYTHON), "builtins.eval"),
    "exec": (lambda: Call(exec, PYTHON), "builtins.exec"),
    "compile": (lambda: Call(exec, Call(compile, PYTHON, "", "exec")), "builtins.exec"),
    "Popen": (lambda: Call(subprocess.Popen, ["touch", TOUCH]), "subprocess.Popen"),
    "check_output": (lambda: Call(subprocess.check_output, ["touch", TOUCH]), "subprocess.check_output"),
    "open": (lambda: Call(open, TOUCH, "w"), "io.open"),
    "getattr chain": (lambda: Call(Call(getattr, Call(__import__, "os"), "system"), SHELL), "builtins.getattr"),
    "partial": (lambda: Call(Call(functools.partial, os.system, SHELL)), "functools.partial"),
    "attrgetter": (
        lambda: Call(Call(Call(operator.attrgetter, "system"), Call(__import__, "os")), SHELL),
        "operator.attrgetter",
    ),
    "methodcaller": (
        lambda: Call(Call(operator.methodcaller, "system", SHELL), Call(__import__, "os")),
        "operator.methodcaller",
    ),
    "map": (lambda: Call(list, Call(map, os.system, [SHELL])), "builtins.list"),
    "nested reduce": (
        lambda: Call(collections.OrderedDict, [("a", Call(set, [Call(os.system, SHELL)]))]),
        f"{SYSTEM}.system",
    ),
    "a state": (lambda: Call(collections.OrderedDict, state={"a": Call(os.system, SHELL)}), f"{SYSTEM}.system"),
    "torch.load": (
        lambda: Call(functools.partial(torch.load, weights_only=False), Call(io.BytesIO, runs_when_loaded())),
        "functools.partial",
    ),
    "numpy.load": (
        lambda: Call(functools.partial(np.load, allow_pickle=True), Call(io.BytesIO, object_array())),
        "functools.partial",
    ),
    "pickle.loads": (lambda: Call(pickle.loads, runs_when_loaded()), "_pickle.loads"),
    "torch's storage": (lambda: Call(torch.storage._load_from_bytes, runs_when_loaded()), f"{SYSTEM}.system"),
}
RAW = {
    "INST": (opcodes(b"(", text(SHELL), f"i{SYSTEM}\nsystem\n".encode()), f"INST {SYSTEM} system"),
    "OBJ": (opcodes(b"(", f"c{SYSTEM}\nsystem\n".encode(), text(SHELL), b"o"), f"{SYSTEM}.system"),
    "OBJ of an admitted class": (opcodes(b"(ccollections\nOrderedDict\n", b"o"), "OBJ"),
    "extension registry": (opcodes(b"\x82\xf0", text(SHELL), b"\x85R"), "EXT1"),
    "dotted name": (opcodes(text("os"), text("path.os.system"), b"\x93", text(SHELL), b"\x85R"), "os.path.os.system"),
    "through an admitted class": (
        opcodes(text("collections"), text("OrderedDict.__init__.__class__"), b"\x93"),
        "collections.OrderedDict.__init__.__class__",
    ),
    "name of another type": (opcodes(b"K\x01K\x02\x93"), "expected a str"),
    "persistent id": (opcodes(b"Pstorage\n"), "PERSID"),
    "binary persistent id": (opcodes(text("storage"), b"Q"), "persistent id"),
    "state of an admitted class": (
        opcodes(b"ccollections\nOrderedDict\n", b"}", text("update"), b"ccollections\nOrderedDict\nsb"),
        "sets attributes of collections.OrderedDict",
    ),
    "slots of an admitted function": (
        opcodes(b"ctorch._utils\n_rebuild_parameter\nN}", text("__defaults__"), b")s\x86b"),
        "sets attributes of torch._utils._rebuild_parameter",
    ),
    "state of a plain dict": (opcodes(b"}}", text("a"), b"K\x01sb"), "sets attributes"),
    "state of a dtype": (opcodes(b"cnumpy\ndtype\n", text("f8"), b"\x85R}b"), "dtype's state"),
    "call of data": (opcodes(text("a"), b")R"), "calls an object of type str"),
    "call of a name": (opcodes(b"cnumpy\nndarray\n)R"), "calls numpy.ndarray"),
    "new object of a function": (opcodes(b"ctorch.storage\n_load_from_bytes\n)\x81"), "calls torch.storage"),
    "new object with keywords": (opcodes(b"csubprocess\nPopen\n", text(SHELL), b"\x85}\x92"), "subprocess.Popen"),
    "new admitted object with keywords": (opcodes(b"ccollections\nOrderedDict\n)}\x92"), "NEWOBJ_EX"),
    "out-of-band buffer": (opcodes(b"\x97"), "NEXT_BUFFER"),
}


def hostile(monkeypatch, tmp_path):
    """Runs the test in an empty folder, so that the file TOUCH can only come from a pickle."""
    monkeypatch.chdir(tmp_path)
    return tmp_path / TOUCH


@pytest.mark.parametrize("case", RUNNING)
def test_nothing_in_a_file_runs(case, tiny, written, tmp_path, monkeypatch):
    touched = hostile(monkeypatch, tmp_path)
    make, name = RUNNING[case]
    with contextlib.suppress(Exception):
        running = pickle.loads(pickle.dumps(make()))
        if isinstance(running, subprocess.Popen):
            running.wait()
    assert touched.exists(), "the file is not hostile"
    touched.unlink()
    for content in ({"G": make()}, {"hidden": [{"a": (make(),)}]}, {"G_ema": persistent(tiny, harmless=make())}):
        with pytest.raises(ValueError, match=re.escape(name)):
            read_network_pickle(written(network_pickle(tiny, ARGUMENTS, **content)))
    with pytest.raises(ValueError, match=re.escape(name)):
        load_generator(str(written(network_pickle(tiny, {**ARGUMENTS, "channel_max": make()}))))
    with pytest.raises(ValueError, match=re.escape(name)):
        load_generator(str(written(pickle.dumps(make()))))
    assert not touched.exists()


@pytest.mark.parametrize("case", RAW)
def test_opcodes_that_are_not_for_data_are_refused(case, written, tmp_path, monkeypatch):
    touched = hostile(monkeypatch, tmp_path)
    data, message = RAW[case]
    with pytest.raises(ValueError, match=re.escape(message)):
        read_network_pickle(written(data))
    assert not touched.exists()


def rebuilt(size, stride, offset=0, numel=4):
    buffer = io.BytesIO()
    torch.save(torch.zeros(numel).storage(), buffer, **OLD)
    storage = Call(torch.storage._load_from_bytes, buffer.getvalue())
    return Call(torch._utils._rebuild_tensor_v2, storage, offset, size, stride, False, {})


def nested(depth):
    return opcodes(b")" + b"\x85" * depth)[2:-1]


GREEDY = {
    "bytes longer than the file": (lambda: opcodes(b"\x8e", struct.pack("<Q", 1 << 40)), "truncated"),
    "array longer than the file": (lambda: opcodes(b"\x96", struct.pack("<Q", 1 << 40)), "truncated"),
    "text longer than memory": (lambda: opcodes(b"\x8d", struct.pack("<Q", 1 << 62)), "truncated"),
    "frame longer than memory": (lambda: opcodes(b"\x95", struct.pack("<Q", 1 << 62), b"N"), "found NoneType"),
    "memo of two billion entries": (lambda: opcodes(b"Nr\xff\xff\xff\x7f"), "found NoneType"),
    "missing memo": (lambda: opcodes(b"j\xff\xff\xff\x7f"), "damaged"),
    "number of a million digits": (lambda: opcodes(b"\x8b", struct.pack("<i", 1 << 20), b"\x01" * (1 << 20)), "bits"),
    "line without end": (lambda: opcodes(b"c" + b"a" * 100_000), "truncated"),
    "deep tuples": (lambda: opcodes(nested(30_000)), "found tuple"),
    "deep tuples as a key": (lambda: opcodes(b"}", nested(30_000), b"Ns"), "a key of type tuple"),
    "deep tuples in a set": (lambda: opcodes(b"\x8f(", nested(30_000), b"\x90"), "a key of type tuple"),
    "empty stack": (lambda: opcodes(b"R"), "damaged"),
    "mark without end": (lambda: opcodes(b"(" * 1000, b"N"), "more or less than one object"),
    "view larger than its storage": (lambda: pickle.dumps(rebuilt((1 << 40,), (1,))), "leaves its storage"),
    "view expanded": (lambda: pickle.dumps(rebuilt((1 << 20, 1 << 20), (0, 0))), "leaves its storage"),
    "view before its storage": (lambda: pickle.dumps(rebuilt((2,), (1,), offset=-2)), "whole numbers from 0 up"),
    "view with a negative stride": (lambda: pickle.dumps(rebuilt((2,), (-1,), offset=1)), "whole numbers from 0 up"),
    "view behind its storage": (lambda: pickle.dumps(rebuilt((2,), (3,), offset=1)), "leaves its storage"),
}


@pytest.mark.parametrize("case", GREEDY)
def test_greed_and_damage_are_refused_at_once(case, written):
    make, message = GREEDY[case]
    path = written(make())
    started = time.process_time()
    with pytest.raises(ValueError, match=message):
        read_network_pickle(path)
    assert time.process_time() - started < 3


def laughs():
    value = ["ha"]
    for _ in range(40):
        value = [value, value]
    return value


def circle():
    value = []
    value.append(value)
    return value


IMPOSSIBLE = {
    "a large image": lambda: {"img_resolution": 1 << 40},
    "many layers": lambda: {"mapping_kwargs": {"num_layers": 1 << 19}},
    "lists of the same lists": lambda: {"resample_filter": laughs()},
    "a list in itself": lambda: {"resample_filter": circle()},
    "no names": lambda: {"mapping_kwargs": 3},
    "objects": lambda: {"channel_max": np.array(["a"], dtype=object)},
    "dates": lambda: {"channel_max": np.datetime64("2020-01-01")},
    "a tensor": lambda: {"channel_base": torch.zeros(2)},
}


@pytest.mark.parametrize("case", IMPOSSIBLE)
def test_arguments_that_no_generator_has_are_refused(case, tiny, written):
    with pytest.raises(ValueError, match=r"refused|damaged"):
        load_generator(str(written(network_pickle(tiny, {**ARGUMENTS, **IMPOSSIBLE[case]()}))))


def test_a_damaged_storage_is_refused():
    buffer = io.BytesIO()
    torch.save(torch.zeros(4).storage(), buffer, **OLD)
    whole = buffer.getvalue()
    for data in (whole[:-1], whole + b"a", whole[:50], b"", whole[:-24] + struct.pack("<q", 5) + whole[-16:]):
        with pytest.raises(ValueError, match="damaged"):
            load_from_bytes(data)
    zipped = io.BytesIO()
    torch.save(torch.zeros(4).storage(), zipped)
    with pytest.raises(ValueError, match=r"refused|damaged"):
        load_from_bytes(zipped.getvalue())


def test_a_file_of_noise_never_ends_otherwise_than_in_a_value_error(tiny, written):
    """Bytes changed at random places: read as before, or refused."""
    whole = bytearray(network_pickle(tiny, ARGUMENTS))
    random = np.random.default_rng(0)
    for _ in range(60):
        data = bytearray(whole)
        for position in random.integers(0, len(data), 5):
            data[position] = random.integers(0, 256)
        with contextlib.suppress(ValueError):
            read_network_pickle(written(bytes(data)))


def test_a_name_is_admitted_only_as_what_it_stands_for():
    admitted = Admitted(functions={"a.f": lambda x: x + 1}, names=frozenset({"a.n"}))
    assert read_pickle(io.BytesIO(opcodes(b"ca\nf\nK\x01\x85R")), admitted) == 2
    assert str(read_pickle(io.BytesIO(opcodes(b"ca\nn\n")), admitted)) == "a.n"
    with pytest.raises(ValueError, match=r"calls a\.n"):
        read_pickle(io.BytesIO(opcodes(b"ca\nn\n)R")), admitted)
