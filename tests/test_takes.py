"""Continuations as files: streams, several prompts and futures in one batch, and the options of predict.py for them."""

import signal
import struct
import subprocess
import sys

import numpy as np
import pretty_midi
import pytest
import soundfile
import torch

from conftest import PROMPT, ROOT, assert_one_line, chord, run, wait_for
from predictor import Predictor, rejoin
from prompt import load_prompt
from test_audio_file import chunks

RATE = 8000


@pytest.fixture(scope="module")
def predictor(tiny_run):
    torch.set_num_threads(1)
    return Predictor.load(tiny_run)


@pytest.fixture(scope="module")
def prompts(corpus):
    """Three of different lengths; one is shorter than the crossfade, one longer than what the LSTM hears."""
    recording = corpus.recordings[0]
    return [torch.from_numpy(recording.read(20000, n)) for n in (12345, 100, 2000)]


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A MIDI clip of two seconds, 3/4 and 150 quarters a minute at its end: a bar of it is 1.2 s."""
    song = pretty_midi.PrettyMIDI(initial_tempo=150)
    song.time_signature_changes += [pretty_midi.TimeSignature(4, 4, 0), pretty_midi.TimeSignature(3, 4, 1.6)]
    piano = pretty_midi.Instrument(0)
    piano.notes += [pretty_midi.Note(90, pitch, i / 2, i / 2 + 0.5) for i, pitch in enumerate((60, 64, 67, 72))]
    song.instruments.append(piano)
    path = tmp_path_factory.mktemp("clip") / "clip.mid"
    song.write(str(path))
    return path


def predict(metadata, *arguments, **keywords):
    result = run("predict.py", metadata, *arguments, **keywords)
    assert result.returncode == 0, result.stderr
    return result


def samples(path):
    return soundfile.read(path, dtype="int32")[0]


# -- streams -----------------------------------------------------------------------------------


def test_blocks_of_a_stream_are_the_continuation(predictor, prompts, monkeypatch):
    """Joined to the prompt, to the bit; no block is longer than BLOCK frames and a crossfade."""
    import predictor as module

    monkeypatch.setattr(module, "BLOCK", 32)
    for prompt in prompts:
        done, whole = [], predictor.continue_(prompt[None], 100, seed=3)
        blocks = list(predictor.stream(prompt[None], 100, seed=3, progress=done.append))
        assert torch.equal(rejoin(prompt[None], blocks), whole) and whole.shape[-1] == len(prompt) + 100 * 128
        assert done == [32, 64, 96, 100] and max(block.shape[-1] for block in blocks) <= 32 * 128 + 256


def test_a_stream_can_be_stopped(predictor, prompts):
    """It ends with what has been made: the beginning of the whole, but for what the phase had not seen by then."""
    n_asked = 0

    def stopped() -> bool:
        nonlocal n_asked
        n_asked += 1
        return n_asked > 300

    whole = rejoin(prompts[0], [block[0] for block in predictor.stream([prompts[0]], 2000, seed=3)])
    part = rejoin(prompts[0], [block[0] for block in predictor.stream([prompts[0]], 2000, seed=3, stopped=stopped)])
    n_made = (300 - 512 // 128 - 4) * 128
    assert len(part) == len(prompts[0]) + n_made
    n_same = len(prompts[0]) + 256 * 128 - 256
    assert torch.equal(part[:n_same], whole[:n_same])


def test_prompts_of_any_length_are_heard_as_if_alone(predictor, prompts, monkeypatch):
    """Nothing drawn (noise 0, temperature 0), each row of the batch is the continuation of that prompt alone: frames
    within 5e-3 nepers, for 20 frames."""
    monkeypatch.setattr(torch, "randn", lambda shape, **_: torch.zeros(shape))
    together = predictor.frames(prompts, temperature=0.0, n_futures=2)
    alone = [predictor.frames(prompt[None], temperature=0.0) for prompt in prompts]
    with torch.inference_mode():
        for _ in range(20):
            frames, singles = next(together), [next(one) for one in alone]
            torch.testing.assert_close(frames, torch.cat([x for x in singles for _ in (0, 1)]), atol=5e-3, rtol=0)


def test_the_original_design_takes_prompts_of_any_length(corpus, prompts):
    """Its state is a plain window; what it continues is that of each prompt alone, within 1e-4."""
    from config import PRESETS, override
    from dataset import split
    from trainer import Trainer

    config = override(PRESETS["original"], ["model.hidden_size=16", "featurizer.sample_rate=8000"])
    trainer = Trainer(config, split(corpus, 0.1)[0], corpus.level, torch.device("cpu"))
    original = Predictor.from_state(config, trainer.state())
    blocks = list(original.stream(prompts, 30))
    for i, prompt in enumerate(prompts):
        alone = list(original.stream(prompt[None], 30))
        torch.testing.assert_close(blocks[0][i], alone[0][0], atol=1e-4, rtol=0)


def test_futures_differ_and_come_again(predictor, prompts):
    """Side by side for each prompt; of the same prompt and seed no two are alike, and the same call gives the same."""
    one, again = (torch.cat(list(predictor.stream(prompts, 60, seed=2, n_futures=2)), -1) for _ in range(2))
    assert torch.equal(one, again) and one.shape == (6, 60 * 128 + 256)
    for i in (0, 2, 4):
        assert not torch.equal(one[i, 256:], one[i + 1, 256:])
        torch.testing.assert_close(one[i, 0], one[i + 1, 0], atol=1e-4, rtol=0)  # where the prompt still sounds


# -- the command -------------------------------------------------------------------------------


def test_several_prompts_in_one_batch(tiny_run, tone, clip, tmp_path):
    """A file for each in a folder that is made, beside it its picture; equal names are told apart; each begins with
    its own prompt."""
    other = tmp_path / "other" / "tone.wav"
    other.parent.mkdir()
    soundfile.write(other, chord(0.7, 22050)[::-1], 22050)
    out = tmp_path / "new" / "out"
    predict(tiny_run, tone, clip, other, "--frames", 20, "-o", out, "--picture", "--voice", "plain")
    assert sorted(p.name for p in out.iterdir()) == [
        f"{name}-next.{suffix}" for name in ("clip", "tone", "tone_2") for suffix in ("png", "wav")
    ]
    for path, name in ((tone, "tone"), (clip, "clip"), (other, "tone_2")):
        prompt, written = load_prompt(path, RATE), samples(out / f"{name}-next.wav") / 2**31
        assert len(written) == len(prompt) + 20 * 128
        kept, prompt = written[: len(prompt) - 256], prompt[:-256]
        assert np.corrcoef(kept, prompt)[0, 1] > 0.9999


def test_numbered_futures(tiny_run, tone, tmp_path):
    """Three files of one prompt and three continuations; the same command makes the same bytes, and names the seed."""
    for name in ("a", "b"):
        result = predict(
            tiny_run, tone, "--frames", 40, "-o", tmp_path / f"{name}.flac", "--continuations", 3, "--seed", 5
        )
    blobs = [[(tmp_path / f"{name}-{k}.flac").read_bytes() for k in (1, 2, 3)] for name in ("a", "b")]
    assert blobs[0] == blobs[1] and len(set(blobs[0])) == 3 and not (tmp_path / "a.flac").exists()
    assert [line.split(" by ")[1].split(";")[0] for line in result.stdout.splitlines()] == [
        f"step 12, seed 5, {k} of 3" for k in (1, 2, 3)
    ]
    assert_one_line(
        run("predict.py", tiny_run, tone, "--frames", 4, "-o", tmp_path / "a.flac", "--continuations", 4), "a-1.flac"
    )


def test_bars_of_the_clip_for_a_daw(tiny_run, clip, tmp_path):
    """Two bars of 3/4 at 150: 2.4 s to the sample at 44.1 kHz, in stereo; tempo, loop and join are in the chunks. The
    continuation alone is its tail, and has no marker."""
    options = ["--bars", 2, "--rate", 44100, "--channels", 2]
    predict(tiny_run, clip, "-o", tmp_path / "a.wav", *options)
    predict(tiny_run, clip, "-o", tmp_path / "b.wav", *options, "--only-new")
    whole, new, n = samples(tmp_path / "a.wav"), samples(tmp_path / "b.wav"), round(2.4 * 44100)
    join = len(whole) - n
    assert join / 44100 == pytest.approx(2.0, abs=1e-3) and np.array_equal(whole[join:], new) and whole.shape[1] == 2
    found, alone = chunks(tmp_path / "a.wav"), chunks(tmp_path / "b.wav")
    assert struct.unpack_from("<HHf", found[b"acid"], 16) == (4, 3, 150.0)
    assert struct.unpack_from("<I", found[b"cue "], 24) == (join,) and b"cue " not in alone
    assert struct.unpack_from("<II", found[b"smpl"], 44) == (join, join + n - 1)
    assert struct.unpack_from("<II", alone[b"smpl"], 44) == (0, n - 1)


def test_bars_fade_and_a_part_of_a_recording(tiny_run, tone, tmp_path):
    """--tempo and --meter say what a bar of a recording is; --from and --to take 0.5 s of it; the end fades out."""
    predict(tiny_run, tone, "-o", tmp_path / "a.wav", "--bars", 1, "--tempo", 120, "--meter", "3/4",
            "--from", 0.25, "--to", 0.75, "--fade", 0.5)  # fmt: skip
    written, whole = samples(tmp_path / "a.wav") / 2**31, load_prompt(tone, RATE)
    assert len(written) == RATE // 2 + round(1.5 * RATE)
    assert np.corrcoef(written[: RATE // 2 - 256], whole[RATE // 4 : 3 * RATE // 4 - 256])[0, 1] > 0.9999
    assert np.abs(written[-20:]).max() < 0.01 * np.abs(written).max() and b"smpl" not in chunks(tmp_path / "a.wav")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_output_is_valid(tiny_run, tone, tmp_path, number):
    """One line, status 130, and what was made by then under the name: whole blocks, and the beginning of what the
    same command makes when it is left alone."""
    command = [sys.executable, ROOT / "predict.py", tiny_run, tone, "--seconds", "20000", "-o", tmp_path / "a.wav"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        wait_for(lambda: any(p.stat().st_size > 4 * (2 * RATE + 256 * 128) for p in tmp_path.glob("*.f32.tmp")))
        process.send_signal(number)
        stdout, stderr = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 130 and "interrupted" in stderr.splitlines()[-1], stderr
    assert "a.wav" in stdout and sorted(p.name for p in tmp_path.iterdir()) == ["a.wav", "tone.wav"]
    written = samples(tmp_path / "a.wav")
    chunks(tmp_path / "a.wav")
    assert 2 * RATE + 256 * 128 - 256 <= len(written) < 10000 * RATE
    predict(tiny_run, tone, "--frames", 256, "-o", tmp_path / "b.wav")
    same = samples(tmp_path / "b.wav")[: 2 * RATE + 240 * 128]
    scale = np.abs(same).max() / np.abs(written[: len(same)]).max()
    np.testing.assert_allclose(written[: len(same)] * scale, same, atol=2**31 * 1e-4)


def test_a_fade_that_is_cut_short_leaves_the_prompt(tiny_run, tone, tmp_path):
    """Stopped after one block of a continuation with a fade of minutes: the prompt has one gain from end to end."""
    from audio_file import AudioFormat
    from predictor import Predictor
    from prompt import load
    from takes import plan, write_takes

    predictor, prompt, done = Predictor.load(tiny_run), load(tone, RATE), []
    takes = plan(predictor, [prompt], [tmp_path / "a.wav"], [600.0])
    form = AudioFormat("wav", 24, RATE, 1)
    write_takes(predictor, takes, 1, 37500, form, fade=500.0, stopped=lambda: bool(done), progress=done.append)
    written, played = samples(tmp_path / "a.wav") / 2**31, takes[0].waveform.numpy()[: 2 * RATE - 256]
    gain = (written[: len(played)] * played).sum() / (played**2).sum()
    np.testing.assert_allclose(written[: len(played)], gain * played, atol=1e-5)
    assert len(written) < 10 * RATE and np.abs(written[-20:]).max() < 0.01


def test_silence_at_the_end_of_chords_is_part_of_the_prompt():
    from meter import Meter
    from prompt import load_chords

    prompt = load_chords("C7(b9) | N.C.", Meter(240, 4, 4), None, None, RATE)
    assert len(prompt.waveform) == 2 * RATE and not prompt.waveform[-RATE // 2 :].any()


def test_chords_go_on(tiny_run, tmp_path):
    """Four bars at 120 in 3/4: 6 s of prompt, and the tempo in the file."""
    predict(tiny_run, "--chords", "Dm7 | G7 | Cmaj7 | %", "--tempo", 120, "--meter", "3/4", "--bars", 1,
            "--instrument", "electric piano", "-o", tmp_path / "a.wav")  # fmt: skip
    assert len(samples(tmp_path / "a.wav")) == pytest.approx(7.5 * RATE, abs=5)
    assert struct.unpack_from("<HHf", chunks(tmp_path / "a.wav")[b"acid"], 16) == (4, 3, 120.0)


def test_notes_beside_the_sound(tiny_run, clip, tmp_path):
    """The MIDI file begins where the WAV begins: its notes are all in the continuation, at the clip's tempo."""
    pytest.importorskip("onnxruntime", reason="the transcription needs onnxruntime (requirements-metrics.txt)")
    predict(tiny_run, clip, "-o", tmp_path / "a.wav", "--bars", 3, "--midi")
    song = pretty_midi.PrettyMIDI(str(tmp_path / "a.mid"))
    assert song.get_tempo_changes()[1][0] == pytest.approx(150, rel=1e-4)
    length = soundfile.info(tmp_path / "a.wav").duration
    notes = [note for instrument in song.instruments for note in instrument.notes]
    assert all(length - 3.6 - 0.05 <= note.start < note.end <= length + 0.15 for note in notes)


def test_notes_lie_on_the_sixteenths_of_the_prompts_bars(tmp_path):
    """Eighths by piano at 100, played 40 ms late behind a prompt of four bars and a sixteenth: all on the lines of the
    prompt's bars (2 ms: a MIDI file has ticks), with and without the prompt; raw, they are where they are heard. The
    tempo is in the file."""
    pytest.importorskip("onnxruntime", reason="the transcription needs onnxruntime (requirements-metrics.txt)")
    from meter import Meter
    from prompt import Prompt, load
    from takes import Take, Written, write_midi
    from transcription import Transcriber

    sixteenth, rate, transcriber = 0.15, 22050, Transcriber()
    song, piano = pretty_midi.PrettyMIDI(initial_tempo=100), pretty_midi.Instrument(0)
    pitches = (60, 64, 67, 72, 71, 67, 62, 65)
    for i, pitch in enumerate(pitches):
        piano.notes.append(pretty_midi.Note(90, pitch, 0.04 + 2 * i * sixteenth, 0.04 + (2 * i + 2) * sixteenth))
    song.instruments.append(piano)
    song.write(str(tmp_path / "eighths.mid"))
    played = load(tmp_path / "eighths.mid", rate).waveform
    n_prompt = round(65 * sixteenth * rate)

    def notes(name, with_prompt, raw):
        path, join = tmp_path / name, n_prompt if with_prompt else 0
        soundfile.write(path, np.concatenate([np.zeros(join), played]), rate)
        take = Take(path, Prompt("a", None, Meter(100, 4, 4), True, 4 * 2.4), None, 0.0)
        written = Written(take, join + len(played), len(played), join, n_prompt / rate)
        assert write_midi(written, transcriber, raw) == (not raw)
        made = pretty_midi.PrettyMIDI(str(path.with_suffix(".mid")))
        assert made.get_tempo_changes()[1][0] == pytest.approx(100, rel=1e-4)
        return [(n.start + (0 if with_prompt else n_prompt / rate), n.pitch) for n in made.instruments[0].notes]

    for with_prompt in (True, False):
        placed = notes("a.wav", with_prompt, False)
        starts = np.array([start for start, _ in placed]) / sixteenth
        assert np.abs(starts - np.round(starts)).max() < 0.002 / sixteenth
        assert {(round(start / sixteenth), pitch) for start, pitch in placed} >= {
            (65 + 2 * i, pitch) for i, pitch in enumerate(pitches)
        }
    heard = np.array([start for start, _ in notes("b.wav", True, True)]) / sixteenth
    assert np.abs(heard - np.round(heard)).max() > 0.02 / sixteenth


def test_notes_without_a_tempo_are_where_they_are_heard(tiny_run, tone, tmp_path):
    """A line says so, where they are asked for on the grid."""
    pytest.importorskip("onnxruntime", reason="the transcription needs onnxruntime (requirements-metrics.txt)")
    result = predict(tiny_run, tone, "-o", tmp_path / "a.wav", "--seconds", 1, "--midi")
    assert "a.mid: not on a grid, since no tempo is known; give it by --tempo" in result.stderr
    raw = predict(tiny_run, tone, "-o", tmp_path / "b.wav", "--seconds", 1, "--midi-raw")
    assert "not on a grid" not in raw.stderr and (tmp_path / "b.mid").exists()


def test_a_transcriber_that_is_missing_is_told_at_once(tiny_run, tone, tmp_path):
    (tmp_path / "hide").mkdir()
    (tmp_path / "hide" / "onnxruntime.py").write_text("raise ImportError")
    path = f"{tmp_path / 'hide'}:{ROOT}"
    result = run(
        "predict.py", tiny_run, tone, "--seconds", 9000, "-o", tmp_path / "a.wav", "--midi", env={"PYTHONPATH": path}
    )
    assert_one_line(result, "pip install")
    assert not (tmp_path / "a.wav").exists()


BAD = [
    (["PROMPT", "--bars", 0], "--bars 0"),
    (["PROMPT", "--frames", 5, "--fade", -1], "--fade"),
    (["PROMPT", "--frames", 5, "--fade", 9], "--fade 9"),
    (["PROMPT", "--frames", 5, "--rate", 3], "--rate 3"),
    (["PROMPT", "--frames", 5, "--tempo", 0], "--tempo 0"),
    (["PROMPT", "--frames", 5, "--meter", "4/5"], "--meter 4/5"),
    (["PROMPT", "--frames", 5, "--continuations", 0], "--continuations 0"),
    (["PROMPT", "--frames", 5, "--continuations", 65], "65"),
    (["PROMPT", "--frames", 5, "--from", 1, "--to", 1], "--to 1"),
    (["PROMPT", "--frames", 5, "--from", -1], "--from -1"),
    (["PROMPT", "--frames", 5, "--from", 3], "--from 3 is beyond"),
    (["SCORE", "--frames", 5, "--from", 3], "score"),
    (["PROMPT", "--bars", 2], "--tempo"),
    (["PROMPT", "--frames", 5, "--key", "C"], "--chords"),
    (["PROMPT", "--frames", 5, "--soundfont", "PROMPT"], "no soundfont"),
    (["PROMPT", "--frames", 5, "--soundfont", "no.sf2"], "no.sf2"),
    (["--frames", 5], "no prompt"),
    (["PROMPT", "SCORE", "--frames", 5], "folder"),
    (["--chords", "Dm7 | H7", "--frames", 5], "'H7' (bar 2, chord 1)"),
]


@pytest.mark.parametrize("words, named", BAD, ids=[" ".join(map(str, words)) for words, _ in BAD])
def test_bad_options_get_one_line(tiny_run, tone, tmp_path, words, named):
    words = [{"PROMPT": tone, "SCORE": PROMPT}.get(word, word) for word in words]
    assert_one_line(run("predict.py", tiny_run, *words, "-o", tmp_path / "out.wav"), named)
    assert not (tmp_path / "out.wav").exists() and not list(tmp_path.glob("*.tmp"))


@pytest.mark.parametrize(
    "output, words, named",
    [
        ("a.flac", ["--bits", 32], "--bits 32"),
        ("a.flac", ["--format", "wav"], "--format wav"),
        ("a", [], "OUT.wav"),
        ("a.mid", [], ".wav"),
    ],
)
def test_bad_formats_get_one_line(tiny_run, tone, tmp_path, output, words, named):
    result = run("predict.py", tiny_run, tone, "--frames", 5, "-o", tmp_path / output, *words)
    assert_one_line(result, named)
    assert [p.name for p in tmp_path.iterdir()] == ["tone.wav"]
