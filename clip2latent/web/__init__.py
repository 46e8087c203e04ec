"""The web page: a core that needs no browser (requests, studio, worker) and a thin gradio page on top of it."""
