"""Files that users of other programs have stumbled over, written after public reports: what is right for each.

One row for each file in ``tests/cases``; others of the same kinds are in ``test_score_*.py``, ``test_midi_lenient.py``,
``test_audio_lenient.py``, ``test_store_faults.py`` and ``test_divergence.py``.
"""

import shutil

import numpy as np
import pytest
import soundfile

from conftest import ROOT, assert_one_line, chord, run, train
from prompt import load
from score import read_file

CASES = ROOT / "tests" / "cases"
STEPS = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")

# What is played: notes (# is a key of the drums) from second to second, at 60 quarters a minute.
SCORES = {
    # A bracket without a stop does not swallow all up to the next repeat sign (verovio, pull request 2047).
    "x14_volta_never_stopped": "C4 D4 C4 E4 F4 G4 A4 G4 A4 B4",
    # A first bracket that stands alone does not cancel its repeat (fermata 138, OpenSheetMusicDisplay 997).
    "x70_first_volta_only": "C4 D4 C4 E4",
    "x108_second_volta_only": "C4 D4 C4 D4 E4 F4",
    # A backward sign at the left of a measure ends the one before (partitura 73, python-ly 79, MuseScore 23311).
    "x113_backward_at_left": "C4 D4 C4 D4 E4 F4",
    # A percent sign in one staff repeats there what the other staff does not (exports of Finale).
    "x74_percent_on_one_staff": "C5 0-4, C3 0-4, C5 4-8, D3 4-8, E5 8-12, E3 8-12",
    # <unpitched> concerns its own note (w3c/mnx 316).
    "x32_unpitched_in_guitar_part": "E4 0-1, #37 1-2, G4 2-3, B4 3-4",
    # Drums without an instrument are those of their place on the stave (alphaTab 2700).
    "x31_drumset_notes_without_instrument": "#35 0-1, #38 1-2, #42 2-3, #38 3-4",
    # A missing <staff> is staff 1, for transposition too (humlib 85).
    "x75b_transpose_number_1_notes_without_staff": "C4 0-4",
    # <instrument-change> of MusicXML 4.0 (MuseScore 29535, w3c/musicxml 293); the sounds are below.
    "x76_instrument_change_40": "C5 0-4, C5 4-8",
    # Lengths by <type> where <divisions> is missing, or stands in the first part only (verovio 3263).
    "x01_no_divisions": "C4 0-1, D4 1-2, E4 2-4, F4 4-8",
    "x02_divisions_only_in_first_part": "C4 0-4, E3 0-2, F3 2-4",
    # A rest of a whole bar lasts its bar (verovio 3171).
    "x19_measure_rest_four_quarters_in_six_eight": "C4 3-6, D4 9-12",
    # A tempo that says nothing changes nothing (OpenMarch 579).
    "x61_tempo_zero": "C4 0-4, D4 4-8",
    "x100_beat_unit_tied": "C5 0-4",  # w3c/musicxml 92
    "x130_a_tempo_after_rit": "C4 0-4, D4 4-12, E4 12-16",  # MuseScore 17099
    "x147_lyrics_like_da_capo_in_title": "C4 0-4, D4 4-8",
    "x57_mxl_path_dot_slash": "C4 0-4",  # OpenMarch 261
    # What cannot be heard never refuses a MIDI file, and what is broken costs as little as possible.
    "m04_key_signature_out_of_range": "C4 0-1, D4 1-2",  # mido 105 and 187, drywetmidi 285
    "m31_time_signature_short": "C4 0-1, D4 1-2",  # mido 358 and 653
    "m22_track_length_too_long": "C4 0-1, D4 1-2",  # mido 480
    "m19_track_count_too_high": "C4 0-1, D4 1-2",  # foo_midi 38
    "m24_alien_chunk_between": "C4 0-1, D4 1-2",  # the standard: unknown chunks are skipped
    "m16_rmid_big_picture_before": "C4 0-1, D4 1-2",  # mido 43
    "m17_rmid": "C4 0-1, D4 1-2",
    "r15_cc121_pedal": "C4 0-1, D4 2-3",  # mppclone 168: CC 121 lifts the pedal
}


def played(performance) -> list[str]:
    """``C4 0-1`` for each note, in order of time, the highest first."""
    out = []
    for note in sorted(performance.notes, key=lambda n: (n.onset, -n.pitch)):
        name = f"{STEPS[int(note.pitch) % 12]}{int(note.pitch) // 12 - 1}"
        if performance.instruments[note.instrument].drums:
            name = f"#{note.pitch:g}"
        out.append(f"{name} {round(note.onset, 3):g}-{round(note.end, 3):g}")
    return out


def case(name: str):
    (path,) = CASES.glob(f"{name}.*")
    return path


@pytest.mark.parametrize("name", SCORES)
def test_scores_are_played_as_they_are_meant(name):
    expected = SCORES[name]
    if "-" not in expected:  # whole notes
        expected = ", ".join(f"{step} {4 * i}-{4 * i + 4}" for i, step in enumerate(expected.split()))
    assert ", ".join(played(read_file(case(name)))) == expected


def test_every_case_has_a_row():
    audio = {"a39_flac_total_0", "a05_data_zero_streamed", "a54_chained", "a36_float_1e29", "r08_reset_all_controllers"}
    assert {path.stem for path in CASES.iterdir()} == set(SCORES) | audio


def test_the_guitar_stays_a_guitar_and_the_flute_becomes_a_clarinet():
    guitar = read_file(case("x32_unpitched_in_guitar_part"))
    sounds = [guitar.instruments[note.instrument] for note in sorted(guitar.notes, key=lambda n: n.onset)]
    assert [(sound.program, sound.drums) for sound in sounds] == [(24, False), (0, True), (24, False), (24, False)]
    change = read_file(case("x76_instrument_change_40"))
    assert [change.instruments[n.instrument].program for n in sorted(change.notes, key=lambda n: n.onset)] == [73, 71]


def test_all_controllers_reset_leaves_no_bend():
    """A3 is 220 Hz again, not 248 (TinySoundFont 119), to 12 cents: the flute is not in tune."""
    waveform = load(case("r08_reset_all_controllers"), 22050).waveform[4000:26050]
    spectrum = np.abs(np.fft.rfft(waveform * np.hanning(len(waveform)), 1 << 18))
    low = spectrum[: int(300 * (1 << 18) / 22050)]
    assert low.argmax() * 22050 / (1 << 18) == pytest.approx(220.0, abs=1.5)


@pytest.mark.parametrize("name", ["m17_rmid.rmi", "m17_rmid.kar"])
def test_files_with_midi_in_them_are_no_audio(tmp_path, name):
    shutil.copy(case("m17_rmid"), tmp_path / name)
    assert len(load(tmp_path / name, 8000).waveform) == pytest.approx(2 * 8000, abs=10)


# -- audio -------------------------------------------------------------------------------------

LENGTHS = {
    "a39_flac_total_0": 2.0,  # 0 means unknown (sonic-visualiser 125)
    "a05_data_zero_streamed": 2.0,  # of a stream, as FFFFFFFF
    "a54_chained": 4.0,  # both streams (xiph/flac 254)
}


@pytest.mark.parametrize("name", LENGTHS)
def test_audio_is_read_to_its_end(name, tmp_path):
    """As a prompt, and as a recording."""
    from corpus import open_corpus

    assert len(load(case(name), 44100).waveform) == pytest.approx(LENGTHS[name] * 44100, abs=64)
    corpus = open_corpus(case(name), tmp_path / "store", 44100, 1)
    assert corpus.recordings[0].n_samples == pytest.approx(LENGTHS[name] * 44100, abs=64)


def test_absurd_samples_are_not_learned_from(tmp_path):
    """Alone in one line (seed-vc 108); beside a good recording it is named, and what is learned is finite."""
    (tmp_path / "in").mkdir()
    shutil.copy(case("a36_float_1e29"), tmp_path / "in" / "absurd.wav")
    assert_one_line(train(tmp_path / "in", tmp_path / "a.json", "--steps", 1), "absurd.wav")
    assert not list(tmp_path.glob("a*"))
    soundfile.write(tmp_path / "in" / "good.wav", chord(4.0, 8000), 8000)
    result = train(tmp_path / "in", tmp_path / "b.json", "--steps", 1, "--no-preview")
    assert result.returncode == 0 and "not used: absurd.wav" in result.stderr, result.stderr


# -- training ----------------------------------------------------------------------------------


def test_nothing_can_be_learned_from_a_constant(tmp_path):
    """ldc-bpcsad 31: one line, no state, and nothing for predict.py to write silence with."""
    (tmp_path / "in").mkdir()
    soundfile.write(tmp_path / "in" / "constant.wav", np.full(8 * 8000, 0.5), 8000)
    result = train(tmp_path / "in", tmp_path / "m.json", "--steps", 2)
    assert_one_line(result, "constant.wav")
    assert "finished" not in result.stderr and not list(tmp_path.rglob("state*"))


def test_a_disk_that_fills_while_recordings_are_decoded(recordings, tmp_path):
    """npy-append-array 11: the kernel refuses to write more than 30 kB of a file; no training on what is left."""

    def full():
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))

    result = train(recordings, tmp_path / "m.json", "--steps", 2, preexec_fn=full)
    assert_one_line(result, "no room for the decoded recordings")
    assert "loss" not in result.stderr and not list(tmp_path.rglob("*.part")) and not list(tmp_path.rglob("*.tmp"))


def test_what_models_made_is_not_learned_from(recordings, tiny_run, tmp_path):
    """A corpus folder that holds ``metadata/`` with the previews of other runs, as RAVE's and nanoGPT's users have."""
    (tmp_path / "in").mkdir()
    for path in sorted(recordings.glob("*.flac"))[:2]:
        shutil.copy(path, tmp_path / "in")
    shutil.copytree(tiny_run.parent, tmp_path / "in" / "metadata", ignore=shutil.ignore_patterns("pcm-*"))
    assert list((tmp_path / "in" / "metadata").rglob("*.wav"))
    result = train(tmp_path / "in", tmp_path / "m.json", "--steps", 1, "--no-preview")
    assert result.returncode == 0 and "corpus: 2 recordings," in result.stderr, result.stderr


# -- sentences ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, blob, right, wrong",
    [
        ("a.mid", b"junk" * 9 + b"MThd\0\0\0\6\0\1\0\1\1\xe0", "MIDI", "XML"),
        ("a.mp3", b"<!DOCTYPE html><html><body>404</body></html>", "web page", "no such file"),
    ],
)
def test_what_a_file_is_not_is_said_rightly(tiny_run, tmp_path, name, blob, right, wrong):
    (tmp_path / name).write_bytes(blob)
    result = run("predict.py", tiny_run, tmp_path / name, "-o", tmp_path / "out.wav")
    assert_one_line(result, name, right)
    assert wrong not in result.stderr


def test_a_truncated_ogg_does_not_hold_nothing(tiny_run, tmp_path):
    """It is played as far as it goes, with a word about its end, or refused as cut off."""
    blob = case("a54_chained").read_bytes()
    (tmp_path / "a.ogg").write_bytes(blob[: len(blob) // 3])
    result = run("predict.py", tiny_run, tmp_path / "a.ogg", "--frames", 5, "-o", tmp_path / "out.wav")
    assert "holds no samples" not in result.stderr and result.stderr.strip(), result
