"""Launch: how many processes torchrun or SLURM started, so that no option has to repeat it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Launch(NamedTuple):
    """The processes a launcher started.

    Attributes:
        devices: processes on each node.
        num_nodes: nodes.
        launcher: "torchrun", also inside a SLURM job, or "SLURM".
    """

    devices: int
    num_nodes: int
    launcher: str


def launched(environment: Mapping[str, str]) -> Launch | None:
    """Reads the launcher's environment variables; None where the process was started by hand.

    Raises:
        ValueError: where nodes have different numbers of processes.
    """
    if "TORCHELASTIC_RUN_ID" in environment:
        processes, on_this_node = int(environment["WORLD_SIZE"]), int(environment["LOCAL_WORLD_SIZE"])
        launcher, num_nodes = "torchrun", max(1, processes // on_this_node)
    # The shell of an allocation has SLURM's variables too; Lightning tells it by the job's name, and so do we.
    elif "SLURM_NTASKS" in environment and environment.get("SLURM_JOB_NAME") not in ("bash", "interactive"):
        processes, num_nodes = int(environment["SLURM_NTASKS"]), int(environment.get("SLURM_NNODES", "1"))
        launcher, on_this_node = "SLURM", processes // num_nodes
    else:
        return None
    if not processes or on_this_node * num_nodes != processes:
        raise ValueError(
            f"{launcher} started {processes} processes on {num_nodes} nodes, {on_this_node} on this one:"
            " start the same number on each"
        )
    return Launch(on_this_node, num_nodes, launcher)
