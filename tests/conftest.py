"""Shared inputs: real chorales played by the demo's synthesizer, a tiny configuration, a tiny run."""

import contextlib
import io
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

ROOT = Path(__file__).parents[1]
PROMPT = ROOT / "demo" / "prompt.musicxml"
TINY = {
    "featurizer.sample_rate": 8000,
    "featurizer.n_fft": 512,
    "featurizer.hop_length": 128,
    "model.hidden_size": 32,
    "model.n_components": 48,
    "model.n_latents": 24,
    "model.n_mixture": 4,
    "training.batch_size": 4,
    "training.n_frames": 8,
    "training.windows_per_episode": 3,
}


# What takes longest comes first, so that both workers end at about the same time.
HEAVY = (
    "test_studio_browser",
    "test_readme",
    "test_train",
    "test_session",
    "test_predict",
    "test_stereo",
    "test_deploy",
)


def pytest_collection_modifyitems(items):
    order = {name: i for i, name in enumerate(HEAVY)}
    items.sort(key=lambda item: order.get(item.path.stem, len(HEAVY)))


def pytest_configure():
    """Each worker of pytest-xdist has a core of its own: two threads of PyTorch that share a core with anything else
    wait for each other most of the time. Under nohup a hang-up is ignored, here and in what is started from here: then
    the tests of hang-ups would test nothing."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    worker = os.environ.get("PYTEST_XDIST_WORKER", "gw")[2:]
    if worker and hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[int(worker) % len(cores)]})
        # A session of its own: Linux shares each core among sessions (sched(7), autogroup), by what they do on all of
        # them, so that in one session the work of one worker would starve what another has started.
        with contextlib.suppress(PermissionError):  # it has one
            os.setsid()


def tiny_config(**changes):
    """The smallest configuration that has every part; ``changes`` as in ``model__hidden_size=8``."""
    from config import PRESETS, override

    values = {**TINY, **{key.replace("__", "."): value for key, value in changes.items()}}
    return override(PRESETS["small"], [f"{key}={value}" for key, value in values.items()])


def tiny_arguments() -> list[str]:
    """The same on train.py's command line."""
    return [word for key, value in TINY.items() for word in ("--set", f"{key}={value}")]


def run(*arguments, cwd=ROOT, timeout=300, process=False, **keywords) -> subprocess.CompletedProcess:
    """Call a command line: train.py and predict.py in this process, since a start of Python with PyTorch costs seconds.

    Args:
        process: in a process of its own, where that is what is tested; so is everything that needs one (``keywords``
            of :func:`subprocess.run`, and other programs).
    """
    first, *rest = (str(a) for a in arguments)
    if first in SCRIPTS and not process and not keywords:
        return call(SCRIPTS[first], first, rest, cwd)
    first = str(ROOT / first) if first.endswith(".py") else first
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **keywords.pop("env", {})}
    return subprocess.run(
        [sys.executable, first, *rest],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=timeout,
        env=environment,
        **keywords,
    )


SCRIPTS = {"train.py": "train", "predict.py": "predict"}


def call(module: str, name: str, words: list[str], cwd=ROOT) -> subprocess.CompletedProcess:
    """``main(words)`` of a script, with what it would leave to the end of its process put back: standard streams,
    the folder, handlers of signals, the environment, threads."""
    import importlib

    import torch

    main = importlib.import_module(module).main
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    environment, threads = dict(os.environ), torch.get_num_threads()
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in range(2))
    try:
        with contextlib.chdir(cwd), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = main(words)
    except SystemExit as end:  # of argparse
        status = end.code
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        os.environ.clear()
        os.environ.update(environment)
        torch.set_num_threads(threads)
    texts = (stream.buffer.getvalue().decode() for stream in (out, err))
    return subprocess.CompletedProcess([name, *words], status, *texts)


def train(recordings, metadata, *arguments, **keywords):
    """A tiny training."""
    return run(
        "train.py", recordings, "--metadata", metadata, *tiny_arguments(), "--threads", 1, *arguments, **keywords
    )


def start_training(recordings, metadata, *arguments, before="pass") -> subprocess.Popen:
    """A tiny training in the background.

    Args:
        before: a statement of Python that its process begins with.
    """
    words = [recordings, "--metadata", metadata, *tiny_arguments(), "--threads", 1, *arguments]
    command = [sys.executable, "-c", f"{before}\nimport sys, train\nsys.exit(train.main(sys.argv[1:]))"]
    return subprocess.Popen([*command, *(str(word) for word in words)], cwd=ROOT, stderr=subprocess.PIPE, text=True)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def running_studio(metadata, *arguments, log=None, **environment):
    """A studio that answers: its address. What it says on stderr goes to the file ``log``."""
    import httpx

    address = f"http://127.0.0.1:{free_port()}"
    command = [sys.executable, "-m", "studio", "--metadata", metadata, "--port", address.rpartition(":")[2], *arguments]
    process = subprocess.Popen([str(c) for c in command], cwd=ROOT, env={**os.environ, **environment}, stderr=log)

    def answers():
        assert process.poll() is None
        with contextlib.suppress(httpx.TransportError):
            return httpx.get(address, timeout=60).status_code == 200

    try:
        wait_for(answers)
        yield address
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def wait_for(condition, timeout=120):
    """Wait until ``condition()`` holds."""
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def assert_one_line(result: subprocess.CompletedProcess, *words: str):
    """A user error: non-zero exit, one line, no traceback, and it names what matters."""
    assert result.returncode != 0, result.stdout + result.stderr
    lines = [line for line in result.stderr.strip().splitlines() if line.startswith(("train.py:", "predict.py:"))]
    assert len(lines) == 1, result.stderr
    assert lines[0] == result.stderr.strip().splitlines()[-1], result.stderr
    assert "Traceback" not in result.stderr, result.stderr
    for word in words:
        assert word in lines[0], (word, lines[0])


@pytest.fixture(scope="session")
def recordings(tmp_path_factory) -> Path:
    """A folder of at least two minutes of chorales, FLAC."""
    from demo.chorales import write_chorales

    folder = tmp_path_factory.mktemp("recordings")
    write_chorales(folder, 2.0)
    return folder


@pytest.fixture(scope="session")
def corpus(recordings, tmp_path_factory):
    """The recordings at 8 kHz."""
    from corpus import open_corpus

    return open_corpus(recordings, tmp_path_factory.mktemp("store"), 8000)


@pytest.fixture(scope="session")
def frames(corpus):
    """Log-magnitude ``[n_chunks, 64, n_bins]`` of the first of them, float32."""
    import torch

    from config import FeaturizerConfig
    from featurizer import Featurizer

    featurizer = Featurizer(FeaturizerConfig(8000, 512, 128))
    waveform = torch.from_numpy(corpus.recordings[0].read(0, 512 + 128 * (64 * 20 - 1)))
    return featurizer.log_magnitude(waveform).reshape(20, 64, 257).numpy()


@pytest.fixture(scope="session")
def trainer(corpus):
    """A tiny model of real music, 200 steps old. Those who change it copy it, or undo it."""
    return trained(corpus, tiny_config(), 200)


def trained(corpus, config, n_steps: int):
    """A trainer of so many steps, by one thread."""
    import torch

    from dataset import split
    from trainer import Trainer

    torch.set_num_threads(1)
    trainer = Trainer(config, split(corpus, 0.1)[0], corpus.level, torch.device("cpu"))
    trainer.fit()
    for _ in range(n_steps):
        trainer.train_step()
    return trainer


@pytest.fixture(scope="module")
def predictor(trainer):
    """Its averaged weights."""
    from predictor import Predictor

    return Predictor.from_state(trainer.config, trainer.state())


@pytest.fixture(scope="session")
def tiny_run(recordings, tmp_path_factory) -> Path:
    """The metadata file of a run of 12 tiny steps. Read only."""
    metadata = tmp_path_factory.mktemp("run") / "tiny.json"
    result = train(recordings, metadata, "--steps", 12)
    assert result.returncode == 0, result.stderr
    return metadata


@pytest.fixture
def tone(tmp_path) -> Path:
    """A WAV file of two seconds of a chord."""
    path = tmp_path / "tone.wav"
    soundfile.write(path, chord(2.0, 22050), 22050)
    return path


def chord(seconds: float, sample_rate: int) -> np.ndarray:
    """Three decaying partials, float32, full scale below 1."""
    t = np.arange(int(seconds * sample_rate)) / sample_rate
    tones = sum(np.sin(2 * np.pi * f * t) for f in (220.0, 277.18, 329.63))
    return (0.2 * tones * np.exp(-0.5 * t)).astype(np.float32)
