"""The worker: one thread that has the model, a queue of bounded length before it, and jobs that can be stopped.

Requests of different visitors are not drawn in one batch. A picture's last bits depend on its batch, and the recipe in
its file holds the conditions of the whole batch: one visitor's file would hold what another asked for, and a picture
would depend on who else was waiting. A request is a batch in itself, of all its prompts' candidates.
"""

from __future__ import annotations

import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from clip2latent.chunking import is_out_of_memory
from clip2latent.web.outcome import Outcome, Progress, Stopped, Watch
from clip2latent.web.requests import Request

WAITING = 16
"""Requests that wait at most."""
TROUBLE = "something went wrong on the server; its log says what"


class Full(ValueError):
    """The queue is full."""


@dataclass(eq=False)
class Job:
    """A request on its way; the worker writes to it and a visitor reads it.

    Attributes:
        request: what is asked for.
        owner: whose it is: an owner has one job at a time.
    """

    request: Request
    owner: str = ""
    _news: threading.Condition = field(default_factory=threading.Condition, repr=False)
    _stop: threading.Event = field(default_factory=threading.Event, repr=False)
    _progress: Progress | None = None
    _ahead: int = 0
    _count: int = 0
    _end: Outcome | Exception | None = None

    def stop(self) -> None:
        """Asks for the end: waiting, it does not begin; running, it gives its best so far, or nothing."""
        self._stop.set()

    @property
    def stopped(self) -> bool:
        """Whether its end was asked for."""
        return self._stop.is_set()

    @property
    def ended(self) -> bool:
        """Whether there is a result or an error."""
        return self._end is not None

    def follow(self, patience: float = 15.0) -> Iterator[Progress]:
        """Yields what is new, the latest only, until the job has ended; the same again after `patience` seconds."""
        seen = -1
        while True:
            with self._news:
                self._news.wait_for(lambda seen=seen: self._count != seen or self.ended, timeout=patience)
                if self.ended:
                    return
                seen = self._count
                news = self._progress or Progress("waiting", 0, self._ahead)
            yield news

    def result(self, timeout: float | None = None) -> Outcome:
        """Waits for the end and returns the result.

        Raises:
            ValueError: for what the request's author can change.
            Stopped: where it was stopped before there was anything to show.
            TimeoutError: where it has not ended in time.
        """
        with self._news:
            if not self._news.wait_for(lambda: self.ended, timeout):
                raise TimeoutError(f"the request has not ended within {timeout} s")
        if isinstance(self._end, Exception):
            raise self._end
        return self._end

    def _tell(self, progress: Progress | None = None, ahead: int = 0, end: Outcome | Exception | None = None) -> None:
        with self._news:
            self._progress, self._ahead, self._end = progress, ahead, end
            self._count += 1
            self._news.notify_all()


class Worker:
    """Carries out jobs one after the other in a thread of its own."""

    def __init__(self, run: Callable[[Request, Watch], Outcome], waiting: int = WAITING) -> None:
        """Starts the thread.

        Args:
            run: does what a request asks for, such as `Studio.run`.
            waiting: how many jobs may wait.
        """
        if waiting < 1:
            raise ValueError(f"queue={waiting}: expected at least 1")
        self._run, self._most = run, waiting
        self._waiting: deque[Job] = deque()
        self._running: Job | None = None
        self._closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="clip2latent-web", daemon=True)
        self._thread.start()

    def submit(self, request: Request, owner: str = "") -> Job:
        """Puts a request into the queue; the owner's earlier one is stopped.

        Args:
            request: what is asked for.
            owner: "" for nobody in particular.

        Raises:
            Full: where too many wait, or the server ends.
        """
        job = Job(request, owner)
        with self._changed:
            if self._closed:
                raise Full("the server is about to end")
            if owner:
                self._stop_of(owner)
            if len(self._waiting) >= self._most:
                raise Full(f"the queue is full: {self._most} requests are waiting; try again in a moment")
            self._waiting.append(job)
            job._tell(ahead=len(self._waiting) - (self._running is None))
            self._changed.notify()
        return job

    def stop(self, owner: str) -> None:
        """Stops an owner's job, if there is one."""
        with self._changed:
            self._stop_of(owner)

    def close(self, timeout: float = 10.0) -> None:
        """Stops all jobs and ends the thread."""
        with self._changed:
            self._closed = True
            for job in [*self._waiting, *([self._running] if self._running else [])]:
                job.stop()
            self._changed.notify()
        self._thread.join(timeout)

    def _stop_of(self, owner: str) -> None:
        for job in [job for job in self._waiting if job.owner == owner]:
            job.stop()
            self._waiting.remove(job)
            job._tell(end=Stopped("stopped before it began"))
        if self._running is not None and self._running.owner == owner:
            self._running.stop()

    def _work(self) -> None:
        while True:
            with self._changed:
                self._running = None
                self._changed.wait_for(lambda: self._waiting or self._closed)
                if not self._waiting:
                    return
                job = self._running = self._waiting.popleft()
                for place, other in enumerate(self._waiting, 1):
                    other._tell(ahead=place)
            job._tell(end=self._outcome(job))
            del job  # or its result would stay until the next one

    def _outcome(self, job: Job) -> Outcome | Exception:
        if job.stopped:
            return Stopped("stopped before it began")
        try:
            return self._run(job.request, Watch(job._tell, lambda: job.stopped))
        except (Stopped, KeyboardInterrupt) as error:
            return Stopped(str(error) or "stopped")
        except ValueError as error:
            return error.with_traceback(None)  # whose frames would keep tensors alive
        except Exception as error:
            if is_out_of_memory(error):
                return ValueError("the server is out of memory: ask for less")
            traceback.print_exc(file=sys.stderr)
            return RuntimeError(TROUBLE)
