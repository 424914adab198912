"""What the base corpus consists of: its two tables, and what a part of it is."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

RECORDINGS_TABLE = Path(__file__).with_name("base_corpus.csv")
SCORES_TABLE = Path(__file__).with_name("base_corpus_scores.csv")
# Packages of Debian 12: version, MB to download, style of the music.
PACKAGES = {
    "0ad-data": ("0.0.26-1", 1378, "orchestral"),
    "flare-game": ("1.14-1", 123, "orchestral"),
    "freeorion-data": ("0.4.10.2-1", 121, "electronic"),
    "fretsonfire-songs-muldjord": ("2.dfsg-2.1", 29, "rock"),
    "fretsonfire-songs-sectoid": ("1.dfsg-3.1", 29, "rock"),
    "hyperrogue-music": ("12.0q-1", 64, "orchestral"),
    "marsshooter-data": ("0.7.6-7", 68, "rock"),
    "megaglest-data": ("3.13.0-3", 242, "orchestral"),
    "naev-data": ("0.8.2-1", 350, "electronic"),
    "openclonk-data": ("8.1-3", 112, "electronic"),
    "singularity-music": ("007-2", 52, "electronic"),
    "supertuxkart-data": ("1.4+dfsg-2", 628, "pop"),
    "ufoai-music": ("2.5-2", 210, "electronic"),
    "unknown-horizons": ("2019.1-6", 248, "orchestral"),
    "warzone2100-music": ("4.3.3-3", 86, "electronic"),
    "widelands-data": ("2:1.1-3", 381, "orchestral"),
    "zaz-data": ("1.0.1-1", 20, "rock"),
}


@dataclass(frozen=True)
class Part:
    """A file in a package: where, and the SHA-256 of its content."""

    path: str
    sha256: str


@dataclass(frozen=True)
class Recording:
    """A file to be made: a copy of one of a package, or the mix of several stems of one song."""

    file: str
    package: str
    seconds: float
    licence: str
    credit: str
    parts: tuple[Part, ...]

    @property
    def style(self) -> str:
        return PACKAGES[self.package][2]


@dataclass(frozen=True)
class Rendered:
    """A file to be made of scores. ``sources``: see :func:`demo.rendering.read_score`; of the style accompaniment, a
    style file of MMA, its grooves for introduction (or ``-``), verse, chorus and end (or ``-``), and the beats of a
    bar."""

    file: str
    style: str
    seconds: float
    sources: tuple[str, ...]
    credit: str


def recordings() -> list[Recording]:
    """The table of recordings; stems of one song are lines of the same file."""
    made: dict[str, Recording] = {}
    with RECORDINGS_TABLE.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            parts = (Part(row["path"], row["sha256"]),)
            if row["file"] in made:
                parts = made[row["file"]].parts + parts
            seconds = float(row["seconds"])
            made[row["file"]] = Recording(row["file"], row["package"], seconds, row["licence"], row["credit"], parts)
    return list(made.values())


def scores() -> list[Rendered]:
    """The table of what is rendered."""
    with SCORES_TABLE.open(newline="", encoding="utf-8") as file:
        return [
            Rendered(row["file"], row["style"], float(row["seconds"]), tuple(row["sources"].split()), row["credit"])
            for row in csv.DictReader(file)
        ]


def select(entries: Iterable, fraction: float) -> list:
    """That fraction of the seconds of each style, as far as whole files allow, in an order by a hash of the name.

    What a smaller fraction selects, a larger one does, too. 1 or more selects all.
    """
    by_style: dict[str, list] = {}
    for entry in entries:
        by_style.setdefault(entry.style, []).append(entry)
    selected = []
    for style in sorted(by_style):
        # Not the hash of the name alone, by which the split for training holds out: held out would be the first ones.
        order = sorted(by_style[style], key=lambda e: hashlib.sha256(f"base corpus {e.file}".encode()).digest())
        target, before = fraction * sum(e.seconds for e in order), 0.0
        for entry in order:
            if before + entry.seconds / 2 > target:
                break
            selected.append(entry)
            before += entry.seconds
    return selected
