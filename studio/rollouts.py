"""One rollout after another, in a child process that is started again where it dies."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from errors import UserError
from studio.job import Job

LISTENED = 30.0  # s after which a rollout that nobody listens to is stopped
DIED = "The rollout ended unexpectedly, perhaps for want of memory; try a shorter one."


class Rollout:
    """A request under way: iterate over it for its messages, the last of which is ``done``.

    Raises, while iterated over:
        UserError: the rollout failed; the message is a sentence.
    """

    def __init__(self, number: int, request: dict):
        self.number, self.request = number, request
        self.messages: queue.SimpleQueue = queue.SimpleQueue()
        self.stopped = False
        self.heard = time.monotonic()

    def __iter__(self) -> Iterator[dict]:
        finished = False
        try:
            while not finished:
                self.heard = time.monotonic()
                try:
                    message = self.messages.get(timeout=1)
                except queue.Empty:
                    continue
                finished = message["event"] in ("done", "error")
                if message["event"] == "error":
                    raise UserError(message["text"])
                yield message
        finally:
            self.stopped = self.stopped or not finished


class Rollouts:
    """The child process and the requests that wait for it."""

    def __init__(self):
        self._numbers, self._child = itertools.count(1), None
        self._waiting: queue.SimpleQueue = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._start()
        self._thread.start()

    def submit(self, job: Job, folder: Path) -> Rollout:
        """Roll out a job into an empty folder. It is stopped when nobody iterates over it for :data:`LISTENED` s."""
        return self._submit({"do": "continue", "job": dataclasses.asdict(job), "folder": str(folder)})

    def render(self, folder: Path, index: int, form: str) -> str:
        """Have result ``index`` of a folder as ``flac`` or ``mid`` too; the name of that file.

        Raises:
            UserError: it cannot be made.
        """
        request = {"do": "render", "folder": str(folder), "index": index, "form": form}
        return next(message["file"] for message in self._submit(request) if message["event"] == "done")

    def close(self):
        """End the child."""
        child, self._child = self._child, None
        if child is not None:
            child.kill()
            child.wait()

    def _submit(self, request: dict) -> Rollout:
        number = next(self._numbers)
        rollout = Rollout(number, {**request, "id": number})
        self._waiting.put(rollout)
        return rollout

    def _start(self):
        root = str(Path(__file__).parents[1])
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
        self._child = subprocess.Popen(
            [sys.executable, "-P", "-m", "studio.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
            start_new_session=True,  # Ctrl-C is for the server, which ends this one
        )

    def _work(self):
        while True:
            rollout = self._waiting.get()
            if rollout.stopped:  # nobody waits for it any more
                rollout.messages.put({"event": "error", "text": "Stopped."})
                continue
            try:
                self._follow(rollout)
            except (OSError, ValueError, AttributeError):  # the child is gone
                rollout.messages.put({"event": "error", "text": DIED})
                if self._child is not None:
                    self.close()
                    self._start()

    def _follow(self, rollout: Rollout):
        """Send a request, and hand on what the child says until it ends."""
        if self._child.poll() is not None:
            self._start()
        child = self._child
        child.stdin.write(json.dumps(rollout.request) + "\n")
        child.stdin.flush()
        over = threading.Event()

        def watch():  # between the lines, too, a rollout may be stopped or left
            while not over.wait(0.2):
                if rollout.stopped or time.monotonic() - rollout.heard > LISTENED:
                    child.stdin.write(json.dumps({"do": "stop", "id": rollout.number}) + "\n")
                    child.stdin.flush()
                    return

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            for line in child.stdout:
                message = json.loads(line)
                if message["id"] == rollout.number:
                    rollout.messages.put(message)
                    if message["event"] in ("done", "error"):
                        return
            raise OSError("the child has ended")
        finally:
            over.set()
            watcher.join()
