"""Captions in every format, and which picture each belongs to."""

import json
from pathlib import Path

import pytest

from clip2latent.captions import Caption, plain_name, read_captions, stem
from clip2latent.pairing import list_pictures, pair


def folder(path, *names):
    for name in names:
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(b"")
    return path


def paired(path, captions):
    found = pair(path, captions)
    return [
        (picture.relative_to(path).as_posix(), found.texts[index])
        for picture, index in zip(found.pictures, found.own, strict=True)
    ]


def coco(path, annotations):
    images = [{"id": 7, "file_name": "COCO_val2014_000000000007.jpg"}, {"id": 31, "file_name": "set/000031.jpg"}]
    path.write_text(json.dumps({"images": images, "annotations": annotations}))
    return path


ANNOTATIONS = [
    {"id": 100, "image_id": 7, "caption": " a dog "},
    {"id": 102, "image_id": 31, "caption": "a red boat"},
    {"id": 101, "image_id": 7, "caption": "a brown dog"},
    {"id": 103, "image_id": 31, "caption": "  "},
]


def test_text_files_are_read_line_by_line_and_their_pictures_go_by_order(tmp_path):
    (tmp_path / "captions.txt").write_text("\ufeffa dog\n\n a cat \n", encoding="utf-8")
    assert list(read_captions(tmp_path / "captions.txt")) == [Caption("a dog"), Caption("a cat")]
    pictures = folder(tmp_path / "p", "2.png", "10.png", "1.JPG", "11.webp", "notes.txt", ".hidden.png")
    assert [path.name for path in list_pictures(pictures)] == ["1.JPG", "2.png", "10.png", "11.webp"]
    expected = [("1.JPG", "a dog"), ("2.png", "a dog"), ("10.png", "a cat"), ("11.webp", "a cat")]
    assert paired(pictures, read_captions(tmp_path / "captions.txt")) == expected
    with pytest.raises(ValueError, match="4 pictures cannot be shared out evenly to 3 captions"):
        pair(pictures, [Caption("a"), Caption("b"), Caption("c")])
    with pytest.raises(ValueError, match="no captions"):
        pair(pictures, [])


def test_thirty_thousand_captions_are_streamed(tmp_path):
    (tmp_path / "captions.txt").write_text("".join(f"caption {n}\n" for n in range(30000)))
    captions = read_captions(tmp_path / "captions.txt")
    assert next(captions).text == "caption 0" and sum(1 for _ in captions) == 29999
    (tmp_path / "bad.jsonl").write_text('{"caption": "first"}\n' + "not json\n")
    lines = read_captions(tmp_path / "bad.jsonl")
    assert next(lines).text == "first"  # before the second line is looked at
    with pytest.raises(ValueError, match="line 2"):
        next(lines)


def test_json_lines_name_their_pictures_and_several_lines_share_a_text(tmp_path):
    lines = [
        {"caption": "a dog", "image": "x/1.png"},
        {"prompt": "a cat", "image": "2.png", "attributes": {"animal": "cat"}},
        {"caption": "a dog", "image": "x/3.jpg"},
        {"caption": "a cow", "image": "gone.png"},
    ]
    (tmp_path / "c.jsonl").write_text("\n".join(map(json.dumps, lines)))
    pictures = folder(tmp_path / "p", "2.png", "x/1.png", "x/3.jpg", "2-1.png", "2_002.png")
    found = pair(pictures, read_captions(tmp_path / "c.jsonl"))
    assert found.texts == ["a cat", "a dog"] and found.own == [0, 0, 0, 1, 1] and found.captions == 4
    assert found.attributes == [{"animal": "cat"}, {}]
    folder(pictures, "stranger.png")
    with pytest.raises(ValueError, match=r"1 of 6 pictures in .* have no caption, such as 'stranger'.*such as 'x/1'"):
        pair(pictures, read_captions(tmp_path / "c.jsonl"))


@pytest.mark.parametrize(
    "line", ["[]", '{"caption": ""}', '{"caption": 3}', '{"caption": "a", "image": 3}', '{"caption": "a"}']
)
def test_json_lines_say_what_is_wrong_with_a_line(tmp_path, line):
    (tmp_path / "c.jsonl").write_text('{"caption": "a", "image": "b.png"}\n' + line)
    with pytest.raises(ValueError, match=r"line 2.*in all lines or in none"):
        list(read_captions(tmp_path / "c.jsonl"))


@pytest.mark.parametrize(
    "names",
    [
        ("COCO_val2014_000000000007.png", "set/000031.png"),  # the file's name
        ("7.png", "000031-0.png"),  # the image's id
        ("100.png", "102.png"),  # the annotation's id
    ],
)
def test_coco_pictures_go_by_file_or_image_or_annotation(tmp_path, names):
    captions = coco(tmp_path / "captions.json", ANNOTATIONS)
    assert dict(paired(folder(tmp_path / "p", *names), read_captions(captions))) == {
        names[0]: "a dog",
        names[1]: "a red boat",
    }


def test_other_captions_of_an_annotation_and_a_file_that_is_not_coco(tmp_path):
    captions = coco(tmp_path / "captions.json", ANNOTATIONS)
    assert paired(folder(tmp_path / "p", "101.png"), read_captions(captions)) == [("101.png", "a brown dog")]
    for broken in ("[]", "{", json.dumps({"images": [], "annotations": [{"image_id": 1, "caption": "a"}]})):
        (tmp_path / "broken.json").write_text(broken)
        with pytest.raises(ValueError, match="expected COCO's captions"):
            list(read_captions(tmp_path / "broken.json"))


def test_cub_folders_of_texts(tmp_path):
    texts = folder(tmp_path / "text", "001.Gull/Gull_0001_18.txt", "002.Wren/Wren_0002_7.txt", "empty.txt")
    (texts / "001.Gull/Gull_0001_18.txt").write_text("a white bird.\nthis bird is white.\n")
    (texts / "002.Wren/Wren_0002_7.txt").write_text("a brown bird.\n")
    read = list(read_captions(texts))
    assert [caption.text for caption in read] == ["a white bird.", "a brown bird."]
    nested = folder(tmp_path / "a", "001.Gull/Gull_0001_18.jpg", "002.Wren/Wren_0002_7.jpg")
    flat = folder(tmp_path / "b", "Gull_0001_18.png", "Gull_0001_18-1.png", "Wren_0002_7.png")
    assert [text for _, text in paired(nested, read)] == ["a white bird.", "a brown bird."]
    assert [text for _, text in paired(flat, read)] == ["a white bird."] * 2 + ["a brown bird."]
    with pytest.raises(ValueError, match="holds no captions"):
        list(read_captions(folder(tmp_path / "none", "empty.txt")))


def test_a_folder_that_generate_wrote_needs_no_captions(tmp_path):
    pictures = folder(tmp_path / "p", "000-a-dog-0.png", "000-a-dog-1.png", "001-a-cat-0.png", "grid.png")
    entries = [{"file": name, "prompt": name[4:9].replace("-", " ")} for name in ("001-a-cat-0.png", "000-a-dog-0.png")]
    with pytest.raises(ValueError, match="--captions"):
        pair(pictures, None)
    (pictures / "results.json").write_text(json.dumps({"images": entries}))
    assert paired(pictures, None) == [("001-a-cat-0.png", "a cat"), ("000-a-dog-0.png", "a dog")]
    assert [path.name for path in list_pictures(pictures)] == ["001-a-cat-0.png", "000-a-dog-0.png"]
    (pictures / "results.json").write_text(json.dumps({"images": [{"file": "../secret.png", "prompt": "a"}]}))
    assert len(list_pictures(pictures)) == 4


def test_names_lose_their_suffix_and_leading_zeros():
    assert [stem(name) for name in ("a/b.c.png", "00012.jpg", "x\\y.png", "000.png", "_3")] == [
        "a/b.c",
        "12",
        "x/y",
        "0",
        "_3",
    ]
    assert plain_name("v1.5") == "v1.5"
    with pytest.raises(FileNotFoundError, match="nowhere"):
        read_captions("nowhere")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        list_pictures(Path("nowhere"))
