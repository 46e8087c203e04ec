"""The command that evaluates a checkpoint. Whatever is slow to import is imported inside it."""

from __future__ import annotations

import shutil
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from clip2latent.cli_generate import warn_of_unknown_words
from clip2latent.cli_score import UNFINISHED, write_page
from clip2latent.outputs import choose_folder, filled, provenance, write_json
from clip2latent.progress import progress_bar
from clip2latent.unfinished import kept_work


def evaluate(
    prompts: str,
    checkpoint: str = "demo",
    num: int = 8,
    guidance: list[float] | None = None,
    candidates: int = 16,
    repeats: int = 4,
    retrieval: int = 30000,
    steps: int = 8,
    sampler: str = "dpmpp",
    truncation: float = 1.0,
    seed: int = 0,
    judge: str | None = "demo",
    holdout: str | None = None,
    fidelity: int = 5000,
    out: str | None = None,
    overwrite: bool = False,
    chunk: int = 64,
) -> None:
    """Scores a checkpoint on a prompts file beside random latents, retrieval and real pictures; writes metrics.json.

    Killed, the same command with the same --out goes on with the first row that is not done.

    Args:
        prompts: A prompts file; .jsonl with {"prompt", "attributes"} lines for judge accuracy too.
        checkpoint: "demo", a training checkpoint (.ckpt), an exported folder, owner/name on the Hub, or a published
            prior of the original clip2latent: its .ckpt beside its yaml, or a yaml file as in configs/sample/.
        num: Images for each prompt and row of the table.
        guidance: The guidances to try, as [1,2,3]; what the checkpoint recommends is always among them.
        candidates: How many the best is taken of, in the rows that take the best.
        repeats: How often it is taken, for each prompt.
        retrieval: Random latents to retrieve the best num of, for each prompt; 0 leaves retrieval out.
        steps: Sampling steps.
        sampler: dpmpp, ddim, ddpm, or clip2latent-skip (the original's, to reproduce its results).
        truncation: 1 for the full variety, towards 0 ever nearer to the average image.
        seed: The same seed gives the same numbers.
        judge: The attribute judge, for prompts with attributes: "demo", a folder, or null for none.
        holdout: Another CLIP to score by, one that nothing is chosen by: as for generate's rank.
        fidelity: Images on which the generator is compared with real pictures; 0 leaves it out.
        out: Output folder (default: a new one, outputs/evaluate-<number>); give one that was begun, to go on.
        overwrite: Write into an output folder that already holds files.
        chunk: Images made at once; fewer need less memory.
    """
    from clip2latent.prompts import read_prompts

    read = read_prompts(prompts)
    begun = out is not None and (Path(out) / UNFINISHED).is_dir()
    folder = choose_folder(out, "evaluate", overwrite or begun)
    from clip2latent import evaluate as evaluation
    from clip2latent import report as reports
    from clip2latent.images import save_png
    from clip2latent.ranking import load_ranker
    from clip2latent.text2image import Sampling, TextToImage

    plan = evaluation.Plan(num, tuple(guidance or (1.0, 2.0, 3.0)), candidates, repeats, retrieval, fidelity)
    sampling = Sampling(None, steps, sampler, truncation, seed, chunk)
    pipeline = TextToImage.from_pretrained(checkpoint)
    warn_of_unknown_words(pipeline.embedder, [prompt.text for prompt in read])
    critic, world = evaluation.critics(read, judge)
    other = None if holdout is None else load_ranker(holdout).to(pipeline.device)
    given: dict[str, Any] = {"models": evaluation.models_of(pipeline, critic, other), "plan": asdict(plan)}
    given |= {"sampling": asdict(sampling), "prompts": [prompt._asdict() for prompt in read]}
    work = folder / UNFINISHED
    rows = kept_work(work / "evaluate.json", work / "rows", given, "an evaluation", overwrite)
    try:
        measured = evaluation.evaluate(pipeline, read, plan, sampling, critic, world, progress_bar, other, rows)
    except KeyboardInterrupt:
        print(f"interrupted: finished rows are kept; the same command with --out {folder} goes on", file=sys.stderr)
        raise SystemExit(130) from None
    options = {"checkpoint": checkpoint, "prompts": prompts, "judge": judge, "holdout": holdout}
    files = ["grid.png", "metrics.json", "report.html"]
    record = {"options": options, **measured.record, **provenance(), "files": files}
    with filled(folder, "metrics.json") as staging:
        save_png(measured.picture, staging / "grid.png", {"options": options})
        write_json(staging / "metrics.json", record)
        write_page(staging)
    shutil.rmtree(work)
    print(reports.markdown(measured.record))
    print(f"\n{', '.join(str(folder / name) for name in files)}")
