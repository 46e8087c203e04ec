"""What the page shows, as HTML: pictures stand in it as data addresses, so that the server offers no files.

Every text is escaped, also what templates of the page would read as code.
"""

from __future__ import annotations

import base64
import html

from clip2latent.web.outcome import Outcome, Progress, Shot

EMPTY = '<div class="c2l-empty">{}</div>'
_TEMPLATE = {ord(letter): f"&#{ord(letter)};" for letter in "${}`\\"}


def escape(text: str) -> str:
    """Returns a text that is nothing but a text in HTML, in attributes, and in templates of either kind."""
    return html.escape(text, quote=True).translate(_TEMPLATE)


def empty(hint: str) -> str:
    """Returns what stands where pictures will be."""
    return EMPTY.format(escape(hint))


def failure(message: str) -> str:
    """Returns a message of what was wrong."""
    return f'<div class="c2l-status c2l-failure" role="alert">{escape(message[:600])}</div>'


def remark(message: str) -> str:
    """Returns a message of what was done."""
    return f'<div class="c2l-status" role="status">{escape(message[:600])}</div>'


def working(progress: Progress) -> str:
    """Returns how far the work is, with a button that stops it."""
    if progress.stage == "waiting":
        ahead = progress.total
        words = "starting" if not ahead else f"waiting: {ahead} request{'s' if ahead > 1 else ''} before yours"
        share = None
    else:
        share = progress.done / progress.total if progress.total else None
        words = progress.stage + (f" {progress.done} of {progress.total}" if progress.total else "")
    bar = '<div class="c2l-bar"><i class="c2l-endless"></i></div>'
    if share is not None:
        bar = f'<div class="c2l-bar"><i style="width:{100 * min(1.0, share):.0f}%"></i></div>'
    stop = "document.querySelector('#c2l-stop').click(); this.disabled = true"
    return (
        f'<div class="c2l-status c2l-working" role="status"><div><span>{escape(words)}</span>{bar}</div>'
        f'<button type="button" class="c2l-stop" onclick="{stop}">Stop</button></div>'
    )


def gallery(shots: tuple[Shot, ...]) -> str:
    """Returns pictures with their scores, and links to their files."""
    parts, above = [], ""
    for shot in shots:
        if shot.heading != above:
            above = shot.heading
            parts.append(f"<h4>{escape(above)}</h4>")
        parts.append(_figure(shot))
    return f'<div class="c2l-gallery">{"".join(parts)}</div>'


def outcome(result: Outcome) -> str:
    """Returns all that a request came to: the sheet, the pictures, and everything as a zip."""
    sheet = ""
    if result.sheet:
        sheet = f'<img class="c2l-sheet" alt="all pictures, labelled" src="{_address(result.sheet, "image/png")}">'
    packed = ""
    if result.archive:
        name = escape(f"{result.name}.zip")
        packed = (
            f'<a class="c2l-all" download="{name}" href="{_address(result.archive, "application/zip")}">'
            "Download all, with results.json and the latents (zip)</a>"
        )
    return f"{sheet}{gallery(result.shots)}{packed}"


def _figure(shot: Shot) -> str:
    words = escape(shot.caption) or ("picture" if not shot.name else escape(shot.name))
    image = f'<img alt="{words}" src="{_address(shot.png, "image/png")}">'
    score = "" if shot.score is None else f'<b title="score">{shot.score:.3f}</b>'
    link = ""
    if shot.name:
        fill = "this.href = this.closest('figure').querySelector('img').src"
        link = f'<a download="{escape(shot.name)}" href="#" onclick="{fill}" title="{escape(shot.name)}">PNG</a>'
    caption = f"<span>{escape(shot.caption)}</span>" if shot.caption else ""
    return f"<figure>{image}<figcaption>{score}{caption}{link}</figcaption></figure>"


def _address(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"
