"""A Python that has imported the libraries already, and runs scripts in forks of itself.

A start of Python with PyTorch and what else a command imports costs seconds of processor time; a fork costs
milliseconds, and is a process of its own all the same, with its own arguments, folder and output. Only libraries are
imported before: the project's modules are read anew by each command, from its folder.
"""

import contextlib
import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

LIBRARIES = (
    "torch.nn.functional, torch.utils.tensorboard, numpy, scipy.signal, sklearn.cluster, sklearn.decomposition, "
    "soundfile, soxr, safetensors.torch, matplotlib.figure, PIL.Image, tqdm, regex, threadpoolctl, psutil"
)


class WarmPython:
    """Runs ``python ARGUMENTS`` for a test, one at a time.

    Args:
        folder: where the commands run.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        command = [sys.executable, "-P", __file__]
        environment = {**os.environ, "PYTHONPATH": "", "OMP_NUM_THREADS": "1"}
        self._server = subprocess.Popen(
            command, cwd=folder, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def run(self, arguments: list[str], log: Path) -> subprocess.CompletedProcess:
        """What ``python ARGUMENTS`` ends with; ``log`` is where its output goes meanwhile."""
        self._server.stdin.write(json.dumps({"arguments": arguments, "log": str(log)}) + "\n")
        self._server.stdin.flush()
        status = int(self._server.stdout.readline())
        return subprocess.CompletedProcess(arguments, status, log.read_text(errors="replace"), "")

    def close(self):
        self._server.stdin.close()
        self._server.wait(60)


def _serve():
    """Read one command a line from stdin, run it in a fork, and answer with its status."""
    for name in LIBRARIES.split(", "):
        with contextlib.suppress(ImportError):  # of what is optional
            __import__(name)
    for line in sys.stdin:
        asked = json.loads(line)
        child = os.fork()
        if child == 0:
            _become(asked["arguments"], asked["log"])
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def _become(arguments: list[str], log: str):
    """The fork: run a script, or with ``-m`` a module, as Python does; it never returns."""
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for target, source in ((0, nothing), (1, output), (2, output)):
        os.dup2(source, target)
    sys.stdin, sys.stdout = open(0), open(1, "w", buffering=1)  # noqa: SIM115 - for as long as the process lives
    sys.path.insert(0, os.getcwd())
    status = 1
    try:
        module = arguments[0] == "-m"
        sys.argv = arguments[1:] if module else arguments
        if module:
            runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
        else:
            runpy.run_path(arguments[0], run_name="__main__")
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(bool(end.code))
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    _serve()
