"""Results as a start: what was written is read, and what is no result is named."""

import json

import pytest
import safetensors.torch
import torch
from PIL import Image
from tiny_checkpoint import write_tiny_checkpoint

from clip2latent.images import read_metadata
from clip2latent.redraw import redraw
from clip2latent.saved import is_saved, read_saved, save_edited
from clip2latent.starts import Drawing, checkpoint_of, gather, read_sources
from clip2latent.text2image import TextToImage

LATENTS = torch.randn(2, 3, 3, 4, generator=torch.Generator().manual_seed(0))
LABELS = ["a red hat", "x" * 5000]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return str(write_tiny_checkpoint(tmp_path_factory.mktemp("prior") / "tiny"))


@pytest.fixture(scope="module")
def pipeline(checkpoint):
    return TextToImage.from_pretrained(checkpoint, "cpu")


@pytest.fixture
def folder(pipeline, checkpoint, tmp_path):
    images = redraw(pipeline, LATENTS).images
    options, models = {"checkpoint": checkpoint}, {"generator": pipeline.config["generator"]}
    extras = {"note.txt": lambda path: path.write_text("here")}
    sheet = Image.new("RGB", (4, 4))
    save_edited(tmp_path / "out", LABELS, LATENTS, images, sheet, options, models, extras)
    return tmp_path / "out"


def test_what_was_written_is_read(folder, checkpoint, pipeline):
    for source in (folder, folder / "latents.safetensors"):
        saved = read_saved(source)
        assert saved.labels == LABELS and saved.latents.equal(LATENTS)
        assert saved.checkpoint == checkpoint and saved.generator == pipeline.config["generator"]


def test_a_folder_lists_its_files_and_every_picture_says_what_it_is(folder):
    record = json.loads((folder / "results.json").read_text())
    assert sorted(path.name for path in folder.iterdir()) == record["files"] and "note.txt" in record["files"]
    assert len(record["images"]) == 6
    for entry in record["images"]:
        assert read_metadata(folder / entry["file"]).items() >= entry.items()


def test_latents_without_a_record_are_read_too(tmp_path):
    safetensors.torch.save_file({"latents": LATENTS[0]}, tmp_path / "some.safetensors")
    saved = read_saved(tmp_path / "some.safetensors")
    assert saved.latents.shape == (3, 1, 3, 4) and saved.labels == ["some 0", "some 1", "some 2"]
    assert saved.checkpoint is None and saved.generator is None


def test_results_are_told_from_prompts(folder, tmp_path):
    assert is_saved(str(folder)) and is_saved("anything.safetensors")
    for prompt in ("a dog", "x" * 5000, "a/b\0c", str(tmp_path), "."):
        assert not is_saved(prompt)


def _write(path, content):
    path.mkdir()
    (path / "latents.safetensors").write_bytes(content)
    return path


@pytest.mark.parametrize(
    "content, message",
    [
        (b"\xff" * 30, "cannot be read"),
        (safetensors.torch.save({"scores": LATENTS}), "'latents'"),
        (safetensors.torch.save({"latents": LATENTS[0, 0]}), "'latents'"),
        (safetensors.torch.save({"latents": LATENTS / 0}), "finite"),
    ],
)
def test_what_holds_no_latents_is_refused(content, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        read_saved(_write(tmp_path / "bad", content))


def test_missing_latents_and_a_broken_record_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nope\.safetensors"):
        read_saved("nope.safetensors")
    broken = _write(tmp_path / "bad", safetensors.torch.save({"latents": LATENTS}))
    (broken / "results.json").write_text("{")
    with pytest.raises(ValueError, match=r"results\.json"):
        read_saved(broken)


def test_prompts_and_results_are_gathered_in_order(pipeline, folder):
    drawing = Drawing(num=2, candidates=3, seed=4)
    starts = gather(pipeline, read_sources(["a dog", str(folder), "night"]), drawing)
    assert starts.labels == ["a dog"] * 2 + [LABELS[0]] * 2 + [LABELS[1]] * 2 + ["night"] * 2
    assert starts.latents[2:6].equal(LATENTS[:, :2].flatten(0, 1))
    drawn = pipeline.generate(["a dog", "night"], num=2, candidates=3, seed=4).latents
    assert starts.latents[[0, 1, 6, 7]].equal(drawn.flatten(0, 1))


def test_only_a_text_alone_is_a_plain_source(folder, tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    sources = read_sources(["a dog", "a dog | a cat", str(tmp_path / "a.png"), str(folder)])
    assert [source.is_plain for source in sources] == [True, False, False, False]


def test_the_checkpoint_is_that_of_the_results(folder, checkpoint):
    assert checkpoint_of(read_sources(["a dog", str(folder)])) == checkpoint
    assert checkpoint_of(read_sources(["a dog"])) == "demo"
    one, other = (read_sources([str(folder)])[0] for _ in range(2))
    other = other._replace(saved=other.saved._replace(checkpoint="another"))
    with pytest.raises(ValueError, match="several checkpoints"):
        checkpoint_of([one, other])


def test_latents_of_another_generator_are_refused(pipeline, folder):
    (source,) = read_sources([str(folder)])
    narrow = source._replace(saved=source.saved._replace(latents=LATENTS[..., :2]))
    with pytest.raises(ValueError, match=r"\(3, 2\).*\(3, 4\)"):
        gather(pipeline, [narrow], Drawing())
    foreign = source._replace(saved=source.saved._replace(generator={"sha256": "0" * 64}))
    with pytest.raises(ValueError, match="another generator"):
        gather(pipeline, [foreign], Drawing())


def test_redrawing_projects_and_does_not_depend_on_the_chunk(pipeline):
    whole, parts = redraw(pipeline, LATENTS), redraw(pipeline, LATENTS, chunk=1)
    assert whole.images.shape == (2, 3, 3, 8, 8) and whole.latents.equal(LATENTS)
    torch.testing.assert_close(whole.images, parts.images)
    with pytest.raises(ValueError, match=r"\[\.\.\., 3, 4\]"):
        redraw(pipeline, LATENTS[..., :3])
    with pytest.raises(ValueError, match="chunk=0"):
        redraw(pipeline, LATENTS, chunk=0)
