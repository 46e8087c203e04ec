"""The demo generator's training: its shortcuts equal the plain forms, growing changes nothing, a kill loses little."""

import json

import pytest
import torch
import torch.nn.functional as F

from clip2latent.generators import load_generator
from demo.adversarial import PRESETS, build_generator, gradients, grow, penalty
from demo.avatars import ATTRIBUTES
from demo.discriminator import Discriminator
from demo.gan import Trainer
from demo.labelled import Renders

SMOKE = PRESETS["smoke"]


SIZES = [len(values) for values in ATTRIBUTES.values()]


def networks(resolution=32):
    torch.manual_seed(0)
    discriminator = Discriminator(resolution, 256, 16, SIZES)
    for table in discriminator.tables:
        torch.nn.init.normal_(table)
    return build_generator(SMOKE, resolution, "avatars"), discriminator


def drawn(num):
    rng = torch.Generator().manual_seed(0)
    return torch.stack([torch.randint(size, (num,), generator=rng) for size in SIZES], dim=1)


def test_one_pass_gives_discriminator_and_generator_their_gradients():
    _, discriminator = networks()
    shown = drawn(4)
    real, fake = torch.randn(4, 3, 32, 32), torch.randn(4, 3, 32, 32, requires_grad=True)
    found, margin = gradients(discriminator, real, fake, shown, torch.float32)
    loss_g = F.softplus(discriminator(real, shown) - discriminator(fake, shown)).mean()
    torch.testing.assert_close(found, torch.autograd.grad(loss_g, fake)[0], rtol=1e-3, atol=1e-7)
    loss_d = F.softplus(discriminator(fake.detach(), shown) - discriminator(real, shown)).mean()
    expected = torch.autograd.grad(loss_d, list(discriminator.parameters()))
    for parameter, gradient in zip(discriminator.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-3, atol=1e-6)
    assert margin.item() == pytest.approx((discriminator(real, shown) - discriminator(fake, shown)).mean().item(), 1e-4)


def test_a_logit_depends_on_its_own_image_and_on_no_hidden_attribute():
    _, discriminator = networks()
    images, shown = torch.randn(4, 3, 32, 32), drawn(4)
    logits = discriminator(images, shown)
    torch.testing.assert_close(logits[:1], discriminator(images[:1], shown[:1]), rtol=1e-4, atol=1e-6)
    hidden = torch.full_like(shown, -1)
    assert not torch.equal(discriminator(images, hidden), logits)
    with torch.no_grad():
        for table in discriminator.tables:
            table.zero_()
    torch.testing.assert_close(discriminator(images, hidden), discriminator(images, shown))


def test_penalty_is_the_mean_squared_gradient_norm():
    def linear(images, shown):
        return 3 * images.flatten(1).sum(dim=1)

    images = torch.randn(2, 3, 8, 8)
    assert penalty(linear, images, images, drawn(2)).item() == pytest.approx(2 * 9 * 3 * 64)


def test_growing_starts_from_the_same_function():
    generator, discriminator = networks()
    images = torch.randn(2, 3, 64, 64)
    shown = drawn(2)
    found, expected = discriminator.grow()(images, shown), discriminator(F.avg_pool2d(images, 2), shown)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    latents = generator.sample_latents(4, torch.Generator().manual_seed(0))
    with torch.no_grad():
        grown = grow(generator, SMOKE, "avatars")
        small, large = generator.synthesize(latents), grown.synthesize(latents[:, :1].expand(-1, 10, -1))
    assert large.shape == (4, 3, 64, 64)
    assert (F.avg_pool2d(large, 2) - small).std() < 0.25 * small.std()


def test_renders_go_on_from_an_index_and_come_round():
    stream = iter(Renders("avatars", seed=3, first=4, pool=5))
    first = [next(stream) for _ in range(6)]
    again = next(iter(Renders("avatars", seed=3, first=9, pool=5)))
    assert all((one == other).all() for one, other in zip(first[0], again, strict=True))
    assert first[5] is first[0] and not (first[0].image == first[1].image).all()
    assert all(render.shown[i] in (-1, render.labels[i]) for render in first for i in range(len(SIZES)))


def test_training_goes_on_from_its_state_and_exports(tmp_path):
    torch.set_num_threads(1)
    trainer = Trainer("avatars", SMOKE, 0, tmp_path / "work")
    trainer.run()
    images = [json.loads(line)["images"] for line in (tmp_path / "work" / "log.jsonl").read_text().splitlines()]
    assert images[-1] == SMOKE.images_64

    resumed = Trainer("avatars", SMOKE, 0, tmp_path / "work")
    assert (resumed.state.resolution, resumed.state.images) == (64, SMOKE.images_64)
    for name in Trainer.networks:
        one, other = (getattr(t.state, name).state_dict() for t in (resumed, trainer))
        assert all(torch.equal(one[key], other[key]) for key in other)
    resumed.export(tmp_path / "out")
    generator = load_generator(str(tmp_path / "out"))
    assert generator.latent_shape == (10, SMOKE.w_dim) and generator.mapping.w_avg.abs().sum() > 0
