"""``pip install -e .``: what pyproject.toml promises is there."""

import importlib
import tomllib

from conftest import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_every_module_is_listed():
    listed = PROJECT["tool"]["setuptools"]
    assert listed["py-modules"] == sorted(path.stem for path in ROOT.glob("*.py"))
    assert listed["packages"] == sorted(path.parent.name for path in ROOT.glob("*/__init__.py"))


def test_commands_are_functions():
    scripts = PROJECT["project"]["scripts"]
    assert set(scripts) == {"nextframe-train", "nextframe-predict", "nextframe-studio"}
    for place in scripts.values():
        module, _, name = place.partition(":")
        assert callable(getattr(importlib.import_module(module), name))


def test_dependencies_are_those_of_requirements():
    """But for tinysoundfont, whose own are not wanted."""
    assert PROJECT["tool"]["setuptools"]["dynamic"]["dependencies"] == {"file": ["requirements.txt"]}
    assert "tinysoundfont" not in (ROOT / "requirements.txt").read_text()
