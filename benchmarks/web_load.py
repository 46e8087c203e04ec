"""Load on the web page: python benchmarks/web_load.py starts a server and sends it 200 requests from 10 clients.

It reports requests per second, times, failures, and how the server's memory grew after the warm-up. Each client sends
the next request when it has the last one's pictures, as a person does who never stops to look.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).parents[1]
PROMPTS = ("an old man with a red hat", "a smiling woman at night", "a bald man with sunglasses", "a woman on a beach")


def main() -> None:
    """Starts a server, loads it and prints what it measured."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--clients", type=int, default=10)
    parser.add_argument("--warmup", type=int, default=20, help="requests before anything is measured")
    parser.add_argument("--checkpoint", default="demo")
    parser.add_argument("--candidates", type=int, default=16)
    given = parser.parse_args()
    command = [sys.executable, str(ROOT / "sample.py"), "web", "--port", "0", "--checkpoint", given.checkpoint]
    server = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        url = re.search(r"http://\S+", server.stdout.readline())[0]
        load(url, server.pid, given.warmup, given)
        before = resident(server.pid)
        print(f"warm-up: {given.warmup} requests, {before:.0f} MiB")
        used = processor(server.pid)
        load(url, server.pid, given.requests, given, report=True)
        print(f"processor time of the server: {(processor(server.pid) - used) / given.requests:.3f} s a request")
        after = resident(server.pid)
        print(f"memory: {before:.0f} MiB after the warm-up, {after:.0f} MiB at the end, {after - before:+.1f} MiB")
    finally:
        server.terminate()
        server.wait(60)


def load(url: str, pid: int, requests: int, given: argparse.Namespace, report: bool = False) -> None:
    """Sends requests from all clients and prints what came of them."""
    numbers, lock = iter(range(requests)), threading.Lock()
    seconds: list[float] = []
    failures: list[str] = []

    def client() -> None:
        while True:
            with lock:
                number = next(numbers, None)
                if report and number is not None and number % 50 == 0 and number:
                    print(f"  after {number} requests: {resident(pid):.0f} MiB")
            if number is None:
                return
            began = time.monotonic()
            try:
                status, pictures = draw(url, given.checkpoint, PROMPTS[number % len(PROMPTS)], number, given.candidates)
                if "c2l-failure" in status or pictures.count("<figure>") != 4:
                    raise ValueError(re.sub("<[^>]*>", "", status))
            except (OSError, ValueError, TypeError) as error:
                failures.append(str(error))
            seconds.append(time.monotonic() - began)

    began = time.monotonic()
    threads = [threading.Thread(target=client) for _ in range(given.clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if report:
        taken = time.monotonic() - began
        seconds.sort()
        slow = seconds[int(0.95 * (len(seconds) - 1))]
        print(f"{requests} requests of {given.candidates} candidates from {given.clients} clients in {taken:.1f} s:")
        print(f"{requests / taken:.2f} requests/s, median {statistics.median(seconds):.2f} s, 95 % {slow:.2f} s")
        print(f"failures: {len(failures)}{' ' + failures[0] if failures else ''}")


def draw(url: str, model: str, prompt: str, seed: int, candidates: int) -> list[str]:
    """Asks for four pictures as the page does, and returns its status and its pictures."""
    values = [model, prompt, 4, candidates, "", 8, seed, 1, "", "", 1]
    body = json.dumps({"data": values}).encode()
    post = urllib.request.Request(f"{url}/gradio_api/call/draw", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(post, timeout=300) as answer:
        event = json.load(answer)["event_id"]
    with urllib.request.urlopen(f"{url}/gradio_api/call/draw/{event}", timeout=300) as stream:
        lines = stream.read().decode().splitlines()
    if "event: complete" not in lines:
        raise ValueError(" ".join(lines[-3:])[:200])
    return json.loads([line for line in lines if line.startswith("data: ")][-1].removeprefix("data: "))


def resident(pid: int) -> float:
    """Returns the resident memory of a process in MiB."""
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


def processor(pid: int) -> float:
    """Returns the processor time of a process in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
