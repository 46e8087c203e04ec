"""A configuration that lies in a published file as omegaconf's objects is read, and none of its code is run."""

import pickle
import sys
from collections import defaultdict
from types import ModuleType
from typing import Any

import pytest
import torch
import yaml
from golden_cases import golden
from tiny_released import Running, published

from clip2latent.checkpoint import load_prior
from clip2latent.released_records import load_inert, plain


@pytest.mark.skipif(torch.__version__ < (2, 7), reason="PyTorch reads no stand-ins before 2.7")
def test_a_configuration_of_omegaconf_in_the_file_is_read_as_data(tmp_path, monkeypatch):
    """As omegaconf 2 writes it: nodes with a state of their content, their parent and what they admit."""
    kinds = {}
    monkeypatch.setitem(sys.modules, "omegaconf", ModuleType("omegaconf"))
    for kind, name in (("DictConfig", "dictconfig"), ("ListConfig", "listconfig"), ("AnyNode", "nodes")):
        module = ModuleType(f"omegaconf.{name}")
        kinds[kind] = type(kind, (), {"__module__": module.__name__, "__setstate__": Running.run})
        setattr(module, kind, kinds[kind])
        monkeypatch.setitem(sys.modules, module.__name__, module)

    def node(value, parent=None):
        made = object.__new__(kinds[{dict: "DictConfig", list: "ListConfig"}.get(type(value), "AnyNode")])
        made._parent, made._metadata = parent, {"ref_type": Any, "cache": defaultdict(dict)}
        if isinstance(value, dict):
            made._content = {key: node(item, made) for key, item in value.items()}
        elif isinstance(value, list):
            made._content = [node(item, made) for item in value]
        else:
            made._val = value
        return made

    case = golden("clip2latent_prior_w3")
    content = yaml.safe_load((case.folder / "released_style.yaml").read_text())
    path = published(case, tmp_path, cfg=node(content))
    path.with_suffix(".yaml").unlink()
    with pytest.raises(pickle.UnpicklingError, match="omegaconf"):
        torch.load(path, weights_only=True)
    assert plain(load_inert(path)["cfg"]) == content
    assert load_prior(path).space.groups == (4, 4, 10) and not Running.ran
