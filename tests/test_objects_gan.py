"""The second demo generator's training: the shipped class draws what was trained, a kill changes nothing, scores."""

import dataclasses
import json

import pytest
import torch
import torch.nn.functional as F

from clip2latent.generators import load_generator
from clip2latent.generators.biggan import BigGAN, from_official
from clip2latent.judge import AttributeJudge, load_judge
from demo import objects, single_objects
from demo.biggan import TrainedBigGAN
from demo.biggan_layers import Conv, SpectralNorm
from demo.class_scores import class_scores
from demo.discriminator import Discriminator
from demo.objects_budget import CLASSES, PRESETS
from demo.objects_encoder import Encoder, divergence
from demo.objects_gan import Trainer

SMOKE = PRESETS["smoke"]
# one batch of the start, one of the discriminator alone, two of both
SHORT = dataclasses.replace(SMOKE, start=16, images=48, alone=16, half=False, penalty_every=2)


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
    shipped = from_official(trained.state_dict(), **arguments)
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


def test_the_divergence_is_that_of_two_normal_distributions():
    mean, log_variance = torch.randn(3, 5), torch.randn(3, 5)
    one = torch.distributions.Normal(mean, (0.5 * log_variance).exp())
    expected = torch.distributions.kl_divergence(one, torch.distributions.Normal(0.0, 1.0)).sum(dim=1)
    torch.testing.assert_close(divergence(mean, log_variance), expected)


def test_the_encoder_reads_picture_and_class_row_by_row():
    torch.manual_seed(0)
    encoder = Encoder(256, 16, len(CLASSES), 20).eval()
    torch.nn.init.normal_(encoder.classes.weight)
    images, classes = torch.randn(4, 3, 64, 64), torch.tensor([0, 0, 1, 1])
    mean, log_variance = encoder(images, classes)
    assert mean.shape == log_variance.shape == (4, 20)
    torch.testing.assert_close(encoder(images[2:], classes[2:])[0], mean[2:], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(encoder(images, classes.flip(0))[0], mean)


def test_the_start_learns_to_reconstruct(tmp_path):
    torch.set_num_threads(1)
    preset = dataclasses.replace(SHORT, start=16 * 40, images=16)
    trainer = Trainer(preset, 0, tmp_path)
    examples = [single_objects.example(0, index) for index in range(16)]
    pixels = torch.stack([torch.from_numpy(example.image).permute(2, 0, 1) for example in examples])
    numbers = [
        [values.index(e.attributes[name]) for name, values in single_objects.ATTRIBUTES.items()] for e in examples
    ]
    squares = [float(trainer.step(pixels, torch.tensor(numbers))["squares"]) for _ in range(30)]
    assert squares[-1] < 0.6 * squares[0]


def test_a_killed_training_goes_on_to_the_same_generator(tmp_path):
    torch.set_num_threads(1)
    whole = Trainer(SHORT, 0, tmp_path / "whole")
    whole.run(log_every=1)
    cut = Trainer(SHORT, 0, tmp_path / "cut")
    original = cut.step

    def step_and_die(pixels, labels):
        if cut.images == 48:
            raise KeyboardInterrupt
        return original(pixels, labels)

    cut.step = step_and_die
    with pytest.raises(KeyboardInterrupt):
        cut.run(save_every=0.0)
    resumed = Trainer(SHORT, 0, tmp_path / "cut")
    assert resumed.images == 48
    resumed.run()
    for name in ("generator", "average", "encoder", "discriminator"):
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
    last = preset.start + preset.images
    rates = [preset.learning_rate(images) for images in (0, preset.start, last)]
    assert rates == pytest.approx([preset.start_rate, preset.rate, preset.rate / 20])
    assert preset.learning_rate(preset.start - 1) == pytest.approx(preset.rate, rel=1e-3)
    assert [preset.divergence_weight(images) for images in (0, preset.start, last)] == [0, 1, 1]
    assert preset.reconstruction_weight(preset.start) == pytest.approx(1 / 300)
    assert preset.reconstruction_weight(last) == 0
    assert [preset.copies(images) for images in (0, preset.start, last)] == [preset.batch, preset.batch // 2, 0]
    assert [preset.penalty_weight(images) for images in (0, preset.start, last)] == pytest.approx([0.5, 0.5, 0.1])


@pytest.mark.parametrize("alone", [16, 0])
def test_the_generator_follows_the_discriminator_only_after_its_time_alone(tmp_path, alone):
    torch.set_num_threads(1)
    pixels = torch.randint(256, (16, 3, 64, 64), dtype=torch.uint8)
    asked = torch.stack([torch.randint(len(values), (16,)) for values in single_objects.ATTRIBUTES.values()], dim=1)
    generators = []
    for sign in (1, -1):
        trainer = Trainer(dataclasses.replace(SHORT, alone=alone), 0, tmp_path)
        trainer.images = trainer.preset.start
        before = trainer.discriminator.head.weight.detach().clone().mul_(sign)
        trainer.discriminator.head.weight.data.copy_(before)
        trainer.step(pixels, asked)
        assert not torch.equal(trainer.discriminator.head.weight, before)
        generators.append(trainer.generator.state_dict()["linear.weight"])
    assert torch.equal(*generators) == (alone > 0)


def test_a_single_object_is_the_world_s_own_and_repeatable():
    one, again, other = (single_objects.example(3, index) for index in (5, 5, 6))
    assert (one.image == again.image).all() and not (one.image == other.image).all()
    assert one.attributes["second_class"] == "none"
    assert set(single_objects.visible(one.attributes)) == {"class", "color", "ground"}


def test_the_judge_recognises_the_shipped_generator_s_classes():
    scores = class_scores(load_generator("demo-objects"), load_judge("demo-class-judge"), per_class=25)
    assert scores["recognised_mean"] >= 0.85, scores
    assert scores["recognised_least"] >= 0.6, scores


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


def test_the_discriminator_starts_as_the_encoder():
    encoder, discriminator = Encoder(256, 16, len(CLASSES), 20), Discriminator(64, 256, 16, [20, 10, 15])
    result = discriminator.load_state_dict(encoder.trunk(), strict=False)
    assert not result.unexpected_keys
    assert {name.split(".")[0] for name in result.missing_keys} == {"head", "tables"}
