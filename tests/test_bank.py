"""Banks: what is kept is what would be drawn, a larger one extends a smaller, and the streamed best are the best."""

import pytest
import safetensors.torch
import torch
from tiny_models import TinyEmbedder, TinyGenerator

from clip2latent.bank import Bank, Banks, bank_folder, cosines
from clip2latent.bank_files import read_block, write_block

TARGETS = TinyEmbedder().embed_text(["a hat", "night", "a dog at noon"])


class Counting(TinyGenerator):
    """Counts the images it draws, and stops after some."""

    def __init__(self, stop=10**9):
        super().__init__()
        self.drawn, self.stop = 0, stop

    def synthesize(self, latents):
        if self.drawn + len(latents) > self.stop:
            raise KeyboardInterrupt
        self.drawn += len(latents)
        return super().synthesize(latents)


class Classy(TinyGenerator):
    """Three classes: the last number of a latent's rows is the class."""

    class_names = ("hat", "dog", "night")

    def sample_latents(self, num, rng, classes=None):
        latents = super().sample_latents(num, rng)
        classes = torch.randint(3, (num,), generator=rng) if classes is None else classes
        latents[:, :, 3] = classes[:, None].float()
        return latents


def rows(bank, num):
    blocks = list(bank.blocks(num))
    return torch.cat([block.latents for block in blocks]), torch.cat([block.embeddings for block in blocks])


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_a_kept_bank_is_drawn_once_and_reads_as_an_unkept_one(tmp_path):
    generator = Counting()
    kept = Banks(generator, TinyEmbedder(), tmp_path, chunk=5).of(seed=3, block=8)
    first = rows(kept, 20)
    assert generator.drawn == 24  # whole blocks
    again = rows(Banks(generator, TinyEmbedder(), tmp_path).of(seed=3, block=8), 20)
    assert generator.drawn == 24
    plain = rows(Banks(generator, TinyEmbedder()).of(seed=3, block=8), 20)
    assert generator.drawn == 44
    for a, b, c in zip(first, again, plain, strict=True):
        assert a.equal(b)
        torch.testing.assert_close(a, c)


def test_a_larger_bank_extends_a_smaller_one(tmp_path):
    generator = Counting()
    bank = Banks(generator, TinyEmbedder(), tmp_path).of(block=8)
    small = rows(bank, 10)
    large = rows(bank, 30)
    assert generator.drawn == 32 and all(a.equal(b[:10]) for a, b in zip(small, large, strict=True))
    apart = torch.cat([bank.latents(index) for index in range(4)])
    assert apart[:30].equal(large[0]) and len(apart.unique(dim=0)) == 32


def test_an_interrupted_bank_goes_on_where_it_stopped(tmp_path):
    broken, whole = Counting(stop=20), Counting()
    with pytest.raises(KeyboardInterrupt):
        rows(Banks(broken, TinyEmbedder(), tmp_path).of(block=8), 30)
    assert len(files(tmp_path)) == 3  # two blocks and what the models are; nothing partial
    resumed = rows(Banks(whole, TinyEmbedder(), tmp_path).of(block=8), 30)
    assert whole.drawn == 16
    uninterrupted = rows(Banks(Counting(), TinyEmbedder()).of(block=8), 30)
    for a, b in zip(resumed, uninterrupted, strict=True):
        torch.testing.assert_close(a, b)


def test_other_models_seeds_and_classes_have_other_banks(tmp_path):
    def of(generator=None, embedder=None, **which):
        banks = Banks(generator or Classy(), embedder or TinyEmbedder(), tmp_path)
        next(iter(banks.of(block=4, **which).blocks(4)))
        return len(files(tmp_path))

    assert of() == 2 and of() == 2
    assert of(seed=1) == 3 and of(classes=(0,)) == 4 and of(classes=(0, 2)) == 5
    assert of(generator=Classy(seed=5)) == 7 and of(embedder=TinyEmbedder(seed=5)) == 9
    other = TinyEmbedder()
    other.identity = {"activation": "gelu"}
    assert of(embedder=other) == 11
    other = Classy()
    other.init_args = {"truncation": 0.5}
    assert of(generator=other) == 13


@pytest.mark.parametrize("damage", [b"", b"no tensors", None])
def test_a_damaged_block_is_made_again(tmp_path, damage):
    generator = Counting()
    bank = Banks(generator, TinyEmbedder(), tmp_path).of(block=8)
    before = bank.read(0)
    path = next(tmp_path.rglob("*.safetensors"))
    if damage is None:  # a whole file of another shape
        safetensors.torch.save_file({"latents": torch.zeros(8, 3, 5), "embeddings": torch.zeros(8, 5)}, path)
    else:
        path.write_bytes(damage)
    after = bank.read(0)
    assert generator.drawn == 16 and all(a.equal(b) for a, b in zip(before, after, strict=True))
    bank.read(0)
    assert generator.drawn == 16


def test_a_folder_that_cannot_be_written_is_told_and_done_without(tmp_path):
    (tmp_path / "file").write_text("")
    bank = Banks(TinyGenerator(), TinyEmbedder(), tmp_path / "file").of(block=4)
    with pytest.warns(UserWarning, match="cannot be kept"):
        block = bank.read(0)
    assert block.embeddings.shape == (4, 5)


def test_equal_rows_of_a_latent_are_kept_once(tmp_path):
    equal = torch.randn(4, 1, 6).expand(4, 18, 6)
    other = equal.clone()
    other[2, 17, 5] += 1
    sizes = []
    for number, latents in enumerate((equal, other)):
        path = tmp_path / f"{number}.safetensors"
        write_block(path, latents, torch.zeros(4, 5))
        assert read_block(path, (4, 18, 6), 5)[0].equal(latents)
        sizes.append(path.stat().st_size)
    assert sizes[0] < sizes[1] / 5


def test_classes_are_those_asked_for_and_differ_in_their_latents():
    banks = Banks(Classy(), TinyEmbedder())
    one, two, both = (banks.of(classes=classes, block=64).latents(0) for classes in [(1,), (2,), (1, 2)])
    assert (one[:, 0, 3] == 1).all() and (two[:, 0, 3] == 2).all()
    assert set(both[:, 0, 3].tolist()) == {1.0, 2.0} and 10 < (both[:, 0, 3] == 1).sum() < 54
    assert not (one[:, 0, :3] == two[:, 0, :3]).any()


@pytest.mark.parametrize("num, keep, block", [(50, 7, 8), (50, 50, 64), (5, 1, 8), (33, 20, 16)])
def test_the_best_of_a_stream_are_the_best_of_the_whole(num, keep, block):
    bank = Banks(TinyGenerator(), TinyEmbedder()).of(block=block)
    latents, embeddings = rows(bank, num)
    picked = bank.pick(TARGETS, num, keep)
    scores = torch.cosine_similarity(embeddings[None], TARGETS[:, None], dim=-1).sort(dim=1, descending=True)
    torch.testing.assert_close(picked.scores, scores.values[:, :keep])
    assert picked.candidates.equal(scores.indices[:, :keep])
    assert picked.latents.equal(latents[scores.indices[:, :keep]])
    alone = bank.pick(TARGETS[1:2], num, keep)
    assert alone.candidates[0].equal(picked.candidates[1])


def test_progress_counts_every_row_once():
    done = []
    Banks(TinyGenerator(), TinyEmbedder()).of(block=8).pick(TARGETS, 20, 2, done.append)
    assert done == [8, 8, 4]


def test_what_is_not_a_number_ranks_last():
    generator = TinyGenerator(broken_after=1.5)
    bank = Banks(generator, TinyEmbedder()).of(block=8)
    _, embeddings = rows(bank, 24)
    broken = embeddings.isnan().any(dim=1)
    assert 0 < broken.sum() < 20
    picked = bank.pick(TARGETS, 24, 24)
    assert picked.scores.isfinite().all() and broken[picked.candidates[:, -int(broken.sum()) :]].all()
    assert cosines(TARGETS, embeddings)[:, broken].eq(-1).all()


def test_the_usual_folder_is_in_the_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("CLIP2LATENT_CACHE", str(tmp_path))
    assert bank_folder() == tmp_path / "banks"


class Nameless:
    latent_shape, resolution = (3, 4), 8


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda banks: Bank(banks, seed=-1), "seed=-1"),
        (lambda banks: Bank(banks, block=0), "block=0"),
        (lambda banks: Bank(banks, classes=(3,)), "from 0 to 2"),
        (lambda banks: Bank(banks, classes=()), "from 0 to 2"),
        (lambda banks: Banks(TinyGenerator(), TinyEmbedder()).of(classes=(0,)), "draws no classes"),
        (lambda banks: Banks(Classy(), TinyEmbedder(), chunk=0), "chunk=0"),
        (lambda banks: Banks(Nameless(), TinyEmbedder(), bank_folder()), "folder=None"),
        (lambda banks: banks.of().pick(TARGETS, 5, 6), "keep=6"),
        (lambda banks: banks.of().pick(TARGETS, 5, 0), "keep=0"),
    ],
)
def test_what_does_not_fit_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call(Banks(Classy(), TinyEmbedder()))
