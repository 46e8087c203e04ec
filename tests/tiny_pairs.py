"""A linear world for tests of training: an embedding is the normalised linear image of a latent."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clip2latent.spec import ModelSpec


class TinyGenerator(nn.Module):
    """Latents [B, L, 4], whose pictures are one colour each, a function of the first row."""

    def __init__(self, rows: int = 1, seed: int = 0) -> None:
        super().__init__()
        self.latent_shape, self.resolution = (rows, 4), 8
        matrix = torch.randn(4, 3, generator=torch.Generator().manual_seed(seed))
        self.register_buffer("matrix", matrix)

    def sample_latents(self, num: int, rng: torch.Generator) -> Tensor:
        return torch.randn(num, 1, 4, generator=rng).expand(num, *self.latent_shape) * 2 + 1

    def synthesize(self, latents: Tensor) -> Tensor:
        return torch.tanh(latents[:, 0] @ self.matrix)[:, :, None, None].expand(-1, -1, 8, 8)

    def project(self, latents: Tensor) -> Tensor:
        return latents


class TinyEmbedder(nn.Module):
    """Embeds a picture by its mean colour, and a text by its first letters."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.dim = 6
        self.register_buffer("matrix", torch.randn(3, 6, generator=torch.Generator().manual_seed(seed)))

    def embed_images(self, images: Tensor) -> Tensor:
        return F.normalize(images.mean((2, 3)) @ self.matrix, dim=-1)

    def embed_text(self, prompts: list[str]) -> Tensor:
        letters = torch.tensor([[float(byte) for byte in prompt.ljust(3)[:3].encode()] for prompt in prompts])
        return F.normalize((letters / 100 - 1) @ self.matrix, dim=-1)


def write_tiny_dataset(
    folder: Path, count: int = 500, groups: tuple[int, ...] = (1,), rows_per_shard: int = 200, seed: int = 0
) -> dict:
    """Writes a dataset in the layout of datagen and returns dataset.json's content."""
    folder.mkdir(parents=True, exist_ok=True)
    generator, embedder = TinyGenerator(sum(groups)), TinyEmbedder()
    latents = generator.sample_latents(count, torch.Generator().manual_seed(seed))
    embeddings = embedder.embed_images(generator.synthesize(latents))
    latents = latents[:, : len(groups)]
    shards = []
    for index, (part, embedded) in enumerate(
        zip(latents.split(rows_per_shard), embeddings.split(rows_per_shard), strict=True)
    ):
        key = f"shard-{index:06d}"
        with tarfile.open(folder / f"{key}.tar", "w") as tar:
            for field, array in (("latent", part), ("embedding", embedded)):
                content = io.BytesIO()
                np.save(content, array.contiguous().numpy())
                member = tarfile.TarInfo(f"{key}.{field}.npy")
                member.size = len(content.getvalue())
                content.seek(0)
                tar.addfile(member, content)
        sha256 = hashlib.sha256((folder / f"{key}.tar").read_bytes()).hexdigest()
        shards.append({"name": f"{key}.tar", "count": len(part), "sha256": sha256})
    dataset = {
        "format": 1,
        "generator": ModelSpec.of("tiny_pairs.TinyGenerator", {"rows": sum(groups)}, generator).to_dict(),
        "embedder": ModelSpec.of("tiny_pairs.TinyEmbedder", {}, embedder).to_dict(),
        "latent_shape": list(generator.latent_shape),
        "groups": list(groups),
        "embedding_dim": embedder.dim,
        "seed": seed,
        "count": count,
        "rows_per_shard": rows_per_shard,
        "shards": shards,
        "latent_mean": latents.double().mean(0).tolist(),
        "latent_std": latents.double().std(0).tolist(),
        "embedding_mean": embeddings.double().mean(0).tolist(),
        "text_mean": embedder.embed_text(["a red hat", "night", "blue"]).double().mean(0).tolist(),
        "versions": {},
    }
    (folder / "dataset.json").write_text(json.dumps(dataset))
    return dataset


def write_original_shards(
    folder: Path, count: int = 500, tokens: int = 1, rows_per_shard: int = 200, seed: int = 0, pax: bool = True
) -> tuple[Tensor, Tensor]:
    """Writes shards as the original clip2latent does, a member for each row, and returns all rows as written.

    Embeddings have norms of their own. With `pax`, times are fractions of a second, as of files put into an archive,
    and each member has a PAX header.
    """
    rng = np.random.default_rng(seed)
    latents = rng.normal(1, 2, (count, tokens, 4)).astype("f4")
    embeddings = rng.normal(size=(count, 6)).astype("f4") * 3
    for index in range(-(-count // rows_per_shard)):
        members = {}
        for row in range(index * rows_per_shard, min(count, (index + 1) * rows_per_shard)):
            key = f"data/pairs/{index:05d}/{index:05d}{row:04d}"
            members[f"{key}.img_feat.npy"] = embeddings[row]
            members[f"{key}.latent.npy"] = latents[row, 0] if tokens == 1 else latents[row]
        write_members(folder / f"{index:05d}.tar", members, pax)
    return torch.from_numpy(latents), torch.from_numpy(embeddings)


def write_members(path: Path, members: dict[str, np.ndarray | bytes], pax: bool = False) -> None:
    """Writes a tar of .npy files, or of bytes as they are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for number, (name, array) in enumerate(members.items()):
            content = io.BytesIO(array if isinstance(array, bytes) else b"")
            if not isinstance(array, bytes):
                np.save(content, array)
            member = tarfile.TarInfo(name)
            member.size, member.mtime = len(content.getvalue()), 1.6e9 + number / 7 if pax else 1_600_000_000
            content.seek(0)
            tar.addfile(member, content)


def write_description(path: Path, groups: tuple[int, ...] = (1,), **others: object) -> str:
    """Writes what shards without dataset.json are of, and returns the file's path."""
    models = {
        "generator": {"class_path": "tiny_pairs.TinyGenerator", "init_args": {"rows": sum(groups)}},
        "embedder": {"class_path": "tiny_pairs.TinyEmbedder"},
    }
    path.write_text(json.dumps({**models, "groups": list(groups), **others}))
    return str(path)
