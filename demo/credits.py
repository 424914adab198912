"""CREDITS.md: whose music a corpus holds, and under which licence what is learned from it should be published."""

from __future__ import annotations

from pathlib import Path

from checkpoint import write_atomic
from demo.catalogue import PACKAGES, Recording, Rendered

LICENCES = {
    "CC-BY-3.0": "https://creativecommons.org/licenses/by/3.0/",
    "CC-BY-4.0": "https://creativecommons.org/licenses/by/4.0/",
    "CC-BY-SA-3.0": "https://creativecommons.org/licenses/by-sa/3.0/",
    "CC-BY-SA-4.0": "https://creativecommons.org/licenses/by-sa/4.0/",
    "MIT": "https://opensource.org/license/mit",
    "public domain": "https://creativecommons.org/publicdomain/mark/1.0/",
}
SYNTHESIZER = "TinySoundFont (tinysoundfont 0.3.7, MIT)"
SOUNDFONT = "FluidR3 GM by Frank Wen and others (Debian's fluid-soundfont-gm 3.1, MIT)"
ACCOMPANIST = "MMA 21.09, Musical MIDI Accompaniment, and its library of styles, by Bob van der Poel (GPL-2+)"
REMARK = """# Credits

Every file of this corpus, by whom it is, and its licence. What is trained on it should be published under
[CC-BY-SA-4.0](https://creativecommons.org/licenses/by-sa/4.0/), together with this list: most of the recordings ask
that what is made of them is shared alike. Whether a trained model is made of them in the sense of the law is not
settled; this is the careful reading.
"""


def write_credits(path: Path, recordings: list[Recording], rendered: list[Rendered]):
    """Write the credits of the files that are there."""
    lines = [REMARK]
    if recordings:
        lines += [
            "## Recordings\n",
            "Copies of files in packages of Debian 12, unchanged, but that the stems of a song are mixed to one file.",
            "Licences: " + ", ".join(f"[{name}]({url})" for name, url in LICENCES.items()) + ".\n",
            "| file | by | licence | package | in the package |",
            "|---|---|---|---|---|",
        ]
        lines += [
            _row(
                entry.file,
                entry.credit,
                entry.licence,
                f"{entry.package} {PACKAGES[entry.package][0]}",
                ", ".join(part.path for part in entry.parts),
            )
            for entry in sorted(recordings, key=lambda entry: entry.file)
        ]
    if rendered:
        lines += [
            "\n## Rendered\n",
            f"Played by {SYNTHESIZER} with the soundfont {SOUNDFONT}.",
            "Scores are those that music21 10.5.1 carries, by the path in its corpus; the compositions are in the",
            "public domain, their encodings are by those who are named. Accompaniments are chord charts that this",
            f"program has drawn by a seed, made into MIDI by {ACCOMPANIST}.\n",
            "| file | music | made from | played by |",
            "|---|---|---|---|",
        ]
        lines += [
            _row(entry.file, entry.credit, " ".join(entry.sources), _players(entry))
            for entry in sorted(rendered, key=lambda entry: entry.file)
        ]
    write_atomic(path, ("\n".join(lines) + "\n").encode())


def _players(entry: Rendered) -> str:
    from demo.rendering import ensemble_of

    return (
        "the style's instruments" if entry.style == "accompaniment" else ensemble_of(Path(entry.file).stem, entry.style)
    )


def _row(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"
