"""Who may import whom: DESIGN's order of layers, read from the source, and what must stay quick to import."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import clip2latent

ROOT = Path(__file__).parents[1]

# A module imports from its own layer and the layers above it in this list, never from below.
LAYERS = [
    set(names.split())
    for names in (
        """
        arguments assets captions chunking comparison_page doctor doctor_machine doctor_packages downloads html_page
        interfaces memory mixtures model_card moments outputs pages plot prior_files progress prompts report
        sweep_report table_page tar_members tar_stride transfer unfinished
        """,
        """
        animation augment barrier basis bridge contracts diffusion gathering guidance halving images latents membrane
        origins pairing paste perceptual picture_stream priorless schedule spec steps
        """,
        """
        causal_transformer conditions directions embedders fit generators inception judge lean_clip lean_graph
        lean_prior lean_transformer metrics metrics_retrieval metrics_sets objectives openclip openclip_weights paired
        prior released released_config released_embedder released_prior released_records samples sampling token_sampler
        """,
        """
        bank bank_files checkpoint convert data pair_cache pair_dataset pair_order pair_reading pair_shards pair_sources
        pair_stream ranking saved search state_files training_record
        """,
        """
        compose composition composition_files composition_run composition_state direction_search edit initial
        interpolate invert label_search redraw references refine refine_state refinement remake starts text2image
        training
        """,
        """
        average fidelity launch leaving metrics_file prompt_validation refine_files results saving training_progress
        wandb_run
        """,
        """
        doctor_demo evaluate evaluate_rows export extractors folder_scores hub label_study label_study_report
        seen_pictures sweep sweep_drawing table table_scoring ways web
        """,
        """
        cli cli_banks cli_compose cli_compose_run cli_configs cli_direction cli_doctor cli_edit cli_evaluate
        cli_generate cli_invert cli_refine cli_refine_run cli_score cli_search cli_search_study cli_share cli_sweep
        cli_table cli_train cli_web
        """,
    )
]
LAYERS[0].add("")  # the package itself
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
PACKAGES = ("clip2latent", "datagen", "demo")
SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))

# Whoever stands left must not import what stands right, directly or through others.
NEVER = {
    "clip2latent.training": ("clip2latent.generators", "clip2latent.embedders", "clip2latent.openclip"),
    "clip2latent.data": ("clip2latent.generators", "clip2latent.embedders", "datagen"),
    "clip2latent.checkpoint": ("pytorch_lightning", "clip2latent.training"),
    "clip2latent.text2image": ("pytorch_lightning", "clip2latent.training", "datagen"),
    "datagen.generate": ("pytorch_lightning", "clip2latent.training", "clip2latent.data"),
    "clip2latent.cli": ("torch", "pytorch_lightning", "open_clip", "dalle2_pytorch", "numpy", "PIL"),
    "datagen.__main__": ("torch", "pytorch_lightning", "open_clip", "numpy"),
    "clip2latent": ("torch", "numpy"),
}


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in SOURCES}


def imports(path: Path, at_import: bool) -> set[str]:
    """The modules a file imports: anywhere, or only while it is itself imported."""
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                found.update(alias.name for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                assert child.level == 0, f"{path}: relative imports hide the layers"
                found.update(
                    full if (full := f"{child.module}.{alias.name}") in MODULES else str(child.module)
                    for alias in child.names
                )
            if not (at_import and isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))):
                visit(child)

    visit(ast.parse(path.read_text(encoding="utf-8")))
    return found


def reached(module: str) -> set[str]:
    """What importing a module imports, by the source of our packages."""
    seen: set[str] = set()
    open_ends = {module}
    while open_ends:
        name = open_ends.pop()
        parents = {".".join(name.split(".")[:depth]) for depth in range(1, name.count(".") + 1)}
        seen.add(name)
        further = imports(MODULES[name], at_import=True) if name in MODULES else set()
        open_ends |= (further | parents) - seen
    return seen - {module}


@pytest.mark.parametrize("module", [name for name in MODULES if name.split(".")[0] == "clip2latent"])
def test_imports_follow_the_layers(module):
    own = module.split(".")[1] if "." in module else ""
    assert own in LEVEL, f"{module} has no layer: add it to LAYERS where its imports allow"
    for name in imports(MODULES[module], at_import=False):
        package, _, rest = name.partition(".")
        assert package not in ("datagen", "demo", "train", "sample", "tests"), f"{module} imports {name}"
        if package == "clip2latent":
            other = rest.split(".")[0]
            assert LEVEL[other] <= LEVEL[own], f"{module} imports {name}, which is built on it"


@pytest.mark.parametrize("module", NEVER)
def test_what_never_meets(module):
    found = reached(module)
    for banned in NEVER[module]:
        assert not any(name == banned or name.startswith(f"{banned}.") for name in found), f"{module} reaches {banned}"


def test_datagen_needs_neither_demo_nor_training():
    for module in (name for name in MODULES if name.startswith("datagen")):
        names = imports(MODULES[module], at_import=False)
        assert not any(name.split(".")[0] in ("demo", "train") for name in names)


HELP = """
import runpy, sys, time
sys.argv = ["command", "--help"]
try:
    runpy.RUN
except SystemExit as end:
    assert not end.code, end.code
print(sorted({"torch", "numpy", "PIL", "pytorch_lightning", "open_clip"} & set(sys.modules)), file=sys.stderr)
print(time.process_time(), file=sys.stderr)
"""


@pytest.mark.parametrize(
    "run", [f"run_{target}, run_name='__main__')" for target in ("path('sample.py'", "module('datagen'")]
)
def test_help_comes_at_once(run):
    """Without torch, numpy or Pillow, in under 3 seconds of the process's own time (the machine may be busy)."""
    done = subprocess.run(
        [sys.executable, "-c", HELP.replace("RUN", run)], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    heavy, seconds = done.stderr.strip().splitlines()[-2:]
    assert heavy == "[]" and float(seconds) < 3
    assert "usage:" in done.stdout


def test_no_export_hides_behind_a_module_of_its_name():
    """Importing a submodule sets the package's attribute of that name."""
    modules = {name.split(".")[1] for name in MODULES if name.startswith("clip2latent.")}
    assert not modules & set(clip2latent.__all__)
