"""The command that composes two images. Whatever is slow to import is imported inside it."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from typing import Any

from clip2latent.cli_generate import warn_of_unknown_words
from clip2latent.cli_search import _generator_spec, load_banks
from clip2latent.outputs import choose_folder, slug
from clip2latent.progress import progress_bar

SCALES = (0.4, 0.55, 0.7)
HELD_OUT_VIEWS, HELD_OUT_SEED = 64, 2**31


def compose(
    prompt: str,
    foreground: str | None = None,
    background: str | None = None,
    generator: str = "demo-objects",
    foreground_generator: str | None = None,
    embedder: str = "demo",
    scales: list[float] | None = None,
    locations: list[str] | None = None,
    steps: int = 200,
    way: str = "bilevel",
    weight: float = 1.0,
    perceptual: str = "features",
    search: str = "halving",
    basis: int = 5,
    weights: str = "shared",
    candidates: int = 1000,
    views: int = 16,
    lr: float = 0.005,
    seed: int = 0,
    out: str | None = None,
    overwrite: bool = False,
    chunk: int = 9,
) -> None:
    """Pastes one generated image onto another and optimises both, its size and its place for a prompt.

    FuseDream's composed generation. Ctrl-C writes the best so far.

    Args:
        prompt: What the whole picture shows.
        foreground: What the pasted image starts from: a text such as "a red fish", or latents of results, as
            outputs/a-fish-1 or a .safetensors file (default: the prompt).
        background: Likewise for what it is pasted onto.
        generator: Draws both: an embedded generator (demo-objects, demo-avatars), a folder, a file,
            hf://owner/name/file, or a yaml file as in configs/generator/.
        foreground_generator: Draws the foreground, where that is another.
        embedder: The CLIP that compares picture and prompt: demo, a yaml file as in configs/embedder/, a folder,
            MODEL/TAG of open_clip, or hf-hub:owner/name.
        scales: Sizes to try, the foreground's side over the background's, as [0.4,0.55,0.7] (the default).
        locations: Places to try, as [top,centre,bottom-left] (default: all nine).
        steps: Of the size and place that wins.
        way: bilevel, the prompt first and the seam second; linear, their sum; inverted, the seam first.
        weight: Of the seam in the sum, or how steadily the loss that comes first must fall.
        perceptual: How the seam is measured: features of the CLIP, its embeddings of crops, or lpips (it needs: pip
            install "clip2latent[lpips]").
        search: halving, which goes on with the better half of sizes and places again and again; or all, every one with
            all steps.
        basis: Latents that each image is a mixture of.
        weights: Of the mixture, shared by all of a latent's numbers, or each its own.
        candidates: Random images that a text's basis is chosen from.
        views: Augmented views of the picture that the CLIP sees at each step.
        lr: Learning rate, in units of the latents' spread.
        seed: The same seed gives the same picture.
        out: Output folder (default: a new one, outputs/compose-<prompt>-<number>).
        overwrite: Write into an output folder that already holds files.
        chunk: Sizes and places optimised at once; fewer need less memory.
    """
    from clip2latent.prompts import check_prompts

    check_prompts([prompt, *(text for text in (foreground, background) if text is not None)])
    texts = {"foreground": foreground or prompt, "background": background or prompt}
    folder = choose_folder(out, f"compose-{slug(prompt, 40)}", overwrite)
    import torch

    from clip2latent.bank import Banks, bank_folder
    from clip2latent.compose import compose as search_composition
    from clip2latent.composition import Composing, Part, draw_candidates
    from clip2latent.composition_files import save_composed
    from clip2latent.halving import SEARCHES, total_steps
    from clip2latent.objectives import augclip_objective
    from clip2latent.paste import LOCATIONS, Placement, check_placement
    from clip2latent.perceptual import DISTANCES
    from clip2latent.saved import is_saved
    from clip2latent.spec import ModelSpec

    composing = Composing(steps, lr, way, weight, search, weights, seed=seed, chunk=chunk)
    sizes, places = list(dict.fromkeys(scales or SCALES)), list(dict.fromkeys(locations or LOCATIONS))
    tried = [check_placement(Placement(scale, place)) for scale in sizes for place in places]
    if perceptual not in DISTANCES:
        raise ValueError(f"perceptual={perceptual!r}: expected one of {', '.join(DISTANCES)}")
    if not 1 <= basis <= candidates:
        raise ValueError(f"basis={basis}: expected 1 to candidates={candidates}")
    sources = {"foreground": foreground_generator or generator, "background": generator}
    behind, known = load_banks(generator, embedder, "auto", 64)
    clip, loaded, specs = behind.embedder, {generator: behind}, {"background": known["generator"]}
    if sources["foreground"] != generator:
        spec = _generator_spec(sources["foreground"])
        draws = spec.build().to(behind.device).eval().requires_grad_(False)
        loaded[sources["foreground"]] = Banks(draws, clip, bank_folder(), behind.device)
        specs["foreground"] = ModelSpec.of(spec.class_path, spec.init_args, draws)
    else:
        specs |= {"foreground": known["generator"], "generator": known["generator"]}
    distance = DISTANCES[perceptual](clip)
    warn_of_unknown_words(clip, [prompt, *(text for text in texts.values() if not is_saved(text))])
    started, parts = time.monotonic(), []
    for name, source in sources.items():
        banks = loaded[source]
        drawn = banks.generator.sample_latents(256, torch.Generator().manual_seed(seed))
        unit = drawn.std(dim=0).clamp_min(1e-3).to(banks.device)
        parts.append(Part(banks.generator, _start(name, texts[name], banks, basis, candidates, seed), unit))
    with torch.no_grad():
        target = clip.embed_text([prompt])[0]
    rng, own = (torch.Generator().manual_seed(number) for number in (seed, HELD_OUT_SEED))
    objective = augclip_objective(clip, target, views=views, rng=rng)
    held_out = augclip_objective(clip, target, views=HELD_OUT_VIEWS, rng=own, fixed=True)
    with progress_bar("composing", total_steps(SEARCHES[search](len(tried), steps))) as bar:
        made = search_composition(*parts, objective, distance, tried, composing, held_out, _watch(bar), rng)
    for placement in made.broken:
        print(f"warning: {placement}: the loss ceased to be a number; what was best before is kept", file=sys.stderr)
    options = {"command": "compose", "prompt": prompt, **texts, "generator": generator}
    options |= {"foreground_generator": sources["foreground"], "embedder": embedder, "scales": sizes}
    options |= {"locations": places, "steps": steps, "way": way, "weight": weight, "perceptual": perceptual}
    options |= {"search": search, "basis": basis, "weights": weights, "candidates": candidates, "views": views}
    options |= {"lr": lr, "seed": seed, "interrupted": made.interrupted}
    models = {name: spec.to_dict() for name, spec in (specs | {"embedder": known["embedder"]}).items()}
    save_composed(folder, prompt, made.candidates, draw_candidates(*parts, made.candidates, chunk), options, models)
    best = made.candidates[0]
    print(
        f"size and place {best.placement}: AugCLIP score {1 - best.best.primary:.3f}, perceptual distance"
        f" {best.best.secondary:.3f}, in {time.monotonic() - started:.1f} s"
    )
    print(f"{folder / 'grid.png'}: the best of each size and place")
    print(f"{folder}{os.sep}*.png, results.json, foreground.safetensors, background.safetensors")
    if made.interrupted:
        print("interrupted: the best so far was written", file=sys.stderr)
        raise SystemExit(130)


def _start(name: str, text: str, banks: Any, basis: int, candidates: int, seed: int) -> Any:
    """Returns the basis [M, L, D] of a text, the best of random latents, or of results, their first ones."""
    from clip2latent.saved import is_saved, read_saved

    if not is_saved(text):
        target = banks.embedder.embed_text([text])
        with progress_bar(f"searching a {name}", candidates) as bar:
            return banks.of(seed).pick(target, candidates, basis, bar.update).latents[0].to(banks.device)
    latents, wanted = read_saved(text).latents.flatten(0, 1), tuple(banks.generator.latent_shape)
    if tuple(latents.shape[1:]) != wanted:
        raise ValueError(
            f"{name}: {text} holds latents {tuple(latents.shape[1:])} (L, D), but the generator takes {wanted}: name"
            " the generator that drew them by --generator or --foreground-generator"
        )
    return latents[:basis].to(banks.device)


def _watch(bar: Any) -> Callable[[Any], None]:
    """Returns what shows a report on a bar."""
    done = 0

    def show(report: Any) -> None:
        nonlocal done
        bar.set_postfix_str(
            f"best {1 - report.best.best.primary:.3f} at {report.best.placement}, {report.left} left", refresh=False
        )
        bar.update(report.done - done)
        done = report.done

    return show
