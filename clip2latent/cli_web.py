"""The command that serves the web page. Whatever is slow to import is imported inside it."""

from __future__ import annotations

import importlib.util

SEVERAL = {
    "checkpoint": "A model to choose from, as for generate; give it several times for several (default: demo). One at a"
    " time is in memory. Visitors see what is written here.",
    "generator": "What compositions are drawn with, as for compose; several times for several (default: demo-objects).",
    "direction": "A file of a direction for the edits, as direction writes, beside the demo's own; several times for"
    " several.",
}
"""Options that may be given several times, and what they are."""


def web(
    checkpoint: list[str] | None = None,
    generator: list[str] | None = None,
    direction: list[str] | None = None,
    host: str = "127.0.0.1",
    port: int = 7860,
    queue: int = 16,
) -> None:
    """Serves a web page to draw, refine, edit, mix and compose with; Ctrl-C ends it.

    Args:
        checkpoint: see SEVERAL.
        generator: see SEVERAL.
        direction: see SEVERAL.
        host: The address to answer at; 0.0.0.0 lets every machine of the network in (default: this machine only).
        port: Its port; 0 takes a free one.
        queue: Requests that may wait; the next one is told that the queue is full.
    """
    if queue < 1 or not 0 <= port < 65536:
        name, value = ("queue", queue) if queue < 1 else ("port", port)
        raise ValueError(f"{name}={value}: expected {'at least 1' if name == 'queue' else '0 to 65535'}")
    if importlib.util.find_spec("gradio") is None:
        raise ValueError('the web page needs gradio: pip install "clip2latent[web]"')
    from clip2latent.web.server import start
    from clip2latent.web.studio import make_offer

    offer = make_offer(checkpoint or ["demo"], generator or ["demo-objects"], direction or [])
    server = start(offer, host, port, queue)
    try:
        print(f"clip2latent is at {server.url} - Ctrl-C ends it", flush=True)
        if host not in ("127.0.0.1", "localhost", "::1"):
            print("whoever reaches this machine can use it: there is no password", flush=True)
        server.wait()
    finally:
        server.close()
