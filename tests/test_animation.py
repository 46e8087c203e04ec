"""Strips and videos: their frames, and what is said where a kind of video cannot be written."""

import importlib.util

import numpy as np
import pytest
import torch
from PIL import Image

from clip2latent import animation
from clip2latent.animation import check_video, save_video, strip

FRAMES = torch.linspace(-1, 1, 5).view(5, 1, 1, 1).expand(5, 3, 8, 8)


def brightness(picture):
    return float(np.asarray(picture.convert("L"), dtype=float).mean())


def test_a_strip_shows_frames_from_the_first_to_the_last():
    sheet = strip(FRAMES, ["dark", "bright"], columns=3, cell=32)
    pixels = np.asarray(sheet)
    middle = pixels[-20, :, 0]
    assert {0, 128, 255} <= set(middle.tolist()) and sheet.width < 5 * 38
    assert strip(FRAMES).height < strip(FRAMES, ["dark", "bright"]).height


def test_a_strip_of_one_frame_and_of_more_columns_than_frames():
    assert strip(FRAMES[:1], ["one"]).width < strip(FRAMES[:2]).width < strip(FRAMES, columns=9).width


def test_webp_plays_there_and_back_at_its_pace(tmp_path):
    save_video(FRAMES, tmp_path / "a.webp", fps=10, side=16)
    with Image.open(tmp_path / "a.webp") as video:
        assert video.n_frames == 8 and video.size == (16, 16) and video.info["loop"] == 0
        levels = []
        for frame in range(8):
            video.seek(frame)
            video.load()
            assert video.info["duration"] == 100
            levels.append(brightness(video))
    assert levels == pytest.approx([0, 64, 128, 191, 255, 191, 128, 64], abs=1.5)


def test_webp_one_way(tmp_path):
    save_video(FRAMES, str(tmp_path / "a.webp"), there_and_back=False, side=8)
    with Image.open(tmp_path / "a.webp") as video:
        assert video.n_frames == 5 and video.size == (8, 8)


@pytest.mark.skipif(importlib.util.find_spec("imageio_ffmpeg") is None, reason="imageio-ffmpeg is not installed")
def test_mp4_holds_every_frame(tmp_path):
    import imageio

    save_video(FRAMES, tmp_path / "a.mp4", fps=10, side=64)
    frames = [frame for frame in imageio.get_reader(tmp_path / "a.mp4")]
    assert len(frames) == 8 and frames[0].shape == (64, 64, 3)
    assert np.mean(frames[0]) < 20 and np.mean(frames[4]) > 235


def test_mp4_without_imageio_names_the_extra(monkeypatch, tmp_path):
    monkeypatch.setattr(animation.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"clip2latent\[video\]"):
        save_video(FRAMES, tmp_path / "a.mp4")
    assert not any(tmp_path.iterdir())


def test_other_endings_and_paces_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"\.webp or \.mp4"):
        check_video("a.gif")
    with pytest.raises(ValueError, match="fps=0"):
        save_video(FRAMES, tmp_path / "a.webp", fps=0)
