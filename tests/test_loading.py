"""load_generator: every kind of source gives the same generator, everything else an error that says what to do."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from network_pickles import network_pickle
from safetensors.torch import load_file, save_file

from clip2latent.generators import load_generator, loading
from clip2latent.generators.loading import FAMILIES, family_module, find_preset, presets, read_state
from clip2latent.generators.stylegan2 import StyleGAN2
from clip2latent.spec import ModelSpec, weights_sha256

ROOTS = (Path(__file__).parents[2] / "shared" / "golden", Path(__file__).parent / "golden")
TINY = dict(z_dim=4, c_dim=0, w_dim=4, img_resolution=8, img_channels=3, channel_base=32, channel_max=4)
OFFICIAL = {
    "stylegan2": "stylegan2_cond32",
    "stylegan3": "stylegan3t_32",
    "biggan": "biggan_64",
    "biggan_deep": "biggan_deep_32",
    "sagan": "sagan_64",
}


NAMES = ("config.json", "model.safetensors")


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def official(family):
    """Weights, arguments and folder of an official state dict."""
    folder = next((root / OFFICIAL[family] for root in ROOTS if (root / OFFICIAL[family]).is_dir()), None)
    if folder is None:
        pytest.skip(f"reference data {OFFICIAL[family]} is not on this machine")
    config = json.loads((folder / "config.json").read_text())
    return folder / "weights.safetensors", config.get("init_kwargs", config), folder


def same_images(one, other, num=2):
    latents = one.sample_latents(num, rng())
    return latents.equal(other.sample_latents(num, rng())) and one.synthesize(latents).equal(other.synthesize(latents))


@pytest.fixture(scope="module")
def tiny():
    torch.manual_seed(0)
    return StyleGAN2(**TINY).eval().requires_grad_(False)


@pytest.fixture
def folder(tiny, tmp_path):
    config = {"class_path": "clip2latent.generators.stylegan2.StyleGAN2", "init_args": TINY}
    return write_folder(tmp_path / "tiny", config, tiny)


def write_folder(path, config, module):
    path.mkdir()
    (path / "config.json").write_text(json.dumps(config))
    save_file(module.state_dict(), path / "model.safetensors")
    return path


@pytest.mark.parametrize("family", FAMILIES)
def test_an_official_state_dict_is_built_by_its_family(family, tmp_path):
    weights, arguments, _ = official(family)
    expected = family_module(family).from_official(read_state(weights), **arguments)
    generator = load_generator(str(weights), family=family, **arguments)
    assert same_images(generator, expected)
    assert not generator.training and not any(weight.requires_grad for weight in generator.parameters())
    with pytest.raises(ValueError, match=f"looks like {family}.*family.*preset"):
        load_generator(str(weights))


@pytest.mark.parametrize("form", ["pt", "old.pth", "wrapped.ckpt", "parallel.bin", "safetensors"])
def test_a_state_dict_in_any_file(form, tiny, tmp_path):
    path, state = tmp_path / f"weights.{form}", tiny.state_dict()
    match form:
        case "pt":
            torch.save(state, path)
        case "old.pth":
            torch.save(state, path, _use_new_zipfile_serialization=False)
        case "wrapped.ckpt":
            torch.save({"state_dict": state, "step": 3, "seed": None, "ada_p": 0.5, "run": "a"}, path)
        case "parallel.bin":
            torch.save({f"module.{name}": tensor for name, tensor in state.items()}, path)
        case "safetensors":
            save_file(state, path)
    assert same_images(load_generator(str(path), family="stylegan2", **TINY), tiny)


def test_a_studiogan_checkpoint_and_a_pretrained_biggan_folder(tmp_path):
    weights, arguments, folder = official("sagan")
    checkpoint = folder / "checkpoint_style.pth"
    if checkpoint.is_file():
        expected = load_generator(str(weights), family="sagan", **arguments)
        assert same_images(load_generator(str(checkpoint), family="sagan", **arguments), expected)
    weights, arguments, folder = official("biggan_deep")
    torch.save(load_file(weights), tmp_path / "pytorch_model.bin")
    shutil.copy(folder / "config.json", tmp_path)
    expected = load_generator(str(weights), family="biggan_deep", **arguments)
    for source in (tmp_path, tmp_path / "config.json"):
        assert same_images(load_generator(str(source)), expected)
    assert same_images(load_generator(str(tmp_path), family="biggan_deep"), expected)
    with pytest.raises(ValueError, match=r"z_dim: 9 was given, but .* says 8"):
        load_generator(str(tmp_path), z_dim=9)


def test_our_own_folder(tiny, folder):
    for source in (folder, folder / "config.json"):
        assert same_images(load_generator(str(source)), tiny)
    assert load_generator(str(folder), space="z").latent_shape == (1, 4)
    assert load_generator().resolution == 64


def test_a_third_partys_folder_is_built_by_its_class(tmp_path):
    from tiny_models import TinyGenerator

    config = {"class_path": "tiny_models.TinyGenerator", "init_args": {"seed": 1}}
    path = write_folder(tmp_path / "theirs", config, TinyGenerator(seed=1))
    assert same_images(load_generator(str(path)), TinyGenerator(seed=1))


def test_arguments_of_a_network_pickle_add_to_what_it_says(tiny, tmp_path):
    path = tmp_path / "network.pkl"
    path.write_bytes(network_pickle(tiny, TINY))
    assert same_images(load_generator(str(path)), tiny)
    assert load_generator(str(path), space="w+").groups == (1,) * tiny.latent_shape[0]
    assert same_images(load_generator(str(path), family="stylegan2", w_dim=4), tiny)
    for name, value in (("w_dim", 5), ("family", "stylegan3"), ("preset", "biggan-256")):
        with pytest.raises(ValueError, match=f"^{name}: .*leave it out"):
            load_generator(str(path), **{name: value})


def test_presets_name_a_family_and_arguments():
    assert {"biggan-256", "biggan-512", "biggan-deep-128", "biggan-deep-512", "sagan-128"} <= set(presets())
    assert find_preset("biggan-512")[0] == "biggan" and find_preset("biggan-512")[1]["dim_z"] == 128
    with pytest.raises(ValueError, match=r"preset: there is no 'biggan-3'.*biggan-256"):
        find_preset("biggan-3")
    with pytest.raises(ValueError, match="of family 'sagan'"):
        find_preset("biggan-256", "sagan")


def test_a_preset_is_changed_by_arguments(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(family_module("stylegan2"), "PRESETS", {"large": {**TINY, "w_dim": 512}}, raising=False)
    save_file(tiny.state_dict(), tmp_path / "a.safetensors")
    assert same_images(load_generator(str(tmp_path / "a.safetensors"), preset="large", w_dim=4), tiny)
    with pytest.raises(ValueError, match=r"mapping\.fc0\.weight"):
        load_generator(str(tmp_path / "a.safetensors"), preset="large")


def test_a_source_in_a_specification(folder, tiny):
    arguments = {"source": str(folder)}
    spec = ModelSpec("clip2latent.generators.load_generator", arguments, weights_sha256(tiny))
    assert same_images(spec.build(), tiny)


def test_the_files_hash_is_checked_wherever_it_lies(folder):
    for source in (folder, folder / "model.safetensors"):
        with pytest.raises(ValueError, match=r"sha256: .*model.safetensors has"):
            load_generator(str(source), sha256="0" * 64)


@pytest.fixture
def remote(monkeypatch, folder):
    """Addresses that are served from folders here, and the list of those asked for."""
    asked, places = [], {"https://a.b/tiny": folder, "hf://owner/name": folder}

    def cached(source, sha256=None, offline=None):
        asked.append((source, sha256, offline))
        start, _, name = source.rpartition("/")
        return places[start] / name.partition("@")[0]

    monkeypatch.setattr(loading, "cached_file", cached)
    return asked, places


def test_a_remote_file_and_a_remote_folder(remote, tiny):
    asked, _ = remote
    for start in ("https://a.b/tiny", "hf://owner/name"):
        assert same_images(load_generator(f"{start}/config.json", sha256="1" * 64, offline=True), tiny)
        found = load_generator(f"{start}/model.safetensors", family="stylegan2", **TINY)
        assert same_images(found, tiny)
    assert same_images(load_generator("hf://owner/name/config.json@v1"), tiny)
    assert [source for source, _, _ in asked[-2:]] == [f"hf://owner/name/{name}@v1" for name in NAMES]
    assert asked[:2] == [
        ("https://a.b/tiny/config.json", None, True),
        ("https://a.b/tiny/model.safetensors", "1" * 64, True),
    ]


def test_a_downloaded_folder_names_this_packages_classes_only(remote, tmp_path, tiny):
    for class_path in ("os.system", "tiny_models.TinyGenerator", "clip2latent.generators_of_theirs.Gan"):
        path = tmp_path / class_path
        remote[1]["hf://owner/theirs"] = write_folder(path, {"class_path": class_path, "init_args": {}}, tiny)
        with pytest.raises(ValueError, match="not a class of this package"):
            load_generator("hf://owner/theirs/config.json")


def test_what_does_not_fit_is_listed(folder, tiny):
    state = load_file(folder / "model.safetensors")
    changed = {**state, "extra": torch.zeros(1), "mapping.fc0.bias": torch.zeros(7)}
    del changed["mapping.fc1.bias"]
    save_file(changed, folder / "model.safetensors")
    for arguments in (
        {"source": str(folder)},
        {"source": str(folder / "model.safetensors"), "family": "stylegan2", **TINY},
    ):
        with pytest.raises(ValueError) as refused:
            load_generator(**arguments)
        for part in ("missing", "mapping.fc1.bias", "unexpected", "extra", "mapping.fc0.bias", "[7]", "[4]"):
            assert part in str(refused.value)


class Touch:
    def __reduce__(self):
        return os.system, ("touch touched",)


def content(name, tiny):
    """A file that is no generator, and what its error says."""
    web = b"  <!DOCTYPE html><html>Log in</html>"
    return {
        "an empty file": (b"", "an empty file"),
        "a web page": (web, "a web page"),
        "a git lfs pointer": (b"version https://git-lfs.github.com/spec/v1\noid", "Git LFS pointer"),
        "noise": (bytes(range(7, 200)), "no known format"),
        "a list": ([1, 2], "expected a state dict"),
        "other tensors": ({"g_ema": {"a": torch.zeros(1)}, "latent_avg": torch.zeros(1)}, r"found a dict of \['g_ema'"),
        "a module": (torch.nn.Linear(1, 1), "more than tensors"),
        "code": ({"state_dict": {"a": Touch()}}, "more than tensors"),
    }[name]


@pytest.mark.parametrize(
    "name",
    ["an empty file", "a web page", "a git lfs pointer", "noise", "a list", "other tensors", "a module", "code"],
)
@pytest.mark.parametrize("new", [True, False], ids=["zip", "legacy"])
def test_files_that_hold_no_generator_say_what_they_hold(name, new, tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    held, message = content(name, tiny)
    if isinstance(held, bytes):
        Path("file.pth").write_bytes(held)
    else:
        torch.save(held, "file.pth", _use_new_zipfile_serialization=new)
    with pytest.raises(ValueError, match=message):
        load_generator("file.pth", family="stylegan2", **TINY)
    assert not Path("touched").exists()


def test_a_truncated_file_is_refused(tiny, tmp_path):
    for name, write in (("a.pth", torch.save), ("a.safetensors", save_file)):
        write(tiny.state_dict(), tmp_path / name)
        whole = (tmp_path / name).read_bytes()
        for length in (60, len(whole) // 2, len(whole) - 1):
            (tmp_path / name).write_bytes(whole[:length])
            with pytest.raises(ValueError, match=r"a\.(pth|safetensors)"):
                load_generator(str(tmp_path / name), family="stylegan2", **TINY)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"source": "nowhere"}, FileNotFoundError, "source: 'nowhere' is not a folder.*demo-avatars.*hf://owner"),
        ({"source": "{folder}/nothing.pkl"}, FileNotFoundError, "nothing.pkl"),
        ({"source": "{folder}", "family": "stylegan2"}, ValueError, "family: .*leave it out"),
        ({"source": "{folder}", "preset": "biggan-256"}, ValueError, "preset: .*leave it out"),
        ({"source": "{folder}", "colour": "red"}, ValueError, "colour"),
        ({"source": "{folder}", "space": "q"}, ValueError, "space: expected one of"),
        ({"source": "{folder}/model.safetensors", "family": "gan"}, ValueError, "family: expected one of stylegan2"),
        ({"source": "{folder}/model.safetensors", "family": "stylegan2"}, ValueError, "z_dim"),
        ({"source": "{folder}/model.safetensors", "family": "stylegan2", "colour": 1, **TINY}, ValueError, "colour"),
    ],
    ids=lambda value: str(value)[:60] if isinstance(value, dict) else "",
)
def test_errors_name_the_argument(arguments, error, message, folder):
    filled = {name: value.format(folder=folder) if name == "source" else value for name, value in arguments.items()}
    with pytest.raises(error, match=message):
        load_generator(**filled)


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "not json"), ("[1]", "expected an object"), ('{"a": 1}', "expected the keys class_path.*found a")],
)
def test_a_config_of_another_kind_is_refused(text, message, tmp_path):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        load_generator(str(tmp_path))
    (tmp_path / "config.json").write_text('{"class_path": "a.B", "init_args": {}}')
    with pytest.raises(FileNotFoundError, match=r"no model\.safetensors"):
        load_generator(str(tmp_path))
