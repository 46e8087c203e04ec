"""Frozen image generators: each file is one family; `load_generator` reads any of them from a folder."""

from __future__ import annotations

import json
from pathlib import Path

from clip2latent.interfaces import Generator


def load_generator(source: str = "demo-avatars") -> Generator:
    """Returns the frozen generator stored in a folder.

    Args:
        source: the name of an embedded generator ("demo-avatars") or the path of a folder that holds config.json
            ({"class_path", "init_args"}) and model.safetensors.

    Raises:
        FileNotFoundError: there is neither such a name nor such a folder.
        ValueError: the weights do not fit the architecture; lists the keys.
    """
    import safetensors.torch

    from clip2latent.assets import locate
    from clip2latent.spec import ModelSpec

    folder = locate(source, "source")
    config = json.loads(Path(folder, "config.json").read_text())
    generator = ModelSpec(config["class_path"], config["init_args"]).build()
    state = safetensors.torch.load_file(Path(folder, "model.safetensors"))
    found, expected = set(state), set(generator.state_dict())
    if found != expected:
        raise ValueError(
            f"source: {folder} does not fit {config['class_path']}; missing keys {sorted(expected - found)}, "
            f"unexpected keys {sorted(found - expected)}"
        )
    generator.load_state_dict(state)
    return generator.eval().requires_grad_(False)
