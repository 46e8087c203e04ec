import json
import os
from pathlib import Path
from types import SimpleNamespace

import open_clip
import pytest
import torch
from safetensors.torch import save_file
from tiny_clip import TEXT, TINY, VISION, images, write_folder

from clip2latent import openclip
from clip2latent.embedders import OpenCLIPEmbedder, load_embedder, load_open_clip
from clip2latent.openclip_weights import load_weights, read_weights

# Small members of every kind that open_clip builds without transformers.
ARCHITECTURES = {
    "vit": TINY,
    "resnet": TINY | {"vision_cfg": {"layers": [1, 1, 1, 1], "width": 8, "head_width": 16, "image_size": 32}},
    "quickgelu": TINY | {"quick_gelu": True},
    "custom text": TINY | {"custom_text": True, "text_cfg": TEXT | {"pool_type": "last"}},
    "siglip": TINY
    | {
        "custom_text": True,
        "init_logit_bias": -10,
        "embed_dim": 64,
        "vision_cfg": {"image_size": 160, "timm_model_name": "test_vit", "timm_pool": "token", "timm_proj": "none"},
        "text_cfg": TEXT | {"no_causal_mask": True, "pool_type": "last", "proj_bias": True},
    },
    "coca": TINY
    | {
        "custom_text": True,
        "vision_cfg": VISION | {"attentional_pool": True, "attn_pooler_heads": 2, "output_tokens": True},
        "text_cfg": TEXT | {"embed_cls": True, "output_tokens": True, "context_length": 11},
        "multimodal_cfg": {"context_length": 11, "vocab_size": 49408, "width": 24, "heads": 2, "layers": 1},
    },
}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_every_kind_of_model_embeds(kind: str, precision: str, tmp_path: Path) -> None:
    embedder = load_embedder(str(write_folder(tmp_path, ARCHITECTURES[kind])), precision=precision)
    pixels = images(2, 48).requires_grad_()
    seen, texts = embedder.embed_images(pixels), embedder.embed_text(["a dog", "an old man with a red hat"])
    for embeddings in (seen, texts):
        assert embeddings.shape == (2, embedder.dim) and embeddings.dtype == torch.float32
        torch.testing.assert_close(embeddings.norm(dim=-1), torch.ones(2))
    seen[:, 0].sum().backward()
    assert (pixels.grad.abs().sum(dim=(1, 2, 3)) > 0).all()
    assert (texts[0] - texts[1]).abs().max() > 1e-4


def test_models_of_transformers_say_what_they_need(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*args: object, **kwargs: object) -> None:
        raise ImportError("No module named 'transformers'")

    monkeypatch.setattr(open_clip, "CustomTextCLIP", missing)
    with pytest.raises(ValueError, match=r"text towers of transformers"):
        openclip.build_clip(TINY | {"text_cfg": {"hf_model_name": "roberta-base"}})
    monkeypatch.setattr(openclip, "HFTokenizer", missing)
    with pytest.raises(ValueError, match=r"tokenizer 'roberta-base' needs the package transformers"):
        openclip.build_tokenizer({"text_cfg": {"hf_tokenizer_name": "roberta-base"}})


def test_tokenizer_settings_cannot_ask_for_code() -> None:
    settings = {"hf_tokenizer_name": "someone/else", "tokenizer_kwargs": {"trust_remote_code": True}}
    with pytest.raises(ValueError, match="known and safe"):
        openclip.build_tokenizer({"text_cfg": settings})
    masked = openclip.build_tokenizer({"text_cfg": {"tokenizer_kwargs": {"reduction_mask": "random"}}})
    assert masked.reduction_fn is None


class WordTokenizer:
    """One id a word; start, end and padding ids as the models of transformers have them, or not."""

    def __init__(self, start: int | None, end: int | None, pad: int) -> None:
        self.start, self.end, self.pad = start, end, pad
        self.context_length = 6

    def __call__(self, texts: list[str], context_length: int) -> torch.Tensor:
        rows = []
        for text in texts:
            words = [10 + len(word) for word in text.split()]
            before, after = ([] if extra is None else [extra] for extra in (self.start, self.end))
            ids = before + words[: context_length - len(before) - len(after)] + after
            rows.append(ids + [self.pad] * (context_length - len(ids)))
        return torch.tensor(rows)


@pytest.mark.parametrize(
    ("start", "end", "pad", "words"), [(1, 2, 0, 4), (None, 1, 1, 5), (None, None, 0, 6), (None, 1, 0, 5)]
)
def test_other_tokenizers_refuse_long_prompts_too(start: int | None, end: int | None, pad: int, words: int) -> None:
    tokenizer = WordTokenizer(start, end, pad)
    embedder = OpenCLIPEmbedder(torch.nn.Identity(), tokenizer, 6, 4, 32, openclip.MEAN, openclip.STD)
    fits = " ".join(["word"] * words)
    assert embedder._tokenize([fits, "a"]).shape == (2, 6)
    for extra in (1, 2, 20):
        with pytest.raises(ValueError, match="6 tokens"):
            embedder._tokenize(["a", fits + " word" * extra])
    embedder.truncate = True
    assert embedder._tokenize([fits + " word"]).equal(embedder._tokenize([fits]))


@pytest.fixture
def named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Makes the tiny model one that open_clip knows by several names, with a file of weights."""
    quick = TINY | {"quick_gelu": True}
    known = {"tiny": TINY, "tiny-quickgelu": quick, "ViT-B-32": TINY, "ViT-B-32-quickgelu": quick, "ViT-L-14": TINY}
    monkeypatch.setattr(open_clip.factory, "_MODEL_CONFIGS", known)
    torch.manual_seed(0)
    torch.save(openclip.build_clip(TINY).state_dict(), tmp_path / "weights.pt")
    return tmp_path / "weights.pt"


def test_loads_a_named_model_from_a_file(named: Path, tmp_path: Path) -> None:
    plain = load_open_clip("tiny", str(named), quick_gelu=False)
    quick = load_open_clip("tiny-quickgelu", str(named))
    assert plain.resolution == 32 and plain.dim == 24
    assert torch.allclose(plain.mean.flatten(), torch.tensor(open_clip.OPENAI_DATASET_MEAN))
    folder = write_folder(tmp_path / "folder", TINY)
    assert torch.equal(plain.embed_text(["a dog"]), load_embedder(str(folder)).embed_text(["a dog"]))
    assert not torch.allclose(plain.embed_text(["a dog"]), quick.embed_text(["a dog"]), atol=1e-6)
    asked = load_open_clip("tiny", str(named), quick_gelu=True)
    assert torch.equal(asked.embed_text(["a dog"]), quick.embed_text(["a dog"]))
    assert asked.identity == quick.identity != plain.identity
    assert plain.identity["model"] == "tiny" and "pretrained" not in plain.identity


def test_a_tag_decides_activation_and_preprocessing_of_a_local_file(named: Path) -> None:
    openai = load_open_clip("ViT-B-32", "openai", weights=str(named))
    assert openai.identity["model"] == "ViT-B-32" and openai.identity["pretrained"] == "openai"
    assert openai.identity["activation"] == "quick_gelu"
    assert load_open_clip("ViT-B-32-quickgelu", "openai", weights=str(named)).identity == openai.identity
    laion = load_open_clip("ViT-L-14", "laion2b_s32b_b82k", weights=str(named))
    assert laion.identity["activation"] == "gelu" and laion.identity["preprocessing"]["mean"] == [0.5, 0.5, 0.5]
    area = load_open_clip("ViT-B-32", "openai", weights=str(named), interpolation="area")
    assert area.interpolation == area.identity["preprocessing"]["interpolation"] == "area"


def test_named_model_errors(named: Path) -> None:
    with pytest.raises(ValueError, match="list_models"):
        load_open_clip("no-such-model", "openai")
    with pytest.raises(ValueError, match="neither a file nor a tag"):
        load_open_clip("tiny", "no-such-tag")
    with pytest.raises(ValueError, match="is not a tag of tiny"):
        load_open_clip("tiny", "no-such-tag", weights=str(named))
    with pytest.raises(ValueError, match="which activation"):
        load_open_clip("tiny", str(named))
    with pytest.raises(ValueError, match="contradictory"):
        load_open_clip("tiny-quickgelu", str(named), quick_gelu=False)
    with pytest.raises(ValueError, match="tags differ"):
        load_open_clip("ViT-L-14", str(named), quick_gelu=False)
    with pytest.raises(ValueError, match="interpolation='nearest'"):
        load_open_clip("tiny", str(named), quick_gelu=False, interpolation="nearest")
    torch.save({"visual.proj": torch.zeros(2)}, named)
    with pytest.raises(ValueError, match="do not fit model 'tiny'"):
        load_open_clip("tiny", str(named), quick_gelu=False)


def test_loads_a_model_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_folder(tmp_path, TINY | {"quick_gelu": True}, preprocess_cfg={"mean": [0.1, 0.2, 0.3]})
    os.rename(folder / "config.json", folder / "open_clip_config.json")
    os.rename(folder / "model.safetensors", folder / "open_clip_model.safetensors")

    def download(name: str, filename: str = "open_clip_model.safetensors") -> str:
        assert name == "owner/name"
        return str(folder / filename)

    monkeypatch.setattr(openclip, "download_pretrained_from_hf", download)
    hub = load_open_clip("hf-hub:owner/name")
    local = load_embedder(str(folder))
    assert hub.identity["pretrained"] == "hub" and hub.identity["activation"] == "quick_gelu"
    assert hub.identity["preprocessing"] == local.identity["preprocessing"]
    assert hub.identity["preprocessing"]["mean"] == [0.1, 0.2, 0.3]
    assert hub.embed_text(["a dog"]).equal(local.embed_text(["a dog"]))
    with pytest.raises(ValueError, match="leave it out"):
        load_open_clip("hf-hub:owner/name", "openai")
    with pytest.raises(ValueError, match="contradictory"):
        load_open_clip("hf-hub:owner/name", quick_gelu=False)
    torch.save(openclip.build_clip(TINY).state_dict(), folder / "open_clip_pytorch_model.bin")
    os.remove(folder / "open_clip_model.safetensors")
    assert load_embedder(str(folder)).dim == 24


class Hostile:
    def __reduce__(self):
        return (os.mkdir, (str(Hostile.folder),))


@pytest.mark.parametrize("inside", ["whole", "value", "program", "numbers", "garbage"])
def test_files_of_weights_run_no_code(inside: str, tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    Hostile.folder = tmp_path / "made by the file"
    if inside == "program":
        torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), path)
    elif inside == "garbage":
        path.write_bytes(b"garbage" * 100)
    else:
        torch.save({"whole": Hostile(), "value": {"state_dict": {"a": Hostile()}}, "numbers": {"a": 1}}[inside], path)
    with pytest.raises(ValueError, match=r"weights.pt (cannot be read as|must be a dict of tensors|are a TorchScript)"):
        read_weights(path)
    assert not Hostile.folder.exists()


def test_older_layouts_load(tmp_path: Path) -> None:
    torch.manual_seed(0)
    clip = openclip.build_clip(TINY)
    state = {f"module.{name}": value.clone() for name, value in clip.state_dict().items()}
    state["module.logit_scale"] = state["module.logit_scale"].view(1)
    state["module.context_length"] = torch.tensor(12)
    torch.save({"epoch": 3, "state_dict": state}, tmp_path / "old.pt")
    again = openclip.build_clip(TINY)
    load_weights(again, tmp_path / "old.pt")
    assert all(value.equal(again.state_dict()[name]) for name, value in clip.state_dict().items())
    custom = openclip.build_clip(TINY | {"custom_text": True})
    load_weights(custom, tmp_path / "old.pt")
    assert custom.text.positional_embedding.equal(clip.positional_embedding)
    # open_clip would resize the positional embedding of another context without a word.
    save_file({name: value.clone() for name, value in clip.state_dict().items()}, tmp_path / "other.safetensors")
    wider = openclip.build_clip(TINY | {"text_cfg": TEXT | {"context_length": 20}})
    with pytest.raises(ValueError, match=r"positional_embedding"):
        load_weights(wider, tmp_path / "other.safetensors")


@pytest.mark.parametrize(
    ("configured", "trained", "asked", "expected"),
    [
        (False, True, None, True),
        (False, True, True, True),
        (True, True, None, True),
        (True, None, None, True),
        (False, False, None, False),
        (False, None, False, False),
        (False, None, True, True),
        (False, True, False, None),
        (False, False, True, None),
        (True, False, None, None),
        (True, None, False, None),
        (False, None, None, None),
    ],
)
def test_activation_is_known_or_refused(
    configured: bool, trained: bool | None, asked: bool | None, expected: bool | None
) -> None:
    if expected is None:
        with pytest.raises(ValueError, match=r"activation|QuickGELU"):
            openclip.activation(configured, trained, asked)
    else:
        assert openclip.activation(configured, trained, asked) is expected


def test_published_weights_get_their_activation(monkeypatch: pytest.MonkeyPatch) -> None:
    built = []

    def build_clip(model_cfg: dict) -> None:
        built.append(model_cfg["quick_gelu"])
        raise ValueError("nothing is downloaded")

    monkeypatch.setattr(openclip, "build_clip", build_clip)
    monkeypatch.setattr(open_clip, "download_pretrained", lambda tag: "nowhere")
    tags = {"openai": True, "laion400m_e32": True, "metaclip_400m": True, "laion2b_s34b_b79k": False}
    for tag in tags:
        with pytest.raises(ValueError, match="nothing is downloaded"):
            load_open_clip("ViT-B-32", tag)
    assert built == list(tags.values())
    with pytest.raises(ValueError, match="nothing is downloaded"):
        load_open_clip("ViT-B-32-quickgelu", "openai")
    with pytest.raises(ValueError, match="neither a file nor a tag of ViT-B-32-quickgelu"):
        load_open_clip("ViT-B-32-quickgelu", "laion2b_s34b_b79k")


def test_only_square_images() -> None:
    assert openclip.image_side(SimpleNamespace(visual=SimpleNamespace(image_size=(32, 32)))) == 32
    with pytest.raises(ValueError, match="32 x 64"):
        openclip.image_side(SimpleNamespace(visual=SimpleNamespace(image_size=(32, 64))))


def test_preprocessing_is_read_from_the_configuration() -> None:
    siglip = open_clip.get_pretrained_cfg("ViT-B-16-SigLIP", "webli")
    assert openclip.read_preprocessing(siglip, 224) == (224, (0.5,) * 3, (0.5,) * 3, "bicubic")
    mobile = open_clip.get_pretrained_cfg("MobileCLIP-B", "datacompdr")
    assert openclip.read_preprocessing(mobile, 224) == (224, (0.0,) * 3, (1.0,) * 3, "bilinear")
    assert openclip.read_preprocessing(json.loads('{"interpolation": "random"}'), 64).interpolation == "bicubic"
    assert openclip.shared_preprocess("ViT-B-16-SigLIP")["mean"] == (0.5, 0.5, 0.5)
    assert openclip.shared_preprocess("ViT-S-32") == {}


@pytest.mark.parametrize(("model", "tag"), [("ViT-B-32-quickgelu", "openai"), ("hf-hub:owner/name", "")])
def test_offline_nothing_is_downloaded(model: str, tag: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLIP2LATENT_OFFLINE", "1")
    monkeypatch.setattr(openclip.huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    for place, name in ((open_clip, "download_pretrained"), (openclip, "download_pretrained_from_hf")):
        monkeypatch.setattr(place, name, lambda *_, **__: pytest.fail("went to the network"))
    with pytest.raises(FileNotFoundError, match=r"offline: .* local file or folder"):
        openclip.load_pretrained(model, tag)
