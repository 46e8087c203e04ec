"""Inception's features: from files of weights without code, through torch-fidelity where it is installed."""

import pickle
import sys

import pytest
import torch
from safetensors.torch import save_file

from clip2latent.extractors import load_extractor
from clip2latent.inception import load_inception


class Code:
    """Runs code where a pickle is read."""

    def __reduce__(self):
        return print, ("pickle was run",)


@pytest.fixture(scope="module")
def module():
    return pytest.importorskip(
        "torch_fidelity.feature_extractor_inceptionv3", reason="the torch-fidelity package is not installed"
    )


@pytest.fixture(scope="module")
def state(module):
    """Random weights of the published shapes (the published file itself is not here)."""

    class Random(module.FeatureExtractorInceptionV3):
        def load_state_dict(self, *_, **__):
            return None

    patch = pytest.MonkeyPatch()
    patch.setattr(torch, "load", lambda *_, **__: {})
    torch.manual_seed(0)
    try:
        return Random("random", ["2048"], feature_extractor_weights_path="none").state_dict()
    finally:
        patch.undo()


def test_both_kinds_of_files_give_features_and_probabilities_of_any_size(module, state, tmp_path):
    save_file(state, tmp_path / "weights.safetensors")
    torch.save(state, tmp_path / "weights.pth")
    images = torch.rand(2, 3, 20, 20, generator=torch.Generator().manual_seed(1)) * 2 - 1
    found = [load_extractor(str(tmp_path / name), "cpu") for name in ("weights.safetensors", "weights.pth")]
    seen = [extractor.see(images) for extractor in found]
    assert seen[0].features.shape == (2, 2048) and seen[0].features.equal(seen[1].features)
    torch.testing.assert_close(seen[0].probabilities["class"].sum(1), torch.ones(2))
    assert seen[0].probabilities["class"].shape == (2, 1008)
    assert found[0].identity["sha256"] == found[1].identity["sha256"] and found[0].identity["kind"] == "inception"


def test_nothing_in_a_file_is_run_and_wrong_ones_are_refused(module, tmp_path, capsys):
    for protocol, name in ((2, "evil.pth"), (4, "evil.pt")):
        (tmp_path / name).write_bytes(pickle.dumps({"fc.weight": Code()}, protocol=protocol))
        with pytest.raises(ValueError, match="without code"):
            load_inception(tmp_path / name)
    assert "pickle was run" not in capsys.readouterr().out
    torch.save({"fc.bias": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match="does not hold the weights"):
        load_inception(tmp_path / "other.pth")
    torch.save([torch.zeros(3)], tmp_path / "list.pth")
    with pytest.raises(ValueError, match="tensors by name"):
        load_inception(tmp_path / "list.pth")
    with pytest.raises(FileNotFoundError, match=r"no Inception weights .*none\.pth"):
        load_inception(tmp_path / "none.pth")


def test_offline_without_a_copy_says_so(module, tmp_path, monkeypatch):
    monkeypatch.setenv("CLIP2LATENT_OFFLINE", "1")
    monkeypatch.setenv("CLIP2LATENT_CACHE", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="inception"):
        load_extractor("inception", "cpu")


def test_without_the_package_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    with pytest.raises(ValueError, match="pip install torch-fidelity"):
        load_extractor("weights.pth", "cpu")
