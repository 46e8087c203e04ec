"""A byte-pair vocabulary in which every word of the worlds is one token, as a merges file that open_clip reads."""

from __future__ import annotations

import gzip
from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import pairwise
from pathlib import Path

from clip2latent.embedders import split_words

HEADER = "#version: clip2latent demo"
BYTES = 256
END_OF_WORD = "</w>"
Merge = tuple[str, str]


def learn_merges(words: Mapping[str, int]) -> list[Merge]:
    """Learns byte-pair merges until every word is one token (Sennrich et al. 2016, algorithm 1).

    Args:
        words: how often each word of the letters a to z occurs.

    Returns:
        Pairs of symbols in the order they are merged; a word's last symbol ends in `END_OF_WORD`.

    Raises:
        ValueError: for a word that open_clip's tokenizer would split or spell in other bytes.
    """
    for word in words:
        if not (word.isascii() and word.isalpha() and word.islower()):
            raise ValueError(f"words must be of the letters a to z, got {word!r}")
    spelt = {word: (*word[:-1], word[-1] + END_OF_WORD) for word in words}
    merges: list[Merge] = []
    while pairs := _count_pairs(spelt, words):
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        spelt = {word: _merge(symbols, best) for word, symbols in spelt.items()}
    return merges


def count_words(captions: Iterable[str], words: Iterable[str]) -> Counter[str]:
    """Counts words in captions; every one of `words` counts once more, so that none is missed."""
    counts = Counter(part for word in words for part in set(split_words(word)))
    for caption in captions:
        counts.update(split_words(caption))
    return counts


def vocab_size(merges: list[Merge]) -> int:
    """Returns the size of open_clip's vocabulary: each byte, inside and at the end of a word, merges, start and end."""
    return 2 * BYTES + len(merges) + 2


def write_merges(path: Path, merges: list[Merge]) -> None:
    """Writes the gzipped file that open_clip's `SimpleTokenizer` takes as bpe_path, byte-identical for equal merges.

    It skips the first line and reads every other as a merge, so there is a header and no newline at the end.
    """
    text = "\n".join([HEADER, *(" ".join(merge) for merge in merges)])
    path.write_bytes(gzip.compress(text.encode(), mtime=0))


def _count_pairs(spelt: Mapping[str, tuple[str, ...]], words: Mapping[str, int]) -> Counter[Merge]:
    pairs: Counter[Merge] = Counter()
    for word, symbols in spelt.items():
        for pair in pairwise(symbols):
            pairs[pair] += words[word]
    return pairs


def _merge(symbols: tuple[str, ...], pair: Merge) -> tuple[str, ...]:
    merged: list[str] = []
    rest = list(symbols)
    while rest:
        if tuple(rest[:2]) == pair:
            merged.append("".join(pair))
            del rest[:2]
        else:
            merged.append(rest.pop(0))
    return tuple(merged)
