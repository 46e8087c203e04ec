"""Checkpoints of tiny models for the tests of the web page."""

from pathlib import Path

from tiny_checkpoint import write_tiny_checkpoint
from tiny_models import TinyGenerator

from clip2latent.spec import ModelSpec


def write_checkpoints(folder: Path) -> tuple[str, str]:
    """Writes two: a quick one, and one whose generator waits in each call."""
    slow = ModelSpec.of("tiny_models.TinyGenerator", {"delay": 0.03}, TinyGenerator()).to_dict()
    return str(write_tiny_checkpoint(folder / "quick")), str(write_tiny_checkpoint(folder / "slow", generator=slow))
