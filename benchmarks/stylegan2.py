"""StyleGAN2's speed and memory against the straightforward form: `python -m benchmarks.stylegan2`.

Full size, random weights. Both forms are timed in turns in one process, so that what else the machine does meets both;
the straightforward form builds one weight for each image and convolves in groups, filters with the two-dimensional
kernel and applies noise, bias, activation, gain and clamp one after the other, as the official code does without its
CUDA extensions. Memory and the time to load are those of processes of their own.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor

from clip2latent.generators import stylegan2, stylegan2_layers
from clip2latent.generators.stylegan2 import StyleGAN2, from_official

ROOT = Path(__file__).parents[1]
FORMS = ("ours", "straightforward")


def arguments(resolution: int) -> dict:
    """The official training script's sizes: half the channels below 512 px."""
    base = 32768 if resolution >= 512 else 16384
    return {"z_dim": 512, "c_dim": 0, "w_dim": 512, "img_resolution": resolution, "img_channels": 3} | {
        "channel_base": base
    }


def build(resolution: int) -> StyleGAN2:
    """A frozen network of random weights."""
    torch.manual_seed(0)
    return StyleGAN2(**arguments(resolution)).eval().requires_grad_(False)


def grouped_conv(x: Tensor, weight: Tensor, styles: Tensor, up: int = 1, demodulate: bool = True) -> Tensor:
    """One weight for each image, all of them in one convolution of as many groups (arXiv:1912.04958, appendix B)."""
    batch = len(x)
    weight = weight[None] * styles[:, None, :, None, None]
    if demodulate:
        weight = weight * (weight.square().sum(dim=(2, 3, 4), keepdim=True) + 1e-8).rsqrt()
    x = x.reshape(1, -1, *x.shape[2:])
    if up == 2:
        x = F.conv_transpose2d(x, weight.transpose(1, 2).flatten(0, 1), stride=2, groups=batch)
    else:
        x = F.conv2d(x, weight.flatten(0, 1), padding=weight.shape[-1] // 2, groups=batch)
    return x.view(batch, -1, *x.shape[2:])


def straightforward_layer(
    layer: stylegan2_layers.SynthesisLayer,
    x: Tensor,
    w: Tensor,
    noise_mode: str = "const",
    rng: torch.Generator | None = None,
    gain: float = 1.0,
) -> Tensor:
    """SynthesisLayer.forward of const noise and leaky ReLU, one operation after the other, in the default layout."""
    x = grouped_conv(x.contiguous(), layer.weight, layer.affine(w), layer.up)
    if layer.up == 2:
        kernel = (4 * layer.resample_filter).expand(x.shape[1], 1, -1, -1)
        x = F.conv2d(F.pad(x, (1, 1, 1, 1)), kernel, groups=x.shape[1])
    x = x + layer.noise_const * layer.noise_strength
    x = x + layer.bias[:, None, None]
    x = F.leaky_relu(x, 0.2)
    x = x * (math.sqrt(2) * gain)
    return x.clamp(-layer.conv_clamp * gain, layer.conv_clamp * gain)


def straightforward_torgb(layer: stylegan2_layers.ToRGB, x: Tensor, w: Tensor) -> Tensor:
    """ToRGB.forward in groups."""
    styles = layer.affine(w) / math.sqrt(layer.weight[0].numel())
    x = grouped_conv(x, layer.weight, styles, demodulate=False) + layer.bias[:, None, None]
    return x.clamp(-layer.conv_clamp, layer.conv_clamp)


@contextlib.contextmanager
def form(name: str) -> Iterator[None]:
    """Within it, networks compute in the named form."""
    with contextlib.ExitStack() as stack:
        if name == "straightforward":
            stack.enter_context(mock.patch.object(stylegan2.SynthesisLayer, "forward", straightforward_layer))
            stack.enter_context(mock.patch.object(stylegan2.ToRGB, "forward", straightforward_torgb))
            stack.enter_context(mock.patch.object(stylegan2, "APART_FROM", math.inf))
        yield


@torch.inference_mode()
def seconds(network: StyleGAN2, batch: int, rounds: int) -> dict[str, float]:
    """Processor seconds for an image, the least of so many rounds, in each form; checks that the images agree."""
    latents = network.sample_latents(batch, torch.Generator().manual_seed(0))
    best = dict.fromkeys(FORMS, math.inf)
    images = {}
    for _ in range(rounds):
        for name in FORMS:
            with form(name):
                start = _clock()
                images[name] = network.synthesize(latents)
                best[name] = min(best[name], (_clock() - start) / batch)
    ours, other = (images[name] for name in FORMS)
    if (ours - other).abs().max() > 1e-3 * other.abs().max():
        raise AssertionError("the two forms make different images")
    return best


def _clock() -> float:
    """The process's own time: a busy machine lengthens the wall's. Divided by the threads it is seconds at full use."""
    return time.process_time() / torch.get_num_threads()


def in_own_process(function: Callable[..., None], *values: object) -> str:
    """Calls a function of this file in a new interpreter and returns what it prints."""
    code = f"from benchmarks.stylegan2 import *; {function.__name__}(*{values!r})"
    done = subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    return done.stdout.strip()


def peak_memory(name: str, resolution: int, batch: int) -> None:
    """Prints the process's peak resident memory in GiB after drawing a batch."""
    network = build(resolution)
    with torch.inference_mode(), form(name):
        network.synthesize(network.sample_latents(batch, torch.Generator().manual_seed(0)))
    print(f"{_peak() / 2**30:.2f}")


def _peak() -> float:
    """The process's peak resident memory in bytes; on Linux getrusage would count the parent's before exec."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return 1024 * float(line.split()[1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def loaded(path: str, resolution: int) -> None:
    """Loads weights from a safetensors file and prints the processor seconds of the process so far."""
    from safetensors.torch import load_file

    from_official(load_file(path), **arguments(resolution))
    print(f"{time.process_time():.2f}")


def load_time(resolution: int) -> tuple[float, float]:
    """Seconds from the start of a process to a loaded network: the wall's and the processor's."""
    from safetensors.torch import save_file

    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder, "model.safetensors"))
        save_file(build(resolution).state_dict(), path)
        start = time.perf_counter()
        own = float(in_own_process(loaded, path, resolution))
        return time.perf_counter() - start, own


def main() -> None:
    """Measures what the options ask for and prints one line each."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--resolution", type=int, nargs="+", default=[256, 1024])
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--rounds", type=int, default=3, help="how often each form is timed")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", choices=["speed", "memory", "load"], nargs="+", default=["speed", "memory", "load"])
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"torch {torch.__version__}, {platform.machine()}, {options.threads} thread(s)")
    for resolution in options.resolution:
        network = build(resolution) if "speed" in options.only else None
        for batch in options.batch:
            line = f"{resolution} px, batch {batch}:"
            if network is not None:
                ours, other = seconds(network, batch, options.rounds).values()
                line += f" {ours:.3f} s an image, straightforward {other:.3f} s, ratio {other / ours:.2f};"
            if "memory" in options.only:
                gib = [in_own_process(peak_memory, name, resolution, batch) for name in FORMS]
                line += f" peak {gib[0]} GiB, straightforward {gib[1]} GiB"
            print(line, flush=True)
        if "load" in options.only:
            wall, own = load_time(resolution)
            print(f"{resolution} px: loaded {wall:.1f} s after the start of the process ({own:.1f} s of it computing)")


if __name__ == "__main__":
    main()
