"""Writes network pickles in NVIDIA's persistence format with whatever torch and numpy are installed."""

import contextlib
import pickle
import sys
import types
from unittest import mock

import torch
from torch import nn

from clip2latent.generators.frozen_conv import Kept
from clip2latent.generators.stylegan2 import StyleGAN2

SOURCE = "raise SystemExit('the source in a network pickle was run')"


class EasyDict(dict):
    """dnnlib.util.EasyDict, as far as a pickle knows it."""


EasyDict.__module__, EasyDict.__qualname__ = "dnnlib.util", "EasyDict"


def _reconstruct_persistent_obj(meta):
    raise AssertionError("never called: files written here are read by our reader alone")


_reconstruct_persistent_obj.__module__ = "torch_utils.persistence"


class Persistent:
    """An object that a pickle holds as a class's name, its source and the attributes."""

    def __init__(self, class_name, state, source=SOURCE):
        self.meta = {
            "type": "class",
            "version": 6,
            "module_src": source,
            "class_name": class_name,
            "state": state,
        }

    def __reduce__(self):
        return _reconstruct_persistent_obj, (self.meta,)


def persistent(module: nn.Module, class_name="Generator", **attributes) -> Persistent:
    """A module and its children as NVIDIA's decorator pickles them: the instance's dict, without what is ours alone."""
    left_out = (nn.Module, tuple, dict, Kept)
    state = {name: value for name, value in vars(module).items() if not isinstance(value, left_out)}
    state |= {name: vars(module)[name] for name in ("_parameters", "_buffers", "_forward_hooks")}
    state["_modules"] = {name: persistent(child, type(child).__name__) for name, child in module._modules.items()}
    state |= {"_init_args": (), "_init_kwargs": EasyDict(), **attributes}
    return Persistent(class_name, state)


@contextlib.contextmanager
def official_modules():
    """The modules by whose names the pickled objects go, while writing."""
    torch_utils, dnnlib = types.ModuleType("torch_utils"), types.ModuleType("dnnlib")
    torch_utils.persistence = types.ModuleType("torch_utils.persistence")
    torch_utils.persistence._reconstruct_persistent_obj = _reconstruct_persistent_obj
    dnnlib.util = types.ModuleType("dnnlib.util")
    dnnlib.util.EasyDict = EasyDict
    modules = (torch_utils, torch_utils.persistence, dnnlib, dnnlib.util)
    with mock.patch.dict(sys.modules, {module.__name__: module for module in modules}):
        yield


def network_pickle(module: nn.Module, arguments: dict, protocol=4, **content) -> bytes:
    """A snapshot with G_ema = module, a G and a D of other weights, and an augmentation pipe."""
    other = persistent(nn.Linear(2, 3), "Discriminator")
    snapshot = {
        "G": other,
        "D": other,
        "G_ema": persistent(module, _init_kwargs=EasyDict(arguments)),
        "augment_pipe": persistent(nn.BatchNorm1d(3), "AugmentPipe"),
        "training_set_kwargs": EasyDict(resolution=32, path=None, max_size=70000),
        **content,
    }
    with official_modules():
        return pickle.dumps(snapshot, protocol)


TINY = dict(z_dim=4, c_dim=0, w_dim=4, img_resolution=8, img_channels=3, channel_base=32, channel_max=4)
OLD = {"_use_new_zipfile_serialization": False}
ARGUMENTS = {**TINY, "mapping_kwargs": EasyDict(num_layers=2)}


def tiny_generator():
    """A fixture: an untrained network of `ARGUMENTS`."""
    torch.manual_seed(0)
    return StyleGAN2(**TINY, mapping_kwargs={"num_layers": 2}).eval().requires_grad_(False)


def writer(tmp_path):
    """A fixture: a function that writes a file of given bytes and returns its path."""

    def write(data):
        path = tmp_path / "network-snapshot.pkl"
        path.write_bytes(data)
        return path

    return write
