"""Guided sampling against dalle2-pytorch's own: `python -m benchmarks.sampling`.

The paper's size, random weights, the same in all forms, 16 candidates of one prompt, guidance 2, float32. The library
runs without its padding of 256 text tokens. Its null branch drops the noised tokens too and ours keeps them, so the
guided results differ; that both branches are the library's function of what they are given is shown first. A step is
one guided prediction, a loop all that turns noise into latents: ours with the default sampler in 8 steps, reading the
prompt included (the null condition was read by an earlier prompt), the library's ancestral one in 1000, of which some
are timed and multiplied. All forms take turns in one process, so that what else the machine does meets all of them.
Where there is a GPU, milliseconds of the prior's loop, of StyleGAN2 at 1024 px and of CLIP ViT-B/32, at random weights,
and of all from the prompt to 16 ranked images follow.
"""

from __future__ import annotations

import argparse
import math
import platform
import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from dalle2_pytorch import DiffusionPrior, DiffusionPriorNetwork
from torch import Tensor

from benchmarks import stylegan2
from benchmarks.training import NAMES, TIMESTEPS, TRANSFORMER, WIDTH, pairs
from clip2latent.diffusion import Schedule, dpmpp_steps, guided, sample
from clip2latent.embedders import OpenCLIPEmbedder
from clip2latent.generators.stylegan2 import StyleGAN2
from clip2latent.latents import LatentSpace
from clip2latent.lean_prior import LeanPrior, PreparedPrior
from clip2latent.openclip import MEAN, STD, build_clip, build_tokenizer
from clip2latent.prior import LatentPrior
from clip2latent.text2image import TextToImage
from clip2latent.token_sampler import TokenSampler

CANDIDATES, GUIDANCE, STEPS = 16, 2.0, 8
VIT_B_32 = {
    "embed_dim": 512,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 224, "layers": 12, "width": 768, "patch_size": 32},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 512, "heads": 8, "layers": 12},
}


class Networks(NamedTuple):
    """The library's network and our prior, of the same weights."""

    library: DiffusionPriorNetwork
    prior: LatentPrior


def build() -> Networks:
    """Both networks, frozen, of random weights."""
    torch.manual_seed(0)
    network = DiffusionPriorNetwork(num_timesteps=TIMESTEPS, max_text_len=0, **TRANSFORMER)
    prior = LatentPrior(WIDTH, WIDTH, timesteps=TIMESTEPS, **TRANSFORMER)
    empty = prior.state_dict()
    names = {key: NAMES.get(key, key.replace("causal_transformer.", "transformer.")) for key in network.state_dict()}
    weights = {names[key]: value for key, value in network.state_dict().items() if names[key] in empty}
    prior.load_state_dict({name: value.view_as(empty[name]) for name, value in weights.items()})
    return Networks(*(part.eval().requires_grad_(False) for part in (network, prior)))


def inputs(device: str = "cpu") -> tuple[Tensor, Tensor]:
    """Noise [16, 1, 512] and one prompt's embedding [16, 512]."""
    noise, embeddings = pairs(CANDIDATES, device)
    return noise[:, None], embeddings[:1].expand(CANDIDATES, -1)


def check_same_function(networks: Networks) -> None:
    """Compares each branch to the library's at every timestep of the sampler, and prints the largest difference."""
    noise, embedding = inputs()
    t = dpmpp_steps(Schedule.cosine(TIMESTEPS), STEPS).t.repeat(CANDIDATES // STEPS)
    lean = LeanPrior(networks.prior)
    prepared, rows = (
        PreparedPrior(lean.follow, lean.remember(embedding[:1], t.unique())),
        torch.ones(CANDIDATES, 1).long(),
    )
    worst = 0.0
    for drop in (False, True):
        keep = torch.full((CANDIDATES,), not drop)
        theirs = networks.library(noise[:, 0], t, text_embed=embedding, text_cond_drop_prob=float(drop))
        for found in (networks.prior(noise, t, embedding, keep), prepared(noise, t, rows, keep)):
            torch.testing.assert_close(found[:, 0], theirs, rtol=0, atol=1e-5)
            worst = max(worst, (found[:, 0] - theirs).abs().max().item())
    print(f"each branch is the library's to {worst:.1e}")


def steps(networks: Networks) -> dict[str, Callable[[], Tensor]]:
    """One guided prediction, in each form."""
    noise, embedding = inputs()
    t = torch.full((CANDIDATES,), TIMESTEPS // 2)
    rows, lean = torch.ones(CANDIDATES, 1).long(), LeanPrior(networks.prior)
    prepared = PreparedPrior(lean.follow, lean.remember(embedding[:1], t[:1]))
    plain, ours = guided(networks.prior, embedding, GUIDANCE), guided(prepared, rows, GUIDANCE)
    theirs = networks.library.forward_with_cond_scale
    return {
        "library": lambda: theirs(noise[:, 0], t, text_embed=embedding, cond_scale=GUIDANCE),
        "LatentPrior": lambda: plain(noise, t),
        "lean": lambda: ours(noise, t),
    }


def loops(networks: Networks, timed: int) -> dict[str, Callable[[], Tensor]]:
    """From noise to latents, in each form; of the library's 1000 steps as many as are to be timed."""
    noise, embedding = inputs()
    table = dpmpp_steps(Schedule.cosine(TIMESTEPS), STEPS)
    diffusion = DiffusionPrior(
        networks.library,
        image_embed_dim=WIDTH,
        timesteps=TIMESTEPS,
        cond_drop_prob=0.2,
        condition_on_text_encodings=False,
    ).eval()
    sampler, rng = TokenSampler(networks.prior), torch.Generator().manual_seed(0)

    def library() -> Tensor:
        x = noise[:, 0]
        for t in range(TIMESTEPS - 1, TIMESTEPS - 1 - timed, -1):
            t = torch.full((CANDIDATES,), t)
            x, _ = diffusion.p_sample(x, t, text_cond={"text_embed": embedding}, cond_scale=GUIDANCE)
        return x

    return {
        "library": library,
        "LatentPrior": lambda: sample(guided(networks.prior, embedding, GUIDANCE), noise, table, rng),
        "lean": lambda: sampler(noise, embedding, table, rng, GUIDANCE),
    }


def seconds(forms: dict[str, Callable[[], Tensor]], rounds: int) -> dict[str, float]:
    """Processor seconds of each form: the least of so many rounds, after one that is not timed."""
    best = dict.fromkeys(forms, math.inf)
    for index in range(rounds + 1):
        for name, form in forms.items():
            start = _clock()
            form()
            if index:
                best[name] = min(best[name], _clock() - start)
    return best


def _clock() -> float:
    """The process's own time: a busy machine lengthens the wall's. Divided by the threads it is seconds at full use."""
    return time.process_time() / torch.get_num_threads()


def full_size(prior: LatentPrior, device: str, half: bool) -> TextToImage:
    """The prior with StyleGAN2 at 1024 px and CLIP ViT-B/32, of random weights; in half precision where asked for."""
    arguments = stylegan2.arguments(1024) | ({"half_dtype": "float16"} if half else {})
    generator = StyleGAN2(**arguments).eval().requires_grad_(False)
    clip = OpenCLIPEmbedder(
        build_clip(VIT_B_32), build_tokenizer(VIT_B_32), 77, WIDTH, 224, MEAN, STD, chunk=CANDIDATES
    )
    space = LatentSpace((18,), torch.zeros(1, WIDTH), torch.ones(1, WIDTH))
    clip.clip.to(torch.float16 if half else torch.float32)
    prior.to(torch.bfloat16 if half else torch.float32)
    prior, space, generator, clip = (part.to(device) for part in (prior, space, generator, clip))
    return TextToImage(prior, space, Schedule.cosine(TIMESTEPS), generator, clip, {"guidance": GUIDANCE})


def milliseconds(pipeline: TextToImage, rounds: int, device: str) -> dict[str, float]:
    """Wall milliseconds of each part for 16 candidates, and from the prompt to 16 ranked images, after a warm-up."""
    noise, embedding = inputs(device)
    table, sampler = dpmpp_steps(pipeline.schedule, STEPS), TokenSampler(pipeline.prior)
    latents = pipeline.generator.sample_latents(CANDIDATES, torch.Generator().manual_seed(0)).to(device)
    images = pipeline.draw(latents)
    works = {
        "prior": lambda: sampler(noise, embedding, table, torch.Generator(), GUIDANCE),
        "generator": lambda: pipeline.draw(latents),
        "CLIP": lambda: pipeline.embedder.embed_images(images),
        "from prompt to ranked images": lambda: pipeline.generate(["a face"], num=CANDIDATES, candidates=CANDIDATES),
    }
    return {name: _wall(work, rounds, device) for name, work in works.items()}


def _wall(work: Callable[[], object], rounds: int, device: str) -> float:
    """Mean wall milliseconds of a call, after some that are not timed."""
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    for measured in (False, True):
        wait()
        start = time.perf_counter()
        for _ in range(rounds if measured else 3):
            work()
        wait()
    return 1000 * (time.perf_counter() - start) / rounds


@torch.no_grad()
def main() -> None:
    """Measures what the options ask for and prints one line each."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=5, help="how often each form is timed")
    parser.add_argument("--timed", type=int, default=4, help="steps of the library's 1000 that are timed")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"torch {torch.__version__}, {platform.machine()}, {options.threads} thread(s)")
    networks = build()
    check_same_function(networks)
    step = seconds(steps(networks), options.rounds)
    loop = seconds(loops(networks, options.timed), options.rounds)
    loop["library"] *= TIMESTEPS / options.timed
    for name, best in (("guided step", step), (f"{STEPS} steps, library {TIMESTEPS}", loop)):
        print(f"{name}: " + ", ".join(f"{form} {value:.4f} s" for form, value in best.items()), flush=True)
        for own in ("LatentPrior", "lean"):
            print(f"  {own}: {best['library'] / best[own]:.2f} times as fast as the library", flush=True)
    if torch.cuda.is_available():
        for half in (False, True):
            parts = milliseconds(full_size(networks.prior, "cuda", half), 20, "cuda")
            line = ", ".join(f"{name} {value:.2f} ms" for name, value in parts.items())
            print(f"{torch.cuda.get_device_name()}, {'half' if half else 'float32'}: {line}", flush=True)


if __name__ == "__main__":
    main()
