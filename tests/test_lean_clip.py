"""The lean forms of open_clip's models are the same functions with the same weights."""

import copy

import open_clip
import pytest
import torch
from torch import nn

from clip2latent.lean_clip import PatchConv, make_lean_

VISION = dict(image_size=16, layers=2, width=32, patch_size=8, head_width=16)
TEXT = dict(context_length=8, vocab_size=20, width=16, heads=2, layers=2)


@pytest.fixture
def both():
    torch.manual_seed(0)
    plain = open_clip.CLIP(12, VISION, TEXT).eval().requires_grad_(False)
    return plain, make_lean_(copy.deepcopy(plain))


def test_embeddings_and_gradients_stay(both):
    images = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(0)).requires_grad_()
    tokens = torch.randint(1, 20, (3, 8), generator=torch.Generator().manual_seed(1))
    (plain, expected), (lean, found) = ((clip.encode_image(images), clip.encode_text(tokens)) for clip in both)
    torch.testing.assert_close(lean, plain, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    gradients = [torch.autograd.grad(features[:, 0].sum(), images)[0] for features in (lean, plain)]
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-5)


def test_the_forms_are_changed_and_the_weights_are_not(both):
    plain, lean = both
    assert type(lean.visual.conv1) is PatchConv and type(plain.visual.conv1) is nn.Conv2d
    for tower in (lean.visual.transformer, lean.transformer):
        assert not tower.batch_first and not any(block.attn.batch_first for block in tower.resblocks)
    assert list(lean.state_dict()) == list(plain.state_dict())
    assert all(lean.state_dict()[name].equal(tensor) for name, tensor in plain.state_dict().items())


def test_models_without_these_layers_stay():
    model = nn.Linear(2, 2)
    assert make_lean_(model) is model
    overlapping = nn.Module()
    overlapping.visual = nn.Module()
    overlapping.visual.conv1 = nn.Conv2d(3, 4, 3, stride=2)
    assert type(make_lean_(overlapping).visual.conv1) is nn.Conv2d


def test_patches_are_the_convolution_also_where_sides_do_not_fit():
    conv = PatchConv(3, 5, (2, 4), stride=(2, 4)).double()
    for height, width in ((6, 8), (7, 9)):
        x = torch.randn(2, 3, height, width, dtype=torch.float64)
        torch.testing.assert_close(conv(x), nn.functional.conv2d(x, conv.weight, conv.bias, stride=(2, 4)))
