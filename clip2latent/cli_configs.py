"""The command that copies the configurations which come with the package."""

from __future__ import annotations


def configs(out: str = "configs") -> None:
    """Copies the configurations of generators, CLIPs, trainings and prompts, to be used and changed.

    The other commands' examples name files in this folder; whoever installed the package without its repository has
    them by this command.

    Args:
        out: A new folder.
    """
    import shutil
    from pathlib import Path

    from clip2latent.assets import configs_folder

    if Path(out).exists():
        raise ValueError(f"out: {out} is there already: name a new folder, or remove it")
    shutil.copytree(configs_folder(), out)
    print(f"{out}: use them as in clip2latent-datagen --config {out}/datagen/demo.yaml --out data/demo")
