"""Exports a trained prior as a folder that can be given away: weights, description, model card, scores and samples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from clip2latent.checkpoint import export_prior, load_prior
from clip2latent.evaluate import Bar, Plan, critics, evaluate
from clip2latent.images import save_png
from clip2latent.model_card import SAMPLES, Model, model_card
from clip2latent.origins import Origin, origin_of
from clip2latent.outputs import choose_folder, filled, provenance, write_json
from clip2latent.prior_files import CONFIG, DEMO, WEIGHTS
from clip2latent.prompts import Prompt, read_prompts
from clip2latent.spec import weights_sha256
from clip2latent.text2image import Sampling, TextToImage
from clip2latent.training_record import read_training

METRICS = "metrics.json"
CARD = "README.md"
FILES = (CONFIG, WEIGHTS, CARD, METRICS, SAMPLES)
"""All that an export consists of; without prompts there are no samples."""
PICTURED = 8
"""Prompts in the sample grid."""


def export(
    checkpoint: str | Path,
    out: str | Path,
    prompts: str | Path | None = None,
    num: int = 4,
    seed: int = 0,
    judge: str | None = DEMO,
    licence: str | None = None,
    overwrite: bool = False,
    chunk: int = 64,
    bar: Bar | None = None,
) -> Path:
    """Writes an exported prior, complete or not at all.

    What is measured and drawn is the exported folder, loaded as anyone would load it.

    Args:
        checkpoint: as `load_prior` takes it.
        out: the folder.
        prompts: prompts file of the scores and samples; None for the one that the training validated on, and where
            that is not known, neither scores nor samples.
        num: images for each prompt.
        seed: of the images.
        judge: reads attributes, where the prompts name any: "demo", a folder, or None for none.
        licence: of the prior's own weights, as the Hugging Face Hub spells it.
        overwrite: replace the files of a folder that holds some.
        chunk: images made at once.
        bar: makes progress bars.

    Raises:
        FileNotFoundError: there is no such checkpoint or prompts file.
        ValueError: the checkpoint cannot be loaded, or the folder must not be overwritten or cannot be written.
    """
    folder = choose_folder(out, "prior", overwrite)
    loaded = load_prior(checkpoint)
    known = read_training(checkpoint, loaded.config)
    prompts = prompts or known.prompts
    read = read_prompts(prompts) if prompts else []
    models = _models(loaded.generator, loaded.embedder, weights_sha256(loaded.prior), licence)
    training = known.settings | ({"scores": known.scores} if known.scores else {})
    with filled(folder, METRICS) as staging:
        export_prior(checkpoint, staging, training)
        evaluation = _measured(staging, read, num, seed, judge, chunk, bar) if read else None
        if evaluation:
            evaluation["prompts_chose_checkpoint"] = prompts == known.prompts
        card = model_card(
            folder.absolute().name, loaded.config, models, known.settings, known.scores, evaluation, licence
        )
        (staging / CARD).write_text(card, encoding="utf-8")
        options = {"checkpoint": Path(checkpoint).name, "prompts": Path(prompts).name if prompts else None}
        record = {"options": options, "validation": known.scores, **(evaluation or {}), **provenance()}
        write_json(staging / METRICS, {**record, "files": [name for name in FILES if read or name != SAMPLES]})
    return folder


def _measured(
    folder: Path, prompts: list[Prompt], num: int, seed: int, judge: str | None, chunk: int, bar: Bar | None
) -> dict[str, Any]:
    """Draws samples.png and returns the record of a small evaluation."""
    pipeline = TextToImage.from_pretrained(folder)
    plan = Plan(num, (1.0,), candidates=num, repeats=1, retrieval=0, fidelity=0)
    sampling = Sampling(None, seed=seed, chunk=chunk)
    report = evaluate(pipeline, prompts, plan, sampling, *critics(prompts, judge), bar)
    texts = [prompt.text for prompt in prompts[:PICTURED]]
    samples = pipeline.generate(texts, num, candidates=num, seed=seed, chunk=chunk)
    options = {"guidance": pipeline.recommended_guidance, "seed": seed, "num": num}
    save_png(samples.grid(), folder / SAMPLES, {"prompts": texts, "options": options})
    return report.record


def _models(generator: Any, embedder: Any, prior_sha256: str, licence: str | None) -> list[Model]:
    rows = [(role, spec, origin_of(spec)) for role, spec in (("generator", generator), ("embedder", embedder))]
    listed = [Model(role, _named(origin), spec.sha256, origin.licence) for role, spec, origin in rows]
    return [Model("prior", "this folder", prior_sha256, licence or "see below"), *listed]


def _named(origin: Origin) -> str:
    note = " (named by a path in config.json: have the same files there)"
    return origin.name + (note if origin.local else "")
