import json

import pytest
import torch
from torch import nn

from clip2latent.interfaces import Generator
from clip2latent.spec import ModelSpec, weights_sha256


class Scale(nn.Module):
    def __init__(self, value: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((2, 3), value))


def load_scale(value: float) -> Generator:
    return Scale(value)


def no_model(value: float) -> int:
    return int(value)


def test_round_trip_and_build():
    spec = ModelSpec.of("test_spec.Scale", {"value": 2.0}, Scale(2.0))
    again = ModelSpec.from_dict(json.loads(json.dumps(spec.to_dict())))
    assert again == spec and again.same_model(spec)
    assert again.build().weight[0, 0] == 2
    assert ModelSpec("test_spec.load_scale", {"value": 2.0}, spec.sha256).build().weight[0, 0] == 2


def test_other_weights_are_refused_naming_both():
    spec = ModelSpec("test_spec.Scale", {"value": 3.0}, weights_sha256(Scale(2.0)))
    with pytest.raises(ValueError, match=f"(?s){weights_sha256(Scale(3.0))[:12]}.*{spec.sha256[:12]}"):
        spec.build()


def test_same_model_compares_hashes_and_else_paths():
    two, three = (ModelSpec.of("test_spec.Scale", {"value": v}, Scale(v)) for v in (2.0, 3.0))
    assert not two.same_model(three)
    assert two.same_model(ModelSpec("elsewhere.Scale", {}, two.sha256))
    assert two.same_model(ModelSpec(two.class_path, two.init_args))
    assert not two.same_model(ModelSpec(two.class_path, {}))


class Named(Scale):
    def __init__(self, activation: str = "gelu") -> None:
        super().__init__()
        self.identity = {"model": "ViT", "activation": activation, "preprocessing": {"mean": (0.5, 0.5)}}


def test_identity_is_recorded_and_another_one_refused_naming_both():
    spec = ModelSpec.of("test_spec.Named", {}, Named())
    assert spec.to_dict()["identity"]["preprocessing"] == {"mean": [0.5, 0.5]}
    again = ModelSpec.from_dict(json.loads(json.dumps(spec.to_dict())))
    assert again == spec and again.build().identity == Named().identity
    quick = ModelSpec.of("test_spec.Named", {"activation": "quick_gelu"}, Named("quick_gelu"))
    assert quick.sha256 == spec.sha256 and not quick.same_model(spec)
    assert "activation gelu" in str(spec) and "activation quick_gelu" in str(quick)
    with pytest.raises(ValueError, match=r"has \{'activation': 'gelu'\}, but \{'activation': 'quick_gelu'\}"):
        ModelSpec("test_spec.Named", {}, identity=quick.identity).build()


def test_records_without_identity_stay_readable():
    spec = ModelSpec.of("test_spec.Named", {}, Named())
    old = {name: value for name, value in spec.to_dict().items() if name != "identity"}
    assert ModelSpec.from_dict(old).same_model(spec) and spec.same_model(ModelSpec.from_dict(old))
    assert ModelSpec.from_dict(old).build() is not None
    assert "identity" not in ModelSpec.of("test_spec.Scale", {"value": 2.0}, Scale(2.0)).to_dict()


def test_the_hash_is_of_names_shapes_and_values():
    hashes = {weights_sha256(module) for module in (Scale(1.0), Scale(2.0), nn.Linear(2, 3), nn.Identity())}
    assert len(hashes) == 4
    assert weights_sha256(Scale(2.0).half()) == weights_sha256(Scale(2.0))
    wide = Scale(1.0)
    wide.weight.data = wide.weight.data.reshape(3, 2)
    assert weights_sha256(wide) not in hashes


@pytest.mark.parametrize(
    "class_path", ["os.system", "subprocess.Popen", "test_spec.no_model", "torch.load", "torch.randn"]
)
def test_a_file_cannot_name_any_callable(class_path):
    with pytest.raises(ValueError, match="neither"):
        ModelSpec(class_path, {}).build()


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({}, "class_path is required"),
        ({"class_path": "a.b", "args": {}}, "args"),
        ({"class_path": "nowhere.to.be.found"}, "cannot be imported"),
        ({"class_path": "test_spec.Missing"}, "cannot be imported"),
        ({"class_path": "Scale"}, "module.name"),
        ({"class_path": "test_spec.Scale", "init_args": {"valu": 1}}, "do not fit"),
    ],
)
def test_wrong_records_are_refused(record, message):
    with pytest.raises(ValueError, match=message):
        ModelSpec.from_dict(record).build()
