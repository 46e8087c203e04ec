import importlib
import math
import re
import sys
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import save_file
from torch import Tensor, nn

from clip2latent.contracts import GeneratorContract, laws
from clip2latent.generators.adapter import NOISES, ModuleGenerator, load_module_generator
from clip2latent.spec import ModelSpec

PAGE = (Path(__file__).parents[1] / "docs" / "own-generator.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", PAGE, re.DOTALL)
CODE, SUITE = (text for language, text in BLOCKS if language == "python")
OWN_YAML, ADAPTER_YAML = (yaml.safe_load(text) for language, text in BLOCKS if language == "yaml")


class Network(nn.Module):
    """The page's DCGAN: noise [B, 100, 1, 1] -> images [B, 3, 64, 64] in [0, 1]."""

    def __init__(self, channels: int = 8) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.ConvTranspose2d(100, channels, 16), nn.BatchNorm2d(channels), nn.Upsample(scale_factor=4), nn.ReLU(),
            nn.Conv2d(channels, 3, 3, padding=1), nn.Sigmoid(),
        )  # fmt: skip

    def forward(self, noise: Tensor) -> Tensor:
        return self.layers(noise)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that Python finds modules in, with the page's code and weights for both of its files."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "my_generator.py").write_text(CODE, encoding="utf-8")
    (folder / "test_mine.py").write_text(SUITE, encoding="utf-8")
    sys.path.insert(0, str(folder))
    torch.manual_seed(0)
    save_file(importlib.import_module("my_generator").MyGenerator().state_dict(), folder / "my_generator.safetensors")
    save_file(Network().state_dict(), folder / "my_gan.safetensors")
    yield folder
    sys.path.remove(str(folder))
    sys.modules.pop("my_generator")
    sys.modules.pop("test_mine", None)


def build(record: dict, folder: Path) -> nn.Module:
    arguments = record["init_args"] | {"weights": str(folder / record["init_args"]["weights"])}
    if "module" in arguments:
        arguments["module"] = arguments["module"] | {"class_path": "test_own_generator.Network"}
    return ModelSpec.from_dict(record | {"init_args": arguments}).build()


def test_the_pages_generator_is_at_most_30_lines() -> None:
    assert len([line for line in CODE.splitlines() if line.strip()]) <= 30


@pytest.mark.parametrize("law", laws(GeneratorContract))
def test_the_pages_generator_keeps_every_law(folder: Path, law: str) -> None:
    generator = build(OWN_YAML, folder)
    assert generator.resolution == 32
    getattr(GeneratorContract(generator), law)()


@pytest.mark.parametrize("law", laws(GeneratorContract))
def test_the_pages_adapter_keeps_every_law(folder: Path, law: str) -> None:
    generator = build(ADAPTER_YAML, folder)
    assert isinstance(generator, ModuleGenerator) and generator.latent_shape == (1, 100)
    getattr(GeneratorContract(generator), law)()


def test_the_pages_suite_runs(folder: Path) -> None:
    suite = importlib.import_module("test_mine")
    for law in ("shapes", "the_gradient_reaches_every_latent_row"):
        suite.test_my_generator(law)


def test_the_pages_files_are_read_by_datagen(folder: Path) -> None:
    from datagen.generate import load_models

    embedder = {"class_path": "tiny_models.TinyEmbedder", "init_args": {}}
    record = OWN_YAML | {"init_args": OWN_YAML["init_args"] | {"weights": str(folder / "my_generator.safetensors")}}
    models = load_models(record, embedder, "cpu")
    assert models.generator_spec.sha256 and models.generator.latent_shape == (1, 16)


class Rows(nn.Module):
    """latents [B, 3, 4] -> grey images [B, 1, 8, 8] in [-1, 1]."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(12, 64)

    def forward(self, rows: Tensor) -> Tensor:
        assert rows.shape[1:] == (3, 4)
        return torch.tanh(self.linear(rows.flatten(1))).view(-1, 1, 8, 8)


@pytest.mark.parametrize("noise", NOISES)
def test_several_rows_of_any_noise(noise: str) -> None:
    torch.manual_seed(0)
    generator = ModuleGenerator(Rows(), (3, 4), 8, sample=noise)
    contract = GeneratorContract(generator)
    for law in ("shapes", "a_seed_fixes_the_latents", "projection_is_idempotent_and_keeps_valid_latents"):
        getattr(contract, law)()
    assert generator.groups == (1, 1, 1)
    images = generator.synthesize(generator.sample_latents(2, torch.Generator().manual_seed(0)))
    assert images[:, 0].equal(images[:, 1]) and images[:, 0].equal(images[:, 2])


def test_noises_have_their_moments_and_bounds() -> None:
    deviations = {"normal": 1.0, "uniform": math.sqrt(1 / 3), "truncated": 0.8796}
    for name, noise in NOISES.items():
        drawn = noise.draw((200, 1000), torch.Generator().manual_seed(0))
        assert drawn.mean().abs() < 0.01 and drawn.std().item() == pytest.approx(deviations[name], abs=0.005)
        assert drawn.abs().max() <= noise.bound


def test_ranges_are_mapped_and_clamped_only_where_asked() -> None:
    values = torch.tensor([-0.5, 0.0, 0.5, 1.0]).view(1, 1, 2, 2)
    for clamp, wanted in ((False, [-2.0, -1.0, 0.0, 1.0]), (True, [-1.0, -1.0, 0.0, 1.0])):
        generator = ModuleGenerator(nn.Unflatten(1, (1, 2, 2)), (1, 4), 2, output_range=(0, 1), clamp=clamp)
        assert generator.synthesize(values.view(1, 1, 4))[0, 0].flatten().tolist() == wanted


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"latent_shape": (12,)}, r"latent_shape must be \(L, D\), got \[12\]"),
        ({"sample": "cauchy"}, "sample='cauchy': expected one of normal, uniform, truncated"),
        ({"output_range": (1, 0)}, "black < white"),
        ({"input_shape": (5,)}, r"input_shape \[5\] must hold the 3 x 4 numbers"),
    ],
)
def test_wrong_arguments_are_refused(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ModuleGenerator(Rows(), **({"latent_shape": (3, 4), "resolution": 8} | arguments))


def test_wrong_shapes_and_weights_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"latents: expected \[B, 3, 4\]"):
        ModuleGenerator(Rows(), (3, 4), 8).synthesize(torch.zeros(2, 12))
    with pytest.raises(ValueError, match=r"Rows made \[2, 1, 8, 8\] of 2 latents"):
        ModuleGenerator(Rows(), (3, 4), 16).synthesize(torch.zeros(2, 3, 4))
    module = {"class_path": "test_own_generator.Rows"}
    with pytest.raises(FileNotFoundError, match="missing"):
        load_module_generator(module, str(tmp_path / "no.safetensors"), (3, 4), 8)
    save_file({"linear.weight": torch.zeros(64, 12)}, tmp_path / "part.safetensors")
    with pytest.raises(ValueError, match=r"linear\.bias"):
        load_module_generator(module, str(tmp_path / "part.safetensors"), (3, 4), 8)
    with pytest.raises(ValueError, match="neither"):
        load_module_generator({"class_path": "os.system"}, "", (3, 4), 8)
