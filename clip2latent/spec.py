"""ModelSpec: how dataset.json and checkpoints name a generator or an embedder."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import json
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from clip2latent.interfaces import ClassConditional, Embedder, Generator


def weights_sha256(module: nn.Module) -> str:
    """Hashes names, shapes and float32 values of a module's state, in the order of the names.

    The hash does not depend on the precision the weights are stored in, as long as it is exact in float32.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().to("cpu", torch.float32).contiguous().numpy().tobytes())
    return digest.hexdigest()


def identity_of(module: object) -> dict[str, Any]:
    """Returns a model's `identity` as plain types: what decides its results besides the weights; {} without one.

    An embedder's is its model, tag, activation, preprocessing and width.
    """
    return json.loads(json.dumps(getattr(module, "identity", {})))


@dataclass(frozen=True)
class ModelSpec:
    """A model as an import path, its arguments, the hash of the weights that must result, and its identity.

    Attributes:
        class_path: an `nn.Module` class, or a function annotated to return one (or a Generator or Embedder).
        init_args: keyword arguments, plain types only.
        sha256: `weights_sha256` of the instance; "" where it is unknown and not checked.
        identity: `identity_of` the instance; {} where it is unknown and not checked.
    """

    class_path: str
    init_args: dict[str, Any]
    sha256: str = ""
    identity: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, class_path: str, init_args: Mapping[str, Any], module: object) -> ModelSpec:
        """Returns the specification of an instance that `class_path(**init_args)` made."""
        sha256 = weights_sha256(module) if isinstance(module, nn.Module) else ""
        return cls(class_path, dict(init_args), sha256, identity_of(module))

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> ModelSpec:
        """Reads plain types: {"class_path", "init_args", "sha256", "identity"}, all but the first optional.

        Raises:
            ValueError: for missing or unknown keys.
        """
        unknown = set(record) - {"class_path", "init_args", "sha256", "identity"}
        if unknown or "class_path" not in record:
            raise ValueError(
                f"a model is given as class_path, init_args, sha256 and identity; got keys {sorted(record)}"
                " (class_path is required, the others are optional)"
            )
        init_args, identity = (dict(record.get(key) or {}) for key in ("init_args", "identity"))
        return cls(str(record["class_path"]), init_args, str(record.get("sha256") or ""), identity)

    def to_dict(self) -> dict[str, Any]:
        """Returns the plain types that `from_dict` reads."""
        record = {"class_path": self.class_path, "init_args": dict(self.init_args), "sha256": self.sha256}
        return {**record, "identity": dict(self.identity)} if self.identity else record

    def __str__(self) -> str:
        arguments = ", ".join(f"{name}={value!r}" for name, value in self.init_args.items())
        known = [f"{name} {value}" for name, value in self.identity.items()]
        known += [f"sha256 {self.sha256[:12]}"] if self.sha256 else []
        return f"{self.class_path}({arguments})" + (f" [{', '.join(known)}]" if known else "")

    def same_model(self, other: ModelSpec) -> bool:
        """Tells whether both name the same model.

        What both identities say must agree, and so must the hashes where both have one, else paths and arguments.
        """
        if _differing(self.identity, other.identity):
            return False
        if self.sha256 and other.sha256:
            return self.sha256 == other.sha256
        return (self.class_path, self.init_args) == (other.class_path, other.init_args)

    def build(self) -> Any:
        """Imports `class_path` and calls it with `init_args`.

        Raises:
            ValueError: where the path does not lead to a model's class or loader, where the arguments do not fit, or
                where identity or weights are not the recorded ones.
        """
        factory = _resolve(self.class_path)
        try:
            inspect.signature(factory).bind(**self.init_args)
        except TypeError as error:
            raise ValueError(f"init_args {self.init_args} do not fit {self.class_path}: {error}") from error
        model = factory(**self.init_args)
        self.check_identity(model)
        if self.sha256 and isinstance(model, nn.Module):
            found = weights_sha256(model)
            if found != self.sha256:
                raise ValueError(
                    f"{self.class_path}({self.init_args}) holds weights with sha256 {found[:12]}..., but"
                    f" {self.sha256[:12]}... were recorded: give the model that was used, or remake what depends on it"
                )
        return model

    def check_identity(self, model: object) -> None:
        """Raises ValueError where a model's identity is not the recorded one, naming both; costs nothing."""
        found = identity_of(model)
        names = _differing(self.identity, found)
        if names:
            ours, theirs = ({name: record.get(name) for name in names} for record in (self.identity, found))
            raise ValueError(
                f"{self.class_path}({self.init_args}) has {theirs}, but {ours} was recorded: give the model that was"
                " used, or remake what depends on it"
            )


def _differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Names of what two identities say differently; an identity may say less than another."""
    return [name for name in one if name in other and one[name] != other[name]]


def _resolve(class_path: str) -> Any:
    """Imports a model's class or loader; a file must not be able to name any other callable."""
    module_name, _, name = class_path.rpartition(".")
    if not module_name:
        raise ValueError(f"class_path must be module.name, got {class_path!r}")
    try:
        factory = getattr(importlib.import_module(module_name), name)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"class_path {class_path!r} cannot be imported: {error}") from error
    if not _makes_model(factory):
        raise ValueError(
            f"class_path {class_path!r} is neither an nn.Module class nor a function annotated to return an nn.Module,"
            " a Generator or an Embedder"
        )
    return factory


def _makes_model(factory: Any) -> bool:
    if inspect.isclass(factory):
        return issubclass(factory, nn.Module)
    if not inspect.isfunction(factory):
        return False
    try:
        returned = typing.get_type_hints(factory).get("return")
    except NameError:
        return False
    return returned in (Generator, ClassConditional, Embedder) or (
        inspect.isclass(returned) and issubclass(returned, nn.Module)
    )
