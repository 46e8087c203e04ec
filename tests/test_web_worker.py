"""The web page's worker: order, a full queue, stopping, errors, the end."""

import threading

import pytest

from clip2latent.web.outcome import Outcome, Progress, Stopped
from clip2latent.web.worker import TROUBLE, Full, Worker


class Gate:
    """What a worker runs: waits until it is let go, and asks whether to stop."""

    def __init__(self):
        self.go, self.begun, self.order = threading.Event(), threading.Event(), []

    def __call__(self, request, watch):
        self.order.append(request)
        self.begun.set()
        watch.tell(Progress("drawing", 1, 2))
        while not self.go.wait(0.005):
            watch.check()
        if isinstance(request, Exception):
            raise request
        return Outcome((), str(request))


@pytest.fixture
def gate():
    return Gate()


@pytest.fixture
def worker(gate):
    worker = Worker(gate, waiting=3)
    yield worker
    worker.close()


def test_jobs_run_in_their_order_and_a_full_queue_says_so(worker, gate):
    jobs = [worker.submit("first")]
    assert gate.begun.wait(5)
    jobs += [worker.submit(name) for name in ("second", "third", "fourth")]
    with pytest.raises(Full, match="the queue is full: 3 requests are waiting"):
        worker.submit("fifth")
    assert next(jobs[3].follow()) == Progress("waiting", 0, 3)
    gate.go.set()
    assert [job.result(5).note for job in jobs] == gate.order == ["first", "second", "third", "fourth"]
    assert worker.submit("fifth").result(5).note == "fifth"


def test_progress_is_followed_to_the_end(worker, gate):
    job = worker.submit("first")
    assert gate.begun.wait(5)
    seen = []
    for progress in job.follow():
        seen.append(progress)
        gate.go.set()
    assert Progress("drawing", 1, 2) in seen and job.result(5).note == "first"


def test_a_stopped_job_ends_running_or_waiting(worker, gate):
    running, waiting = worker.submit("first", "ann"), None
    assert gate.begun.wait(5)
    waiting = worker.submit("second", "bob")
    worker.stop("bob")
    with pytest.raises(Stopped):
        waiting.result(5)
    worker.stop("ann")
    with pytest.raises(Stopped):
        running.result(5)
    assert gate.order == ["first"]


def test_an_owner_has_one_job_and_others_keep_theirs(worker, gate):
    old, other = worker.submit("old", "ann"), worker.submit("other", "bob")
    new = worker.submit("new", "ann")
    with pytest.raises(Stopped):
        old.result(5)
    gate.go.set()
    assert other.result(5).note == "other" and new.result(5).note == "new"


def test_errors_are_answers_and_the_worker_goes_on(worker, gate, capsys):
    gate.go.set()
    with pytest.raises(ValueError, match=r"^steps=0: expected"):
        worker.submit(ValueError("steps=0: expected 1")).result(5)
    with pytest.raises(RuntimeError, match=TROUBLE):
        worker.submit(RuntimeError("/srv/secret/path")).result(5)
    assert "/srv/secret/path" in capsys.readouterr().err
    with pytest.raises(ValueError, match="out of memory"):
        worker.submit(RuntimeError("CUDA out of memory")).result(5)
    assert worker.submit("next").result(5).note == "next"


def test_closing_ends_all(gate):
    worker = Worker(gate)
    jobs = [worker.submit("first"), worker.submit("second")]
    assert gate.begun.wait(5)
    worker.close()
    for job in jobs:
        with pytest.raises(Stopped):
            job.result(5)
    with pytest.raises(Full, match="about to end"):
        worker.submit("third")
