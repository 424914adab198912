"""Every command of the README and of docs is run, shortened where it says how long."""

import contextlib
import os
import shlex
import shutil
import subprocess
import sys
import urllib.request

import numpy as np
import pytest
import regex
import soundfile

from conftest import ROOT, TINY, free_port, wait_for
from prompt import general_midi
from warm import WarmPython

TINIER = " ".join(f"--set {key}={value}" for key, value in TINY.items())
# What makes a command short; everything else runs as it stands.
SHORTER = [
    (r"(demo.chorales .*) --minutes \d+", r"\1 --minutes=2"),
    (r"demo.base_corpus .*", "demo.base_corpus --help"),  # it downloads; tests/test_base_corpus.py makes small ones
    (r"--minutes \d+", "--steps 3"),
    (r"--steps \d{3,}", "--steps 3"),
    (r"(python train.py .*)", rf"\1 {TINIER}"),
    (r"hidden_size=768 (.*) --set model.hidden_size=32", r"hidden_size=48 \1"),
    (r"(--preset original.*?) --set .*", r"\1 --set model.hidden_size=16"),
    (r"bench.speed", "bench.speed --rounds 1 --seconds 0.2 --minutes 0.5 --burst 0.1 --repeats 1 " + TINIER),
    (r"bench.live recordings", "bench.live recordings --prompts 1 --after 0.1 --save-every 1 " + TINIER),
    (
        r"bench.sound recordings.*",
        "bench.sound recordings --metadata metadata/mine.json --prompts 2 --seconds 3 --long 6",
    ),
    (r"(bench.voice .*)", r"\1 --prompts 2 --seconds 3"),
    (r"(bench.tempo .*)", r"\1 --each 1 --seconds 5"),
    (r"bench.studio recordings", "bench.studio recordings --visitors 2 --requests 2 --length 0.5 --waves 1 --rounds 0"),
    (r"bench.crash .*", "bench.crash --kills 1 --loads 20"),
    (r"bench.hostile .*", "bench.hostile --requests 12"),
    # The training and the child of the studio, which is nice, share the one core of a worker: as equals.
    (
        r"python -m bench.endurance (.*) --hours 6",
        rf"nice -n 19 {{python}} -m bench.endurance \1 --hours 0.001 --every 1 --save-every 1 {TINIER}",
    ),
    (r"bench.mutants", "bench.mutants --list"),
    (r"bench.memory", "bench.memory --hours 0.02 0.04 --steps 1 " + TINIER),
    (r"bench.long", "bench.long --metadata metadata/mine.json --minutes 0.05 0.1 --seconds 1 --rounds 1"),
    (r"--seconds 1800", "--seconds 18"),
    (r"mine\.sf2", general_midi()),
    (r"bench.prompts", "bench.prompts --limit 2"),
    (r"--cases \d+", "--cases 10"),
    (r"^make demo$", "make demo STEPS=3 CHORALES=2 PLAYER= RUN={python} VENV={venv}"),
    (r"^make studio$", "make --dry-run studio VENV={venv}"),  # it is started below
    (r"^make test$", "make --dry-run test VENV={venv}"),  # this very suite
    (r"^(sudo|docker) .*", "true"),  # tests/test_deploy.py checks what they take
    (r"^pip install .*", "true"),  # so it does for these
    (r"^source .*", "true"),  # the environment is the one that runs this
]


def commands() -> list[str]:
    """Lines of the bash blocks, of the README and of what is in docs."""
    texts = [path.read_text() for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))]
    blocks = [block for text in texts for block in regex.findall(r"```bash\n(.*?)```", text, regex.DOTALL)]
    return [line for block in blocks for line in block.strip().splitlines()]


@pytest.fixture(scope="module")
def clone(recordings, tmp_path_factory):
    """A copy of the project with a folder of recordings, as a user would have it."""
    folder = tmp_path_factory.mktemp("clone") / "nextframe"
    skip = shutil.ignore_patterns(".git", ".venv", "out", "__pycache__", "*.pcm", "pcm-*", ".*_cache")
    shutil.copytree(ROOT, folder, ignore=skip)
    shutil.copytree(recordings, folder / "recordings")
    (folder / "venv").mkdir()
    for mark in ("installed", "installed-studio"):
        (folder / "venv" / mark).touch()
    return folder


@pytest.fixture(scope="module")
def warm_python(clone):
    python = WarmPython(clone)
    yield python
    python.close()


def shortened(command: str, folder) -> str:
    for pattern, replacement in SHORTER:
        command = regex.sub(pattern, replacement, command)
    command = command.replace("{python}", shlex.quote(sys.executable)).replace("{venv}", str(folder / "venv"))
    return regex.sub(r"^python ", shlex.quote(sys.executable) + " ", command)


@pytest.fixture(scope="module")
def studio(clone, tmp_path_factory):
    """The address of a studio of the clone, as ``make studio`` starts it, at another port."""
    pytest.importorskip("gradio", reason="Gradio is not installed (requirements-studio.txt)")
    address = f"http://127.0.0.1:{free_port()}"
    command = [sys.executable, "-m", "studio", "--port", address.rpartition(":")[2]]
    process = subprocess.Popen(command, cwd=clone, env={**os.environ, "PYTHONPATH": ""})

    def answers():
        assert process.poll() is None
        with contextlib.suppress(OSError), urllib.request.urlopen(address, timeout=60) as answer:
            return answer.status == 200

    try:
        wait_for(answers)
        yield address
    finally:
        process.terminate()
        process.wait(30)


@pytest.mark.parametrize("command", commands())
def test_command(clone, command, request):
    if command.startswith("tensorboard"):
        pytest.importorskip("tensorboard")
        result = subprocess.run([sys.executable, "-m", "tensorboard.main", "--version"], capture_output=True, text=True)
        assert result.returncode == 0 and list(clone.glob("metadata/*/tensorboard/events*"))
        return
    if command.startswith("python -m studio"):
        address = request.getfixturevalue("studio")  # is started by it
        with urllib.request.urlopen(f"{address}/config", timeout=60) as answer:
            assert b"nextframe studio" in answer.read()
        return
    if "bench.studio" in command:
        pytest.importorskip("gradio", reason="Gradio is not installed (requirements-studio.txt)")
    if command.startswith("curl"):
        command = command.replace("http://127.0.0.1:7860", request.getfixturevalue("studio"))
    environment = {**os.environ, "PYTHONPATH": ""}
    words = shlex.split(shortened(command, clone))
    if words[0] == sys.executable and not {"|", ">", "&&"} & set(words):
        result = request.getfixturevalue("warm_python").run(words[1:], clone.parent / "log")
    else:
        result = subprocess.run(
            shortened(command, clone),
            shell=True,
            cwd=clone,
            capture_output=True,
            text=True,
            timeout=400,
            env=environment,
        )
    assert result.returncode == 0, result.stdout + result.stderr
    if command.startswith("curl"):
        asked = "> event.json" in command  # else it has been waited for
        assert asked or ("event: complete" in result.stdout and "chords-next.wav" in result.stdout)
        return
    if command == "make demo":
        for name in ("shipped", "continuation"):
            assert (clone / f"out/demo/{name}.wav").stat().st_size > 1e6
            assert f"{name}.wav" in result.stdout and f"{name}.png" in result.stdout
    for name in regex.findall(r"-o (\S+)", command):
        path = clone / name
        files = list(path.iterdir()) if path.is_dir() else list(clone.glob(f"{path.stem}*{path.suffix}"))
        assert files and all(file.stat().st_size > 10_000 for file in files)


def test_the_program_that_asks_the_studio(clone, studio):
    (program,) = regex.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), regex.DOTALL)
    program = program.replace("http://127.0.0.1:7860", studio)
    result = subprocess.run([sys.executable, "-c", program], cwd=clone, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    assert "prompt-next.flac" in result.stdout and "'seed': 7" in result.stdout
    assert "chorales finished" in result.stdout


def test_options_are_those_of_the_scripts():
    """Each option of the scripts stands in the README, and no other."""
    text = (ROOT / "README.md").read_text()
    for title, script in (("train.py", "train.py"), ("predict.py", "predict.py"), ("Studio", "-m studio")):
        section = text.split(f"## {title}")[1].split("\n## ")[0]
        command = [sys.executable, *script.split(), "--help"]
        shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout
        options = set(regex.findall(r"--[a-z][a-z-]+", shown)) - {"--help"}
        assert set(regex.findall(r"--[a-z][a-z-]+", section)) == options


def test_the_phrase_of_the_commands():
    """Ten seconds, mono, Vorbis, below 200 kB; it begins at once (0.1 s within 6 dB of the loudest) and ends while
    it sounds (within 20 dB)."""
    path = ROOT / "demo" / "phrase.ogg"
    info, (waveform, rate) = soundfile.info(path), soundfile.read(path)
    assert (info.samplerate, info.channels, info.subtype) == (22050, 1, "VORBIS") and path.stat().st_size < 200_000
    assert len(waveform) == 10 * rate
    levels = 20 * np.log10(np.sqrt(np.square(waveform.reshape(100, -1)).mean(1)))
    assert levels[0] > levels.max() - 6 and levels[-1] > levels.max() - 20


def test_what_the_commands_read_is_in_the_clone():
    """But for ``recordings``, the model that a command before has made, and somebody's soundfont."""
    for command in commands():
        for name in regex.findall(r"(?<=\s)\S+\.(?:ogg|flac|wav|musicxml|mid)(?=\s|$)", command.partition(" -o ")[0]):
            assert (ROOT / name).exists() and "recordings" not in name, command


def test_the_file_tree_is_complete():
    tree = (ROOT / "README.md").read_text().split("## How it works")[1]
    for path in ROOT.glob("*.py"):
        assert path.name in tree
