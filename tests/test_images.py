"""Images and output folders: round trips, safe names, nothing half-written."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from clip2latent.images import from_uint8, grid, read_metadata, save_png, to_pil, to_uint8
from clip2latent.outputs import choose_folder, filled, provenance, slug, write_json

PROMPTS = [
    "a/b\\c:d",
    "../../etc/passwd",
    "\N{GRINNING FACE}",
    "x" * 5000,
    "שלום עולם",
    "a\nb\0c",
    "",
    "..",
    "CON",
    " é ",
]


def test_uint8_round_trip_is_exact():
    pixels = np.arange(256, dtype=np.uint8).repeat(3).reshape(1, 16, 16, 3)
    assert (to_uint8(from_uint8(pixels)) == pixels).all()
    images = from_uint8(pixels)
    assert images.min() == -1 and images.max() == 1


def test_conversion_keeps_the_scale_of_dark_pictures_and_clamps():
    assert (to_uint8(torch.full((1, 3, 2, 2), -0.5)) == 64).all()
    assert to_uint8(torch.tensor([-9.0, 0.0, 9.0]).reshape(1, 3, 1, 1)).flatten().tolist() == [0, 128, 255]


@pytest.mark.parametrize("prompt", PROMPTS)
def test_slug_is_a_safe_file_name(prompt, tmp_path):
    name = slug(prompt)
    assert 1 <= len(name) <= 48 and set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
    (tmp_path / f"000-{name}-0.png").touch()


@pytest.mark.parametrize("prompt", PROMPTS)
def test_png_keeps_its_metadata_for_any_prompt(prompt, tmp_path):
    picture = to_pil(torch.rand(1, 3, 8, 8) * 2 - 1)[0]
    metadata = {"prompt": prompt, "seed": 3, "options": {"guidance": 2.0}, "score": 0.25}
    save_png(picture, tmp_path / "picture.png", metadata)
    assert read_metadata(tmp_path / "picture.png") == metadata
    assert [path.name for path in tmp_path.iterdir()] == ["picture.png"]
    with Image.open(tmp_path / "picture.png") as read:
        assert (np.asarray(read) == np.asarray(picture)).all()


def test_reading_metadata_says_what_is_wrong(tmp_path):
    Image.new("RGB", (2, 2)).save(tmp_path / "foreign.png")
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(ValueError, match="no clip2latent metadata"):
        read_metadata(tmp_path / "foreign.png")
    with pytest.raises(ValueError, match="not a picture"):
        read_metadata(tmp_path / "text.png")


@pytest.mark.parametrize("scores", [None, torch.tensor([[0.1, 0.2, 0.3]] * len(PROMPTS))])
def test_grid_holds_every_image_at_its_place(scores):
    images = torch.linspace(-1, 1, len(PROMPTS) * 3).reshape(-1, 3, 1, 1, 1).expand(-1, -1, 3, 16, 16)
    sheet = grid(images, PROMPTS, scores, cell=64, label_width=90)
    pixels = np.asarray(sheet)
    foot = 0 if scores is None else 16
    for row in range(len(PROMPTS)):
        for column in range(3):
            centre = pixels[6 + row * (70 + foot) + 32, 96 + column * 70 + 32]
            assert centre.tolist() == to_uint8(images[row, column][None])[0, 0, 0].tolist()


def test_grid_wants_one_label_for_each_row():
    with pytest.raises(ValueError, match="expected 2"):
        grid(torch.zeros(2, 1, 3, 4, 4), ["one"])


def test_default_folders_are_numbered_and_never_reused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for number in (1, 2):
        folder = choose_folder(None, "hat")
        assert folder.as_posix() == f"outputs/hat-{number}" and not folder.exists()
        with filled(folder, "results.json") as staging:
            (staging / "a.png").touch()
    assert sorted(path.name for path in (tmp_path / "outputs").iterdir()) == ["hat-1", "hat-2"]


def test_a_folder_with_files_is_refused_and_untouched(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"exists and is not empty.*--overwrite"):
        choose_folder(tmp_path, "hat")
    with pytest.raises(ValueError, match="is a file"):
        choose_folder(tmp_path / "mine.txt", "hat", overwrite=True)
    with pytest.raises(ValueError, match="cannot be made"):
        choose_folder(tmp_path / "mine.txt" / "below", "hat")


def test_overwriting_replaces_the_programs_files_and_keeps_the_users(tmp_path):
    folder = tmp_path / "out"
    for names in (["a.png", "b.png"], ["b.png", "c.png"]):
        with filled(choose_folder(folder, "", overwrite=True), "results.json") as staging:
            for name in names:
                (staging / name).write_text(str(names))
            write_json(staging / "results.json", {"files": [*names, "results.json", "../keep.txt"]})
        (folder / "mine.txt").write_text("mine")
        (tmp_path / "keep.txt").write_text("mine")
    assert sorted(path.name for path in folder.iterdir()) == ["b.png", "c.png", "mine.txt", "results.json"]
    assert "c.png" in (folder / "b.png").read_text() and (tmp_path / "keep.txt").exists()
    assert json.loads((folder / "results.json").read_text())["files"][0] == "b.png"


@pytest.mark.parametrize("before", [False, True])
def test_a_failure_leaves_nothing_half_written(tmp_path, before):
    folder = tmp_path / "out"
    if before:
        folder.mkdir()
        (folder / "old.png").write_text("old")

    def interrupted():
        with filled(folder, "results.json") as staging:
            (staging / "old.png").write_text("new")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [path.name for path in tmp_path.iterdir()] == (["out"] if before else [])
    assert not before or (folder / "old.png").read_text() == "old"


def test_json_refuses_what_json_does_not_know(tmp_path):
    with pytest.raises(ValueError):
        write_json(tmp_path / "a.json", {"score": float("nan")})


def test_provenance_names_versions():
    found = provenance()
    assert found["versions"]["torch"] == torch.__version__.split("+")[0] or "torch" in found["versions"]
    assert found["commit"] is None or len(found["commit"]) >= 40
