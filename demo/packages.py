"""Debian packages as a source of files: fetched by apt-get, read by dpkg-deb, never installed."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from errors import UserError, count

INSIDE = "//"  # parts the path of a zip archive in a package from the path of a member in it


def need_tools():
    """Raise UserError where packages cannot be had on this system at all."""
    for tool in ("apt-get", "dpkg-deb"):
        if shutil.which(tool) is None:
            raise UserError(f"{tool} is not installed; run this on Debian or Ubuntu (a container will do)")


def fetch(package: str, version: str, folder: Path) -> Path:
    """The ``.deb`` file of a package: that in ``folder``, or else the one that apt-get downloads into it.

    No rights are needed, and nothing is installed. apt-get has checked the file's sum before it gets its place.

    Args:
        version: the one that is known, which is taken where ``folder`` has several.

    Raises:
        UserError: it cannot be had.
    """
    found = sorted(path for path in folder.glob(f"{package}_*.deb") if path.is_file())
    if found:  # of several, the version that is known
        known = f"{package}_{version.replace(':', '%3a')}_"
        return max(found, key=lambda path: path.name.startswith(known))
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="fetch-", dir=folder) as scratch:
        command = ["apt-get", "-q=2", "download", package]
        result = subprocess.run(command, cwd=scratch, capture_output=True, text=True, errors="replace")
        got = sorted(Path(scratch).glob("*.deb"))
        if result.returncode or not got:
            said = [line[2:].strip() for line in result.stderr.splitlines() if line.startswith("E:")]
            why = said[-1] if said else f"apt-get ended with status {result.returncode}"
            raise UserError(
                f"{package}: cannot be downloaded ({why[:150]}); run apt-get update and this command again, or put "
                f"{package}_{version}_all.deb of Debian 12 into {folder}"
            )
        target = folder / got[0].name
        os.replace(got[0], target)
    return target


def read(
    deb: Path, wanted: Callable[[str], bool], archives: frozenset[str] = frozenset()
) -> Iterator[tuple[str, BinaryIO]]:
    """The files of a package that are ``wanted``, as ``(path, open file)``, one after another, in the package's order.

    Args:
        wanted: whether a path (``usr/share/...``) is; of a member of an archive with :data:`INSIDE` between the two.
        archives: paths of zip archives in the package that are looked into.

    Raises:
        UserError: it is no package, or broken.
    """
    command = ["dpkg-deb", "--fsys-tarfile", str(deb)]
    broken = UserError(f"{deb}: cannot be unpacked; remove it, and it is downloaded again")
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        try:
            with tarfile.open(fileobj=process.stdout, mode="r|") as tar:
                for member in tar:
                    path = member.name.removeprefix("./")
                    if member.isfile() and path in archives:
                        yield from _members(tar.extractfile(member), path, wanted, deb.parent)
                    elif member.isfile() and wanted(path):
                        yield path, tar.extractfile(member)
            with contextlib.suppress(OSError):
                while process.stdout.read(1 << 20):  # what pads the archive: unread, it would end dpkg-deb by a signal
                    pass
        except (tarfile.TarError, zipfile.BadZipFile, EOFError):
            raise broken from None
        finally:
            if process.poll() is None:
                process.stdout.close()
                process.terminate()
        if process.wait():
            raise broken


def _members(file: BinaryIO, path: str, wanted, scratch: Path) -> Iterator[tuple[str, BinaryIO]]:
    """Those of a zip archive, which has to be read from its end: it is copied into ``scratch`` first."""
    with tempfile.TemporaryFile(dir=scratch) as copy:
        shutil.copyfileobj(file, copy, 1 << 20)
        with zipfile.ZipFile(copy) as archive:
            for name in archive.namelist():
                if wanted(inside := f"{path}{INSIDE}{name}"):
                    with archive.open(name) as member:
                        yield inside, member


def unpack(deb: Path, below: str, folder: Path):
    """Write the files of a package whose paths begin with ``below`` into ``folder``, named from there on.

    Raises:
        UserError: as :func:`read`, or there are none.
    """
    n = 0
    for path, file in read(deb, lambda path: path.startswith(below)):
        target = folder / path.removeprefix(below).lstrip("/")
        if not target.resolve().is_relative_to(folder.resolve()):
            raise UserError(f"{deb}: holds a path that leads out of it, {path}; remove it, and it is downloaded again")
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("wb") as out:
            shutil.copyfileobj(file, out, 1 << 20)
        n += 1
    if not n:
        raise UserError(f"{deb}: has {count(n, 'file')} below {below}; it is another package, remove it")
