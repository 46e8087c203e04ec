"""Moments: exact mean and standard deviation of rows that come in blocks."""

from __future__ import annotations

import numpy as np

_BLOCK = 64  # rows converted at a time: few enough to stay in the processor's cache


class Moments:
    """Mean and standard deviation in float64, blocks combined by their sums of squared deviations.

    The sums are those of Chan, Golub and LeVeque 1983 ("Algorithms for computing the sample variance"): a small spread
    is not lost to a large mean.

    Attributes:
        count: rows so far.
        mean: their mean, of a row's shape.
    """

    def __init__(self) -> None:
        """Starts without rows."""
        self.count = 0
        self.mean = np.zeros(())
        self._squares = np.zeros(())

    @classmethod
    def of(cls, rows: np.ndarray) -> Moments:
        """Returns the moments of rows [n, ...]."""
        found = cls()
        for start in range(0, len(rows), _BLOCK):
            block = rows[start : start + _BLOCK].astype(np.float64)
            part = cls()
            part.count, part.mean = len(block), block.mean(axis=0)
            block -= part.mean
            part._squares = np.einsum("n...,n...->...", block, block)
            found.add(part)
        return found

    def add(self, other: Moments) -> None:
        """Takes in the moments of further rows."""
        total = self.count + other.count
        if other.count:
            delta = other.mean - self.mean
            self._squares = self._squares + other._squares + delta**2 * (self.count * other.count / total)
            self.mean = self.mean + delta * (other.count / total)
            self.count = total

    @property
    def std(self) -> np.ndarray:
        """The rows' standard deviation (the sum of squares divided by their number)."""
        return np.sqrt(self._squares / self.count)
