"""The demo's recipe, in its smoke preset: every model is remade, loads, and is not made again."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from demo.make import MODELS, Stage, run

ROOT = Path(__file__).parents[1]


def make(folder):
    command = [sys.executable, "-m", "demo.make", "--preset", "smoke", "--work", folder / "work", "--assets"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run([*command, folder / "assets"], cwd=ROOT, env=environment, capture_output=True, text=True)


def test_smoke_preset_remakes_every_model(tmp_path):
    done = make(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    manifest = json.loads((tmp_path / "assets" / "MANIFEST.json").read_text())
    assert {name.split("/")[0] for name in manifest["sha256"]} == set(MODELS)
    for name, sha256 in manifest["sha256"].items():
        assert hashlib.sha256((tmp_path / "assets" / name).read_bytes()).hexdigest() == sha256
    stages = {"judge", "class_judge", "clip", "generator", "objects", "pairs", "prior", "directions"}
    assert set(manifest["seconds"]) == stages

    sample = [sys.executable, "sample.py", "generate", "a sad man", "--checkpoint", tmp_path / "assets" / "demo-prior"]
    drawn = subprocess.run([*sample, "--out", tmp_path / "out"], cwd=ROOT, capture_output=True, text=True)
    assert drawn.returncode == 0 and (tmp_path / "out" / "grid.png").exists(), drawn.stderr

    again = make(tmp_path)
    assert again.returncode == 0 and "started" not in again.stdout


def test_a_failed_stage_is_named_and_the_rest_goes_on_from_there(tmp_path):
    good = [sys.executable, "-c", "pass"]
    bad = [sys.executable, "-c", "raise SystemExit(3)"]
    stages = [Stage("one", good, (), tmp_path), Stage("two", bad, ("one",), tmp_path)]
    with pytest.raises(RuntimeError, match="two failed with exit code 3"):
        run(stages, tmp_path, jobs=1)
    mended = [Stage("one", bad, (), tmp_path), Stage("two", good, ("one",), tmp_path)]  # one is not run again
    assert set(run(mended, tmp_path, jobs=1)) == {"one", "two"}
