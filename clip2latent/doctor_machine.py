"""The machine: processors, GPU, precisions, memory, disk, and where one may write. torch is imported inside."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clip2latent.doctor import FAULT, GOOD, NOTE, Finding, size_of
from clip2latent.memory import available_memory

GIB = 1 << 30


def check_processors(cores: int | None = None, threads: int | None = None, load: float | None = None) -> list[Finding]:
    """Compares the threads that torch uses with the processors that this process may use, and with their load.

    Args:
        cores: processors; None to ask the system, as the following.
        threads: of torch.
        load: processes that wanted to run, the mean of a minute.
    """
    if threads is None:
        import torch

        threads = torch.get_num_threads()
    if cores is None:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if load is None:
        load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    said = f"{cores}, of which torch uses {threads} (load {load:.1f})"
    if threads > cores:
        fix = f"set OMP_NUM_THREADS={cores}: more threads than processors wait for one another"
        return [Finding(NOTE, "processors", said, fix)]
    if load > 2 * cores:
        fix = "other work has them: expect everything to take longer, or wait for its end"
        return [Finding(NOTE, "processors", said, fix)]
    return [Finding(GOOD, "processors", said)]


def check_gpu(cuda: Any = None, built_for: str | None = None, devices: bool | None = None) -> list[Finding]:
    """Looks for GPUs, and computes something on each.

    Args:
        cuda: stands for torch.cuda; None for that.
        built_for: the CUDA version that torch was built for, None where it was built without; asked where cuda is None.
        devices: whether the system shows NVIDIA's devices; None to look.
    """
    import torch

    if cuda is None:
        cuda, built_for = torch.cuda, torch.version.cuda
    devices = Path("/dev/nvidia0").exists() if devices is None else devices
    if not cuda.is_available():
        if not devices:
            return [Finding(GOOD, "GPU", "none that torch can use: the processors do the work, as the demo expects")]
        fix = (
            "install a torch with CUDA (https://pytorch.org/get-started/locally)"
            if built_for is None
            else f"this torch is built for CUDA {built_for}: update NVIDIA's driver, or install a torch for an older"
            " CUDA; nvidia-smi says what the driver can do"
        )
        return [Finding(NOTE, "GPU", "the machine has one, but torch does not see it", fix)]
    found = []
    for number in range(cuda.device_count()):
        name = f"GPU {number}"
        try:
            free, total = cuda.mem_get_info(number)
            said = f"{cuda.get_device_name(number)}, {size_of(free)} free of {size_of(total)}"
            _multiply(torch.float32, f"cuda:{number}")
        except Exception as error:  # whatever CUDA raises, its first line says it
            fix = "a driver, a torch or a card that do not fit: CUDA_VISIBLE_DEVICES= (empty) runs without it"
            found.append(Finding(FAULT, name, f"it does not compute: {str(error).splitlines()[0]}", fix))
            continue
        fix = "end what else runs on it (nvidia-smi), or give a smaller --chunk" if free < 2 * GIB else ""
        found.append(Finding(NOTE if fix else GOOD, name, said, fix))
    return found


def check_precision(device: str | None = None) -> list[Finding]:
    """Computes in each precision on the device that the commands take, and says which ones it is made for."""
    import torch

    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    exact = _multiply(torch.float32, device)
    works, fails = [], []
    for name, dtype in (("bf16", torch.bfloat16), ("fp16", torch.float16)):
        try:
            close = bool(((_multiply(dtype, device) - exact).abs().max() / exact.abs().max()) < 0.05)
        except RuntimeError:
            close = False
        (works if close else fails).append(f"{name} ({_support(name, device)})")
    said = f"on {device}: fp32, {', '.join(works)}" if works else f"on {device}: fp32 alone"
    if fails:
        return [Finding(NOTE, "precision", f"{said}; {', '.join(fails)} is wrong or missing", "stay with fp32")]
    return [Finding(GOOD, "precision", said)]


def check_memory(available: int | None = None) -> list[Finding]:
    """Compares the memory that can be taken with what the commands take.

    Args:
        available: bytes; None to ask the system.
    """
    available = available_memory() if available is None else available
    said = f"{size_of(available)} can be taken"
    if available < GIB:
        fix = "end other programs, or give the container more: the demo takes 1 GiB, published models 4 to 8"
        return [Finding(FAULT, "memory", said, fix)]
    if available < 6 * GIB:
        fix = "enough for the demo; for generators of 1024 pixels and large CLIPs give a smaller --chunk"
        return [Finding(NOTE, "memory", said, fix)]
    return [Finding(GOOD, "memory", said)]


def check_folders(folders: Mapping[str, Path]) -> list[Finding]:
    """Writes a file where each folder is or would be made, and looks at the space that is left there.

    Args:
        folders: what for -> the folder.
    """
    found = []
    for name, folder in folders.items():
        parent = next(path for path in [folder.absolute(), *folder.absolute().parents] if path.exists())
        try:
            with tempfile.NamedTemporaryFile(dir=parent, prefix=".clip2latent-") as file:
                file.write(b"clip2latent")
                file.flush()
            free = shutil.disk_usage(parent).free
        except OSError as error:
            fix = f"make {parent} writable, or name another folder ({WHERE.get(name, '--out')})"
            found.append(Finding(FAULT, name, f"{folder} cannot be written: {error.strerror or error}", fix))
            continue
        said = f"{folder}: writable, {size_of(free)} free"
        if free < GIB // 8:
            found.append(Finding(FAULT, name, said, "the disk is full: remove what is not needed"))
        elif free < 4 * GIB:
            found.append(Finding(NOTE, name, said, "a published generator and CLIP take 1 to 4 GiB"))
        else:
            found.append(Finding(GOOD, name, said))
    return found


WHERE = {"cache": "CLIP2LATENT_CACHE", "Hub's cache": "HF_HOME", "temporary": "TMPDIR"}
"""The environment's variable that moves a folder."""


def _multiply(dtype: Any, device: str) -> Any:
    """Returns a product of matrices [64, 64], computed in a precision on a device, as float32."""
    import torch

    rng = torch.Generator().manual_seed(0)
    one, other = (torch.randn(64, 64, generator=rng).to(device, dtype) for _ in range(2))
    return (one @ other).float().cpu()


def _support(name: str, device: str) -> str:
    """Says whether the device is made for a precision, as far as torch knows."""
    import torch

    if device.startswith("cuda"):
        major, _ = torch.cuda.get_device_capability(device)
        return "fast" if major >= (8 if name == "bf16" else 7) else "slow: the GPU is not made for it"
    knows = getattr(torch.ops.mkldnn, f"_is_mkldnn_{name}_supported", None)
    return "fast" if knows is not None and knows() else "slow: the processor is not made for it"
