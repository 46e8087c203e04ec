"""Where a search for a composition stands: all that its next step depends on, as tensors that a file can hold."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from clip2latent.barrier import Moments
from clip2latent.basis import Basis


class Looks(NamedTuple):
    """The best of each of P candidates as the held-out objective saw it.

    Attributes:
        primary: losses [P], float64, infinite where nothing was seen; as are the next two.
        secondary: [P].
        least: [P], the lowest loss, of the kind that comes first, that the candidate has shown.
        step: [P], the step it was seen at.
        foreground: latents [P, L, D].
        background: latents [P, L, D] of the other generator.
    """

    primary: Tensor
    secondary: Tensor
    least: Tensor
    step: Tensor
    foreground: Tensor
    background: Tensor


class State(NamedTuple):
    """A search among P candidates.

    Attributes:
        round: the round it is in, int64 [].
        rows: the candidates of this round, in the order they are optimised in, [r].
        steps: done by each candidate, [P].
        begun: the steps [P] after which a candidate's last round began.
        broken: [P], whether a candidate's loss ceased to be a number.
        foreground: the bases, members in units of the latents.
        background: likewise.
        moments: of all their numbers, [P, F].
        best: what each candidate came to.
    """

    round: Tensor
    rows: Tensor
    steps: Tensor
    begun: Tensor
    broken: Tensor
    foreground: Basis
    background: Basis
    moments: Moments
    best: Looks

    def to_tensors(self) -> dict[str, Tensor]:
        """Returns the state as tensors by name, on the CPU; `from_tensors` reads them."""
        flat: dict[str, Tensor] = {}
        for name, value in self._asdict().items():
            parts = {f"{name}.{key}": part for key, part in value._asdict().items()} if name in _PARTS else {}
            flat |= parts or {name: value}
        # Copies: a file must not hold tensors that share memory.
        return {name: tensor.detach().cpu().contiguous().clone() for name, tensor in flat.items()}

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor], device: torch.device | str = "cpu") -> State:
        """Reads what `to_tensors` returned; further tensors are left alone.

        Raises:
            ValueError: where one is missing or does not belong to the others.
        """
        names = [name for name in cls._fields if name not in _PARTS]
        names += [f"{name}.{part}" for name, kind in _PARTS.items() for part in kind._fields]
        missing = sorted(set(names) - set(tensors))
        if missing:
            raise ValueError(
                f"the state of a composition lacks {', '.join(missing)}: it is damaged, or of another kind"
            )
        found = {name: tensors[name].to(device) for name in names}
        number, rows = len(found["steps"]), found["rows"]
        alike = all(tensor.shape[:1] == (number,) for name, tensor in found.items() if name not in ("round", "rows"))
        numbers = [tensor for tensor in found.values() if tensor.is_floating_point()]
        sound = alike and rows.ndim == 1 and rows.unique().numel() == rows.numel() > 0
        if not sound or not 0 <= int(rows.min()) <= int(rows.max()) < number or not _finite(numbers):
            raise ValueError("the state of a composition has numbers that do not belong together: it is damaged")
        parts = {name: kind(*(found[f"{name}.{part}"] for part in kind._fields)) for name, kind in _PARTS.items()}
        return cls(**parts, **{name: found[name] for name in cls._fields if name not in _PARTS})


_PARTS: dict[str, Any] = {"foreground": Basis, "background": Basis, "moments": Moments, "best": Looks}


def each_tensor(function: Callable[..., Tensor], *states: Any) -> Any:
    """Applies a function to the corresponding tensors of nested tuples of one kind."""
    if isinstance(states[0], Tensor):
        return function(*states)
    parts = [each_tensor(function, *parts) for parts in zip(*states, strict=True)]
    return type(states[0])(*parts) if hasattr(states[0], "_fields") else tuple(parts)


def replaced(whole: Tensor, rows: Sequence[int] | Tensor, part: Tensor) -> Tensor:
    """Returns a tensor [P, ...] with some rows replaced, as a new one."""
    whole = whole.clone()
    whole[rows] = part
    return whole


def _finite(tensors: Sequence[Tensor]) -> bool:
    return all(bool(tensor.isfinite().all()) for tensor in tensors)
