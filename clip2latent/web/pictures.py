"""Uploaded pictures: decoded from bytes within limits, and written anew as what the models see of them."""

from __future__ import annotations

import base64
import binascii
import io
import threading
import warnings
from typing import Any

from PIL import Image, ImageOps

from clip2latent.images import WIDEST
from clip2latent.web import limits
from clip2latent.web.limits import UPLOAD_BYTES, UPLOAD_PIXELS
from clip2latent.web.requests import Picture

FORMATS = ("PNG", "JPEG", "WEBP")
_TURN = threading.Lock()
"""One picture is decoded at a time: many large ones would fill the memory."""


def read_upload(value: Any, weight: Any = 1.0) -> Picture | None:
    """Reads what the page sends of a picture, a data address: "data:image/png;base64,...".

    Args:
        value: the address; None or "" for no picture.
        weight: of the picture beside the prompt.

    Raises:
        ValueError: for anything else, and for pictures that `decode` refuses.
    """
    if value is None or value == "":
        return None
    if not isinstance(value, str) or not value.startswith("data:image/"):
        raise ValueError("image prompt: expected an uploaded picture, a PNG, JPEG or WebP file")
    if len(value) > UPLOAD_BYTES * 4 // 3 + 100:
        raise ValueError(f"image prompt of about {len(value) * 3 // 4} bytes: expected at most {UPLOAD_BYTES}")
    header, _, encoded = value.partition(",")
    try:
        data = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        data = b""
    if not header.endswith(";base64") or not data:
        raise ValueError("image prompt: its address is damaged: upload the picture again")
    weight = limits.real("weight of the picture", weight, 0.05, 10)
    with _TURN:
        return Picture(decode(data), weight)


def decode(data: bytes) -> bytes:
    """Decodes a picture and returns its middle square as a PNG of at most 1024 pixels, without anything else it held.

    Its size is read before its pixels are: a small file that unfolds into a large picture is refused unread.

    Raises:
        ValueError: for too many bytes or pixels, for other formats and damaged files.
    """
    if len(data) > UPLOAD_BYTES:
        raise ValueError(f"image prompt of {len(data)} bytes: expected at most {UPLOAD_BYTES}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            opened = Image.open(io.BytesIO(data), formats=FORMATS)
            pixels = opened.width * opened.height
            if pixels > UPLOAD_PIXELS:
                raise ValueError(f"{opened.width} x {opened.height} pixels are too many, at most {UPLOAD_PIXELS}")
            opened.draft("RGB", (WIDEST, WIDEST))
            picture = ImageOps.exif_transpose(opened)
            side = min(picture.size)
            left, top = (picture.width - side) // 2, (picture.height - side) // 2
            picture = picture.crop((left, top, left + side, top + side)).convert("RGBA")
            if side > WIDEST:
                picture = picture.resize((WIDEST, WIDEST), Image.Resampling.BICUBIC)
            picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")
    except (Image.UnidentifiedImageError, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        reason = "its size is that of a bomb" if "omb" in type(error).__name__ else "not a PNG, JPEG or WebP file"
        raise ValueError(f"image prompt: the picture cannot be read: {reason}") from error
    except Exception as error:  # Pillow's readers raise errors of many kinds for damaged files
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"image prompt: the picture cannot be read: {reason[:200]}") from error
    return encode(picture)


def encode(picture: Image.Image) -> bytes:
    """Returns a picture as a PNG without metadata."""
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return buffer.getvalue()
