"""Images to and from files: the only place where [-1, 1] becomes uint8 and back."""

from __future__ import annotations

import json
import os
import unicodedata
from bisect import bisect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont, ImageOps, PngImagePlugin
from torch import Tensor

METADATA_KEY, RECIPE_KEY = "clip2latent", "clip2latent-recipe"
WIDEST = 1024
_INK, _PAPER, _FAINT = (20, 20, 24), (255, 255, 255), (110, 110, 118)


def to_uint8(images: Tensor) -> np.ndarray:
    """Converts images [B, 3, R, R] in [-1, 1] (clamped) to uint8 [B, R, R, 3]."""
    pixels = (images.detach().float().clamp(-1, 1) + 1) * 127.5
    return pixels.round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()


def from_uint8(pixels: np.ndarray) -> Tensor:
    """Converts uint8 [B, R, R, 3] to images [B, 3, R, R] in [-1, 1]; the inverse of `to_uint8`."""
    return torch.from_numpy(np.ascontiguousarray(pixels)).permute(0, 3, 1, 2).float() / 127.5 - 1


def to_pil(images: Tensor) -> list[Image.Image]:
    """Converts images [B, 3, R, R] in [-1, 1] to B pictures."""
    return [Image.fromarray(pixels) for pixels in to_uint8(images)]


def grid(
    images: Tensor,
    labels: Sequence[str],
    scores: Tensor | None = None,
    headings: Sequence[str] = (),
    cell: int = 128,
    label_width: int = 180,
) -> Image.Image:
    """Lays out P rows of N images, each row's label at its left and each image's score beneath it.

    Args:
        images: [P, N, 3, R, R] in [-1, 1].
        labels: P texts, wrapped and cut to the row's height.
        scores: [P, N], or None for none.
        headings: N texts above the columns, or none.
        cell: side of an image in the grid, in pixels.
        label_width: width of the column of labels, in pixels.
    """
    rows, columns = images.shape[:2]
    if len(labels) != rows:
        raise ValueError(f"labels: expected {rows}, one for each row, got {len(labels)}")
    font, small = ImageFont.load_default(size=14), ImageFont.load_default(size=11)
    gap, foot = 6, 16 if scores is not None else 0
    head = 18 * 3 if headings else 0
    pitch_x, pitch_y = cell + gap, cell + foot + gap
    sheet = Image.new("RGB", (label_width + 2 * gap + columns * pitch_x, head + gap + rows * pitch_y), _PAPER)
    pen = ImageDraw.Draw(sheet)
    for column, heading in enumerate(headings):
        lines = _wrap(heading, font, cell, max_lines=3)
        pen.multiline_text((label_width + gap + column * pitch_x, gap), "\n".join(lines), fill=_INK, font=font)
    for row in range(rows):
        top = head + gap + row * pitch_y
        lines = _wrap(labels[row], font, label_width - gap, max_lines=cell // 18)
        pen.multiline_text(
            (gap, top + (cell - 18 * len(lines)) // 2), "\n".join(lines), fill=_INK, font=font, spacing=4
        )
        for column, picture in enumerate(to_pil(images[row])):
            left = label_width + gap + column * pitch_x
            resized = picture if picture.width == cell else picture.resize((cell, cell), Image.Resampling.BICUBIC)
            sheet.paste(resized, (left, top))
            if scores is not None:
                pen.text((left + 2, top + cell + 1), f"{float(scores[row, column]):.3f}", fill=_FAINT, font=small)
    return sheet


def read_picture(path: Path | str) -> Tensor:
    """Reads a picture file as an image [1, 3, R, R] in [-1, 1]: its middle square, R at most 1024.

    It stands as the camera was held, and what is transparent becomes white.

    Raises:
        FileNotFoundError: where there is none.
        ValueError: for a file that is not a picture, or a damaged one.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"no picture {path}")
    try:
        with Image.open(path) as opened:
            picture = ImageOps.exif_transpose(opened)
            if "A" in picture.getbands() or "transparency" in picture.info:
                picture = picture.convert("RGBA")
                picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
            picture = picture.convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = "not a picture" if isinstance(error, Image.UnidentifiedImageError) else error
        raise ValueError(f"{path} cannot be read: {reason}; give a PNG, JPEG or WebP file") from error
    side = min(picture.size)
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    picture = picture.crop((left, top, left + side, top + side))
    if side > WIDEST:
        picture = picture.resize((WIDEST, WIDEST), Image.Resampling.BICUBIC)
    return from_uint8(np.array(picture)[None])


def save_png(
    picture: Image.Image, path: Path, metadata: dict[str, Any] | None = None, recipe: dict[str, Any] | None = None
) -> None:
    """Writes a PNG whole or not at all, with what `read_metadata` and `read_recipe` return (plain types).

    Args:
        picture: to write.
        path: the file; one that is there is replaced.
        metadata: for people and programs.
        recipe: for remaking the picture.
    """
    info = PngImagePlugin.PngInfo()
    for key, record in ((METADATA_KEY, metadata), (RECIPE_KEY, recipe)):
        if record is not None:
            info.add_itxt(key, json.dumps(record, ensure_ascii=False))
    if metadata is not None and "prompt" in metadata:
        info.add_itxt("Description", str(metadata["prompt"]))
    temporary = path.with_name(f".{path.name}.partial")
    try:
        picture.save(temporary, format="PNG", pnginfo=info)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def read_metadata(path: Path) -> dict[str, Any]:
    """Returns the metadata that `save_png` wrote.

    Raises:
        ValueError: where the file is not a picture of ours.
    """
    return _read_text(
        path, METADATA_KEY, "holds no clip2latent metadata: it was not written by this program, or was re-saved"
    )


def read_recipe(path: Path) -> dict[str, Any]:
    """Returns the recipe that `save_png` wrote.

    Raises:
        ValueError: where the file is not a picture of ours, or one without a recipe.
    """
    return _read_text(path, RECIPE_KEY, "holds no recipe: only the pictures that generate writes can be remade")


def _read_text(path: Path, key: str, without: str) -> dict[str, Any]:
    try:
        with Image.open(path) as picture:
            text = picture.info.get(key)
    except (Image.UnidentifiedImageError, SyntaxError, ValueError) as error:
        raise ValueError(f"{path} is not a picture") from error
    try:
        record = None if text is None else json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: its {key} is damaged: {error}") from error
    if not isinstance(record, dict):
        raise ValueError(f"{path} {without}")
    return record


def _wrap(text: str, font: Any, width: int, max_lines: int) -> list[str]:
    """Breaks a text into lines of at most `width` pixels, words too where they must; the rest becomes an ellipsis."""
    lines, line = [], ""
    # Pillow's font has no accented letters: the plain ones are better than boxes.
    letters = unicodedata.normalize("NFKD", text[:500])
    words = "".join(letter for letter in letters if not unicodedata.combining(letter)).split()
    while words and len(lines) <= max_lines:
        word = words.pop(0)
        joined = f"{line} {word}".strip()
        if font.getlength(joined) <= width:
            line = joined
        elif line:
            lines.append(line)
            line, words = "", [word, *words]
        else:
            fits = max(1, bisect(range(1, len(word)), width, key=lambda n: font.getlength(word[:n])))
            lines.append(word[:fits])
            words = [word[fits:], *words]
    lines += [line] if line else []
    if len(lines) > max_lines:
        lines = [*lines[: max_lines - 1], lines[max_lines - 1][:-1] + "..."]
    return lines
