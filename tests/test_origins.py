import json

import pytest

from clip2latent.origins import origin_of
from clip2latent.spec import ModelSpec

GENERATOR, CLIP = "clip2latent.generators.load_generator", "clip2latent.embedders.load_open_clip"
NGC = "https://api.ngc.nvidia.com/v2/models/nvidia/research/stylegan2/versions/1/files/stylegan2-ffhq-1024x1024.pkl"


@pytest.mark.parametrize(
    ("class_path", "arguments", "name", "licence"),
    [
        (GENERATOR, {"source": "demo-avatars"}, "demo-avatars, embedded", "Apache-2.0"),
        (GENERATOR, {"source": NGC}, "stylegan2-ffhq-1024x1024.pkl", "NVIDIA's own licence, for non-commercial use"),
        (GENERATOR, {"source": "hf://a/b/c.pkl@v1"}, "hf://a/b/c.pkl@v1", "see https://huggingface.co/a/b"),
        (GENERATOR, {"source": "https://me:secret@host/x.pkl?key=1"}, "https://host/x.pkl", "not recorded"),
        (GENERATOR, {"source": "/home/me/models/x.pkl"}, "x.pkl", "not recorded"),
        (CLIP, {"model": "ViT-B-32-quickgelu", "pretrained": "openai"}, "openai", "https://github.com/openai/CLIP"),
        (CLIP, {"model": "ViT-B-32", "pretrained": "laion2b_s34b_b79k"}, "laion2b", "mlfoundations/open_clip"),
        (CLIP, {"model": "hf-hub:laion/x"}, "hf-hub:laion/x", "https://huggingface.co/laion/x"),
        ("my.Model", {}, "my.Model", "not recorded"),
    ],
)
def test_what_a_specification_tells(class_path, arguments, name, licence):
    origin = origin_of(ModelSpec(class_path, arguments))
    assert name in origin.name and licence in origin.licence
    assert "/home" not in origin.name and "secret" not in origin.name and "key" not in origin.name
    assert origin.local == (arguments.get("source", "").startswith("/home"))


@pytest.mark.parametrize(
    ("before", "name", "licence"),
    [
        (NGC, "ffhq, converted from https://api", "NVIDIA"),
        ("demo-avatars", "converted from demo-avatars", "Apache"),
        ("/home/me/x.pkl", "converted from x.pkl (sha256 abc)", "see there"),
    ],
)
def test_a_converted_folder_remembers(before, name, licence, tmp_path):
    folder = tmp_path / "ffhq"
    folder.mkdir()
    (folder / "config.json").write_text(
        json.dumps({"source": {"name": before, "sha256": "abc", "licence": "see there"}})
    )
    origin = origin_of(ModelSpec(GENERATOR, {"source": str(folder)}))
    assert name in origin.name and licence in origin.licence and origin.local and str(tmp_path) not in origin.name
