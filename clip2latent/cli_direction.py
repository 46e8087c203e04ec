"""The command that finds an edit direction. Whatever is slow to import is imported inside it."""

from __future__ import annotations

from clip2latent.progress import progress_bar


def direction(
    positive: str,
    negative: str,
    out: str,
    method: str = "mean",
    num: int = 32,
    checkpoint: str = "demo",
    guidance: float | None = None,
    steps: int = 8,
    seed: int = 0,
    overwrite: bool = False,
    chunk: int = 64,
) -> None:
    """Finds an edit direction between two sets of prompts, tells how well it separates them, and saves it.

    Args:
        positive: Prompts with it, separated by semicolons, as "a smiling man; a smiling woman"; or a prompts file.
        negative: Prompts without it, as "a sad man; a sad woman": best the same with other words, in the same order.
        out: The file to write, .safetensors; then edit "a woman" --directions FILE=1 takes it.
        method: mean, the difference of the mean latents; or separator, the normal of a linear separator, which leaves
            out what varies within the sets too.
        num: Samples of each prompt; a quarter of them measures how well the direction separates.
        checkpoint: As for generate.
        guidance: As for generate.
        steps: Sampling steps.
        seed: The same seed gives the same direction.
        overwrite: Replace a file that is there.
        chunk: Images made at once; fewer need less memory.
    """
    from clip2latent.prompts import check_prompts

    sides = [check_prompts(_prompts(text)) for text in (positive, negative)]
    from clip2latent.direction_search import check_search, find_direction
    from clip2latent.directions import check_new_direction, save_direction
    from clip2latent.sampling import Sampling
    from clip2latent.text2image import TextToImage

    path = check_new_direction(out, overwrite)
    check_search(*sides, method, num)
    sampling = Sampling(guidance=guidance, steps=steps, seed=seed, chunk=chunk)
    pipeline = TextToImage.from_pretrained(checkpoint)
    with progress_bar("drawing", sum(map(len, sides)) * num) as bar:
        found = find_direction(pipeline, *sides, path.stem, method, num, sampling, bar.update)
    save_direction(found, path, overwrite)
    score = found.description["separation"]
    print(
        f"separation, on {score['count']} held-out samples: accuracy {score['accuracy']:.3f} (chance is 0.5),"
        f" means {score['effect']:.1f} standard deviations apart"
    )
    print(f'{path}: try edit "a prompt" --directions {path}=1')


def _prompts(text: str) -> list[str]:
    """A prompts file's prompts, or those a text separates by semicolons."""
    from clip2latent.prompts import read_prompts

    if text.endswith((".txt", ".jsonl")):
        return [prompt.text for prompt in read_prompts(text)]
    return [part.strip() for part in text.split(";") if part.strip()]
