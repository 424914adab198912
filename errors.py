"""The exception that means "the user can mend this", and how a command ends on it."""

from __future__ import annotations

import errno
import sys


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


def exit_status(program: str, command, interrupted: str) -> int:
    """Call ``command()``; what the user can mend becomes one line on stderr and a status.

    Args:
        program: the name that the line begins with.
        interrupted: what Ctrl-C before the work began leaves behind.

    Raises:
        OSError: without a file's name it is no mistake of the user's.
    """
    try:
        return command()
    except UserError as error:
        line, status = str(error), 1
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        if error.filename is None and not full:
            raise
        remedy = "free some disk space" if full else "check its name and rights"
        line, status = f"{error.filename or 'a file'}: cannot be used ({error.strerror}); {remedy}", 1
    except KeyboardInterrupt:
        line, status = f"interrupted; {interrupted}", 130
    print(f"{program}: {printable(line)}", file=sys.stderr)
    return status
