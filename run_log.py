"""What a run says while it trains: progress, a JSONL log and TensorBoard."""

from __future__ import annotations

import contextlib
import io
import json
import math
import shutil
import sys
import threading
import time

from checkpoint import Metadata
from errors import printable


def duration(seconds: float) -> str:
    """``h:mm:ss`` or ``m:ss``."""
    minutes, rest = divmod(max(0, int(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class Task:
    """What is being done: ``text``, ``fraction`` done (0 to 1), ``left`` seconds to go or None."""

    def __init__(self, text: str):
        self.set(0.0, None, text)

    def set(self, fraction: float, left: float | None, text: str):
        """Say it anew; the seconds that it lasts are counted from now on."""
        self.fraction, self.left, self.text, self.since = fraction, left, text, time.monotonic()

    def __str__(self) -> str:
        left = "" if self.left is None else f"{duration(self.left)} left, "
        lasts = int(time.monotonic() - self.since)
        return f"{left}{self.text}" + f", {lasts} s" * (lasts > 0)


class Progress:
    """A bar on a terminal, a plain line every few seconds in a log file.

    Args:
        stream: where to write.
        every: seconds between two plain lines.
    """

    def __init__(self, stream=None, every: float = 5.0):
        self.stream = stream or sys.stderr
        self.every = every
        self.last = -1e9
        self.bar = None
        self.tasks: list[Task] = []
        self.lock = threading.RLock()  # tasks are told by a thread of their own

    def update(self, fraction: float, left: float | None, text: str):
        """``fraction`` done (0 to 1), ``left`` seconds to go, None where that is not known. Of a task that is under
        way, it is what is told from now on."""
        with self.lock:
            task = self.tasks[-1] if self.tasks else Task(text)
            task.set(fraction, left, text)
            self._update(fraction, str(task), at_once=fraction >= 1)

    @contextlib.contextmanager
    def task(self, text: str):
        """Name what is being done for as long as it lasts, every few seconds anew: also where a single call takes
        longer than that. Of tasks within tasks, the innermost is told.

        Yields:
            a :class:`Task`, whose ``fraction`` can be set.
        """
        task = Task(text)
        with self.lock:
            self.tasks.append(task)
            outermost = len(self.tasks) == 1
        over = threading.Event()
        if outermost:
            thread = threading.Thread(target=self._tell, args=(over,), daemon=True)
            thread.start()
        try:
            yield task
        finally:
            with self.lock:
                self.tasks.remove(task)
            if outermost:
                over.set()
                thread.join()

    def _tell(self, over: threading.Event):
        while not over.wait(min(self.every, 0.5)):
            with self.lock:
                if self.tasks:
                    task = self.tasks[-1]
                    self._update(task.fraction, str(task))

    def _update(self, fraction: float, text: str, at_once: bool = False):
        terminal = self.stream.isatty()
        if time.monotonic() - self.last < (0.1 if terminal else self.every) and not at_once:
            return
        self.last, text = time.monotonic(), printable(text)
        if terminal:
            if self.bar is None:
                from tqdm import tqdm

                width = shutil.get_terminal_size().columns - 1  # tqdm shows nothing where it is unknown
                bar_format = "{percentage:3.0f}%|{bar:16}| {desc}"
                self.bar = tqdm(total=1.0, file=self.stream, ncols=width, nrows=20, bar_format=bar_format)
            self.bar.n = min(1.0, fraction)
            self.bar.set_description_str(text)
        else:
            print(f"{100 * min(1.0, fraction):5.1f} %  {text}", file=self.stream, flush=True)

    def say(self, line: str):
        """A line of its own above the bar."""
        line = printable(line)
        with self.lock:
            if self.bar is not None:
                self.bar.write(line, file=self.stream)
            else:
                print(line, file=self.stream, flush=True)
            self.last = time.monotonic()

    def close(self):
        """Leave the terminal's cursor on a fresh line."""
        if self.bar is not None:
            self.bar.close()
            self.bar = None


class RunLog:
    """Scalars, audio and pictures of a run, as JSONL lines and TensorBoard events.

    A log that cannot be written (disk full) is said once and does not stop the training.
    """

    def __init__(self, metadata: Metadata, say):
        self.say, self.broken, self.board_path = say, False, metadata.resolve("tensorboard")
        self.path = metadata.resolve("log")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # TensorBoard writes in a thread of its own, whose full disk would be printed as a traceback.
        self.hook, threading.excepthook = threading.excepthook, self._thread_failed
        self._open_board()

    def _open_board(self):
        from torch.utils.tensorboard import SummaryWriter

        self.board = SummaryWriter(str(self.board_path), flush_secs=30)

    def scalars(self, step: int, values: dict):
        """One JSONL line and one point in each of TensorBoard's curves."""
        self._guard(self._scalars, step, values)

    def preview(self, step: int, waveform, sample_rate: int, png: bytes):
        """Audio ``[n_samples]`` or ``[2, n_samples]`` (TensorBoard plays mono: mixed down) and its picture."""
        self._guard(self._preview, step, waveform, sample_rate, png)

    def begin_anew(self):
        """The folder was removed: TensorBoard's next event goes into a new file, and not into one without a name.

        What the old writer still holds is lost: where its thread has met the missing folder, closing it fails, too.
        """
        with contextlib.suppress(OSError):
            self.board.close()
        self._guard(self._open_board)

    def close(self):
        """Flush what is pending."""
        self._guard(self.board.close)
        threading.excepthook = self.hook

    def _scalars(self, step: int, values: dict):
        # JSON has no NaN: a value that is none is left out, or null in a list.
        values = {name: v for name, v in values.items() if not isinstance(v, float) or math.isfinite(v)}
        lists = {name: v for name, v in values.items() if isinstance(v, list)}
        values |= {name: [x if math.isfinite(x) else None for x in v] for name, v in lists.items()}
        with open(self.path, "a") as file:
            file.write(json.dumps({"step": step, "time": round(time.time(), 3), **values}) + "\n")
        for name, value in values.items():
            if isinstance(value, (int, float)):
                self.board.add_scalar(name, value, step)
            elif isinstance(value, list):
                for i, item in enumerate(value):
                    if item is None:
                        continue
                    self.board.add_scalar(f"{name}/{i}", item, step)

    def _preview(self, step: int, waveform, sample_rate: int, png: bytes):
        import numpy as np
        from PIL import Image

        mono = waveform.reshape(-1, waveform.shape[-1]).mean(0, keepdim=True)
        self.board.add_audio("preview", mono, step, sample_rate=sample_rate)
        picture = np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))
        self.board.add_image("preview", picture, step, dataformats="HWC")

    def _guard(self, write, *arguments):
        try:
            write(*arguments)
        except OSError as error:
            self._failed(error)

    def _thread_failed(self, arguments):
        if isinstance(arguments.exc_value, OSError):
            self._failed(arguments.exc_value)
        else:
            self.hook(arguments)

    def _failed(self, error: OSError):
        if not self.broken:
            self.say(f"{self.path}: cannot be written ({error.strerror}); training goes on without its log")
        self.broken = True
