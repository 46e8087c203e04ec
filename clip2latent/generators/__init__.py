"""Frozen image generators: each family is one file; `load_generator` reads any of them from what it is stored in."""

from __future__ import annotations

from typing import Any

from clip2latent.interfaces import Generator


def load_generator(
    source: str = "demo-avatars",
    family: str | None = None,
    preset: str | None = None,
    sha256: str | None = None,
    offline: bool | None = None,
    **arguments: Any,
) -> Generator:
    """Returns the frozen generator of a source; nothing that stands in a file is run.

    Args:
        source: an embedded generator's name ("demo-avatars"); a folder with config.json; an official file (a network
            pickle of StyleGAN2 or StyleGAN3, or a state dict as .pth, .pt, .bin, .ckpt or .safetensors); an http(s)
            address of one; or hf://owner/name/file[@revision].
        family: "stylegan2", "stylegan3", "biggan", "biggan_deep" or "sagan": for a state dict, which does not say.
        preset: a family's known configuration ("biggan-256"), in place of family and its arguments.
        sha256: of the file with the weights; "" or None where it is not known.
        offline: never touch the network (default: what the environment says, see downloads.py).
        arguments: of the generator's constructor, plain types: what the source does not say, such as `space`.

    Raises:
        FileNotFoundError: there is no such source, or it is not here and must not be downloaded.
        ValueError: a file is not what it should be, or an argument is missing, unknown or contradicts the file; the
            weights do not fit the architecture (lists the keys).
        OSError: the download failed.
    """
    from clip2latent.generators import loading

    return loading.build(loading.find(source, sha256, offline), family, preset, arguments)
