"""The text that goes with an exported prior: README.md, as the Hugging Face Hub shows it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from clip2latent.report import markdown

SAMPLES = "samples.png"


class Model(NamedTuple):
    """A model that the prior needs or is: its role, its name, the hash of its weights, its licence."""

    role: str
    name: str
    sha256: str
    licence: str


def model_card(
    title: str,
    config: Mapping[str, Any],
    models: list[Model],
    settings: Mapping[str, Any],
    scores: Mapping[str, float],
    evaluation: Mapping[str, Any] | None,
    licence: str | None,
) -> str:
    """Returns README.md.

    Args:
        title: the prior's name.
        config: its description, as `describe` returns it.
        models: what it works with.
        settings: of its training.
        scores: metrics of its validation.
        evaluation: the record of an evaluation, with "options"; None where there was none, and then no samples either.
        licence: of the prior's own weights, as the Hub spells it; None leaves it open.
    """
    head = {
        "library_name": "clip2latent",
        "pipeline_tag": "text-to-image",
        "tags": ["clip2latent", "diffusion-prior", "gan"],
    }
    head |= {"license": licence} if licence else {}
    front = "\n".join(f"{key}: {json.dumps(value)}" for key, value in head.items())
    parts = [f"---\n{front}\n---\n", f"# {_plain(title)}\n", _summary(config)]
    parts += [f"![Prompts, and what this prior draws]({SAMPLES})\n"] if evaluation else []
    parts += [_USE, _models(models, licence), _data(config.get("dataset") or {})]
    parts += [_training(config, settings), _scores(scores, evaluation)]
    return "\n".join(parts)


_USE = """## Use

With this folder's path, or its name on the Hub, in place of FOLDER:

```bash
python sample.py generate --checkpoint FOLDER "a prompt"
```

```python
from clip2latent import TextToImage

samples = TextToImage.from_pretrained("FOLDER").generate(["a prompt"])
```
"""


def _summary(config: Mapping[str, Any]) -> str:
    prior = config["prior"]
    return (
        f"A clip2latent diffusion prior: embeddings of width {prior['embedding_dim']} become {prior['num_tokens']}"
        f" latent token(s) of width {prior['latent_dim']}, of groups {_plain(config['space']['groups'])} of the"
        f" generator's rows. Recommended guidance: {config['guidance']:g}. It was trained on images and their"
        f" embeddings alone, without captions ([Pinkney and Li 2022](https://arxiv.org/abs/2210.02347)).\n"
    )


def _models(models: list[Model], licence: str | None) -> str:
    rows = [(model.role, model.name, f"`{model.sha256 or 'not recorded'}`", model.licence) for model in models]
    note = "" if licence else "\nThe prior's own licence was not named; it was trained on the generator's output.\n"
    return "## Models\n\n" + _table(("", "what", "sha256 of the weights", "licence"), rows) + note


def _data(dataset: Mapping[str, Any]) -> str:
    named = {
        "pairs": dataset.get("count"),
        "shards": dataset.get("num_shards"),
        "sha256 of what `sha256sum *.tar` prints": dataset.get("shards_sha256"),
        "seed": dataset.get("seed"),
        "sha256 of the texts": dataset.get("texts_sha256") or None,
        "made with": ", ".join(f"{name} {value}" for name, value in (dataset.get("versions") or {}).items()) or None,
    }
    rows = [(name, value) for name, value in named.items() if value is not None]
    return "## Data\n\nPairs of a latent, drawn by the generator, and the embedding of its image.\n\n" + (
        _table(("", ""), rows) if rows else "Nothing more was recorded.\n"
    )


def _training(config: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
    size = {name: config["prior"][name] for name in ("dim", "depth", "heads", "dim_head", "timesteps")}
    bridge = "each modality's mean is taken off" if config.get("centred") else "embeddings as they are"
    shown = {**size, "noise_scale": config["noise_scale"], "bridge": bridge, **settings}
    rows = [(f"`{name}`", value) for name, value in shown.items() if name != "centre"]
    return "## Training\n\n" + _table(("setting", "value"), rows)


def _scores(scores: Mapping[str, float], evaluation: Mapping[str, Any] | None) -> str:
    lines = ["## Scores\n"]
    if scores:
        named = ", ".join(f"{_plain(name)} {value:.4f}" for name, value in scores.items())
        lines.append(f"In validation, when this checkpoint was written: {named}.\n")
    if evaluation:
        plan, prompts = evaluation["plan"], len(evaluation["prompts"])
        chose = evaluation.get("prompts_chose_checkpoint")
        lines.append(
            f"On {prompts} prompts, {plan['num']} images each, seed {evaluation['sampling']['seed']},"
            f" {evaluation['sampling']['steps']} steps of {evaluation['sampling']['sampler']}; mean and standard error"
            " over the prompts. CLIP score is the cosine of image and prompt in the embedder the prior is conditioned"
            " on. metrics.json holds prompts, models and versions."
            + (" The checkpoint was chosen by its score on these very prompts.\n" if chose else "\n")
        )
        lines.append(markdown(dict(evaluation)) + "\n")
    return "\n".join(lines if len(lines) > 1 else [*lines, "None were measured.\n"])


def _table(head: tuple[str, ...], rows: list[tuple[Any, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "".join("| " + " | ".join(_plain(cell) for cell in line) + " |\n" for line in lines)


def _plain(value: Any) -> str:
    """A value in one line that does not end a table's cell."""
    return " ".join(str(value).split()).replace("|", "\\|")
