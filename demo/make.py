"""Remakes every embedded model from nothing: `python -m demo.make`.

Stages run as processes of their own, each as soon as the stages it needs are done: the generators, beside them the
judges and the CLIP, then the prior's data, the prior and the directions to edit along. Each stage goes on from its own
state after a kill, and a stage that is done is not run again. Budgets are in images and steps, so that a slower machine
makes the same models, later. assets/MANIFEST.json records preset, seed, seconds and the hash of every file.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from clip2latent.assets import FOLDER as ASSETS
from clip2latent.assets import configs_folder

ROOT = Path(__file__).parents[1]
MODELS = (
    "demo-judge",
    "demo-clip",
    "demo-avatars",
    "demo-prior",
    "demo-class-judge",
    "demo-objects",
    "demo-directions",
)
PRIOR_BUDGETS = {  # pairs, rows a shard, training options on top of configs/train/demo.yaml
    "cpu": (30_000, 5_000, []),
    "gpu": (200_000, 10_000, []),
    "smoke": (64, 32, ["--trainer.max_steps=4", "--data.batch_size=16", "--model.dim=16", "--model.depth=1"]),
}


# glibc hands large blocks back to the kernel and faults them in again at every step; kept, training is 1.17x as fast.
KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": "2000000000", "MALLOC_TRIM_THRESHOLD_": "8000000000"}


@dataclass(frozen=True)
class Stage:
    """One process: its name, its command, the stages it needs and the folder that holds its result."""

    name: str
    command: list[str]
    needs: tuple[str, ...]
    result: Path


def plan(preset: str, seed: int, work: Path, assets: Path, device: str | None) -> list[Stage]:
    """Returns the stages, each after what it needs, the longest first."""
    python = [sys.executable, "-m"]
    common = ["--preset", preset, "--seed", str(seed)] + (["--device", device] if device else [])

    def train(name: str, module: str, model: str) -> Stage:
        folders = ["--work", str(work / name), "--out", str(assets / model)]
        return Stage(name, [*python, module, *common, *folders], (), assets / model)

    def source(model: str) -> str:
        return model if assets == ASSETS else str(assets / model)

    count, rows, options = PRIOR_BUDGETS[preset]
    pairs, run = work / "pairs", work / "prior"
    datagen = [*python, "datagen", "--config", str(configs_folder() / "datagen/demo.yaml"), "--out", str(pairs)]
    datagen += [f"--count={count}", f"--rows_per_shard={rows}", f"--seed={seed}"]
    datagen += [f"--generator.init_args.source={source('demo-avatars')}"]
    datagen += [f"--embedder.init_args.source={source('demo-clip')}"]
    prior = [*python, "demo.prior", "--data", str(pairs), "--work", str(run), "--out", str(assets / "demo-prior")]
    directions = [*python, "demo.directions", "--out", str(assets / "demo-directions")]
    directions += ["--checkpoint", str(assets / "demo-prior"), "--judge", str(assets / "demo-judge")]
    directions += ["--names=glasses", "--num=8", "--images=2"] if preset == "smoke" else []
    return [
        train("generator", "demo.gan", "demo-avatars"),
        train("objects", "demo.objects_gan", "demo-objects"),
        train("judge", "demo.judge", "demo-judge"),
        train("class_judge", "demo.class_judge", "demo-class-judge"),
        train("clip", "demo.clip", "demo-clip"),
        Stage("pairs", datagen, ("clip", "generator"), pairs),
        Stage("prior", [*prior, f"--seed={seed}", "--", *options], ("pairs",), assets / "demo-prior"),
        Stage("directions", directions, ("prior", "judge"), assets / "demo-directions"),
    ]


def run(stages: list[Stage], work: Path, jobs: int) -> dict[str, float]:
    """Runs the stages, at most `jobs` at a time, and returns the seconds each took over all runs.

    Raises:
        RuntimeError: a stage failed; names its log. The others are ended; the same call goes on from their states.
    """
    work.mkdir(parents=True, exist_ok=True)
    done = {
        s.name: json.loads(path.read_text())["seconds"] for s in stages if (path := work / f"{s.name}.done").exists()
    }
    waiting = [stage for stage in stages if stage.name not in done]
    running: dict[str, tuple[subprocess.Popen, float, Path]] = {}
    threads = str(max(1, (os.cpu_count() or 1) // jobs))
    environment = os.environ | {"OMP_NUM_THREADS": threads, "PYTHONUNBUFFERED": "1"} | KEEP_MEMORY
    try:
        while waiting or running:
            for stage in [s for s in waiting if set(s.needs) <= set(done)][: jobs - len(running)]:
                waiting.remove(stage)
                log = work / f"{stage.name}.log"
                with log.open("ab") as file:
                    process = subprocess.Popen(stage.command, cwd=ROOT, env=environment, stdout=file, stderr=file)
                running[stage.name] = process, time.monotonic(), log
                print(f"{stage.name}: started, log in {log}", flush=True)
            time.sleep(1)
            for name, (process, start, log) in list(running.items()):
                if process.poll() is None:
                    continue
                if process.returncode:
                    raise RuntimeError(f"stage {name} failed with exit code {process.returncode}; see {log}")
                done[name] = round(time.monotonic() - start)
                (work / f"{name}.done").write_text(json.dumps({"seconds": done[name]}))
                print(f"{name}: done in {done[name]:.0f} s ({len(done)} of {len(stages)})", flush=True)
                del running[name]
            show_progress(running)
    finally:
        for process, _, _ in running.values():
            process.terminate()
    return done


def show_progress(running: dict[str, tuple[subprocess.Popen, float, Path]]) -> None:
    """Rewrites one line with the end of each running stage's log, on a terminal."""
    if not sys.stderr.isatty():
        return
    parts = []
    for name, (_, _, log) in running.items():
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 400))
            lines = file.read().decode(errors="replace").replace("\r", "\n").split("\n")
        parts.append(f"{name}: {next((line for line in reversed(lines) if line.strip()), '')[:70]}")
    print("\r\x1b[K" + " | ".join(parts)[:180], end="", file=sys.stderr, flush=True)


def write_manifest(assets: Path, preset: str, seed: int, seconds: dict[str, float]) -> None:
    """Writes MANIFEST.json beside the models: how they were made and what their files hash to."""
    import torch

    files = sorted(path for model in MODELS for path in (assets / model).rglob("*") if path.is_file())
    manifest = {
        "preset": preset,
        "seed": seed,
        "seconds": seconds,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "sha256": {str(path.relative_to(assets)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files},
    }
    temporary = assets / "MANIFEST.tmp"
    temporary.write_text(json.dumps(manifest, indent=1) + "\n")
    os.replace(temporary, assets / "MANIFEST.json")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=tuple(PRIOR_BUDGETS), default="cpu", help="cpu: 2 cores; smoke: a minute")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "demo", help="folder of states and logs")
    parser.add_argument("--assets", type=Path, default=ASSETS, help="folder to write the models to")
    parser.add_argument("--jobs", type=int, default=2, help="stages at a time; the cores are shared among them")
    parser.add_argument("--device", default=None, help="cpu or cuda; each stage chooses by default")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: the stages end with this process
    stages = plan(arguments.preset, arguments.seed, arguments.work, arguments.assets.resolve(), arguments.device)
    try:
        seconds = run(stages, arguments.work, arguments.jobs)
    except (RuntimeError, KeyboardInterrupt) as error:
        print(f"\nstopped: {error or 'interrupted'}; the same command goes on from here", file=sys.stderr)
        sys.exit(1)
    write_manifest(arguments.assets, arguments.preset, arguments.seed, seconds)
    print(f"models and MANIFEST.json in {arguments.assets}")


if __name__ == "__main__":
    main()
