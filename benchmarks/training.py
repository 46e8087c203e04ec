"""A training step against dalle2-pytorch's own: `python -m benchmarks.training`.

The paper's size, random weights. The library's DiffusionPrior is driven by its DiffusionPriorTrainer, once with its
default padding of 256 text tokens and once without. All forms are timed in turns in one process, so that what else the
machine does meets all of them. A step is forward, backward, clipping and optimizer, and a tenth of an update of the
average, which both sides make every ten steps. Before that, both networks are shown to be one function. Where there is
a GPU, steps per second at batch 512 in bf16 follow.
"""

from __future__ import annotations

import argparse
import math
import platform
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
from dalle2_pytorch import DiffusionPrior, DiffusionPriorNetwork
from dalle2_pytorch.trainer import DiffusionPriorTrainer
from torch import Tensor
from torch.nn import functional as F

from clip2latent.average import PriorAverage
from clip2latent.data import Pairs
from clip2latent.training import PriorTraining

WIDTH, TIMESTEPS = 512, 1000
TRANSFORMER = {"dim": WIDTH, "depth": 12, "dim_head": 64, "heads": 12}
MAX_NORM = 1.0
AVERAGE_EVERY = 10
FORMS = ("eager", "compiled", "unpadded", "padded")
NAMES = {"learned_query": "queries", "null_text_embeds": "null_embedding", "to_time_embeds.0.weight": "time.weight"}


class Form(NamedTuple):
    """One way to train: a step on (latents [B, 512], embeddings [B, 512]) and an update of the average."""

    step: Callable[[Tensor, Tensor], Any]
    average: Callable[[], Any]


def ours(device: str = "cpu", compiled: str | None = None, autocast: bool = False) -> Form:
    """Our training step as Lightning runs it.

    Args:
        device: where to train.
        compiled: torch.compile's mode; None trains without.
        autocast: whether in bf16.
    """
    torch.manual_seed(0)
    shapes = {"embedding_dim": WIDTH, "groups": [1], "latent_mean": [[0.0] * WIDTH], "latent_std": [[1.0] * WIDTH]}
    module = PriorTraining(shapes, timesteps=TIMESTEPS, **TRANSFORMER).to(device).train()
    optimizer = module.configure_optimizers()["optimizer"]
    predict = torch.compile(module.prior.forward, dynamic=False, mode=compiled) if compiled else None
    rng = torch.Generator(device).manual_seed(0)
    average = PriorAverage(every_n_steps=AVERAGE_EVERY)
    trainer: Any = SimpleNamespace(global_step=0)
    average.on_fit_start(trainer, module)

    def step(latents: Tensor, embeddings: Tensor) -> None:
        optimizer.zero_grad()  # Before the forward pass: with CUDA graphs it would write over the gradients.
        with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=autocast):
            loss = module.loss(Pairs(latents[:, None], embeddings), rng, predict=predict)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(module.prior.parameters(), MAX_NORM)
        optimizer.step()

    def update() -> None:
        trainer.global_step += AVERAGE_EVERY
        average.on_train_batch_end(trainer, module)

    return Form(step, update)


def librarys(max_text_len: int) -> Form:
    """A training step of dalle2-pytorch's trainer on the processor; its default max_text_len is 256."""
    torch.manual_seed(0)
    network = DiffusionPriorNetwork(num_timesteps=TIMESTEPS, max_text_len=max_text_len, **TRANSFORMER)
    prior = DiffusionPrior(
        network, image_embed_dim=WIDTH, timesteps=TIMESTEPS, cond_drop_prob=0.2, condition_on_text_encodings=False
    )
    options = {"accelerator_cpu": True, "ema_beta": 0.9999, "ema_update_every": AVERAGE_EVERY}
    trainer = DiffusionPriorTrainer(prior, max_grad_norm=MAX_NORM, **options).train()
    average = trainer.ema_diffusion_prior
    average.update()  # The first call only copies.

    def step(latents: Tensor, embeddings: Tensor) -> None:
        average.step.fill_(AVERAGE_EVERY**3 + 1)  # Not its turn; the average is timed apart.
        trainer(text_embed=embeddings, image_embed=latents.clone())  # It scales image_embed in place.
        trainer.update()

    def update() -> None:
        average.step.fill_(AVERAGE_EVERY**3)
        average.update()

    return Form(step, update)


BUILD: dict[str, Callable[[], Form]] = {
    "eager": ours,
    "compiled": lambda: ours(compiled="default"),
    "unpadded": lambda: librarys(0),
    "padded": lambda: librarys(256),
}


def pairs(batch: int, device: str = "cpu") -> tuple[Tensor, Tensor]:
    """Random latents and embeddings [B, 512] each."""
    rng = torch.Generator().manual_seed(1)
    latents, embeddings = (torch.randn(batch, WIDTH, generator=rng) for _ in range(2))
    return latents.to(device), F.normalize(embeddings, dim=-1).to(device)


@torch.no_grad()
def check_same_function() -> None:
    """Compares our prior to the library's network without padding, with the same weights."""
    from clip2latent.prior import LatentPrior

    network = DiffusionPriorNetwork(num_timesteps=TIMESTEPS, max_text_len=0, **TRANSFORMER)
    prior = LatentPrior(WIDTH, WIDTH, timesteps=TIMESTEPS, **TRANSFORMER)
    empty = prior.state_dict()
    names = {key: NAMES.get(key, key.replace("causal_transformer.", "transformer.")) for key in network.state_dict()}
    weights = {names[key]: value for key, value in network.state_dict().items() if names[key] in empty}
    prior.load_state_dict({name: value.view_as(empty[name]) for name, value in weights.items()})
    latents, embeddings = pairs(4)
    t = torch.tensor([0, 10, 500, 999])
    theirs = network(latents, t, text_embed=embeddings)
    torch.testing.assert_close(prior(latents[:, None], t, embeddings)[:, 0], theirs, rtol=0, atol=1e-5)


def seconds(forms: dict[str, Form], batch: int, rounds: int) -> dict[str, float]:
    """Processor seconds of a step of each form: the least of so many rounds, after one that is not timed."""
    latents, embeddings = pairs(batch)
    steps, averages = ({name: math.inf for name in forms} for _ in range(2))
    for index in range(rounds + 1):
        for name, form in forms.items():
            start = _clock()
            form.step(latents, embeddings)
            middle = _clock()
            form.average()
            if index:
                steps[name] = min(steps[name], middle - start)
                averages[name] = min(averages[name], _clock() - middle)
    return {name: steps[name] + averages[name] / AVERAGE_EVERY for name in forms}


def _clock() -> float:
    """The process's own time: a busy machine lengthens the wall's. Divided by the threads it is seconds at full use."""
    return time.process_time() / torch.get_num_threads()


def steps_per_second(form: Form, batch: int, steps: int = 200) -> float:
    """Training steps per second of wall time on the GPU, averages included, after a warm-up that compiles."""
    data = pairs(batch, "cuda")
    for measured in (False, True):
        torch.cuda.synchronize()
        start = time.perf_counter()
        for index in range(steps if measured else 20):
            form.step(*data)
            if index % AVERAGE_EVERY == 0:
                form.average()
        torch.cuda.synchronize()
    return steps / (time.perf_counter() - start)


def main() -> None:
    """Measures what the options ask for and prints one line each."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--batch", type=int, nargs="+", default=[32])
    parser.add_argument("--rounds", type=int, default=3, help="how often each form is timed")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--forms", choices=FORMS, nargs="+", default=FORMS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"torch {torch.__version__}, {platform.machine()}, {options.threads} thread(s)")
    check_same_function()
    forms = {name: BUILD[name]() for name in options.forms}
    for batch in options.batch:
        best = seconds(forms, batch, options.rounds)
        print(f"batch {batch}: " + ", ".join(f"{name} {value:.3f} s" for name, value in best.items()), flush=True)
        for own in best.keys() & {"eager", "compiled"}:
            for other in best.keys() & {"unpadded", "padded"}:
                print(f"  ours {own}: {best[other] / best[own]:.2f} times as fast as the library {other}", flush=True)
    if torch.cuda.is_available():
        for mode in (None, "default", "reduce-overhead"):
            rate = steps_per_second(ours("cuda", mode, autocast=True), 512)
            print(f"{torch.cuda.get_device_name()}, batch 512, bf16, compile {mode}: {rate:.0f} it/s", flush=True)


if __name__ == "__main__":
    main()
