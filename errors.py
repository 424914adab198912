"""The exception that means "the user can mend this", and how a command ends on it."""

from __future__ import annotations

import errno
import sys

# No room on the disk, by its size, a quota, or the limit of what one file may have.
_FULL = errno.ENOSPC, errno.EDQUOT, errno.EFBIG


class UserError(Exception):
    """Wrong input or environment: one line that names the file and the remedy.

    The command lines print it and exit non-zero, without a traceback. Errors of the program
    itself stay ordinary exceptions.
    """


def count(n: int, noun: str) -> str:
    """``1 file``, ``2 files``."""
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def remedy(error: OSError) -> str:
    """What the user can do about a file that cannot be read or written."""
    return "free some disk space" if error.errno in _FULL else "check its name and rights"


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
        if error.filename is None and error.errno not in _FULL:
            raise
        line, status = f"{error.filename or 'a file'}: cannot be used ({error.strerror}); {remedy(error)}", 1
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        line, status = f"out of memory; {memory}", 1
    except KeyboardInterrupt:
        line, status = f"interrupted; {interrupted}", 130
    print(f"{program}: {line}", file=sys.stderr)
    return status
