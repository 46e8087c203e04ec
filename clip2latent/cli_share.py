"""The commands that give a trained prior away. Whatever is slow to import is imported inside them."""

from __future__ import annotations

import os
import sys

from clip2latent.progress import progress_bar


def export(
    checkpoint: str,
    out: str,
    prompts: str | None = None,
    num: int = 4,
    seed: int = 0,
    judge: str | None = "demo",
    licence: str | None = None,
    overwrite: bool = False,
    chunk: int = 64,
) -> None:
    """Writes a trained prior as a folder to give away: weights, description, model card, scores and samples.

    Args:
        checkpoint: A training checkpoint (.ckpt), an exported folder, owner/name on the Hub, or "demo".
        out: Output folder.
        prompts: A prompts file for scores and samples (default: the one that the training validated on).
        num: Images for each prompt.
        seed: Of the images.
        judge: The attribute judge, for prompts with attributes: "demo", a folder, or null for none.
        licence: Of the prior's own weights, as the Hub spells it, such as cc-by-nc-4.0.
        overwrite: Write into an output folder that already holds files.
        chunk: Images made at once; fewer need less memory.
    """
    from clip2latent import export as exporting
    from clip2latent.checkpoint import load_prior
    from clip2latent.origins import origin_of

    options = {"num": num, "seed": seed, "judge": judge, "licence": licence, "overwrite": overwrite, "chunk": chunk}
    folder = exporting.export(checkpoint, out, prompts, **options, bar=progress_bar)
    if not (folder / exporting.SAMPLES).exists():
        print("warning: no prompts, hence no scores and no samples: give --prompts FILE", file=sys.stderr)
    loaded = load_prior(folder)
    for role in ("generator", "embedder"):
        if origin_of(getattr(loaded, role)).local:
            arguments = getattr(loaded, role).init_args
            print(f"warning: others need the {role} at the same path: {arguments}", file=sys.stderr)
    written = [name for name in exporting.FILES if (folder / name).exists()]
    print(f"{folder}{os.sep}{', '.join(written)}: give {folder} as --checkpoint, or push it to the Hub")


def push(folder: str, repo: str, private: bool = False, revision: str | None = None) -> None:
    """Puts an exported prior on the Hugging Face Hub, where owner/name is then a checkpoint for everyone.

    Args:
        folder: A folder that export wrote.
        repo: owner/name on the Hub; made where there is none.
        private: Make a new repository visible to its owner alone.
        revision: The branch (default: main).
    """
    from clip2latent import hub

    print(hub.push(folder, repo, private, revision))
    print(f"give {repo} as --checkpoint")
