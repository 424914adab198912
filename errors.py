"""The exception that means "the user can mend this", and how a command ends on it."""

from __future__ import annotations

import errno
import sys

# No room on the disk, by its size, a quota, or the limit of what one file may have.
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_DISK = _FULL | {errno.EROFS, errno.EIO}  # faults of a disk, of which the system does not always name the file


class UserError(Exception):
    """Wrong input or environment: one line that names the file and the remedy.

    The command lines print it and exit non-zero, without a traceback. Errors of the program
    itself stay ordinary exceptions.
    """


def count(n: int, noun: str) -> str:
    """``1 file``, ``2 files``."""
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def printable(line: str) -> str:
    """A line as it can be shown: names of files may hold line breaks, commands of a terminal, and what is no text."""
    if line.isprintable():
        return line
    escaped = (c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in line)
    return "".join(escaped)


def remedy(error: BaseException) -> str:
    """What helps where a file cannot be written. Of an error without a number the disk is taken to be full."""
    number = getattr(error, "errno", None)
    if number == errno.EFBIG:
        return "free some disk space, or raise the limit of file sizes (ulimit -f)"
    if number is None or number in _FULL:
        return "free some disk space"
    return "see to the disk, and to its rights" if number in _DISK else "check its name and rights"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether there was not enough memory: Python's own error, or PyTorch's, which is a RuntimeError of many texts."""
    text = str(error).lower()
    told = "out of memory" in text or "can't allocate memory" in text or "not enough memory" in text
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and told)


def exit_status(program: str, command, interrupted: str, memory: str = "ask for less at a time") -> int:
    """Call ``command()``; what the user can mend becomes one line on stderr and a status.

    Args:
        program: the name that the line begins with.
        interrupted: what Ctrl-C before the work began leaves behind.
        memory: what to do where there is not enough of it.

    Raises:
        OSError: without a file's name it is no mistake of the user's.
    """
    try:
        return command()
    except UserError as error:
        line, status = str(error), 1
    except OSError as error:
        if error.filename is None and error.errno not in _DISK:
            raise
        line, status = f"{error.filename or 'a file'}: cannot be used ({error.strerror}); {remedy(error)}", 1
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        line, status = f"out of memory; {memory}", 1
    except KeyboardInterrupt:
        line, status = f"interrupted; {interrupted}", 130
    print(f"{program}: {printable(line)}", file=sys.stderr)
    return status
