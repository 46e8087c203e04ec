"""Direction files: every kind people have, and none that runs code; the demo's own, checked by the judge."""

import io
import os
import pickle

import numpy as np
import pytest
import safetensors.torch
import torch

from clip2latent.directions import (
    Direction,
    built_in_directions,
    load_direction,
    parse_directions,
    save_direction,
)

VECTOR = torch.tensor([[1.0, -2.0, 0.5]])
DESCRIPTION = {"name": "größe", "positive": ["a"], "separation": {"accuracy": 0.9}, "generator": {"sha256": "ab"}}


def test_a_saved_direction_comes_back_with_its_description(tmp_path):
    path = save_direction(Direction(VECTOR, DESCRIPTION), tmp_path / "new" / "size.safetensors")
    read = load_direction(path)
    assert read.vector.equal(VECTOR) and read.description == DESCRIPTION
    again = save_direction(read, tmp_path / "again.safetensors")
    assert again.read_bytes() == path.read_bytes()
    assert [file.name for file in path.parent.iterdir()] == ["size.safetensors"]


def test_a_file_that_is_there_is_kept_unless_overwriting(tmp_path):
    path = save_direction(Direction(VECTOR), tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match="exists"):
        save_direction(Direction(-VECTOR), path)
    assert load_direction(save_direction(Direction(-VECTOR), path, overwrite=True)).vector.equal(-VECTOR)
    with pytest.raises(ValueError, match=r"\.safetensors"):
        save_direction(Direction(VECTOR), tmp_path / "a.npy")


@pytest.mark.parametrize("shape", [(3,), (1, 3), (4, 3), (1, 4, 3)])
@pytest.mark.parametrize("kind", [".npy", ".pt", ".pth", ".safetensors", "named .pt"])
def test_directions_of_others_are_read(kind, shape, tmp_path):
    values = torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    path = tmp_path / f"age{kind.split()[-1]}"
    if kind == ".npy":
        np.save(path, values.numpy())
    elif kind == ".safetensors":
        safetensors.torch.save_file({"w": values}, path)
    else:
        torch.save({"w": values} if kind.startswith("named") else values, path)
    read = load_direction(str(path))
    assert read.vector.equal(values.float().view(-1, 3)) and read.description == {"name": "age"}


class Harmful:
    def __reduce__(self):
        return os.system, ("touch harmed",)


def _harmful_npy():
    stream = io.BytesIO()
    np.save(stream, np.array([Harmful()], dtype=object), allow_pickle=True)
    return stream.getvalue()


def _torch_file(content):
    stream = io.BytesIO()
    torch.save(content, stream)
    return stream.getvalue()


REFUSED = {
    "a pickle": ("a.pt", pickle.dumps(Harmful(), protocol=2), "cannot be read"),
    "code in a torch file": ("a.pt", _torch_file(Harmful()), "cannot be read"),
    "code in an array": ("a.npy", _harmful_npy(), "cannot be read"),
    "no torch file": ("a.pt", bytes(range(256)), "cannot be read"),
    "empty": ("a.npy", b"", "cannot be read"),
    "no safetensors": ("a.safetensors", b"\xff" * 40, "cannot be read"),
    "two tensors": ("a.safetensors", safetensors.torch.save({"a": VECTOR, "b": -VECTOR}), "one tensor, got 2"),
    "a list": ("a.pt", _torch_file([1.0, 2.0]), "one dense tensor"),
    "an image": ("a.pt", _torch_file(torch.zeros(2, 3, 4)), r"\[1, D\] or \[L, D\]"),
    "not a number": ("a.pt", _torch_file(torch.full((1, 3), torch.nan)), "finite"),
    "a wrong description": ("a.safetensors", safetensors.torch.save({"a": VECTOR}, {"clip2latent": "[]"}), "mapping"),
    "another kind": ("a.pkl", b"", "ends in"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_direction_is_refused_and_never_run(case, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name, content, message = REFUSED[case]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        load_direction(tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_missing_direction_is_answered_with_those_there_are():
    with pytest.raises(FileNotFoundError, match=r"'smyle'.*smile"):
        load_direction("smyle")


def test_strengths_stand_behind_equals_signs():
    assert parse_directions("smile=1.5, a/b=c.npy=-2,old,") == [("smile", 1.5), ("a/b=c.npy", -2.0), ("old", 1.0)]
    assert parse_directions("") == []
    with pytest.raises(ValueError, match="'smile=much'"):
        parse_directions("old=1,smile=much")


def test_a_direction_knows_its_generator():
    found = Direction(VECTOR, DESCRIPTION)
    assert found.is_of({"sha256": "ab"}) and not found.is_of({"sha256": "cd"})
    assert found.is_of(None) and Direction(VECTOR).is_of({"sha256": "cd"})


@pytest.mark.parametrize("vector", [VECTOR[0], torch.tensor([[torch.inf]]), torch.ones(1, 3, dtype=torch.int64)])
def test_a_vector_is_finite_numbers_in_rows(vector):
    with pytest.raises(ValueError, match="vector"):
        Direction(vector)


@pytest.fixture(scope="module")
def demo():
    from clip2latent.judge import load_judge
    from clip2latent.text2image import TextToImage

    pipeline = TextToImage.from_pretrained("demo", device="cpu")
    return pipeline, load_judge(), pipeline.generator.sample_latents(32, torch.Generator().manual_seed(7))


@pytest.mark.parametrize("name", built_in_directions())
def test_the_judge_sees_what_a_built_in_direction_says(name, demo):
    from demo.directions import RECIPES, agreement

    pipeline, judge, latents = demo
    direction = load_direction(name)
    assert direction.vector.shape == pipeline.generator.latent_shape
    assert direction.is_of(pipeline.config["generator"]), "made with another generator: python -m demo.directions"
    seen = agreement(pipeline, judge, direction.vector, RECIPES[name], latents)
    recorded = direction.description["judge"]
    assert seen.changed >= recorded["changed"] - 0.2 and seen.kept >= recorded["kept"] - 0.1


def test_the_built_in_directions_are_those_of_the_recipe_and_of_the_help():
    from clip2latent.cli_edit import edit
    from demo.directions import RECIPES

    assert built_in_directions() == sorted(RECIPES)
    assert ", ".join(built_in_directions()) in " ".join(edit.__doc__.split())
