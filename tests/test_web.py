"""The web page's core without page and models: limits, requests, uploads and HTML."""

import base64
import io
import math
import random
import struct
import time
import zlib

import pytest
from PIL import Image

from clip2latent import mixtures
from clip2latent.web import limits, markup
from clip2latent.web.limits import real, text, whole, written
from clip2latent.web.outcome import Outcome, Progress, Shot
from clip2latent.web.pictures import decode, encode, read_upload
from clip2latent.web.requests import Compose, Draw, Edit, Mix, Options, Refine, read_lines

NO_NUMBERS = [math.nan, math.inf, -math.inf, "3", None, True, [1], {"a": 1}, 10**400, b"1"]


@pytest.mark.parametrize("value", [*NO_NUMBERS, 0, 17, 3.5, -1])
def test_whole_numbers_are_refused_with_name_value_and_range(value):
    with pytest.raises(ValueError, match=r"^number=.{1,110}: expected a whole number from 1 to 16$"):
        whole("number", value, 1, 16)


@pytest.mark.parametrize("value", [*NO_NUMBERS, -0.1, 2.1])
def test_numbers_are_refused_with_name_value_and_range(value):
    with pytest.raises(ValueError, match=r"^truncation=.{1,110}: expected a number from 0 to 2$"):
        real("truncation", value, 0, 2)


def test_numbers_pass_as_browsers_send_them():
    assert whole("number", 4.0, 1, 16) == 4 and isinstance(whole("number", 4.0, 1, 16), int)
    assert real("truncation", 1, 0, 2) == 1.0
    assert written("guidance", " 2.5 ", 0, 20) == 2.5 and written("guidance", " ", 0, 20) is None
    for value in ("nan", "inf", "1e400", "x", "-1", "2" * 50, [2]):
        with pytest.raises(ValueError, match=r"^guidance="):
            written("guidance", value, 0, 20)


@pytest.mark.parametrize(
    "prompt",
    [
        "/etc/secret.png",
        "secret.PNG ",
        "a cat | ../../secret.jpg::0.5",
        "a cat|secret.webp :: 2",
        "secret.tiff::nan | a cat",
        "x" * 401,
        "two\nlines",
        "nul\0byte",
        7,
        ["a cat"],
    ],
)
def test_prompts_that_name_files_or_are_no_texts_are_refused(prompt):
    with pytest.raises(ValueError, match="expected"):
        text("prompt", prompt)


def test_no_prompt_that_passes_can_open_a_file(monkeypatch):
    """Whatever passes the check, the reading of mixtures does not take it for a picture."""

    class Trap:
        def __init__(self, path):
            raise AssertionError(f"{path} reaches the disk")

    monkeypatch.setattr(mixtures, "Path", Trap)
    pieces = ["a cat", ".png", ".PNG", ".jpg", "::", "::1", "|", " ", "/etc/passwd", ".gif", "\u0130", ".", ":", "5"]
    rng, passed = random.Random(0), 0
    for _ in range(8000):
        prompt = "".join(rng.choice(pieces) for _ in range(rng.randint(1, 7)))
        try:
            prompt = text("prompt", prompt)
        except ValueError:
            continue
        try:
            read = mixtures.read_mixtures([prompt])
        except ValueError:
            continue
        passed += 1
        assert not any(part.is_picture for mixture in read for part in mixture.parts)
    assert passed > 500
    with pytest.raises(AssertionError, match="reaches the disk"):
        mixtures.read_mixtures(["a.png"])


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Draw("demo", ()), "prompt: expected"),
        (lambda: Draw("demo", ("a",) * 9), "prompts=9: expected at most 8"),
        (lambda: Draw("demo", ("a", "b", "c"), Options(num=16)), "number=16: expected at most 10 of each of 3"),
        (lambda: Draw("demo", ("a",) * 8, Options(candidates=64)), "candidates=64: expected at most 32"),
        (lambda: Draw("demo", ("a | ",)), "empty part"),
        (lambda: Draw("demo", ("a::x | b",)), "not a weight"),
        (lambda: Options(num=8, candidates=4), "candidates=4: expected a whole number from 8 to 64"),
        (lambda: Options(steps=0), "steps=0: expected a whole number from 1 to 100"),
        (lambda: Options(seed=-1), "seed=-1: expected"),
        (lambda: Options(negative="/etc/x.png"), "negative prompt="),
        (lambda: Options(guidance=math.nan), "guidance=nan: expected a number from 0 to 20"),
        (lambda: Refine("demo", ""), "prompt is empty"),
        (lambda: Refine("demo", "a", steps=301), "refinement steps=301"),
        (lambda: Refine("demo", "a", num=5), "number=5: expected a whole number from 1 to 4"),
        (lambda: Edit("demo", "a", directions=(("smile", math.nan),)), "smile=nan: expected a number from -3 to 3"),
        (lambda: Mix("demo", "a", layers="9-2"), "layers"),
        (lambda: Mix("demo", "a", layers="1," * 30), "layers of 60 characters"),
        (lambda: Compose("g", "a", locations=("../x",)), "place='../x': expected one of top-left"),
        (lambda: Compose("g", "a", locations=()), "places=none"),
        (lambda: Compose("g", "a | b"), "without |"),
        (lambda: Compose("g", "a", scale=1), "size=1: expected"),
        (lambda: read_lines("x" * 10**6), "prompts of 1000000 characters"),
        (lambda: read_lines({"path": "x"}), "prompt=dict: expected a text"),
    ],
)
def test_requests_beyond_the_limits_do_not_exist(make, words):
    with pytest.raises(ValueError) as raised:
        make()
    assert words in str(raised.value) and len(str(raised.value)) < 400


def test_lines_are_prompts():
    assert read_lines(" a man \r\n\n a | b::0.5\n") == ("a man", "a | b::0.5")
    assert read_lines(None) == ()


def address(data, kind="png"):
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def png_of_size(width, height):
    """A PNG of a few bytes that says it is of any size."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 999)) + chunk(b"IEND", b"")
    )


def test_an_upload_becomes_its_middle_square_and_nothing_else():
    picture = Image.new("RGB", (30, 10), "red")
    picture.paste("blue", (10, 0, 20, 10))
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", pnginfo=None)
    read = read_upload(address(buffer.getvalue()), 0.5)
    square = Image.open(io.BytesIO(read.png))
    assert read.weight == 0.5 and square.size == (10, 10) and square.getcolors() == [(100, (0, 0, 255))]
    assert read_upload(None) is None and read_upload("") is None
    large = io.BytesIO()
    Image.new("L", (3000, 2000), 7).save(large, format="JPEG")
    assert max(Image.open(io.BytesIO(decode(large.getvalue()))).size) == 1024
    clear = encode(Image.new("RGBA", (4, 4), (0, 0, 0, 0)))
    assert Image.open(io.BytesIO(decode(clear))).getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize("size", [(60000, 60000), (30000, 9000), (100000, 500)])
def test_pictures_that_unfold_are_refused_unread(size):
    started = time.process_time()
    with pytest.raises(ValueError, match="image prompt: the picture cannot be read"):
        read_upload(address(png_of_size(*size)))
    assert time.process_time() - started < 0.5


@pytest.mark.parametrize(
    "value",
    [
        "/etc/passwd",
        "http://127.0.0.1/x.png",
        "file:///etc/passwd",
        {"path": "/etc/passwd"},
        "data:text/html;base64,aGVsbG8=",
        "data:image/png;base64,",
        "data:image/png;base64,%%%",
        "data:image/png,abc",
        address(b"not a picture"),
        address(b"<svg xmlns='http://www.w3.org/2000/svg'/>", "svg+xml"),
        address(encode(Image.effect_noise((50, 50), 90))[:999]),
        address(b"GIF89a" + b"\0" * 50, "gif"),
        "data:image/png;base64," + "A" * (limits.UPLOAD_BYTES * 2),
    ],
)
def test_what_is_no_uploaded_picture_is_refused(value):
    with pytest.raises(ValueError, match=r"^image prompt"):
        read_upload(value)
    with pytest.raises(ValueError, match="weight"):
        read_upload(address(encode(Image.new("RGB", (2, 2)))), math.nan)


def test_html_holds_texts_as_texts():
    evil = "<script>alert(1)</script> ${alert(2)} {{value}} `x` \" ' \\"
    shot = Shot(b"png", evil, 0.5, evil, evil)
    for shown in (
        markup.failure(evil),
        markup.remark(evil),
        markup.working(Progress(evil, 1, 2)),
        markup.outcome(Outcome((shot,), "", None, b"zip", evil)),
    ):
        assert "<script" not in shown and "${" not in shown and "{{" not in shown and "`" not in shown
    assert markup.outcome(Outcome((shot,), "")).count("data:image/png;base64,cG5n") == 1
    assert "0.500" in markup.gallery((shot,))
