"""Latent spaces of style-based generators: how many rows of w share one independent token.

| name | tokens                                                                  | groups of L = 18 |
|------|-------------------------------------------------------------------------|------------------|
| z    | one z, followed by the label c of a class-conditional network           | (1,)             |
| w    | one w for all layers                                                    | (18,)            |
| w3   | one w each for the coarse, the middle and the fine styles               | (4, 4, 10)       |
| w+   | one w for each layer                                                    | (1,) * 18        |
"""

from __future__ import annotations

SPACES = ("z", "w", "w3", "w+")
COARSE_TO_FINE = 3


def row_groups(space: str, num_rows: int) -> tuple[int, ...]:
    """Returns the rows of each token, in order.

    w3 follows StyleGAN's split (arXiv:1812.04948, section 3.1): coarse is the four rows up to 8 px, middle the four
    rows up to 32 px, fine the rest. A network of eight rows or fewer has no rest and is split in thirds, what does
    not divide going to the fine rows: 8 is (2, 2, 4).

    Args:
        space: one of `SPACES`.
        num_rows: L, the rows of w that the generator takes; "z" has one row whatever L is.

    Raises:
        ValueError: for another name, or for w3 of fewer than three rows.
    """
    if space not in SPACES:
        raise ValueError(f"space: expected one of {', '.join(SPACES)}, got {space!r}")
    if space == "z":
        return (1,)
    if space == "w":
        return (num_rows,)
    if space == "w+":
        return (1,) * num_rows
    if num_rows < COARSE_TO_FINE:
        raise ValueError(f"space: w3 needs at least 3 rows of w, this generator has {num_rows}; give w or w+ instead")
    coarse = 4 if num_rows > 8 else num_rows // COARSE_TO_FINE
    return (coarse, coarse, num_rows - 2 * coarse)
