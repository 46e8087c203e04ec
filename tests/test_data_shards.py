"""Shards as files: both layouts, archives of several programs, damage of all kinds."""

import io
import tarfile

import numpy as np
import pytest
import torch
from tiny_pairs import write_members, write_original_shards

from clip2latent.data import read_shard
from clip2latent.tar_members import tar_members
from clip2latent.tar_stride import strided_samples


def regular_files(path):
    with tarfile.open(path) as tar:
        return [(m.name.encode(), m.offset_data, m.offset_data + m.size) for m in tar if m.isreg()]


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_members_are_those_tarfile_finds(tmp_path, form):
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w", format=form) as tar:
        folder = tarfile.TarInfo("folder")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
        for number in range(20):
            name = "/".join(["deep" * 10] * (number % 4 + 1)) + f"/{number}.latent.npy"
            member = tarfile.TarInfo(name)
            member.size, member.mtime = 37 * number, number + number % 2 / 3 if form == tarfile.PAX_FORMAT else number
            tar.addfile(member, io.BytesIO(bytes([number]) * member.size))
    found = [(m.name, m.start, m.stop) for m in tar_members(memoryview(path.read_bytes()))]
    assert found == regular_files(path) and len(found) == 20


@pytest.mark.parametrize("pax", [True, False])
@pytest.mark.parametrize("tokens", [1, 3])
def test_original_layout_is_read_with_embeddings_of_unit_norm(tmp_path, pax, tokens):
    latents, embeddings = write_original_shards(tmp_path, 50, tokens, pax=pax)
    content = memoryview((tmp_path / "00000.tar").read_bytes())
    assert strided_samples(content).count == 50
    pairs = read_shard(tmp_path / "00000.tar")
    assert torch.equal(pairs.latents, latents)
    torch.testing.assert_close(pairs.embeddings, torch.nn.functional.normalize(embeddings, dim=-1))


def per_row(count, first=0):
    rng = np.random.default_rng(first)
    return {
        f"pairs/{row:03d}.{field}.npy": rng.normal(size=size).astype("f4")
        for row in range(first, first + count)
        for field, size in (("img_feat", 6), ("latent", 4))
    }


def same_rows(members, path):
    pairs = read_shard(path)
    latents = [array for name, array in members.items() if ".latent." in name]
    return np.array_equal(pairs.latents[:, 0].numpy(), np.stack(latents))


def test_irregular_archives_hold_the_same_rows(tmp_path):
    regular = per_row(9)
    write_members(tmp_path / "regular.tar", regular)
    expected = read_shard(tmp_path / "regular.tar")
    with_pictures = {}
    for number, (name, array) in enumerate(regular.items()):
        with_pictures[name] = array
        with_pictures[name.replace(".img_feat.npy", ".gen.jpg")] = (
            b"picture" * 100 * number if number % 2 == 0 else array
        )
    longer = {name.replace("/008", "/00000008"): array for name, array in regular.items()}
    backwards = {name: regular[name] for name in sorted(regular, key=lambda name: (name.split(".")[1], name))}
    halves = {name: array.astype("f2") if "/004.img" in name else array for name, array in regular.items()}
    for case in ({"readme.txt": b"hello", **with_pictures}, longer, backwards):
        write_members(tmp_path / "a.tar", case)
        assert all(torch.equal(a, b) for a, b in zip(read_shard(tmp_path / "a.tar"), expected, strict=True))
    write_members(tmp_path / "a.tar", halves)
    assert same_rows(regular, tmp_path / "a.tar")


def test_a_sample_that_only_looks_alike_is_not_taken_for_one(tmp_path):
    """Equal strides, but a member with another key, a second PAX record or another kind of array."""
    members = per_row(6)
    names = list(members)
    other_key = {name if name != names[5] else "pairs/xyz.latent.npy": array for name, array in members.items()}
    write_members(tmp_path / "a.tar", other_key)
    assert strided_samples(memoryview((tmp_path / "a.tar").read_bytes())) is None
    with pytest.raises(ValueError, match=r"a.tar cannot be read: its 6 latents and 6 embeddings are not pairs"):
        read_shard(tmp_path / "a.tar")
    with tarfile.open(tmp_path / "b.tar", "w") as tar:
        for number, (name, array) in enumerate(members.items()):
            stream = io.BytesIO()
            np.save(stream, array)
            member = tarfile.TarInfo(f"{number}.gone.npy" if number in (4, 5) else name)
            member.size, member.mtime = len(stream.getvalue()), 1.5
            if number in (4, 5):
                member.pax_headers = {"path": name}
            tar.addfile(member, io.BytesIO(stream.getvalue()))
    assert same_rows(members, tmp_path / "b.tar")
    members[names[4]] = members[names[4]].view("i4")
    write_members(tmp_path / "c.tar", members)
    with pytest.raises(ValueError, match=r"c.tar cannot be read: the .npy header of member 2"):
        read_shard(tmp_path / "c.tar")


def test_batched_rows_may_come_in_several_members_and_under_either_name(tmp_path):
    rng = np.random.default_rng(0)
    latents, embeddings = rng.normal(size=(7, 4)).astype("f4"), rng.normal(size=(7, 6)).astype("f2")
    parts = {}
    for key, rows in (("a", slice(0, 5)), ("b", slice(5, 7))):
        parts |= {f"{key}.latent.npy": latents[rows], f"{key}.img_feat.npy": np.asfortranarray(embeddings[rows])}
    write_members(tmp_path / "a.tar", parts)
    pairs = read_shard(tmp_path / "a.tar")
    assert torch.equal(pairs.latents[:, 0], torch.from_numpy(latents))
    expected = torch.nn.functional.normalize(torch.from_numpy(embeddings).float(), dim=-1)
    torch.testing.assert_close(pairs.embeddings, expected)


@pytest.mark.parametrize("layout", ["original", "ours"])
def test_every_truncation_is_noticed(tmp_path, layout):
    path = tmp_path / "00000.tar"
    if layout == "original":
        write_original_shards(tmp_path, 20)
    else:
        write_members(path, {"a.latent.npy": np.ones((20, 1, 4)), "a.embedding.npy": np.ones((20, 6))})
    content = path.read_bytes()
    last = max(stop for _, _, stop in regular_files(path))
    for length in [0, 1, *range(100, last, 1111), last, last + 100]:
        path.write_bytes(content[:length])
        with pytest.raises(ValueError, match=r"00000.tar cannot be read"):
            read_shard(path)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_rows_that_are_not_finite_are_named(tmp_path, value):
    members = per_row(9)
    members["pairs/004.latent.npy"][2] = value
    write_members(tmp_path / "a.tar", members)
    with pytest.raises(ValueError, match=r"a.tar cannot be read: NaN .* in its latents.* row 4"):
        read_shard(tmp_path / "a.tar")


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"a.gen.jpg": b"1", "b.gen.jpg": b"2"}, "holds no latent.npy.*a.gen.jpg"),
        ({"a.latent.npy": np.ones((1, 1, 4))}, "holds no latent.npy with embedding.npy"),
        ({"a.latent.npy": b"x" * 300, "a.img_feat.npy": np.ones(6)}, "magic string"),
        ({"a.latent.npy": np.ones(4, "i4"), "a.img_feat.npy": np.ones(6)}, "expected arrays of floats"),
        ({"a.latent.npy": np.ones(4), "a.img_feat.npy": np.zeros(6)}, "an embedding is zero"),
    ],
)
def test_foreign_shards_are_named(tmp_path, members, message):
    write_members(tmp_path / "a.tar", members)
    with pytest.raises(ValueError, match=f"a.tar cannot be read.*{message}"):
        read_shard(tmp_path / "a.tar")


def test_a_file_that_is_no_tar_is_named(tmp_path):
    for content in (b"hello" * 300, b"\x1f\x8b" + bytes(2000)):
        (tmp_path / "a.tar").write_bytes(content)
        with pytest.raises(ValueError, match=r"a.tar cannot be read: byte 0 begins no tar header"):
            read_shard(tmp_path / "a.tar")


def test_webdataset_reads_the_same_rows(tmp_path):
    webdataset = pytest.importorskip("webdataset")
    write_original_shards(tmp_path, 20)
    path = str(tmp_path / "00000.tar")
    chain = webdataset.WebDataset(path, shardshuffle=False).decode().to_tuple("img_feat.npy", "latent.npy")
    embeddings, latents = (np.stack(field) for field in zip(*chain, strict=True))
    pairs = read_shard(path)
    assert np.array_equal(pairs.latents[:, 0].numpy(), latents)
    np.testing.assert_allclose(
        pairs.embeddings.numpy(), embeddings / np.linalg.norm(embeddings, axis=1)[:, None], rtol=1e-5
    )
