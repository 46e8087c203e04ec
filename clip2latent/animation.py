"""Images in a row: as one picture, and as a video."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image, features
from torch import Tensor

from clip2latent.images import grid, to_pil, to_uint8

VIDEOS = (".webp", ".mp4")


def strip(images: Tensor, headings: Sequence[str] = (), columns: int = 9, cell: int = 128) -> Image.Image:
    """Lays out images [F, 3, R, R] in [-1, 1] from left to right: at most `columns`, evenly spaced, ends included.

    Args:
        images: the frames.
        headings: texts above the columns, spread over them evenly like the images; none for none.
        columns: at least 2.
        cell: side of an image, in pixels.
    """
    shown = min(columns, len(images))
    kept = torch.linspace(0, len(images) - 1, shown).round().long()
    titles = [""] * shown
    for number, heading in enumerate(headings):
        titles[round(number * (shown - 1) / max(len(headings) - 1, 1))] = heading
    return grid(images[kept][None], [""], headings=titles if headings else (), cell=cell, label_width=0)


def check_video(path: Path | str, fps: float = 12.0) -> None:
    """Refuses a video that could not be written, before there are images for it.

    Raises:
        ValueError: for another ending than .webp and .mp4, one that what is installed cannot write, and fps under 0.
    """
    path = Path(path)
    if not 0 < fps < float("inf"):
        raise ValueError(f"fps={fps}: expected a positive number of frames a second")
    if path.suffix not in VIDEOS:
        raise ValueError(f"video {str(path)!r}: expected a name that ends in {' or '.join(VIDEOS)}")
    if path.suffix == ".webp" and not features.check("webp"):
        raise ValueError("this Pillow was built without webp: install Pillow from PyPI, or ask for .mp4")
    missing = [name for name in ("imageio", "imageio_ffmpeg") if importlib.util.find_spec(name) is None]
    if path.suffix == ".mp4" and missing:
        raise ValueError(
            f'.mp4 needs {" and ".join(missing)}: pip install "clip2latent[video]", or take .webp, which needs nothing'
        )


def save_video(
    images: Tensor, path: Path | str, fps: float = 12.0, there_and_back: bool = True, side: int = 256
) -> None:
    """Writes images [F, 3, R, R] in [-1, 1] as a video that repeats: .webp (lossless), or .mp4 with imageio-ffmpeg.

    Args:
        images: the frames.
        path: where to; the ending says which kind.
        fps: frames a second.
        there_and_back: play the frames backwards too, so that the repetition has no jump.
        side: smaller images are enlarged, by a whole number, to at least about this many pixels.

    Raises:
        ValueError: see `check_video`.
    """
    check_video(path, fps)
    path = Path(path)
    frames = torch.cat([images, images[1:-1].flip(0)]) if there_and_back else images
    scale = max(1, side // images.shape[-1])
    if path.suffix == ".webp":
        size = (images.shape[-1] * scale,) * 2
        first, *rest = (picture.resize(size, Image.Resampling.BICUBIC) for picture in to_pil(frames))
        first.save(path, "WEBP", save_all=True, append_images=rest, duration=round(1000 / fps), loop=0, lossless=True)
        return
    _save_mp4(frames, path, fps, scale)


def _save_mp4(images: Tensor, path: Path, fps: float, scale: int) -> None:
    import imageio

    enlarged = to_uint8(images).repeat(scale, axis=1).repeat(scale, axis=2)
    # H.264 takes even sides only; imageio rounds up to a multiple of the block size.
    with imageio.get_writer(path, format="FFMPEG", fps=fps, codec="libx264", quality=8, macro_block_size=2) as writer:
        for frame in enlarged:
            writer.append_data(frame)
