import json
from pathlib import Path

import pytest
import torch

from clip2latent.assets import asset
from clip2latent.judge import AttributeJudge, load_judge
from demo import avatars, single_objects
from demo.judge import PRESETS, accuracy, train
from demo.training import State

ATTRIBUTES = {"color": ("red", "blue"), "shape": ("round", "flat", "long")}


def test_reads_images_of_any_size() -> None:
    judge = AttributeJudge(ATTRIBUTES, width=8).eval()
    for side in (32, 64, 128):
        logits = judge(torch.zeros(2, 3, side, side))
        assert {name: tuple(value.shape) for name, value in logits.items()} == {"color": (2, 2), "shape": (2, 3)}
        assert judge.features(torch.zeros(2, 3, side, side)).shape == (2, judge.feature_dim)
    assert judge.classify(torch.zeros(2, 3, 64, 64))["shape"].shape == (2,)


def test_reading_does_not_depend_on_the_batch() -> None:
    judge, images = load_judge(), torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    alone = torch.cat([judge.features(image[None]) for image in images])
    assert torch.allclose(judge.features(images), alone, atol=1e-4)


def test_refuses_wrong_arguments() -> None:
    with pytest.raises(ValueError, match=r"\[B, 3, R, R\]"):
        AttributeJudge(ATTRIBUTES, width=8).features(torch.zeros(3, 64, 64))
    with pytest.raises(ValueError, match="multiple of 16"):
        AttributeJudge(ATTRIBUTES, resolution=40)
    with pytest.raises(ValueError, match="attributes"):
        AttributeJudge({})


def test_loading_errors_name_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        load_judge("nowhere")
    config = json.loads((asset("demo-judge") / "config.json").read_text())
    config["init_args"]["width"] += 8
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(FileNotFoundError, match=r"model.safetensors"):
        load_judge(str(tmp_path))
    (tmp_path / "model.safetensors").write_bytes((asset("demo-judge") / "model.safetensors").read_bytes())
    with pytest.raises(ValueError, match="blocks"):
        load_judge(str(tmp_path))


def test_shipped_judge_reads_held_out_renders() -> None:
    judge = load_judge()
    assert judge.attributes == avatars.ATTRIBUTES
    scores = accuracy(judge, avatars, num=400, seed=12345)
    assert scores["mean"] >= 0.95, scores
    assert min(scores.values()) >= 0.85, scores


def test_shipped_judge_of_classes_reads_held_out_renders() -> None:
    judge = load_judge("demo-class-judge")
    assert judge.attributes == single_objects.ATTRIBUTES
    scores = accuracy(judge, single_objects, num=400, seed=12345)
    assert min(scores.values()) >= 0.97, scores


def test_a_killed_training_goes_on_to_the_same_judge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    preset = PRESETS["smoke"]
    train(avatars, preset, tmp_path / "whole", tmp_path / "a")
    save = State.save

    def save_and_die(self: State, step: int) -> None:
        save(self, step)
        raise KeyboardInterrupt

    monkeypatch.setattr(State, "save", save_and_die)
    with pytest.raises(KeyboardInterrupt):
        train(avatars, preset, tmp_path / "cut", tmp_path / "b")
    monkeypatch.setattr(State, "save", save)
    train(avatars, preset, tmp_path / "cut", tmp_path / "b")
    whole, cut = (load_judge(str(tmp_path / name)).state_dict() for name in "ab")
    assert all(torch.equal(whole[name], cut[name]) for name in whole)
    with pytest.raises(ValueError, match="settings"):
        train(avatars, preset, tmp_path / "cut", tmp_path / "b", seed=1)
