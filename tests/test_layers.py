"""The house: who may import whom, and what must stay cheap to start."""

import ast
import subprocess
import sys

import pytest

from conftest import ROOT

# What each module may import from the project; scripts are leaves.
FLOORS = [
    {"errors", "streams", "terminal"},
    {"metrics", "meter", "voicing", "time_budget", "decoding", "provenance", "leftovers"},
    {"config", "riff", "transcription", "chords"},
    {"pcm_store", "featurizer", "device", "score", "rhythm"},
    {"corpus"},
    {"regression", "phase", "spectral", "spectrogram", "dataset", "prompt"},
    {"patch_head", "voice"},
    {"patch_plan"},
    {"model_definition"},
    {"checkpoint"},
    {"predictor", "run_log", "audio_file", "run_folder"},
    {"fitting", "takes", "preview"},
    {"trainer"},
    {"run_start"},
    {"session"},
    {"train", "predict", "studio"},
]
FILELESS = {
    "featurizer",
    "phase",
    "regression",
    "model_definition",
    "rhythm",
    "spectral",
    "patch_head",
    "patch_plan",
    "voice",
}
PACKAGES = {"score", "spectral", "streams", "studio"}  # folders of several modules, each as one
MODULES = sorted([*(path.stem for path in ROOT.glob("*.py")), *PACKAGES])


def files(module):
    """The files of a module: one, or those of its folder."""
    return sorted((ROOT / module).glob("*.py")) if module in PACKAGES else [ROOT / f"{module}.py"]


def imported(path):
    """Top-level names of everything that a file imports, wherever the import stands."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module.split(".")[0])
    return names


def test_every_module_has_its_floor():
    assert sorted(name for floor in FLOORS for name in floor) == MODULES


@pytest.mark.parametrize("module", MODULES)
def test_modules_import_only_from_floors_below(module):
    floor = next(i for i, names in enumerate(FLOORS) if module in names)
    below = set().union(*FLOORS[:floor])
    own = set().union(*(imported(path) for path in files(module))) & set(MODULES) - ({module} & PACKAGES)
    assert own <= below, f"{module} imports {own - below}"


@pytest.mark.parametrize("module", sorted(FILELESS))
def test_dsp_and_model_know_no_files_devices_or_arguments(module):
    forbidden = {"os", "pathlib", "argparse", "soundfile", "json", "device", "corpus", "checkpoint", "io", "tempfile"}
    assert not set().union(*map(imported, files(module))) & forbidden


def test_nobody_imports_a_script():
    for path in [*ROOT.glob("*.py"), *ROOT.glob("bench/*.py"), *ROOT.glob("demo/*.py")]:
        assert not imported(path) & {"train", "predict", "studio"}, path


@pytest.mark.parametrize("script", ["train.py", "predict.py"])
def test_help_imports_nothing_heavy(script):
    """What keeps the time to the first word short (bench.speed measures it)."""
    code = (
        f"import sys, runpy; sys.argv = ['{script}', '--help']\n"
        f"try: runpy.run_path('{script}', run_name='__main__')\n"
        "except SystemExit: pass\n"
        "print('HEAVY', sorted({'torch', 'numpy', 'music21', 'sklearn', 'matplotlib', 'soundfile'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert "usage:" in result.stdout and "HEAVY []" in result.stdout, result.stdout + result.stderr


def test_no_file_has_outgrown_its_room():
    lines = {path: len(path.read_text().splitlines()) for module in MODULES for path in files(module)}
    long = {path.name: n for path, n in lines.items() if n > 420}
    assert not long
