"""doctor: each check with its fault simulated, and the command's exit code."""

import contextlib
import importlib.metadata
import json
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from loopback import running, send

from clip2latent import cli, doctor_demo, doctor_machine, doctor_packages
from clip2latent.doctor import FAULT, GOOD, NOTE, Finding, diagnose, shown, size_of, verdict
from clip2latent.doctor_demo import Drawn

GIB = 1 << 30
serving = contextlib.contextmanager(running)


def states(findings):
    return [finding.state for finding in findings]


def faulty(findings, fix, state=FAULT):
    """The one finding that is not good, which must say what to do."""
    (found,) = [finding for finding in findings if finding.state != GOOD]
    assert found.state == state and fix in found.fix, found
    return found.said


def versions(**installed):
    def version_of(name):
        if name not in installed:
            raise importlib.metadata.PackageNotFoundError(name)
        return installed[name]

    return version_of


# Packages


def test_ranges_are_read_from_the_checkout_and_from_what_pip_recorded():
    for ranges in (doctor_packages.read_ranges(), doctor_packages.read_ranges(Path(__file__).parent)):
        assert ranges.python == ">=3.10" and any(line.startswith("torch") for line in ranges.packages)
        assert not any("extra" in line or line.startswith("pytest") for line in ranges.packages)
        assert any(line.startswith("pytest") for line in ranges.extras["test"])


def test_ranges_of_another_projects_setup_cfg_are_not_taken(tmp_path):
    (tmp_path / "setup.cfg").write_text("[metadata]\nname = other\n[options]\npython_requires = >=99\n")
    assert doctor_packages.read_ranges(tmp_path).python != ">=99"
    (tmp_path / "setup.cfg").write_text(
        "[metadata]\nname = clip2latent\n[options]\npython_requires = >=9\ninstall_requires =\n  one >= 2, < 3\n"
    )
    assert doctor_packages.read_ranges(tmp_path) == (">=9", ["one >= 2, < 3"], {})


def test_python_and_packages_out_of_range_are_faults_with_their_command():
    assert states(doctor_packages.check_python(">=3.10", "3.14.0rc1")) == [GOOD]
    assert "3.9.2" in faulty(doctor_packages.check_python(">=3.10", "3.9.2"), "install a Python >=3.10")
    wanted = ["one >= 2, < 3", "two[more] >= 1", "never >= 1; python_version < '3'"]
    assert states(doctor_packages.check_packages(wanted, versions(one="2.9", two="1.0+cu1"))) == [GOOD]
    assert "3.0" in faulty(doctor_packages.check_packages(wanted, versions(one="3.0", two="1")), 'install "one>=2,<3"')
    assert "not installed" in faulty(doctor_packages.check_packages(wanted, versions(one="2")), '"two[more]>=1"')


def test_extras_are_never_faults():
    extras = {"video": ["one >= 2"], "web": ["two"]}
    (finding,) = doctor_packages.check_extras(extras, versions(one="2"))
    assert finding.state == GOOD and "installed: video; not installed: web" in finding.said
    faulty(doctor_packages.check_extras(extras, versions(one="1")), "if you use video", NOTE)


# The machine


def test_processors():
    assert states(doctor_machine.check_processors(4, 4, 8.0)) == [GOOD]
    faulty(doctor_machine.check_processors(2, 16, 0.0), "OMP_NUM_THREADS=2", NOTE)
    faulty(doctor_machine.check_processors(2, 2, 4.1), "other work", NOTE)
    assert len(doctor_machine.check_processors()) == 1


def no_cuda():
    return SimpleNamespace(is_available=lambda: False)


def test_gpus_that_are_not_there_or_not_seen():
    assert states(doctor_machine.check_gpu(no_cuda(), None, devices=False)) == [GOOD]
    faulty(doctor_machine.check_gpu(no_cuda(), None, devices=True), "install a torch with CUDA", NOTE)
    faulty(doctor_machine.check_gpu(no_cuda(), "13.2", devices=True), "driver", NOTE)


def test_gpus_that_are_full_or_broken(monkeypatch):
    free = [40 * GIB, GIB]

    def multiply(dtype, device):
        if device == "cuda:1":
            raise RuntimeError("no kernel image is available\nand more")

    cuda = SimpleNamespace(
        is_available=lambda: True,
        device_count=lambda: 2,
        mem_get_info=lambda number: (free[0], 80 * GIB),
        get_device_name=lambda number: "card",
    )
    monkeypatch.setattr(doctor_machine, "_multiply", multiply)
    assert "no kernel image is available" in faulty(doctor_machine.check_gpu(cuda, "13.2"), "CUDA_VISIBLE_DEVICES")
    free.pop(0)
    found = doctor_machine.check_gpu(cuda, "13.2")
    assert states(found) == [NOTE, FAULT] and "1.0 GiB free of 80.0 GiB" in found[0].said


def test_precisions(monkeypatch):
    (finding,) = doctor_machine.check_precision("cpu")
    assert finding.state == GOOD and "bf16" in finding.said and "fp16" in finding.said
    right = doctor_machine._multiply

    def wrong(dtype, device):
        return right(dtype, device) * (2 if dtype == torch.bfloat16 else 1)

    monkeypatch.setattr(doctor_machine, "_multiply", wrong)
    assert "bf16" in faulty(doctor_machine.check_precision("cpu"), "stay with fp32", NOTE).split(";")[1]


def test_memory():
    assert states(doctor_machine.check_memory(8 * GIB)) == [GOOD]
    faulty(doctor_machine.check_memory(3 * GIB), "--chunk", NOTE)
    assert "512 MiB" in faulty(doctor_machine.check_memory(GIB // 2), "end other programs")
    assert doctor_machine.check_memory()[0].said


def test_folders_that_cannot_be_written_or_are_full(tmp_path, monkeypatch):
    free = [99 * GIB]
    monkeypatch.setattr(doctor_machine.shutil, "disk_usage", lambda path: SimpleNamespace(free=free[0]))
    folders = {"results": tmp_path / "not" / "yet" / "there"}
    assert states(doctor_machine.check_folders(folders)) == [GOOD] and not (tmp_path / "not").exists()
    free[0] = GIB
    faulty(doctor_machine.check_folders(folders), "1 to 4 GiB", NOTE)
    free[0] = 1000
    faulty(doctor_machine.check_folders(folders), "remove")
    (tmp_path / "file").write_text("")
    said = faulty(doctor_machine.check_folders({"cache": tmp_path / "file" / "cache"}), "CLIP2LATENT_CACHE")
    assert "cannot be written" in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file"]


# The models


def test_assets_that_are_missing_or_damaged(tmp_path):
    assert "cannot be read" in faulty(doctor_demo.check_assets(tmp_path), "install clip2latent again")
    (tmp_path / "one").write_bytes(b"1")
    hashes = {"one": "6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b"}
    (tmp_path / "MANIFEST.json").write_text(json.dumps({"sha256": hashes}))
    assert states(doctor_demo.check_assets(tmp_path)) == [GOOD]
    (tmp_path / "MANIFEST.json").write_text(json.dumps({"sha256": hashes | {"two": ""}}))
    (tmp_path / "one").write_bytes(b"2")
    said = faulty(doctor_demo.check_assets(tmp_path), "git checkout")
    assert "two: missing" in said and "one: not as they were made" in said


def test_caches(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "weights").write_bytes(bytes(3000))
    (finding,) = doctor_demo.check_caches({"ours": tmp_path, "none": tmp_path / "none"})
    assert finding.state == GOOD and finding.said == "ours 3 KiB in 1 files; none 0 B in 0 files"
    (tmp_path / "more.part").write_bytes(b"")
    faulty(doctor_demo.check_caches({"ours": tmp_path}), "more.part", NOTE)


def test_the_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("the network was touched")

    monkeypatch.setattr(doctor_demo.urllib.request, "urlopen", refuse)
    assert states(doctor_demo.check_network(offline=True)) == [GOOD]
    monkeypatch.setenv("CLIP2LATENT_OFFLINE", "1")
    assert states(doctor_demo.check_network()) == [GOOD]


def test_servers_that_answer_refuse_hang_or_are_not_there():
    with serving() as server, serving() as refusing, serving() as hanging:
        refusing.script, hanging.script = [send(status=404)], [lambda handler: time.sleep(1)]
        addresses = {"one": f"{server.url}/one"}
        assert states(doctor_demo.check_network(addresses, 5, offline=False)) == [GOOD]
        assert [request[0] for request in server.requests] == ["HEAD"]
        addresses |= {"two": f"{refusing.url}/two", "three": f"{hanging.url}/three", "four": "http://127.0.0.1:9/four"}
        began = time.monotonic()
        said = faulty(doctor_demo.check_network(addresses, 0.3, offline=False), "HTTPS_PROXY", NOTE)
    assert "two (the server answers 404" in said and "three (timed out)" in said and "can be: one" in said
    assert "four (" in said and time.monotonic() - began < 20


@pytest.mark.parametrize(
    ("drawn", "state", "word"),
    [
        (Drawn(0.7, 0.5, 1.0, 1.0), GOOD, "0.700"),
        (Drawn(0.7, 0.5, 1.0, 60.0), NOTE, "60.0 s"),
        (Drawn(0.1, 0.5, 1.0, 1.0), FAULT, "expected"),
        (Drawn(float("nan"), 0.5, 1.0, 1.0), FAULT, "expected"),
        (Drawn(0.7, 0.0, 1.0, 1.0), FAULT, "empty"),
        (Drawn(float("nan"), float("nan"), 1.0, 1.0), FAULT, "empty"),
    ],
)
def test_the_image_that_is_drawn(drawn, state, word):
    (finding,) = doctor_demo.check_drawing(lambda: drawn)
    assert finding.state == state and word in finding.said


def test_the_demo_draws_plausibly_and_random_images_are_not_plausible():
    low, high = doctor_demo.PLAUSIBLE
    assert low < doctor_demo.draw_demo().score < high
    from clip2latent.embedders import load_embedder
    from clip2latent.generators import load_generator

    generator, embedder = load_generator("demo-avatars"), load_embedder("demo")
    with torch.no_grad():
        images = generator.synthesize(generator.sample_latents(16, torch.Generator().manual_seed(0)))
        scores = embedder.embed_images(images) @ embedder.embed_text([doctor_demo.PROMPT])[0]
    assert scores.max() < low


# All of it


def broken():
    raise ImportError("libcuda is missing\nmore")


def test_a_check_that_fails_is_a_fault_and_the_others_go_on():
    found = list(diagnose({"one": broken, "two": lambda: [Finding(GOOD, "two", "fine")]}))
    assert states(found) == [FAULT, GOOD] and found[0].said == "ImportError: libcuda is missing"
    assert verdict(found).startswith("1 faults: one")
    assert verdict(found[1:]) == "everything that matters works"
    assert "1 notes" in verdict([Finding(NOTE, "three", "")])


def test_findings_are_shown_with_what_to_do_beneath():
    lines = shown(Finding(FAULT, "memory", "words " * 40, "end other programs"), width=80).splitlines()
    assert lines[0].startswith("FAULT memory") and lines[-1].strip() == "-> end other programs"
    assert len(lines) > 3 and max(map(len, lines)) <= 80
    assert [size_of(count) for count in (1, 1 << 20, 5 * GIB)] == ["1 B", "1 MiB", "5.0 GiB"]


@pytest.mark.parametrize("fault", [False, True])
def test_the_commands_exit_code(fault, monkeypatch, capsys):
    drawn = Drawn(0.0 if fault else 0.7, 0.5, 1.0, 1.0)
    monkeypatch.setattr(doctor_demo, "draw_demo", lambda: drawn)
    monkeypatch.setattr(doctor_machine, "available_memory", lambda: 8 * GIB)
    monkeypatch.setattr(doctor_machine.shutil, "disk_usage", lambda path: SimpleNamespace(free=99 * GIB))
    if fault:
        with pytest.raises(SystemExit) as end:
            cli.main(["doctor", "--offline"])
        assert end.value.code == 1
    else:
        assert cli.main(["doctor", "--offline"]) == 0
    said = capsys.readouterr().out
    assert ("1 faults: drawing" in said) == fault and "offline" in said
    assert all(name in said for name in ("python", "packages", "GPU", "precision", "memory", "cache", "demo's files"))
