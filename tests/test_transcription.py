"""Notes of a continuation on the grid of its prompt."""

import numpy as np
import pytest

from transcription import GHOST, quantised, without_ghosts

SIXTEENTH = 15 / 90  # s, at 90 quarters a minute


def test_notes_are_put_on_the_grid_that_the_prompt_began():
    """Found up to 30 ms late, 7.1 s after the prompt's beginning, which is on no line of it: to the sample on the lines
    of the whole."""
    before, random = 7.1, np.random.default_rng(0)
    lines = np.arange(43, 90, 2) * SIXTEENTH
    notes = [(line - before + random.uniform(0, 0.03), 2 * SIXTEENTH, 60 + i, 0.6) for i, line in enumerate(lines)]
    placed = quantised(notes, 90, before)
    np.testing.assert_allclose([note[0] + before for note in placed], lines, atol=1e-9)
    np.testing.assert_allclose([note[1] for note in placed], 2 * SIXTEENTH, atol=1e-9)
    assert [note[2:] for note in placed] == [note[2:] for note in notes]


def test_a_grid_that_lies_elsewhere_is_followed():
    """After a change of tempo in the prompt: all notes between the lines, by 0.4 of a sixteenth."""
    onsets = (np.arange(12) + 0.4) * SIXTEENTH
    placed = quantised([(onset, SIXTEENTH, 60, 0.6) for onset in onsets], 90)
    np.testing.assert_allclose([note[0] for note in placed], onsets, atol=1e-6)


def test_short_notes_last_a_sixteenth_and_doubles_are_one():
    notes = [(0.0, 0.01, 60, 0.5), (0.02, 0.3, 60, 0.7), (0.01, 0.1, 61, 0.5)]
    (first, second) = quantised(notes, 90)
    assert first == (0.0, pytest.approx(2 * SIXTEENTH), 60, 0.7) and second == (0.0, pytest.approx(SIXTEENTH), 61, 0.5)
    assert quantised([], 90) == []


def test_a_note_before_the_file_begins_is_cut():
    ((start, duration, _, _),) = quantised([(0.01, 1.0, 60, 0.5)], 90, before=6.4 * SIXTEENTH)
    assert start == 0.0 and duration == pytest.approx(5.6 * SIXTEENTH, abs=0.5 * SIXTEENTH)


def test_ghosts_are_dropped():
    notes = [(0.0, 1.0, 60, 0.8), (0.5, 0.2, 60, 0.8), (0.5, 0.2, 64, GHOST - 0.01), (1.0, 0.2, 60, 0.8)]
    assert without_ghosts(notes) == [notes[0], notes[3]]
