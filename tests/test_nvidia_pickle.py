"""Official network pickles: what is read from them."""

import io
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from network_pickles import (
    ARGUMENTS,
    OLD,
    TINY,
    EasyDict,
    network_pickle,
    official_modules,
    persistent,
    tiny_generator,
    writer,
)
from safetensors.torch import load_file

from clip2latent.generators import load_generator
from clip2latent.generators.nvidia_pickle import read_network_pickle
from clip2latent.generators.stylegan2 import StyleGAN2
from clip2latent.generators.torch_records import load_from_bytes

GOLDEN = Path(__file__).parents[2] / "shared" / "golden"
CASES = ("stylegan2_uncond32", "stylegan2_cond32", "stylegan3t_32", "stylegan3r_32")
tiny = pytest.fixture(scope="module")(tiny_generator)
written = pytest.fixture(writer)


@pytest.mark.parametrize("case", CASES)
def test_official_files_give_the_averaged_generator(case):
    if not (GOLDEN / case).is_dir():
        pytest.skip(f"reference data {case} is not on this machine")
    network = read_network_pickle(GOLDEN / case / "network-snapshot.pkl")
    assert network.family == case[:9]
    expected = load_file(GOLDEN / case / "weights.safetensors")
    assert set(network.state) == set(expected)
    for name, tensor in expected.items():
        assert network.state[name].dtype == tensor.dtype and network.state[name].equal(tensor), name
    config = json.loads((GOLDEN / case / "config.json").read_text())["init_kwargs"]
    assert network.arguments == {**network.arguments, **config}
    json.dumps(network.arguments)


@pytest.mark.parametrize("case", CASES)
def test_an_official_file_draws_the_official_images(case):
    if not (GOLDEN / case).is_dir():
        pytest.skip(f"reference data {case} is not on this machine")
    generator = load_generator(str(GOLDEN / case / "network-snapshot.pkl"))
    assert not generator.training and not any(weight.requires_grad for weight in generator.parameters())
    io = load_file(GOLDEN / case / "io.safetensors")
    name = next(name for name in io if name.startswith("img_const_psi1"))
    images = generator.synthesize(io["ws_psi1"])
    if "stride" in name:
        images = images[: len(io[name]), :, :: int(name[-1]), :: int(name[-1])]
    torch.testing.assert_close(images, io[name], atol=2e-5, rtol=0)


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_files_of_the_installed_torch_and_numpy_are_read(tiny, written, protocol):
    arguments = {
        **ARGUMENTS,
        "conv_clamp": np.float64(256),
        "resample_filter": np.array([1, 3, 3, 1]),
        "architecture": "skip",
    }
    tiny._non_persistent_buffers_set = {"scratch"}
    try:
        data = network_pickle(tiny, arguments, protocol, extra=[np.bool_(True), {1.5: (2, None)}, b"raw"])
    finally:
        tiny._non_persistent_buffers_set = set()
    network = read_network_pickle(written(data))
    assert network.arguments["resample_filter"] == [1, 3, 3, 1] and network.arguments["conv_clamp"] == 256.0
    assert all(network.state[name].equal(tensor) for name, tensor in tiny.state_dict().items())
    generator = load_generator(str(written(data)))
    latents = tiny.sample_latents(2, torch.Generator().manual_seed(0))
    assert generator.synthesize(latents).equal(tiny.synthesize(latents))


@pytest.mark.filterwarnings("ignore:TypedStorage")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.bool, torch.uint8])
def test_a_storage_of_any_type_is_read(dtype):
    tensor = torch.tensor([0, 1, 1, 0]).to(dtype)
    buffer = io.BytesIO()
    torch.save(tensor.storage(), buffer, **OLD)
    storage = load_from_bytes(buffer.getvalue())
    assert storage.dtype == dtype and torch.frombuffer(bytearray(storage.data), dtype=dtype).equal(tensor)


def test_views_keep_their_strides_and_missing_buffers_are_skipped(tiny, written):
    module = torch.nn.Module()
    module.synthesis = torch.nn.Module()
    module.synthesis.b4 = torch.nn.Module()
    module.synthesis.b4.conv1 = torch.nn.Module()
    base = torch.arange(12.0).reshape(3, 4)
    module.synthesis.b4.conv1.register_buffer("weight", base.t()[1:])
    module.register_buffer("nothing", None)
    module.register_buffer("passing", torch.ones(1), persistent=False)
    module.shared = torch.nn.Parameter(base, requires_grad=False)
    module._non_persistent_buffers_set = {"passing"}
    network = read_network_pickle(written(network_pickle(module, {})))
    assert set(network.state) == {"synthesis.b4.conv1.weight", "shared"}
    assert network.state["synthesis.b4.conv1.weight"].equal(base.t()[1:]) and network.state["shared"].equal(base)


def test_the_nested_arguments_of_the_older_repository_are_read_with_its_defaults(written):
    torch.manual_seed(0)
    older = StyleGAN2(**TINY, mapping_kwargs={"num_layers": 2}, conv_clamp=None, num_fp16_res=0).eval()
    record = persistent(older)
    for block in record.meta["state"]["_modules"]["synthesis"].meta["state"]["_modules"].values():
        block.meta["state"]["use_fp16"] = False
        block.meta["state"]["_modules"]["conv1"].meta["state"]["conv_clamp"] = None
    outer = {name: value for name, value in ARGUMENTS.items() if not name.startswith("channel")}
    inner = EasyDict(channel_base=32, channel_max=4)
    record.meta["state"]["_init_kwargs"] = EasyDict(outer, synthesis_kwargs=inner)
    with official_modules():
        path = written(pickle.dumps({"G_ema": record}))
    arguments = read_network_pickle(path).arguments
    assert arguments["conv_clamp"] is None and arguments["num_fp16_res"] == 0
    assert arguments["channel_base"] == 32 and "synthesis_kwargs" not in arguments
    latents = 50 * torch.randn(2, *older.latent_shape, generator=torch.Generator().manual_seed(0))
    assert load_generator(str(path)).synthesize(latents).equal(older.synthesize(latents))


def test_weights_that_do_not_fit_are_listed(tiny, written):
    with pytest.raises(ValueError, match=r"mapping\.fc2\.weight"):
        load_generator(str(written(network_pickle(tiny, {**ARGUMENTS, "mapping_kwargs": {"num_layers": 3}}))))
    with pytest.raises(ValueError, match=r"mapping\.fc1\.weight"):
        load_generator(str(written(network_pickle(tiny, {**ARGUMENTS, "mapping_kwargs": {"num_layers": 1}}))))
    with pytest.raises(ValueError, match=r"mapping\.fc1\.weight \[4, 4\] instead of \[5, 5\]"):
        load_generator(str(written(network_pickle(tiny, {**ARGUMENTS, "w_dim": 5}))))
    with pytest.raises(ValueError, match="colour"):
        load_generator(str(written(network_pickle(tiny, {**ARGUMENTS, "colour": "red"}))))


def test_files_of_another_kind_say_what_they_are(tiny, written):
    with pytest.raises(ValueError, match=r"expected a network pickle.*found list"):
        read_network_pickle(written(pickle.dumps([1, 2])))
    with pytest.raises(ValueError, match="'g_ema'"):
        read_network_pickle(written(pickle.dumps({"g_ema": {}})))
    with official_modules(), pytest.raises(ValueError, match="neither StyleGAN2 nor StyleGAN3"):
        read_network_pickle(written(pickle.dumps({"G_ema": persistent(torch.nn.Linear(2, 2), "Gan")})))
    tensorflow = b"\x80\x03cdnnlib.tflib.network\nNetwork\n)\x81}(X\x07\x00\x00\x00versionK\x04ub."
    with pytest.raises(ValueError, match=r"TensorFlow.*legacy\.py --source=.* --dest="):
        read_network_pickle(written(tensorflow))
    whole = network_pickle(tiny, ARGUMENTS)
    for length in (0, 1, 2, 100, len(whole) // 2, len(whole) - 1):
        with pytest.raises(ValueError, match="truncated"):
            read_network_pickle(written(whole[:length]))
