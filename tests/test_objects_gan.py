"""The second demo generator's training: the shipped class draws what was trained, a kill changes nothing, scores."""

import dataclasses
import json

import pytest
import torch
import torch.nn.functional as F

from clip2latent.generators import load_generator
from clip2latent.generators.biggan import BigGAN, from_official
from clip2latent.judge import AttributeJudge
from demo import class_pairs, objects, single_objects
from demo.biggan import TrainedBigGAN
from demo.biggan_layers import Conv, SpectralNorm
from demo.class_scores import class_scores
from demo.objects_budget import CLASSES, PRESETS
from demo.objects_gan import Trainer, as_pairs

SMOKE = PRESETS["smoke"]
# one batch at 32 px, two at 64 px while the last block comes in, one after
SHORT = dataclasses.replace(SMOKE, images_32=16, images_64=48, fade=32, half=False, penalty_every=2)


def network(ch=4):
    torch.manual_seed(0)
    built = TrainedBigGAN(ch, 20, 8, len(CLASSES), attention=16)
    for module in built.modules():
        if hasattr(module, "gamma"):
            torch.nn.init.constant_(module.gamma, 0.5)
    return built


def inputs(num=5):
    rng = torch.Generator().manual_seed(1)
    return torch.randn(num, 20, generator=rng), torch.randint(len(CLASSES), (num,), generator=rng)


def test_the_official_class_draws_the_trained_network():
    trained = network()
    with torch.no_grad():
        for _ in range(3):
            trained(*inputs(8))
    trained.standing_statistics_(inputs(8) for _ in range(3))
    arguments = dataclasses.replace(SMOKE, dim_z=20, shared_dim=8, ch=4).biggan_arguments()
    shipped = from_official(trained.official_state(), **arguments)
    z, classes = inputs()
    with torch.no_grad():
        expected = trained(z, classes)
        found = shipped.synthesize(torch.cat([z, shipped.shared(classes)], dim=1)[:, None])
    assert expected.std() > 0.1
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(trained(z[:1], classes[:1])[0], expected[0], rtol=0, atol=1e-5)


def test_standing_statistics_are_the_mean_over_the_batches_and_move_no_singular_vector():
    trained = network().double()
    for module in trained.modules():
        if isinstance(module, SpectralNorm):
            module.converge_(500)
    norm, seen = trained.blocks[0][0].bn1, []
    norm.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    batches = [(inputs(6)[0].double() + shift, inputs(6)[1]) for shift in (0.0, 1.0)]
    trained.standing_statistics_(batches, dtype=torch.float64)
    torch.testing.assert_close(norm.stored_mean, torch.stack([x.mean(dim=(0, 2, 3)) for x in seen]).mean(dim=0))
    torch.testing.assert_close(norm.stored_var, torch.stack([x.var(dim=(0, 2, 3)) for x in seen]).mean(dim=0))
    assert not any(module.training for module in trained.modules())
    for module in trained.modules():
        if isinstance(module, SpectralNorm):
            largest = torch.linalg.matrix_norm(module.normalised().flatten(1), ord=2)
            assert largest.item() == pytest.approx(1, abs=1e-3)


def test_convolution_after_doubling_is_the_plain_form():
    conv, x = Conv(5, 4, 3, 3).eval(), torch.randn(2, 4, 6, 6)
    expected = conv(F.interpolate(x, scale_factor=2, mode="nearest"))
    torch.testing.assert_close(conv.after_doubling(x), expected, rtol=0, atol=1e-5)


def test_the_last_block_comes_in_from_the_small_image():
    trained, (z, classes) = network().eval(), inputs()
    with torch.no_grad():
        small, none, half, whole = (trained(z, classes, share=share) for share in (None, 0.0, 0.5, 1.0))
    torch.testing.assert_close(none, F.interpolate(small, scale_factor=2, mode="nearest"))
    mixed = (none.atanh() + whole.atanh()) / 2
    torch.testing.assert_close(half, mixed.tanh(), rtol=0, atol=1e-4)


def test_a_killed_training_goes_on_to_the_same_generator(tmp_path):
    torch.set_num_threads(1)
    whole = Trainer(SHORT, 0, tmp_path / "whole")
    whole.run(log_every=1)
    cut = Trainer(SHORT, 0, tmp_path / "cut")
    original = cut.step

    def step_and_die(pixels, labels):
        if cut.images == 32:
            raise KeyboardInterrupt
        return original(pixels, labels)

    cut.step = step_and_die
    with pytest.raises(KeyboardInterrupt):
        cut.run(save_every=0.0)
    resumed = Trainer(SHORT, 0, tmp_path / "cut")
    assert (resumed.images, resumed.resolution) == (32, 64)
    resumed.run()
    for name in ("generator", "average", "discriminator"):
        one, other = (getattr(trainer, name).state_dict() for trainer in (whole, resumed))
        assert all(torch.equal(one[key], other[key]) for key in one), name
    records = [json.loads(line) for line in (tmp_path / "whole/log.jsonl").read_text().splitlines()]
    assert [record["images"] for record in records] == [16, 32, 48, 64]
    assert (tmp_path / "whole/grid-0000064.png").exists()
    with pytest.raises(ValueError, match="settings"):
        Trainer(SHORT, 1, tmp_path / "cut")

    resumed.export(tmp_path / "out")
    generator = load_generator(str(tmp_path / "out"))
    assert isinstance(generator, BigGAN) and tuple(generator.class_names) == CLASSES == objects.ATTRIBUTES["class"]
    latents = generator.sample_latents(3, torch.Generator().manual_seed(0), torch.tensor([0, 7, 19]))
    images = generator.synthesize(latents)
    assert images.shape == (3, 3, 64, 64) and images.isfinite().all() and images.std() > 0


def test_schedules_begin_and_end_where_they_should():
    preset = PRESETS["cpu"]
    first, last = preset.images_32, preset.images_32 + preset.images_64
    assert preset.learning_rate(0) == preset.learning_rate(first) == preset.lr
    assert preset.learning_rate(last) == pytest.approx(preset.lr / 20)
    assert preset.share(0, 32) is None and preset.share(first, 64) == 0
    assert preset.share(first + preset.fade, 64) == preset.share(last, 64) == 1
    assert [preset.penalty_weight(images) for images in (0, first, last)] == pytest.approx([0.5, 0.5, 0.1])


def test_a_single_object_is_the_world_s_own_and_repeatable():
    one, again, other = (single_objects.example(3, index) for index in (5, 5, 6))
    assert (one.image == again.image).all() and not (one.image == other.image).all()
    assert one.attributes["second_class"] == "none"
    assert set(single_objects.visible(one.attributes)) == {"class", "color", "ground"}


def test_pictures_come_in_pairs_of_a_class_and_pairs_share_no_pixels():
    names = [class_pairs.example(0, index).attributes["class"] for index in range(0, 42)]
    assert names[::2] == names[1::2] == [*CLASSES, CLASSES[0]]
    assert not (class_pairs.example(0, 0).image == class_pairs.example(0, 1).image).all()
    images = torch.randn(4, 3, 8, 8)
    assert torch.equal(as_pairs(images), torch.stack([torch.cat([images[0], images[1]]), torch.cat([*images[2:]])]))


def test_scores_count_the_samples_recognised():
    torch.manual_seed(0)
    generator = BigGAN(**SMOKE.biggan_arguments()).eval()
    judge = AttributeJudge(single_objects.ATTRIBUTES, width=4).eval()
    with torch.no_grad():
        judge.heads["class"].weight.zero_()
        judge.heads["class"].bias.copy_(torch.arange(len(CLASSES)))
    scores = class_scores(generator, judge, per_class=10)
    assert scores["recognised"] == {name: float(name == CLASSES[-1]) for name in CLASSES}
    assert scores["recognised_least"] == 0 and scores["recognised_mean"] == pytest.approx(1 / len(CLASSES))
    assert scores["normalised_frechet"] > scores["real_against_real"]["normalised_frechet"]
    renamed = AttributeJudge({"class": CLASSES[::-1]}, width=4).eval()
    with pytest.raises(ValueError, match="judge: expected"):
        class_scores(generator, renamed, per_class=1)
