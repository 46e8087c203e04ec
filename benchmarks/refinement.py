"""One iteration of refinement against the original's way: `python -m benchmarks.refinement`.

An iteration draws an image from a latent with a BigGAN-256, sees it in random views with CLIP ViT-B/32, and takes the
loss's gradient to the latent; both networks are of full size, at random weights, the same in all forms, in float32. The
original's way is what gnobitab/FuseDream does: the weights are normalised spectrally in each pass, 50 views are written
as copies of the image and augmented by DiffAugment's steps, one after the other, and the text is embedded each time.
Its CLIP is open_clip's with the layout of OpenAI's own code, which is the faster of the two for frozen weights. Ours
bakes the norm, embeds the text before the first iteration, gathers the views from the one image and embeds 16 of them
at once, by the embedder's forms. That both augmentations are the same function is shown first.

Times are the process's own, and all forms take turns in one process, so that what else the machine does meets all of
them. Peak memory is that of a process that makes one iteration, networks included.
"""

from __future__ import annotations

import argparse
import multiprocessing
import platform
import resource
from collections.abc import Callable
from copy import deepcopy
from typing import NamedTuple

import open_clip
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.biggan import random_state, straightforward
from benchmarks.sampling import VIT_B_32, seconds
from clip2latent.augment import Augment, Views, apply_views
from clip2latent.embedders import OpenCLIPEmbedder
from clip2latent.generators import biggan
from clip2latent.lean_clip import tokens_first_
from clip2latent.objectives import augclip_objective
from clip2latent.openclip import MEAN, STD, build_clip, build_tokenizer

SIDE, SEEN, COPIES, VIEWS = 256, 224, 50, 16
TEXT = ["a photo of a blue dog"]
FORMS = ("original, 50 views", "ours, 50 views", "ours, 16 views")


class Latent(NamedTuple):
    """z [1, Z] and a class vector [1, V], both with gradients."""

    z: Tensor
    y: Tensor


def augmented_copies(images: Tensor, views: Views) -> Tensor:
    """Augments V copies of an image [1, 3, R, R] by DiffAugment's steps and resizes them to 224: [V, 3, 224, 224].

    As in the original, one resize serves the whole batch: the first view's.
    """
    num, side = len(views.ratio), images.shape[-1]
    x = images.repeat(num, 1, 1, 1)
    x = x + views.brightness.view(-1, 1, 1, 1)
    grey = x.mean(1, keepdim=True)
    x = (x - grey) * views.saturation.view(-1, 1, 1, 1) + grey
    mean = x.mean((1, 2, 3), keepdim=True)
    x = (x - mean) * views.contrast.view(-1, 1, 1, 1) + mean

    reach, along = int(side * 0.125 + 0.5), torch.arange(side)
    shift = (views.shift * (2 * reach + 1)).floor().long() - reach
    rows, columns = ((along + shift[:, axis, None] + 1).clamp(0, side + 1) for axis in (0, 1))
    each = torch.arange(num).view(-1, 1, 1)
    x = F.pad(x, (1, 1, 1, 1)).permute(0, 2, 3, 1).contiguous()
    x = x[each, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2).contiguous()

    inner = int(float(views.ratio[0]) * side)
    x = F.interpolate(x, (inner, inner), mode="bilinear")
    margin = abs(side - inner) // 2
    if inner < side:
        x = F.pad(x, (margin, side - inner - margin) * 2)
    else:
        x = x[:, :, margin : margin + side, margin : margin + side]

    hole = int(side * 0.5 + 0.5)
    centre = (views.centre * (side + 1 - hole % 2)).floor().long() - hole // 2
    rows, columns = ((torch.arange(hole) + centre[:, axis, None]).clamp(0, side - 1) for axis in (0, 1))
    mask = torch.ones(num, side, side)
    mask[each, rows[:, :, None], columns[:, None, :]] = 0
    return F.interpolate(x * mask[:, None], (SEEN, SEEN), mode="bilinear")


def build_embedder() -> OpenCLIPEmbedder:
    """CLIP ViT-B/32 at random weights."""
    torch.manual_seed(0)
    return OpenCLIPEmbedder(build_clip(VIT_B_32), build_tokenizer(VIT_B_32), 77, 512, SEEN, MEAN, STD)


def build_original_clip() -> open_clip.CLIP:
    """The same CLIP as OpenAI's code computes it: tokens before images, and the patches by a strided convolution."""
    torch.manual_seed(0)
    clip = open_clip.CLIP(**deepcopy(VIT_B_32)).eval().requires_grad_(False)
    tokens_first_(clip)
    return clip


def build_iteration(form: str, embedder: OpenCLIPEmbedder) -> Callable[[], Tensor]:
    """Returns one of FORMS: each call makes an iteration and returns the gradients to the latent, as one vector."""
    with torch.device("meta"):
        shape = biggan.BigGAN(**biggan.PRESETS["biggan-256"])
    state, rng = random_state(shape.init_args), torch.Generator().manual_seed(1)
    latent = Latent(
        *(torch.randn(1, width, generator=rng).requires_grad_() for width in (shape.z_width, shape.class_width))
    )
    if form == FORMS[0]:
        generator, clip = straightforward(state, shape.init_args), build_original_clip()

        def objective(images: Tensor) -> Tensor:
            copies = augmented_copies(images, Augment().draw(COPIES, rng))
            seen = clip.encode_image(((copies + 1) / 2 - embedder.mean) / embedder.std, normalize=True)
            return 1 - seen @ clip.encode_text(embedder.tokenizer(TEXT), normalize=True)[0]
    else:
        generator = biggan.from_official(state, **shape.init_args)
        views = COPIES if form == FORMS[1] else VIEWS
        objective = augclip_objective(embedder, embedder.embed_text(TEXT), views=views, rng=rng)

    def iterate() -> Tensor:
        return torch.cat(torch.autograd.grad(objective(generator(*latent)).mean(), latent), 1)

    return iterate


def build_augmentations(views: int) -> dict[str, Callable[[], tuple[Tensor, Tensor]]]:
    """Both augmentations, of one image and the same views: each call returns the views and the image's gradient."""
    rng = torch.Generator().manual_seed(0)
    image = (torch.rand(1, 3, SIDE, SIDE, generator=rng) * 2 - 1).requires_grad_()
    outer = torch.randn(views, 3, SEEN, SEEN, generator=rng)
    drawn = Augment().draw(views, rng)
    drawn = drawn._replace(ratio=drawn.ratio[:1].expand(views))

    def both(augment: Callable[[], Tensor]) -> tuple[Tensor, Tensor]:
        seen = augment()
        return seen.detach(), torch.autograd.grad(seen, image, outer)[0]

    return {
        "copies": lambda: both(lambda: augmented_copies(image, drawn)),
        "gathered": lambda: both(lambda: apply_views(image, drawn, SEEN)[0]),
    }


def check_same_function(forms: dict[str, Callable[[], tuple[Tensor, Tensor]]]) -> None:
    """Compares views and gradients of both augmentations, and prints the largest differences."""
    (views, gradient), (copies, expected) = forms["gathered"](), forms["copies"]()
    torch.testing.assert_close(views, copies, rtol=0, atol=1e-5)
    torch.testing.assert_close(gradient, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))
    worst = [(found - other).abs().max().item() for found, other in ((views, copies), (gradient, expected))]
    print(f"gathered views are the copies to {worst[0]:.1e}, their gradients to {worst[1]:.1e}", flush=True)


def peak_gib(form: str) -> float:
    """Makes one iteration of a form and returns this process's peak memory."""
    torch.set_num_threads(1)
    build_iteration(form, build_embedder())()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> None:
    """Measures augmentation, iterations and peak memory and prints a line each."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=5, help="how often each form is timed")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"torch {torch.__version__}, {platform.machine()}, {options.threads} thread(s), float32", flush=True)
    # First, for a process inherits its parent's peak.
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        peaks = pool.map(peak_gib, FORMS, chunksize=1)
    print(
        "peak memory: " + ", ".join(f"{form} {peak:.1f} GiB" for form, peak in zip(FORMS, peaks, strict=True)),
        flush=True,
    )
    augmentations = build_augmentations(VIEWS)
    check_same_function(augmentations)
    report(f"augmentation of {VIEWS} views with its gradient", seconds(augmentations, options.rounds))
    embedder = build_embedder()
    report("iteration", seconds({form: build_iteration(form, embedder) for form in FORMS}, options.rounds))


def report(name: str, best: dict[str, float]) -> None:
    """Prints seconds of every form, and how many times as fast as the first the others are."""
    print(f"{name}: " + ", ".join(f"{form} {value:.4f} s" for form, value in best.items()))
    first, *others = best
    for form in others:
        print(f"  {form}: {best[first] / best[form]:.2f} times as fast", flush=True)


if __name__ == "__main__":
    main()
