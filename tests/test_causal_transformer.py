import pytest
import torch
from dalle2_pytorch import dalle2_pytorch

from clip2latent.causal_transformer import CausalTransformer

SIZES = [
    {"dim": 24, "depth": 2, "heads": 3, "dim_head": 16},
    {"dim": 16, "depth": 1, "heads": 2, "dim_head": 40},
    {"dim": 16, "depth": 2, "heads": 2, "dim_head": 33},
]


def pair(sizes):
    """The library's transformer and ours with the same weights, none of them at its initial value."""
    torch.manual_seed(0)
    official, own = dalle2_pytorch.CausalTransformer(**sizes), CausalTransformer(**sizes)
    for weight in official.parameters():
        if weight.requires_grad:
            torch.nn.init.normal_(weight, mean=float(weight.ndim == 1), std=0.3)
    own.load_state_dict(official.state_dict())
    return official, own


def relative(value, expected):
    return ((value - expected).abs().max() / expected.abs().max()).item()


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize(("length", "outputs"), [(4, 1), (4, 4), (38, 18)])
def test_values_and_gradients_are_the_librarys(sizes, length, outputs):
    official, own = pair(sizes)
    x = torch.randn(3, length, sizes["dim"])
    theirs, ours = x.clone().requires_grad_(), x.clone().requires_grad_()
    expected, out = official(theirs)[:, -outputs:], own(ours, outputs)
    assert relative(out, expected) < 1e-5
    direction = torch.randn_like(out)
    for loss in (expected, out):
        (loss * direction).sum().backward()
    assert relative(ours.grad, theirs.grad) < 1e-5
    for (name, weight), (same_name, official_weight) in zip(
        own.named_parameters(), official.named_parameters(), strict=True
    ):
        assert name == same_name
        if official_weight.grad is not None:
            assert relative(weight.grad, official_weight.grad) < 1e-5, name


def test_all_tokens_where_no_number_is_given():
    _, own = pair(SIZES[0])
    x = torch.randn(2, 6, 24)
    torch.testing.assert_close(own(x)[:, -2:], own(x, 2))


def test_a_token_sees_none_after_it():
    _, own = pair(SIZES[0])
    x = torch.randn(2, 6, 24)
    later = torch.cat([x[:, :4], torch.randn(2, 2, 24)], dim=1)
    torch.testing.assert_close(own(x)[:, :4], own(later)[:, :4])


def test_loaded_frequencies_count():
    """Nothing that depends on weights is kept from one call to the next."""
    official, own = pair(SIZES[0])
    x = torch.randn(2, 4, 24)
    own(x)
    state = {name: 2 * value if name.endswith("freqs") else value for name, value in official.state_dict().items()}
    official.load_state_dict(state)
    own.load_state_dict(state)
    assert relative(own(x), official(x)) < 1e-5


def test_bfloat16_is_float32_up_to_its_rounding():
    _, own = pair(SIZES[0])
    x = torch.randn(8, 4, 24)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = own(x, 1)
    assert relative(rounded.float(), own(x, 1)) < 5e-2


def test_one_graph_without_breaks():
    """What torch.compile sees is one graph (traced, not compiled: that takes a minute)."""
    _, own = pair(SIZES[0])
    x = torch.randn(2, 4, 24)
    traced = torch.compile(own, backend="eager", fullgraph=True, dynamic=False)
    torch.testing.assert_close(traced(x, 1), own(x, 1))
