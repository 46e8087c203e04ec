"""The wheel: everything that runs is in it, and it runs without the repository beside it."""

import importlib.util
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BUILT = ("clip2latent", "datagen", "demo", "configs", "setup.cfg", "pyproject.toml", "README.md", "LICENSE")

pytestmark = pytest.mark.skipif(
    not importlib.util.find_spec("setuptools"), reason="needs setuptools, to build a wheel without a network"
)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The wheel's content, unpacked; built from a copy, so that nothing is left in the repository."""
    copy, out = tmp_path_factory.mktemp("copy"), tmp_path_factory.mktemp("wheel")
    hidden = shutil.ignore_patterns("__pycache__", "*.egg-info", "build", "state")
    for name in BUILT:
        path = ROOT / name
        shutil.copytree(path, copy / name, ignore=hidden) if path.is_dir() else shutil.copy(path, copy)
    build = f"import setuptools.build_meta as it; it.build_wheel({str(out)!r})"
    subprocess.run([sys.executable, "-c", build], cwd=copy, check=True, capture_output=True, timeout=300)
    (wheel,) = out.glob("*.whl")
    folder = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def files(folder, *parts):
    found = (folder.joinpath(*parts)).rglob("*")
    return {
        path.relative_to(folder.joinpath(*parts)) for path in found if path.is_file() and "__pycache__" not in str(path)
    }


def test_the_wheel_holds_all_modules_models_and_configurations(site):
    for package in ("clip2latent", "datagen", "demo"):
        wanted = {path for path in files(ROOT, package) if path.suffix == ".py" or path.parts[0] == "assets"}
        assert wanted <= files(site, package), wanted - files(site, package)
    assert files(site, "clip2latent", "configs") == files(ROOT, "configs")
    top = {path.name for path in site.iterdir()}
    assert {name for name in top if not name.endswith(".dist-info")} == {"clip2latent", "datagen", "demo"}


def test_the_wheel_draws_away_from_the_repository(site, tmp_path):
    def run(*words):
        environment = {**os.environ, "PYTHONPATH": str(site), "CLIP2LATENT_OFFLINE": "1"}
        done = subprocess.run(
            [sys.executable, *words], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    command = "import sys, clip2latent; from clip2latent.cli import main; print(clip2latent.__file__); sys.exit(main())"
    told = run("-c", command, "generate", "an old man with glasses and a red hat", "--num=1", "--candidates=2")
    assert told.splitlines()[0] == str(site / "clip2latent" / "__init__.py")
    assert list(tmp_path.glob("outputs/*/*.png"))
    run("-c", command, "configs")
    assert files(tmp_path, "configs") == files(ROOT, "configs")
    run("-m", "datagen", "--config=configs/datagen/demo.yaml", "--out=data", "--count=64", "--rows_per_shard=32")
    fit = "import sys; from clip2latent.cli_train import main; sys.exit(main(['fit', *sys.argv[1:]]))"
    small = ["--config=configs/train/demo.yaml", "--data.path=data", "--data.batch_size=16", "--trainer.max_steps=2"]
    run("-c", fit, *small, "--trainer.val_check_interval=2", "--validation.images_per_prompt=1")
    assert (tmp_path / "runs/demo/best.ckpt").is_file()
