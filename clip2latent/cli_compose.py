"""The command that composes two images. Whatever is slow to import is imported inside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from clip2latent.cli_banks import generator_spec, load_banks
from clip2latent.cli_compose_run import Models, carry_out
from clip2latent.cli_generate import warn_of_unknown_words
from clip2latent.outputs import choose_folder, slug
from clip2latent.progress import progress_bar

SCALES = (0.4, 0.55, 0.7)


def compose(
    prompt: str | None = None,
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
    edges: str = "seamless",
    search: str = "halving",
    basis: int = 5,
    weights: str = "shared",
    candidates: int = 1000,
    views: int = 16,
    lr: float = 0.005,
    every: int | None = None,
    resume: str | None = None,
    seed: int = 0,
    out: str | None = None,
    overwrite: bool = False,
    chunk: int = 9,
) -> None:
    """Pastes one generated image onto another and optimises both, its size and its place for a prompt.

    FuseDream's composed generation. Ctrl-C writes the best so far; --resume goes on from there.

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
        edges: seamless, which has the pasted image's colours meet those around it; soft, which fades them out; or hard,
            as the paper pastes.
        search: halving, which goes on with the better half of sizes and places again and again; or all, every one with
            all steps.
        basis: Latents that each image is a mixture of.
        weights: Of the mixture, shared by all of a latent's numbers, or each its own.
        candidates: Random images that a text's basis is chosen from.
        views: Augmented views of the picture that the CLIP sees at each step.
        lr: Learning rate, in units of the latents' spread.
        every: Write a picture of the best so far after each so many steps, of all sizes and places together.
        resume: A folder to go on in, with the options it began with.
        seed: The same seed gives the same picture.
        out: Output folder (default: a new one, outputs/compose-<prompt>-<number>).
        overwrite: Write into an output folder that already holds files.
        chunk: Sizes and places optimised at once; fewer need less memory.
    """
    if every is not None and every < 1:
        raise ValueError(f"every={every}: expected at least 1")
    if resume is not None:
        _go_on(resume, prompt, every)
        return
    if prompt is None:
        raise ValueError('nothing to compose: say what the whole shows, as "a red fish next to a blue boat"')
    from clip2latent.prompts import check_prompts

    check_prompts([prompt, *(text for text in (foreground, background) if text is not None)])
    texts = {"foreground": foreground or prompt, "background": background or prompt}
    folder = choose_folder(out, f"compose-{slug(prompt, 40)}", overwrite)
    import torch

    from clip2latent.composition import Composing
    from clip2latent.composition_run import Run
    from clip2latent.paste import LOCATIONS, Placement, check_placement
    from clip2latent.perceptual import DISTANCES
    from clip2latent.saved import is_saved

    composing = Composing(steps, lr, way, weight, search, weights, edges, seed=seed, chunk=chunk)
    sizes, places = list(dict.fromkeys(scales or SCALES)), list(dict.fromkeys(locations or LOCATIONS))
    tried = [check_placement(Placement(scale, place)) for scale in sizes for place in places]
    if perceptual not in DISTANCES:
        raise ValueError(f"perceptual={perceptual!r}: expected one of {', '.join(DISTANCES)}")
    if not 1 <= basis <= candidates:
        raise ValueError(f"basis={basis}: expected 1 to candidates={candidates}")
    sources = {"foreground": foreground_generator or generator, "background": generator}
    loaded, models = _load(sources, embedder)
    clip = loaded["background"].embedder
    DISTANCES[perceptual](clip)  # says at once what is missing
    warn_of_unknown_words(clip, [prompt, *(text for text in texts.values() if not is_saved(text))])
    parts = {}
    for name, banks in loaded.items():
        drawn = banks.generator.sample_latents(256, torch.Generator().manual_seed(seed))
        unit = drawn.std(dim=0).clamp_min(1e-3).to(banks.device)
        parts[name] = torch.cat([_start(name, texts[name], banks, basis, candidates, seed), unit[None]])
    options = {"command": "compose", "prompt": prompt, **texts, "generator": generator}
    options |= {"foreground_generator": sources["foreground"], "embedder": embedder, "scales": sizes}
    options |= {"locations": places, "steps": steps, "way": way, "weight": weight, "perceptual": perceptual}
    options |= {"edges": edges, "search": search, "basis": basis, "weights": weights, "candidates": candidates}
    options |= {"views": views, "lr": lr, "seed": seed}
    run = Run(prompt, tried, composing, views, perceptual, **parts, options=options, models=models)
    carry_out(_drawing(loaded), run, folder, every)


def _go_on(resume: str, prompt: str | None, every: int | None) -> None:
    from clip2latent.composition_run import load_run
    from clip2latent.state_files import check_models

    if prompt is not None:
        raise ValueError(f"--resume goes on with what {resume} holds: leave {prompt!r} out")
    run, state = load_run(resume)
    try:
        sources = {"foreground": run.options["foreground_generator"], "background": run.options["generator"]}
        embedder = run.options["embedder"]
    except KeyError as error:
        raise ValueError(f"the composition in {resume} does not name its models: it is damaged") from error
    loaded, models = _load(sources, embedder)
    check_models(run.models, models, resume, "composition", "bring back what it began with")
    carry_out(_drawing(loaded), run, Path(resume), every, state)


def _load(sources: dict[str, str], embedder: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns the banks of foreground and background, and the descriptions of the models, plain types."""
    from clip2latent.bank import Banks, bank_folder
    from clip2latent.spec import ModelSpec

    behind, known = load_banks(sources["background"], embedder, "auto", 64)
    specs, front = {"background": known["generator"], "embedder": known["embedder"]}, behind
    if sources["foreground"] == sources["background"]:
        specs |= {"foreground": known["generator"], "generator": known["generator"]}
    else:
        spec = generator_spec(sources["foreground"])
        draws = spec.build().to(behind.device).eval().requires_grad_(False)
        front = Banks(draws, behind.embedder, bank_folder(), behind.device)
        specs["foreground"] = ModelSpec.of(spec.class_path, spec.init_args, draws)
    return {"foreground": front, "background": behind}, {name: spec.to_dict() for name, spec in specs.items()}


def _drawing(loaded: dict[str, Any]) -> Models:
    front, behind = loaded["foreground"], loaded["background"]
    return Models(front.generator, behind.generator, behind.embedder, behind.device)


def _start(name: str, text: str, banks: Any, basis: int, candidates: int, seed: int) -> Any:
    """Returns the basis [M, L, D] of a text, the best of random latents, or of results, their first ones."""
    from clip2latent.initial import tell_best
    from clip2latent.saved import is_saved, read_saved

    if not is_saved(text):
        target = banks.embedder.embed_text([text])
        with progress_bar(f"searching a {name}", candidates) as bar:
            found = banks.of(seed).pick(target, candidates, basis, bar.update, tell_best(bar))
        return found.latents[0].to(banks.device)
    latents, wanted = read_saved(text).latents.flatten(0, 1), tuple(banks.generator.latent_shape)
    if tuple(latents.shape[1:]) != wanted:
        raise ValueError(
            f"{name}: {text} holds latents {tuple(latents.shape[1:])} (L, D), but the generator takes {wanted}: name"
            " the generator that drew them by --generator or --foreground-generator"
        )
    return latents[:basis].to(banks.device)
