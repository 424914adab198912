"""Faults of the machine under the decoded recordings, and under what a training writes: each is made for real."""

import os
import subprocess
import sys
import time

from leftovers import is_running, sweep_leftovers, temporary_path


def dead_pid() -> int:
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


# -- leftovers ---------------------------------------------------------------------------------


def test_leftovers_of_dead_processes_are_swept_and_no_others(tmp_path):
    """By the number in the name: dead, alive, in use again by a process that began after the file was written; a name
    without one stays, and what a pattern does not name."""
    dead, alive = dead_pid(), subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    zombie = subprocess.Popen([sys.executable, "-c", ""])
    time.sleep(0.5)  # it has ended, and nobody has asked
    try:
        gone = [f"a.pcm.{dead}.tmp", f"a.{dead}.part", f"a.b.wav.{dead}.f32.tmp", f"a.7.wav.{dead}.tmp"]
        gone += [f"old.{alive.pid}.tmp", f"old.{os.getpid()}.tmp", f"z.{zombie.pid}.tmp"]
        kept = [f"a.{alive.pid}.tmp", f"a.wav.{alive.pid}.f32.tmp", f"a.{os.getpid()}.tmp", "a.tmp", f"{dead}.tmp"]
        kept += [f"a.{dead}.wav", f"a.{dead}.tmp.wav", f"{dead}", temporary_path(tmp_path / "x").name]
        for name in gone + kept:
            (tmp_path / name).write_bytes(b"half")
        for name in gone[4:6]:
            os.utime(tmp_path / name, (1e9, 1e9))
        (tmp_path / f"folder.{dead}.tmp").mkdir()
        (tmp_path / f"link.{dead}.tmp").symlink_to("nowhere")
        assert sweep_leftovers(tmp_path, "*.f32.tmp") == [tmp_path / gone[2]]
        removed = sweep_leftovers(tmp_path) + sweep_leftovers(tmp_path, "*.part")
        assert {path.name for path in removed} == set(gone) - {gone[2]}
        kept += [f"folder.{dead}.tmp", f"link.{dead}.tmp"]
        assert {path.name for path in tmp_path.iterdir()} == set(kept)
        assert is_running(alive.pid) and is_running(os.getpid()) and not is_running(dead) and not is_running(0)
        assert sweep_leftovers(tmp_path, held=True) and sweep_leftovers(tmp_path / "nowhere") == []
    finally:
        alive.kill()
        alive.wait()
        zombie.wait()
