"""The commands that score folders of pictures and show results. Whatever is slow to import is imported inside them."""

from __future__ import annotations

import json
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from clip2latent.outputs import choose_folder, filled, provenance, slug, whole_file, write_json
from clip2latent.progress import progress_bar
from clip2latent.unfinished import kept_work

METRICS, PAGE, UNFINISHED = "metrics.json", "report.html", "unfinished"


def score(
    images: str,
    captions: str | None = None,
    reference: str | None = None,
    embedder: str = "demo",
    holdout: str | None = None,
    features: str | None = None,
    distractors: int = 99,
    repeats: int = 3,
    seed: int = 0,
    out: str | None = None,
    overwrite: bool = False,
    chunk: int = 16,
) -> None:
    """Scores a folder of pictures, whatever made them, by their captions and beside real ones; writes a page.

    Killed, the same command with the same --out goes on.

    Args:
        images: A folder of pictures.
        captions: A text file with a line for each picture (or for each two, three, ... pictures in a row); .jsonl with
            {"caption", "image"} lines; COCO's captions .json; or a folder of text files named as the pictures, as of
            CUB (default: the prompts of a folder that generate wrote).
        reference: A folder of real pictures, for FID, KID, precision and recall.
        embedder: The CLIP: demo, a yaml file as in configs/embedder/, a folder, MODEL/TAG of open_clip, or
            hf-hub:owner/name.
        holdout: Another CLIP, one that nothing was optimised against.
        features: What pictures are compared with the reference by: inception (FID's network, downloaded once), a .pth
            or .safetensors file of its weights, demo-judge, demo-class-judge or a judge's folder (default: the CLIP's
            own embeddings). Inception and judges give the inception score too.
        distractors: Other captions among which R-precision looks for a picture's own.
        repeats: How often they are drawn.
        seed: The same seed gives the same numbers.
        out: Output folder (default: a new one, outputs/score-<folder>-<number>); give one that was begun, to go on.
        overwrite: Write into an output folder that already holds files.
        chunk: Pictures held at once; fewer need less memory.
    """
    from clip2latent.captions import read_captions
    from clip2latent.pairing import list_pictures, pair

    pairing = pair(Path(images), None if captions is None else read_captions(captions))
    real = None if reference is None else list_pictures(Path(reference))
    begun = out is not None and (Path(out) / UNFINISHED).is_dir()
    folder = choose_folder(out, f"score-{slug(Path(images).absolute().name)}", overwrite or begun)
    import torch

    from clip2latent.cli_generate import warn_of_unknown_words
    from clip2latent.extractors import embedder_extractor, load_extractor
    from clip2latent.folder_scores import Measuring, score_folder
    from clip2latent.html_page import markdown
    from clip2latent.images import save_png
    from clip2latent.pages import page_of
    from clip2latent.ranking import load_ranker
    from clip2latent.spec import ModelSpec

    how = Measuring(distractors, repeats, seed=seed, chunk=chunk)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    sources = [embedder, *([holdout] if holdout else [])]
    embedders: list[Any] = [load_ranker(source) for source in sources]
    warn_of_unknown_words(embedders[0], pairing.texts[:1000])
    for model in embedders:
        model.to(device)
    extractor = load_extractor(features, device) if features else embedder_extractor(embedders[0], embedder)
    clips = [ModelSpec.of(source, {}, model).to_dict() for source, model in zip(sources, embedders, strict=True)]
    models = {**dict(zip(("embedder", "holdout"), clips, strict=False)), "features": extractor.identity}
    work = folder / UNFINISHED
    parts = kept_work(work / "score.json", work / "parts", {"models": models, "chunk": chunk}, "a score", overwrite)
    started = time.monotonic()
    try:
        report = score_folder(pairing, embedders, extractor, real, how, device, progress_bar, parts)
    except KeyboardInterrupt:
        print(f"interrupted: what was seen is kept; the same command with --out {folder} goes on", file=sys.stderr)
        raise SystemExit(130) from None
    record: dict[str, Any] = {"options": {"images": images, "captions": captions, "reference": reference}}
    record |= {"device": str(device), "seconds": time.monotonic() - started}
    for numbers, source in zip(report.record["clip"], sources, strict=True):
        numbers["embedder"] = source
    names = {title: f"{slug(title)}.png" for title in report.pictures}
    record |= {"models": models, **report.record, **provenance()}
    record["pictures"] = {name: title for title, name in names.items()}
    record["files"] = sorted([METRICS, PAGE, *names.values()])
    with filled(folder, METRICS) as staging:
        for title, picture in report.pictures.items():
            save_png(picture, staging / names[title], {"options": record["options"]})
        write_json(staging / METRICS, record)
        write_page(staging)
    shutil.rmtree(work)
    sets = [report.record["images"], *([report.record["reference"]] if report.record["reference"] else [])]
    damaged = [broken for pictures in sets for broken in pictures["damaged"]]
    for broken in damaged[:10]:
        print(f"warning: left out: {broken['why']}", file=sys.stderr)
    if len(damaged) > 10:
        print(f"warning: left out {len(damaged) - 10} more pictures, see {METRICS}", file=sys.stderr)
    print("\n\n".join(f"{table.title}\n\n{markdown(table)}" for table in page_of(record).tables))
    print(f"\n{folder / PAGE}, {folder / METRICS}")


def report(folders: list[str], out: str | None = None, overwrite: bool = False) -> None:
    """Writes a page, tables, curves and pictures in one file, of a result, or of several to compare them.

    Args:
        folders: What evaluate, sweep, table or score wrote: of one, report.html is written beside its metrics.json;
            several, but of sweep, are compared.
        out: Output folder of a comparison (default: a new one, outputs/comparison-<number>).
        overwrite: Write into an output folder that already holds files.
    """
    if not folders:
        raise ValueError("no folder: name one that evaluate, sweep, table or score wrote, or several")
    if len(folders) == 1:
        if out is not None:
            raise ValueError(f"out={out!r} is for several folders: the page of one is written beside its {METRICS}")
        print(write_page(Path(folders[0])))
        return
    from clip2latent.comparison_page import comparison_page
    from clip2latent.html_page import html, markdown

    folder = choose_folder(out, "comparison", overwrite)
    read = {name: _read(Path(name)) for name in dict.fromkeys(folders)}
    page = comparison_page({name: record for name, (record, _) in read.items()})
    shown = {f"{name}: {title}": png for name, (_, found) in read.items() for title, png in list(found.items())[:1]}
    record = {
        "compared": {name: record for name, (record, _) in read.items()},
        **provenance(),
        "files": [METRICS, PAGE],
    }
    with filled(folder, METRICS) as staging:
        write_json(staging / METRICS, record)
        (staging / PAGE).write_text(html(page, shown, record), encoding="utf-8")
    print("\n".join([*page.lead, "", *map(markdown, page.tables)]))
    print(f"\n{folder / PAGE}")


def write_page(folder: Path) -> Path:
    """Writes report.html beside a metrics.json, whole or not at all, and returns it.

    Raises:
        FileNotFoundError: where there is no metrics.json.
        ValueError: for one of another command.
    """
    from clip2latent.pages import report_html

    record, pictures = _read(folder)
    with whole_file(folder / PAGE) as partial:
        partial.write_text(report_html(record, pictures), encoding="utf-8")
    return folder / PAGE


def _read(folder: Path) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Returns a folder's metrics.json, and its pictures by title."""
    if not (folder / METRICS).is_file():
        raise FileNotFoundError(
            f"{folder} holds no {METRICS}: name a folder that evaluate, sweep, table or score wrote"
        )
    try:
        record = json.loads((folder / METRICS).read_text(encoding="utf-8"))
        files = [name for name in record["files"] if name.endswith(".png") and Path(name).name == name]
        titles = record.get("pictures", {})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{folder / METRICS} was not written by evaluate, sweep, table or score: {error}") from error
    return record, {titles.get(name, Path(name).stem): (folder / name).read_bytes() for name in files}
