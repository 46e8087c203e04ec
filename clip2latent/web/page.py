"""The page: gradio's fields around the desk. Nothing of gradio's own handling of files is used.

Values arrive as they were sent (`preprocess=False`), and the desk checks them: gradio would fetch or open what a value
names, and answer in its own words.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from clip2latent.paste import LOCATIONS
from clip2latent.web import limits, markup
from clip2latent.web.desk import Desk
from clip2latent.web.requests import Compose
from clip2latent.web.studio import Offer
from clip2latent.web.style import DICE, PICTURE_SCRIPT, PICTURE_TEMPLATE

EXAMPLES = (
    "a happy woman on a beach",
    "a sad bald man with sunglasses",
    "an old man with a purple hat",
    "a woman with pink hair and a crown at night",
)
COMPOSITION = ("a red fish next to a blue boat", "a red fish", "a blue boat")


@dataclass(frozen=True)
class Panel:
    """The right half of a tab: where its status and its pictures are shown."""

    status: Any
    pictures: Any


def build_page(desk: Desk, offer: Offer, waiting: int) -> gr.Blocks:
    """Lays out the page.

    Args:
        desk: answers.
        offer: what there is to choose from.
        waiting: requests that may wait, from which gradio's own bounds follow.
    """
    with gr.Blocks(title="clip2latent", analytics_enabled=False) as page:
        with gr.Row(equal_height=True, elem_classes="c2l-header"):
            gr.HTML('<div class="c2l-head"><h1>clip2latent</h1><p>Say what the picture shows.</p></div>', min_width=260)
            model = gr.Dropdown(
                list(offer.checkpoints),
                value=offer.checkpoints[0],
                label="Model",
                visible=len(offer.checkpoints) > 1 or "hidden",
                min_width=220,
            )
        with gr.Tab("Draw"):
            _draw_tab(desk, model, "demo" in offer.checkpoints)
        with gr.Tab("Refine"):
            _refine_tab(desk, model)
        with gr.Tab("Edit"):
            _edit_tab(desk, model, offer)
        with gr.Tab("Mix"):
            _mix_tab(desk, model)
        if offer.generators:
            with gr.Tab("Compose"):
                _compose_tab(desk, offer)
        stop = gr.Button("Stop", elem_id="c2l-stop", visible="hidden")

        def leave(request: gr.Request) -> None:
            desk.stop(_owner(request))

        stop.click(leave, None, None, concurrency_limit=None, show_progress="hidden", api_name=False)
        page.unload(leave)
    page.queue(max_size=4 * waiting + 16, default_concurrency_limit=2 * waiting + 8, api_open=False)
    # Answers that nobody fetches; gradio's own bound is 2000 visitors, and has no option.
    page._queue.pending_messages_per_session.max_size = 4 * waiting + 16
    return page


def _draw_tab(desk: Desk, model: Any, demo: bool) -> None:
    with gr.Row():
        with gr.Column(scale=5, min_width=300):
            prompt = gr.Textbox(
                label="Prompt",
                info=f"Several lines are several prompts, up to {limits.PROMPTS}.",
                placeholder=EXAMPLES[0] if demo else "what the picture shows",
                lines=2,
                max_lines=limits.PROMPTS,
                autofocus=True,
                elem_id="c2l-prompt",
            )
            button = gr.Button("Draw", variant="primary", elem_id="c2l-draw")
            if demo:
                _examples(prompt)
            with gr.Accordion("Options", open=False):
                num = gr.Slider(1, limits.NUM, 4, step=1, label="Images of each prompt")
                seed = _seed()
                negative = gr.Textbox(label="Negative prompt", placeholder="what not to draw", max_lines=1)
                guidance = gr.Textbox(
                    label="Guidance",
                    info="How strongly to follow the prompt: 1 is plain, larger is stronger.",
                    placeholder="as the model recommends",
                    max_lines=1,
                )
                truncation = gr.Slider(
                    0, limits.TRUNCATION, 1, step=0.05, label="Truncation", info="Towards the average image, at 0."
                )
                candidates = gr.Slider(
                    1, limits.CANDIDATES, 16, step=1, label="Candidates", info="Drawn, to choose the best from."
                )
                steps = gr.Slider(1, limits.STEPS, 8, step=1, label="Sampling steps")
            with gr.Accordion("Image prompt", open=False):
                picture = gr.HTML("", html_template=PICTURE_TEMPLATE, js_on_load=PICTURE_SCRIPT, elem_id="c2l-picture")
                weight = gr.Slider(0.1, 3, 1, step=0.1, label="Weight", info="Beside the prompt, which has 1.")
        panel = _panel("Your pictures appear here, best first, with their CLIP scores.")
    fields = [model, prompt, num, candidates, guidance, steps, seed, truncation, negative, picture, weight]
    _answer(button.click, desk.draw, fields, panel, "draw")


def _refine_tab(desk: Desk, model: Any) -> None:
    with gr.Row():
        with gr.Column(scale=5, min_width=300):
            prompt = _prompt(
                "a man with a red hat", "The best candidates are mixed and optimised until they agree more with it."
            )
            button = gr.Button("Refine", variant="primary")
            steps = gr.Slider(1, limits.REFINE_STEPS, 50, step=1, label="Steps", info="Stop keeps the best so far.")
            with gr.Accordion("Options", open=False):
                num = gr.Slider(1, limits.FEW, 1, step=1, label="Images")
                seed = _seed()
        panel = _panel("The image appears here while it is refined.")
    _answer(button.click, desk.refine, [model, prompt, num, steps, seed], panel, "refine")


def _edit_tab(desk: Desk, model: Any, offer: Offer) -> None:
    names = list(dict.fromkeys(name for known in offer.directions.values() for name in known))
    first = offer.directions[offer.checkpoints[0]]
    most = limits.STRENGTH
    with gr.Row():
        with gr.Column(scale=5, min_width=300):
            prompt = _prompt("a smiling woman with long hair", "What is drawn, and then changed by the sliders.")
            button = gr.Button("Draw and change", variant="primary")
            with gr.Row(elem_classes="c2l-sliders"):
                sliders = [
                    gr.Slider(-most, most, 0, step=0.1, label=name, visible=name in first, min_width=140)
                    for name in names
                ]
            none = gr.Markdown("There are no directions for this model.", visible=not first)
            with gr.Accordion("Options", open=False):
                num = gr.Slider(1, limits.FEW, 2, step=1, label="Images")
                seed = _seed()
                truncation = gr.Slider(
                    0, limits.TRUNCATION, 1, step=0.05, label="Truncation", info="Towards the average image, at 0."
                )
        panel = _panel("The unchanged and the changed images appear here.")
    fields = [model, prompt, num, seed, truncation, *sliders]

    def edit(owner: str, sent: Any, *values: Any) -> Iterator[Any]:
        known = offer.directions.get(sent, {}) if isinstance(sent, str) else {}
        head, strengths = values[:4], values[4:]
        chosen = [(name, far) for name, far in zip(names, strengths, strict=True) if name in known or far]
        return desk.edit(owner, [name for name, _ in chosen], sent, *head, *(far for _, far in chosen))

    _answer(button.click, edit, fields, panel, "edit")
    for slider in [*sliders, truncation]:
        _answer(slider.release, edit, fields, panel, False, "always_last")

    def shown(sent: Any) -> dict[Any, Any]:
        known = offer.directions.get(sent, {}) if isinstance(sent, str) else {}
        updates = {
            slider: gr.update(visible=name in known, value=0) for name, slider in zip(names, sliders, strict=True)
        }
        return {none: gr.update(visible=not known), **updates}

    if len(offer.checkpoints) > 1:
        model.change(shown, model, [none, *sliders], preprocess=False, api_name=False, show_progress="hidden")


def _mix_tab(desk: Desk, model: Any) -> None:
    with gr.Row():
        with gr.Column(scale=5, min_width=300):
            prompt = _prompt("a man with a red hat", "What is kept.")
            style = gr.Textbox(EXAMPLES[0], label="Taken from", info="Empty: random images", max_lines=1, lines=1)
            button = gr.Button("Mix", variant="primary")
            layers = gr.Textbox(
                "4-",
                label="Layers to take",
                info="As 0-3 or 2,4-. Coarse ones, 0 first, hold shapes; fine ones, colours.",
            )
            with gr.Accordion("Options", open=False):
                num = gr.Slider(1, limits.FEW, 3, step=1, label="Images on either side")
                seed = _seed()
        panel = _panel("The mixtures appear here.")
    _answer(button.click, desk.mix, [model, prompt, style, layers, num, seed], panel, "mix")


def _compose_tab(desk: Desk, offer: Offer) -> None:
    default = Compose(offer.generators[0], COMPOSITION[0])
    with gr.Row():
        with gr.Column(scale=5, min_width=300):
            prompt = _prompt(COMPOSITION[0], "What the whole shows.")
            with gr.Row():
                front = gr.Textbox(COMPOSITION[1], label="Foreground", max_lines=1, min_width=140)
                back = gr.Textbox(COMPOSITION[2], label="Background", max_lines=1, min_width=140)
            button = gr.Button("Compose", variant="primary")
            places = gr.CheckboxGroup(list(LOCATIONS), value=list(default.locations), label="Places to try")
            with gr.Accordion("Options", open=False):
                several = len(offer.generators) > 1 or "hidden"
                generator = gr.Dropdown(
                    list(offer.generators), value=offer.generators[0], label="Generator", visible=several
                )
                scale = gr.Slider(0.2, 0.9, default.scale, step=0.05, label="Size", info="Of the foreground")
                steps = gr.Slider(1, limits.COMPOSE_STEPS, default.steps, step=1, label="Steps")
                seed = _seed()
        panel = _panel("A foreground is pasted onto a background and both are optimised. Stop keeps the best so far.")
    _answer(button.click, desk.compose, [generator, prompt, front, back, scale, places, steps, seed], panel, "compose")


def _panel(hint: str) -> Panel:
    with gr.Column(scale=7, min_width=300, elem_classes="c2l-panel"):
        return Panel(gr.HTML(""), gr.HTML(markup.empty(hint), elem_classes="c2l-pictures"))


def _prompt(value: str, info: str) -> Any:
    return gr.Textbox(value, label="Prompt", info=info, lines=1, max_lines=2)


def _seed() -> Any:
    with gr.Row(elem_classes="c2l-seed"):
        seed = gr.Number(0, label="Seed", precision=0, info="The same seed, the same images.", min_width=120)
        gr.Button("Another", size="sm").click(None, None, seed, js=DICE, api_name=False)
    return seed


def _examples(prompt: Any) -> None:
    with gr.Row(elem_classes="c2l-examples"):
        for example in EXAMPLES:
            button = gr.Button(example, size="sm", variant="secondary")
            button.click(None, None, prompt, js=f"() => {json.dumps(example)}", api_name=False)


def _answer(
    event: Any,
    answer: Callable[..., Iterator[Any]],
    fields: Sequence[Any],
    panel: Panel,
    name: str | bool,
    trigger: str = "multiple",
) -> None:
    """Connects an event with a method of the desk; `name` is that of its address, False for none."""

    def run(request: gr.Request, *values: Any) -> Iterator[Any]:
        for view in answer(_owner(request), *values):
            yield view.status, gr.skip() if view.pictures is None else view.pictures

    event(
        run,
        list(fields),
        [panel.status, panel.pictures],
        preprocess=False,
        show_progress="hidden",
        trigger_mode=trigger,
        api_name=name,
    )


def _owner(request: gr.Request) -> str:
    return str(getattr(request, "session_hash", None) or "")
