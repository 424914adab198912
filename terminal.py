"""What a command owes to a terminal that may be gone: signals that end it, and output that nobody takes any more."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sys
from collections.abc import Callable

# Who reads has gone: `| head -1`, a closed terminal, a descriptor that was closed. That is no mistake of anybody's.
_GONE = {errno.EPIPE, errno.EIO, errno.EBADF, errno.ENXIO}


def ending_signals() -> tuple[signal.Signals, ...]:
    """Ctrl-C's, SIGTERM, and the SIGHUP of a terminal that is closed; not where the command is to outlive its
    terminal: nohup starts it with SIGHUP ignored."""
    hang_up = (signal.SIGHUP,) if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN else ()
    return signal.SIGINT, signal.SIGTERM, *hang_up


class Stop:
    """Whether somebody wants an end. The first of :func:`ending_signals` is remembered; a second Ctrl-C or SIGTERM is
    not waited for. Hang-ups come in numbers (from the kernel, the shell and the system's shutdown, which adds a
    SIGTERM): those after the first signal are ignored, and one does not count as the first of two.

    Args:
        again: handler of that second signal.
        asked: called at the first one, within its handler: it may raise.

    Attributes:
        number: of the first signal; 0 before it.
    """

    def __init__(self, again, asked: Callable[[], None] = lambda: None):
        self.number, self._again, self._asked = 0, again, asked
        self._before = {number: signal.signal(number, self._handle) for number in ending_signals()}

    def _handle(self, number, frame):
        if signal.SIGHUP in self._before:
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
        if number != signal.SIGHUP:
            for each in (signal.SIGINT, signal.SIGTERM):
                signal.signal(each, self._again)
        if not self.number:
            self.number = number
            self._asked()

    def give_back(self):
        """Handle signals as before."""
        for number, handler in self._before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def interruptible():
    """SIGTERM raises KeyboardInterrupt, as Ctrl-C does, so that nothing unfinished is left behind; SIGHUP is a SIGTERM,
    whatever that does by then."""
    numbers = ending_signals()[1:]

    def interrupt(number, frame):
        if signal.SIGHUP in numbers:  # the next one must not interrupt the clearing away
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
        if number == signal.SIGHUP:
            signal.raise_signal(signal.SIGTERM)
        else:
            raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Output:
    """stdout and stderr for as long as the block lasts: what cannot be written there is dropped, and ends nothing.

    A descriptor that was closed before the start is opened on the null device: the next file that is opened would get
    its number, and with it whatever a library prints.

    Args:
        program: the name that lines on stderr begin with.
    """

    def __init__(self, program: str):
        self.program = program

    def __enter__(self) -> Output:
        for number in range(3):
            try:
                os.fstat(number)
            except OSError:
                os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free: this one
        self._before = sys.stdout, sys.stderr
        self._out, sys.stderr = (
            _Lasting(stream or open(os.devnull, "w"))  # noqa: SIM115 - as long as the process
            for stream in self._before
        )
        sys.stdout = self._out
        return self

    def __exit__(self, *_):
        sys.stdout.flush()
        sys.stderr.flush()
        sys.stdout, sys.stderr = self._before

    def status(self, status: int) -> int:
        """The status to exit with: where the disk under stdout is full, say, what was said is lost, which is told."""
        sys.stdout.flush()
        error = self._out.error
        if error is None or error.errno in _GONE:
            return status
        print(f"{self.program}: what it says on stdout cannot be written ({error.strerror})", file=sys.stderr)
        return status or 1


class _Lasting:
    """A text stream that, where writing fails, goes on as the null device."""

    def __init__(self, stream):
        self._stream, self.error = stream, None
        if hasattr(stream, "reconfigure"):  # names of files need not be text
            stream.reconfigure(errors="backslashreplace")

    def write(self, text: str) -> int:
        with self._kept():
            self._stream.write(text)
        return len(text)

    def flush(self):
        with self._kept():
            self._stream.flush()

    @contextlib.contextmanager
    def _kept(self):
        try:
            yield
        except BlockingIOError:  # somebody else has made it non-blocking, and it is full for the moment
            pass
        except OSError as error:
            self.error = self.error or error
            with contextlib.suppress(OSError, ValueError):
                null = os.open(os.devnull, os.O_WRONLY)
                os.dup2(null, self._stream.fileno())  # also for libraries, and for what the stream still holds
                os.close(null)
                self._stream.flush()

    def __getattr__(self, name: str):
        return getattr(self._stream, name)
