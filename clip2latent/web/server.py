"""The server: worker, page and guard together, until it is interrupted. Without telemetry, files or the network."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from typing import Any

from clip2latent.web.desk import Desk
from clip2latent.web.guard import Guard
from clip2latent.web.studio import Offer, Studio
from clip2latent.web.worker import WAITING, Worker

SESSIONS = 16
"""Visitors whose last answers gradio keeps, which nothing here asks for again."""
FONTS = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"]


@dataclass
class Server:
    """A running server.

    Attributes:
        url: where it answers.
        worker: does the work.
        page: gradio's.
    """

    url: str
    worker: Worker
    page: Any

    def wait(self) -> None:
        """Returns when the user interrupts the process."""
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            return

    def close(self) -> None:
        """Stops all jobs and the server."""
        self.worker.close()
        self.page.close(verbose=False)


def start(offer: Offer, host: str = "127.0.0.1", port: int = 7860, waiting: int = WAITING) -> Server:
    """Starts a server and returns when it answers.

    Args:
        offer: what visitors may choose from.
        host: the address it binds to.
        port: 0 for any that is free.
        waiting: requests that may wait.

    Raises:
        ImportError: where gradio is not installed.
        OSError: where the address is taken or not of this machine.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # before gradio is imported
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    import gradio as gr
    from starlette.middleware import Middleware

    from clip2latent.web.page import build_page
    from clip2latent.web.style import CSS

    shown = f"[{host}]" if ":" in host else host
    port = port or _free_port(host)
    _check_port(host, port)
    worker = Worker(Studio(offer).run, waiting)
    try:
        page = build_page(Desk(worker), offer, waiting)
        fields = {str(number): len(event.inputs) for number, event in page.fns.items()}
        fields |= {str(event.api_name): len(event.inputs) for event in page.fns.values() if event.api_name}
        theme = gr.themes.Base(primary_hue="indigo", neutral_hue="slate", font=FONTS, font_mono=["monospace"])
        page.launch(
            server_name=shown,
            server_port=port,
            share=False,
            inbrowser=False,
            quiet=True,
            prevent_thread_lock=True,
            show_error=False,
            footer_links=[],
            run_history=False,
            enable_monitoring=False,
            ssr_mode=False,
            pwa=False,
            mcp_server=False,
            max_threads=4 * waiting + 24,
            state_session_capacity=SESSIONS,
            max_file_size=1,
            allowed_paths=[],
            blocked_paths=["/"],
            theme=theme,
            css=CSS,
            app_kwargs={"middleware": [Middleware(Guard, fields=fields)], "docs_url": None, "redoc_url": None},
        )
    except BaseException:
        worker.close()
        raise
    return Server(f"http://{shown}:{port}", worker, page)


def _free_port(host: str) -> int:
    import socket

    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.bind((host, 0))
        return probe.getsockname()[1]


def _check_port(host: str, port: int) -> None:
    """Raises OSError where a server cannot bind."""
    import socket

    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ValueError(f"cannot serve at {host}, port {port}: {error.strerror}: give another --port") from error
