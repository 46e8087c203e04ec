import json
import shutil
import sys

import pytest
import torch
from tiny_pairs import TinyEmbedder, TinyGenerator, write_tiny_dataset

from clip2latent import cli_train
from clip2latent.checkpoint import load_prior
from clip2latent.data import Pairs
from clip2latent.diffusion import dpmpp_steps, guided, normal, sample
from clip2latent.training import PriorTraining, Share, pseudo_text


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pairs") / "data"
    write_tiny_dataset(folder, count=2000, groups=(2, 1))
    return folder


@pytest.fixture(scope="module")
def dataset(data):
    return cli_train.LatentPairs(str(data)).dataset


def fit(data, folder, *options, steps=4, interval=None):
    sys.argv = ["train.py"]
    sizes = ["--model.dim=16", "--model.depth=1", "--model.heads=2", "--model.dim_head=8", "--data.batch_size=64"]
    return cli_train.main(
        [
            "fit",
            f"--data.path={data}",
            f"--trainer.default_root_dir={folder}",
            f"--trainer.max_steps={steps}",
            f"--trainer.val_check_interval={interval or steps}",
            "--trainer.accelerator=cpu",
            "--trainer.devices=1",
            "--trainer.enable_model_summary=false",
            "--model.learning_rate=0.003",
            "--trainer.enable_progress_bar=false",
            *sizes,
            *options,
        ]
    )


def test_noise_has_the_asked_norm_and_is_fresh():
    rng = torch.Generator().manual_seed(0)
    embeddings = torch.nn.functional.normalize(torch.randn(4000, 512, generator=rng), dim=-1)
    for scale, cosine in ((0.0, 1.0), (0.75, 0.8), (1.0, 0.7071)):
        noised = pseudo_text(embeddings, scale, rng)
        torch.testing.assert_close(noised.norm(dim=-1), torch.ones(4000))
        assert (noised * embeddings).sum(-1).mean().item() == pytest.approx(cosine, abs=0.005)
    assert not torch.equal(pseudo_text(embeddings, 1.0, rng), pseudo_text(embeddings, 1.0, rng))


def test_loss_is_a_function_of_its_rng_and_drops_text_only(dataset):
    model = PriorTraining(dataset, dim=16, depth=1, heads=2, dim_head=8, condition_dropout=0.5)
    seen = []
    model.prior.register_forward_pre_hook(lambda module, args: seen.append(args))
    losses = [model.loss(random_pairs(512), torch.Generator().manual_seed(seed)).item() for seed in (0, 0, 1)]
    assert losses[0] == losses[1] != losses[2]
    x, t, _, keep = seen[0]
    assert 0.4 < keep.float().mean() < 0.6
    assert t.min() >= 0 and t.max() <= 999 and len(t.unique()) > 300
    assert x[~keep].std() > 0.5


def test_centring_is_learned_with_images_means_and_kept_for_texts(data, dataset, tmp_path):
    model = PriorTraining(dataset, dim=16, depth=1, heads=2, dim_head=8, noise_scale=0, centre=True)
    seen = []
    model.prior.register_forward_pre_hook(lambda module, args: seen.append(args[2]))
    pairs = random_pairs(8)
    model.loss(pairs, torch.Generator().manual_seed(0))
    centred = pairs.embeddings - torch.tensor(dataset["embedding_mean"])
    torch.testing.assert_close(seen[0], torch.nn.functional.normalize(centred, dim=-1))
    for centre in (True, False):
        assert fit(data, tmp_path / str(centre), f"--model.centre={centre}") == 0
        loaded = load_prior(tmp_path / str(centre) / "best.ckpt")
        expected = dataset["text_mean"] if centre else [0.0] * 6
        torch.testing.assert_close(loaded.bridge.text_mean, torch.tensor(expected))
        assert loaded.config["centred"] is centre


def test_processes_share_the_noise_of_one(dataset):
    model = PriorTraining(dataset, dim=16, depth=1, heads=2, dim_head=8)
    pairs = random_pairs(12)
    whole = model.loss(pairs, torch.Generator().manual_seed(5))
    parts = [
        model.loss(Pairs(*(rows[4 * rank : 4 * rank + 4] for rows in pairs)), torch.Generator().manual_seed(5), share)
        for rank, share in enumerate(Share(rank, 3) for rank in range(3))
    ]
    torch.testing.assert_close(torch.stack(parts).mean(), whole)


def test_gains_and_biases_are_not_decayed(dataset, monkeypatch):
    model = PriorTraining(dataset, dim=16, depth=1, heads=2, dim_head=8, betas=(0.8, 0.99), weight_decay=0.5)
    model._trainer = object()
    optimizer = model.configure_optimizers()["optimizer"]
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    decays = {id(weight): group["weight_decay"] for group in optimizer.param_groups for weight in group["params"]}
    assert {decays[id(weight)] for weight in trained if weight.ndim > 1} == {0.5}
    assert {decays[id(weight)] for weight in trained if weight.ndim < 2} == {0.0}
    assert all(group["betas"] == (0.8, 0.99) and group["fused"] for group in optimizer.param_groups)


def random_pairs(count):
    rng = torch.Generator().manual_seed(0)
    latents = torch.randn(count, 2, 4, generator=rng) * 2 + 1
    return Pairs(latents, torch.nn.functional.normalize(torch.randn(count, 6, generator=rng), dim=-1))


def test_the_prior_learns_which_latents_an_embedding_is_of(data, tmp_path):
    assert (
        fit(
            data,
            tmp_path / "run",
            "--model.noise_scale=0",
            "--average.decay=0.98",
            "--average.every_n_steps=1",
            steps=400,
        )
        == 0
    )
    loaded = load_prior(tmp_path / "run" / "best.ckpt")
    generator, embedder = TinyGenerator(3), TinyEmbedder()
    rng = torch.Generator().manual_seed(7)
    wanted = embedder.embed_images(generator.synthesize(generator.sample_latents(200, rng)))
    tokens = sample(guided(loaded.prior, wanted, 1.0), normal((200, 2, 4), rng), dpmpp_steps(loaded.schedule, 8), rng)
    latents = loaded.space.decode(tokens)
    got = embedder.embed_images(generator.synthesize(latents))
    cosine = (got * wanted).sum(-1)
    shuffled = (got * wanted.roll(1, 0)).sum(-1)
    assert cosine.median() > 0.9
    assert cosine.mean() > shuffled.mean() + 0.4
    assert 0.6 < (latents.std(0) / loaded.space.expand(loaded.space.std[None])[0]).mean() < 1.2


def states(folder):
    return torch.load(folder / "last.ckpt", weights_only=True)


def test_the_steps_after_the_last_validation_are_saved(data, tmp_path):
    assert fit(data, tmp_path / "run", steps=5, interval=3) in (None, 0)
    assert states(tmp_path / "run")["global_step"] == 5
    assert torch.load(tmp_path / "run" / "best.ckpt", weights_only=True)["global_step"] == 3


def test_checkpoints_hold_the_average_and_the_raw_weights(data, tmp_path):
    assert fit(data, tmp_path / "run", "--average.decay=0.9", "--average.every_n_steps=2", steps=12) == 0
    checkpoint = states(tmp_path / "run")
    averaged, raw = checkpoint["state_dict"], checkpoint["current_model_state"]
    assert averaged.keys() == raw.keys()
    assert {name.split(".")[0] for name in averaged} == {"bridge", "prior", "space"}
    assert (averaged["prior.queries"] - raw["prior.queries"]).abs().max() > 1e-5
    loaded = load_prior(tmp_path / "run" / "last.ckpt")
    assert torch.equal(loaded.prior.queries, averaged["prior.queries"])


def test_compiled_clipped_bf16_steps_train_as_plain_ones(data, tmp_path, monkeypatch):
    """Lightning refuses to clip before a fused optimizer; the compiler is left out, the tracing is not."""
    compiler = torch.compile
    compiled = []

    def compile_eagerly(function, **options):
        compiled.append(options)
        return compiler(function, backend="eager", **options)

    monkeypatch.setattr(torch, "compile", compile_eagerly)
    options = ("--trainer.precision=bf16-mixed", "--trainer.gradient_clip_val=0.5")
    for name in ("true", "false"):
        assert fit(data, tmp_path / name, *options, f"--model.compile={name}", steps=3) == 0
    assert compiled == [{"dynamic": False}]
    plain, other = states(tmp_path / "false"), states(tmp_path / "true")
    assert plain["state_dict"].keys() == other["state_dict"].keys()
    for name, value in plain["state_dict"].items():
        assert value.dtype == torch.float32
        torch.testing.assert_close(other["state_dict"][name], value, rtol=1e-2, atol=1e-3, msg=name)


def test_decay_zero_averages_nothing(data, tmp_path):
    assert fit(data, tmp_path / "run", "--average.decay=0", steps=5) == 0
    checkpoint = states(tmp_path / "run")
    for name, value in checkpoint["current_model_state"].items():
        torch.testing.assert_close(checkpoint["state_dict"][name], value)


def test_another_dataset_is_refused_naming_both(data, tmp_path, capsys):
    assert fit(data, tmp_path / "run", steps=2) == 0
    other = shutil.copytree(data, tmp_path / "other")
    manifest = other / "dataset.json"
    description = json.loads(manifest.read_text())
    description["embedder"] = {"class_path": "other.Embedder", "init_args": {}, "sha256": "0" * 64}
    manifest.write_text(json.dumps(description))
    capsys.readouterr()
    assert fit(other, tmp_path / "run", "--ckpt_path=last", steps=4) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ") and "other.Embedder" in error and "TinyEmbedder" in error


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model.dimm=3"], "dimm"),
        (["--model.dim=wide"], "model.dim"),
        (["--data.path=/nowhere"], "/nowhere"),
        (["--config=/nowhere.yaml"], "/nowhere.yaml"),
        (["--validation.prompts=/nowhere.txt"], "/nowhere.txt"),
        (["--model.noise_scale=-1"], "noise_scale"),
        (["--average.decay=1.5"], "decay"),
        (["--data.batch_size=5000"], "5000"),
        (["--ckpt_path=/nowhere.ckpt"], "/nowhere.ckpt"),
        (["--ckpt_path=best"], "best.ckpt"),
        (["--global_batch_size=-1"], "global_batch_size"),
        (["--checkpoints.top_k=0"], "top_k"),
    ],
)
def test_a_users_error_is_one_line(data, tmp_path, capfd, options, message):
    assert fit(data, tmp_path / "run", *options) == 2
    lines = [line for line in capfd.readouterr().err.splitlines() if "error" in line.lower()]
    assert len(lines) == 1 and lines[0].startswith("error: ") and message in lines[0]


def test_a_run_is_not_written_over(data, tmp_path, capsys):
    assert fit(data, tmp_path / "run", steps=2) == 0
    before = (tmp_path / "run" / "last.ckpt").read_bytes()
    assert fit(data, tmp_path / "run", steps=2) == 2
    assert "holds a run already" in capsys.readouterr().err
    assert (tmp_path / "run" / "last.ckpt").read_bytes() == before
