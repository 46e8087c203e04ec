"""Where a refinement stands: all that the next step depends on, and Adam's step as a function of it."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from clip2latent.basis import Basis

RUNNING, PLATEAU, NOT_A_NUMBER = range(3)
REASONS = {RUNNING: "running", PLATEAU: "plateau", NOT_A_NUMBER: "not a number"}


class State(NamedTuple):
    """The state of P problems after so many steps.

    Attributes:
        step: steps done, int64 [].
        basis: what is optimised.
        first: Adam's running means of the gradients, shaped as the basis.
        second: Adam's running means of their squares.
        best: the tokens [P, K, D] of lowest held-out loss so far.
        losses: their held-out losses [P].
        last: the held-out losses [P] at the last look.
        found: the step [P] each was found at.
        start: the held-out loss [P] of each basis's best member before the first step.
        mark: the held-out loss [P] that a problem's progress is measured from.
        since: the step [P] it was reached at.
        stopped: [P], why a problem was stopped; RUNNING for those that go on.
    """

    step: Tensor
    basis: Basis
    first: Basis
    second: Basis
    best: Tensor
    losses: Tensor
    last: Tensor
    found: Tensor
    start: Tensor
    mark: Tensor
    since: Tensor
    stopped: Tensor

    @property
    def running(self) -> Tensor:
        """[P], true for problems that go on."""
        return self.stopped == RUNNING

    def to_tensors(self) -> dict[str, Tensor]:
        """Returns the state as tensors by name, on the CPU; `from_tensors` reads them."""
        flat: dict[str, Tensor] = {}
        for name, value in self._asdict().items():
            flat |= {f"{name}.{key}": part for key, part in value._asdict().items()} if isinstance(value, Basis) else {}
            flat |= {name: value} if isinstance(value, Tensor) else {}
        # Copies: a file must not hold tensors that share memory, as some do at the start.
        return {name: tensor.detach().cpu().clone() for name, tensor in flat.items()}

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor], device: torch.device | str = "cpu") -> State:
        """Reads what `to_tensors` returned; further tensors are left alone.

        Raises:
            ValueError: where one is missing, of another shape or not finite.
        """
        bases = ("basis", "first", "second")
        names = [name for name in cls._fields if name not in bases]
        names += [f"{name}.{part}" for name in bases for part in Basis._fields]
        missing = sorted(set(names) - set(tensors))
        if missing:
            raise ValueError(f"the state of a refinement lacks {', '.join(missing)}: it is damaged, or of another kind")
        found = {name: tensors[name].to(device) for name in names}
        members = found["basis.members"]
        if members.ndim != 4 or found["best"].shape != members[:, 0].shape:
            raise ValueError(f"the state of a refinement has members {list(members.shape)}: expected [P, M, K, D]")
        alike = all(found[f"{name}.members"].shape == members.shape for name in bases)
        rows = all(len(found[name]) == len(members) for name in names if name != "step")
        if (
            not alike
            or not rows
            or not all(tensor.isfinite().all() for name, tensor in found.items() if name != "last")
        ):
            raise ValueError("the state of a refinement has numbers that do not belong together: it is damaged")
        parts = {name: Basis(found[f"{name}.members"], found[f"{name}.logits"]) for name in bases}
        return cls(**parts, **{name: found[name] for name in names if "." not in name})


def adam(state: State, gradients: Basis, units: Basis, lr: float, betas: tuple[float, float] = (0.9, 0.999)) -> State:
    """Returns the state after a step of Adam (Kingma and Ba 2015, algorithm 1), without weight decay.

    Rows that do not run stay as they are.

    Args:
        state: before the step.
        gradients: of the basis, finite in rows that run.
        units: what a number's gradient and step are measured in, each broadcasting with its part of the basis.
        lr: the learning rate, in units.
        betas: the decay of the two means.
    """
    count = state.step + 1
    kept = state.running.view(-1, 1, 1, 1)
    parts = []
    for number, gradient, first, second, unit in zip(
        state.basis, gradients, state.first, state.second, units, strict=True
    ):
        scaled = gradient * unit
        first_new = betas[0] * first + (1 - betas[0]) * scaled
        second_new = betas[1] * second + (1 - betas[1]) * scaled.square()
        direction = first_new / (1 - betas[0] ** count) / ((second_new / (1 - betas[1] ** count)).sqrt() + 1e-8)
        moved = (number - lr * unit * direction, first_new, second_new)
        parts.append([torch.where(kept, new, old) for new, old in zip(moved, (number, first, second), strict=True)])
    basis, first, second = (Basis(*part) for part in zip(*parts, strict=True))
    return state._replace(step=count, basis=basis, first=first, second=second)
