"""BigGAN at full size: seconds an image and peak memory, beside the straightforward form on the same random weights.

    python -m benchmarks.biggan --preset biggan-256 --batches 1 8

The straightforward form does as the published code does: it normalises every weight spectrally in each forward pass and
runs each layer by itself. Times are the least of the repeats, in seconds of the clock and of the processor (the latter
hold on a busy machine). Each form runs in a process of its own, for the peak of its memory.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clip2latent.generators import biggan

Images = Callable[[Tensor, Tensor], Tensor]


def straightforward(state: Mapping[str, Tensor], args: Mapping) -> Images:
    """Returns (z [B, Z], class vectors [B, V]) -> images of an official state dict, in the published code's steps."""

    def weight(layer: str) -> Tensor:
        w, u = state[f"{layer}.weight"], state.get(f"{layer}.u0")
        if u is None:
            return w
        with torch.no_grad():
            v = F.normalize(torch.matmul(u, w.view(len(w), -1)), eps=args["SN_eps"])
            u = F.normalize(torch.matmul(v, w.view(len(w), -1).t()), eps=args["SN_eps"])
        return w / torch.squeeze(torch.matmul(torch.matmul(v, w.view(len(w), -1).t()), u.t()))

    def conv(x: Tensor, layer: str) -> Tensor:
        w = weight(layer)
        return F.conv2d(x, w, state.get(f"{layer}.bias"), padding=w.shape[-1] // 2)

    def norm(x: Tensor, layer: str, y: Tensor) -> Tensor:
        x = F.batch_norm(x, state[f"{layer}.stored_mean"], state[f"{layer}.stored_var"], eps=args["BN_eps"])
        gain, bias = (
            F.linear(y, weight(f"{layer}.{name}") if args["G_shared"] else state[f"{layer}.{name}.weight"].t())
            for name in ("gain", "bias")
        )
        return x * (1 + gain[:, :, None, None]) + bias[:, :, None, None]

    def block(x: Tensor, name: str, y: Tensor) -> Tensor:
        h = F.interpolate(F.relu(norm(x, f"{name}.bn1", y)), scale_factor=2)
        h = conv(F.relu(norm(conv(h, f"{name}.conv1"), f"{name}.bn2", y)), f"{name}.conv2")
        return h + conv(F.interpolate(x, scale_factor=2), f"{name}.conv_sc")

    def attention(x: Tensor, name: str) -> Tensor:
        theta = conv(x, f"{name}.theta").flatten(2)
        phi, g = (F.max_pool2d(conv(x, f"{name}.{which}"), 2).flatten(2) for which in ("phi", "g"))
        beta = torch.softmax(torch.bmm(theta.transpose(1, 2), phi), -1)
        out = torch.bmm(g, beta.transpose(1, 2)).view(len(x), -1, *x.shape[2:])
        return state[f"{name}.gamma"] * conv(out, f"{name}.o") + x

    blocks = len({name.split(".")[1] for name in state if name.startswith("blocks.")})

    def images(z: Tensor, y: Tensor) -> Tensor:
        conditions = [y] * blocks
        if args["hier"]:
            z, *chunks = z.chunk(blocks + 1, dim=1)
            conditions = [torch.cat([y, chunk], 1) for chunk in chunks]
        side = args["bottom_width"]
        h = F.linear(z, weight("linear"), state["linear.bias"]).view(len(z), -1, side, side)
        for index, condition in enumerate(conditions):
            h = block(h, f"blocks.{index}.0", condition)
            if f"blocks.{index}.1.gamma" in state:
                h = attention(h, f"blocks.{index}.1")
        last = [state[f"output_layer.0.{name}"] for name in ("stored_mean", "stored_var", "gain", "bias")]
        return torch.tanh(conv(F.relu(F.batch_norm(h, *last, eps=1e-5)), "output_layer.2"))

    return images


def random_state(args: Mapping, seed: int = 0) -> dict[str, Tensor]:
    """Draws the official state dict of a BigGAN with these arguments: every weight, statistic and u0."""
    rng = torch.Generator().manual_seed(seed)
    with torch.device("meta"):
        generator = biggan.BigGAN(**args)
    state = {}
    for name, like in generator.state_dict().items():
        drawn = torch.randn(like.shape, generator=rng)
        if name.endswith("stored_var") or name.endswith("output_layer.0.gain"):
            drawn = 1 + drawn.abs()
        state[name] = drawn * like[0].numel() ** -0.5 if like.ndim > 1 else drawn
    if generator.init_args["G_param"] == "SN":
        for name, module in generator.named_modules():
            if isinstance(module, (nn.Linear, nn.Conv2d)):
                state[f"{name}.u0"] = F.normalize(torch.randn(1, len(module.weight), generator=rng))
    return state


class Clock(NamedTuple):
    """Seconds of the wall clock and of this process's processors."""

    wall: float
    cpu: float

    @classmethod
    def now(cls) -> Clock:
        return cls(time.perf_counter(), time.process_time())

    def until_now(self) -> Clock:
        now = Clock.now()
        return Clock(now.wall - self.wall, now.cpu - self.cpu)


class Measured(NamedTuple):
    """Least seconds a call, and the process's peak memory."""

    forward: Clock
    both: Clock
    peak_gib: float


def measure(form: str, preset: str, batch: int, repeats: int) -> Measured:
    """Times one of FORMS: forward without gradients, and forward and backward to the latents."""
    with torch.device("meta"):
        shape = biggan.BigGAN(**biggan.PRESETS[preset])
    state = random_state(shape.init_args)
    if form == "ours":
        images = biggan.from_official(state, **shape.init_args)
        del state
    else:
        for name, _ in shape.named_parameters():
            state[name].requires_grad_(form == NOT_FROZEN)
        images = straightforward(state, shape.init_args)
    rng = torch.Generator().manual_seed(1)
    z, y = (torch.randn(batch, width, generator=rng).requires_grad_() for width in (shape.z_width, shape.class_width))
    forward, both = [], []
    for _ in range(repeats):
        start = Clock.now()
        with torch.no_grad():
            images(z, y)
        forward.append(start.until_now())
        start = Clock.now()
        images(z, y).square().mean().backward()
        both.append(start.until_now())
    least = (Clock(*map(min, zip(*times, strict=True))) for times in (forward, both))
    return Measured(*least, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)


NOT_FROZEN = "straightforward, weight gradients"
FORMS = ("ours", "straightforward", NOT_FROZEN)


def main() -> None:
    """Prints seconds an image and peak memory of every form and batch, and how many times ours is faster."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="biggan-256", choices=biggan.PRESETS)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--forms", nargs="+", default=FORMS, choices=FORMS, help="the first is compared with the others"
    )
    options = parser.parse_args()
    print(f"{options.preset}, float32, {torch.get_num_threads()} threads, torch {torch.__version__}")
    print("seconds an image: wall clock / processor; (times the first form's)")
    spawn = multiprocessing.get_context("spawn")
    for batch in options.batches:
        first = None
        for form in options.forms:
            with spawn.Pool(1) as pool:
                found = pool.apply(measure, (form, options.preset, batch, options.repeats))
            first = first or found
            cells = []
            for name in ("forward", "both"):
                clock, ours = getattr(found, name), getattr(first, name)
                ratios = f"({clock.wall / ours.wall:.2f} / {clock.cpu / ours.cpu:.2f})"
                cells.append(f"{clock.wall / batch:7.2f} / {clock.cpu / batch:6.2f} {ratios}")
            print(
                f"batch {batch}  {form:34} forward {cells[0]}  with backward {cells[1]}  {found.peak_gib:.1f} GiB",
                flush=True,
            )


if __name__ == "__main__":
    main()
