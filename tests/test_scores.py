"""Scores are played as written: each small score in tests/scores beside what a musician derives from it by hand."""

import pytest

from conftest import ROOT
from score import read_file

SCORES = sorted((ROOT / "tests" / "scores").glob("*.musicxml"))
TOLERANCE = 0.005  # s


def expected(path):
    """Notes (onset s, duration s, pitch, velocity or None), and further lines by their first word.

    ``instruments`` has the General MIDI program of each note, ``tempo`` and ``meter`` the first and the last.
    """
    notes, more = [], {}
    for line in path.with_suffix(".txt").read_text().splitlines():
        words = line.split()
        if words[0] in ("instruments", "tempo", "meter"):
            more[words[0]] = words[1:]
        elif words[0] != "#":
            onset, duration, pitch = map(float, words[:3])
            notes.append((onset, duration, pitch, int(words[3]) if len(words) > 3 else None))
    return notes, more


@pytest.mark.parametrize("path", SCORES, ids=lambda path: path.stem)
def test_as_a_musician_would(path):
    """All onsets and durations within 5 ms, pitches exact; velocities, sounds and tempo where they are the point."""
    notes, more = expected(path)
    performance = read_file(path)
    sounds = more.get("instruments", [None] * len(notes))
    by_time = sorted(zip(notes, sounds, strict=True), key=lambda pair: (round(pair[0][0], 2), *pair[0][2:0:-1]))
    notes, sounds = zip(*by_time, strict=True)
    played = sorted(performance.notes, key=lambda note: (round(note.onset, 2), note.pitch, note.duration))
    assert [note.pitch for note in played] == [note[2] for note in notes]
    for note, (onset, duration, _, velocity) in zip(played, notes, strict=True):
        assert note.onset == pytest.approx(onset, abs=TOLERANCE)
        assert note.duration == pytest.approx(duration, abs=TOLERANCE)
        assert velocity is None or note.velocity == velocity
    for note, sound in zip(played, sounds, strict=True):
        instrument = performance.instruments[note.instrument]
        assert sound in (None, "drums" if instrument.drums else str(instrument.program))
    beats = performance.first, performance.last
    if "tempo" in more:
        assert [beat.tempo for beat in beats] == pytest.approx([float(word) for word in more["tempo"]])
    if "meter" in more:
        assert ["{}/{}".format(*beat.time_signature) for beat in beats] == more["meter"]
