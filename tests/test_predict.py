"""predict.py from the outside: prompts, output, bad input."""

import contextlib
import io
import os
import signal
import subprocess
import sys
import zipfile

import numpy as np
import psutil
import pytest
import soundfile

from checkpoint import load_run, new_metadata, write_metadata
from conftest import PROMPT, ROOT, assert_one_line, chord, run, start_training, tiny_config, wait_for
from run_folder import lock_run

RATE = 8000
NOTE = "<note><pitch><step>{}</step><octave>4</octave></pitch><duration>{}</duration><type>quarter</type></note>"
REST = "<note><rest/><duration>4</duration></note>"


def musicxml(notes: str, head: str = "") -> str:
    """One part of one measure, 4/4, quarter = 1 division."""
    return (
        f'<?xml version="1.0" encoding="UTF-8"?>{head}<score-partwise version="4.0"><part-list><score-part id="P1">'
        '<part-name>Piano</part-name></score-part></part-list><part id="P1"><measure number="1"><attributes>'
        "<divisions>1</divisions><time><beats>4</beats><beat-type>4</beat-type></time></attributes>"
        f"{notes}</measure></part></score-partwise>"
    )


SCALE = musicxml("".join(NOTE.format(step, 1) for step in "CDEF"))


def predict(metadata, prompt, out, *arguments, **keywords):
    return run("predict.py", metadata, prompt, "-o", out, *arguments, **keywords)


def container(score: str, path: str = "score.xml") -> bytes:
    """A compressed score (.mxl)."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(
            "META-INF/container.xml",
            f'<?xml version="1.0"?><container><rootfiles><rootfile full-path="{path}"/></rootfiles></container>',
        )
        archive.writestr(path, score)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def prompts(tmp_path_factory):
    """The same scale as plain and compressed MusicXML and as MIDI."""
    import mido

    folder = tmp_path_factory.mktemp("prompts")
    (folder / "scale.musicxml").write_text(SCALE)
    (folder / "scale.xml").write_bytes(SCALE.replace("UTF-8", "UTF-16").encode("utf-16"))
    (folder / "scale.mxl").write_bytes(container(SCALE))
    quarters = [
        mido.Message(kind, note=p, time=t) for p in (60, 62, 64, 65) for kind, t in (("note_on", 0), ("note_off", 480))
    ]
    mido.MidiFile(tracks=[mido.MidiTrack(quarters)], ticks_per_beat=480).save(folder / "scale.mid")
    return folder


@pytest.mark.parametrize("name", ["scale.musicxml", "scale.xml", "scale.mxl", "scale.mid"])
def test_scores_sound_at_their_pitches(prompts, name):
    """Four quarters at 120 a minute: 2 s, and each note's fundamental is the strongest of the scale."""
    from prompt import load_prompt

    waveform = load_prompt(prompts / name, 22050)
    assert len(waveform) == pytest.approx(2 * 22050, abs=10)
    for i, frequency in enumerate((261.63, 293.66, 329.63, 349.23)):
        part = waveform[i * 11025 + 1000 : i * 11025 + 9000]
        t = np.arange(len(part)) / 22050
        levels = {f: abs((part * np.exp(-2j * np.pi * f * t)).sum()) for f in (261.63, 293.66, 329.63, 349.23)}
        assert max(levels, key=levels.get) == frequency


def test_output_is_the_prompt_and_n_frames_more(tiny_run, tone, tmp_path):
    """The prompt at the corpus' level, then N hops; 24 bits at the model's rate; no clipping."""
    out = tmp_path / "o.wav"
    result = predict(tiny_run, tone, out, "--frames", 50, "--picture")
    assert result.returncode == 0, result.stderr
    waveform, rate = soundfile.read(out, dtype="float32")
    info = soundfile.info(out)
    assert (rate, info.channels, info.subtype) == (RATE, 1, "PCM_24")
    assert len(waveform) == 2 * RATE + 50 * 128
    level = load_run(tiny_run)[1].info["level"]
    assert abs(waveform).max() < 1
    prompt = waveform[: 2 * RATE - 256]
    import soxr

    original = soxr.resample(chord(2.0, 22050), 22050, RATE)[: len(prompt)]
    gain = float((prompt * original).sum() / (original**2).sum())
    np.testing.assert_allclose(prompt, gain * original, atol=2e-3)
    if abs(waveform).max() < 0.98:
        rms = np.sqrt((waveform[: 2 * RATE] ** 2).mean())
        assert rms == pytest.approx(level, rel=0.05)
    assert (tmp_path / "o.png").read_bytes().startswith(b"\x89PNG")


def test_same_seed_same_bytes(tiny_run, tone, tmp_path):
    outs = [tmp_path / f"{i}.wav" for i in range(3)]
    for out, seed in zip(outs, (4, 4, 5), strict=True):
        assert predict(tiny_run, tone, out, "--frames", 40, "--seed", seed).returncode == 0
    one, again, other = (out.read_bytes() for out in outs)
    assert one == again != other


def test_only_new_is_the_rest_of_the_whole(tiny_run, tone, tmp_path):
    assert predict(tiny_run, tone, tmp_path / "a.wav", "--frames", 40).returncode == 0
    assert predict(tiny_run, tone, tmp_path / "b.wav", "--frames", 40, "--only-new").returncode == 0
    whole, new = (soundfile.read(tmp_path / name, dtype="int32")[0] for name in ("a.wav", "b.wav"))
    assert np.array_equal(whole[-40 * 128 :], new)


def test_seconds_and_temperature(tiny_run, tone, tmp_path):
    result = predict(tiny_run, tone, tmp_path / "a.wav", "--seconds", 1.6, "--temperature", 0)
    assert result.returncode == 0 and "100 frames" not in result.stdout
    assert soundfile.info(tmp_path / "a.wav").frames == 2 * RATE + 100 * 128


@pytest.mark.parametrize("seconds", [0.001, 1.0, 1.61])
def test_seconds_are_kept_to_the_sample(tiny_run, tone, tmp_path, seconds):
    """Whatever the frames (16 ms here) are."""
    assert predict(tiny_run, tone, tmp_path / "a.wav", "--seconds", seconds, "--only-new").returncode == 0
    assert soundfile.info(tmp_path / "a.wav").frames == round(seconds * RATE)


def test_score_prompt_end_to_end(tiny_run, tmp_path):
    result = predict(tiny_run, PROMPT, tmp_path / "a.wav", "--seconds", 2)
    assert result.returncode == 0, result.stderr
    assert soundfile.info(tmp_path / "a.wav").duration > 20


def test_without_a_length_it_is_ten_seconds(tiny_run, tone, tmp_path):
    """And a young state is announced as one."""
    result = predict(tiny_run, tone, tmp_path / "a.wav")
    assert result.returncode == 0 and "10.0 s of them new" in result.stdout, result.stderr
    assert soundfile.info(tmp_path / "a.wav").frames == 12 * RATE
    young = "note: step 12 is young: it needs about 300 steps to be music; train on, or try again later"
    assert [line for line in result.stderr.splitlines() if "young" in line] == [young]


def test_a_state_is_young_below_300_steps():
    from config import is_young

    assert is_young(0) and is_young(299) and not is_young(300)


def test_before_the_first_save_it_says_when_that_will_be(tone, tmp_path):
    """While the run is held: first without its metadata, then without its state. Afterwards it is to be started."""
    (tmp_path / "m").mkdir()
    with lock_run(tmp_path / "m" / "lock"):
        result = run("predict.py", tmp_path / "m.json", tone)
        assert_one_line(result, "m.json", "training reads its recordings", "half a minute after the first step")
        write_metadata(new_metadata(tmp_path / "m.json", tiny_config()))
        result = run("predict.py", tmp_path / "m.json", tone)
        assert_one_line(result, "state.safetensors", "training runs", "half a minute after the first step")
    assert_one_line(run("predict.py", tmp_path / "m.json", tone), "no state yet", "start train.py")
    (tmp_path / "m.json").unlink()
    assert_one_line(run("predict.py", tmp_path / "m.json", tone), "train first")


def test_default_name_is_beside_you_and_never_overwrites(tiny_run, tone, tmp_path):
    for expected in (0, 1):
        result = run("predict.py", tiny_run, tone, "--frames", 5, cwd=tmp_path)
        assert result.returncode == expected
    assert_one_line(result, "tone-next.wav", "--force")
    before = (tmp_path / "tone-next.wav").read_bytes()
    assert run("predict.py", tiny_run, tone, "--frames", 6, "--force", cwd=tmp_path).returncode == 0
    assert (tmp_path / "tone-next.wav").read_bytes() != before


def test_newest_state_while_training_runs(recordings, tone, tmp_path):
    """Another process saves without pause: every answer is by a complete, ever newer state."""
    metadata = tmp_path / "m.json"
    process = start_training(recordings, metadata, "--minutes", 60, "--save-every", 0.01, "--no-preview")
    try:
        wait_for((tmp_path / "m" / "state.safetensors").exists)
        steps = []
        for i in range(3):
            result = predict(metadata, tone, tmp_path / f"{i}.wav", "--frames", 20)
            assert result.returncode == 0, result.stderr
            steps.append(int(result.stdout.split("by step ")[1].split(",")[0]))
            wait_for(lambda: load_run(metadata)[1].info["step"] > steps[-1])
    finally:
        process.kill()
        process.communicate()
    assert steps[0] < steps[1] < steps[2]


def bad_prompt(case, folder):
    """A prompt that cannot be played, and words that its line must have."""
    path = folder / "prompt.musicxml"
    if case == "missing":
        return folder / "nowhere.mid", ["no such file"]
    if case == "folder":
        return folder, ["not a file"]
    text, words = {
        "empty file": ("", ["empty"]),
        "no score": ("hello", ["a text file"]),
        "html": ("<html/>", ["not MusicXML"]),
        "no notes": (musicxml(""), ["no notes"]),
        "rests only": (musicxml(REST * 3), ["no notes"]),
        "broken": (SCALE[:-40], ["not XML"]),
        "too many notes": (musicxml(NOTE.format("C", 1) * 100_000), ["100000 notes", "shorten"]),
        "xml bomb": (
            musicxml(
                "&f;",
                '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa">'
                + "".join(f'<!ENTITY {b} "{("&" + a + ";") * 10}">' for a, b in zip("abcde", "bcdef", strict=True))
                + "]>",
            ),
            ["entities"],
        ),
        "external entity": (musicxml("&e;", '<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]>'), ["entities"]),
        "endless note": (musicxml(NOTE.format("C", 10**12).replace("quarter", "")), ["1e+12 quarters"]),
    }.get(case, (None, None))
    if text is not None:
        path.write_text(text)
        return path, words
    path = folder / {"midi": "x.mid", "zip": "x.mxl", "audio": "x.wav"}[case.split()[0]]
    blob, words = {
        "midi that is none": (b"RIFFxxxx", ["not"]),
        "midi truncated": (b"MThd\0\0\0\6\0\1\0\1\1\xe0MTrk\0\0\xff\xff", [""]),
        "midi without notes": (b"MThd\0\0\0\6\0\0\0\1\1\xe0MTrk\0\0\0\4\0\xff\x2f\0", ["no notes"]),
        "zip that is none": (b"PK\3\4" + b"x" * 50, ["compressed"]),
        "zip bomb": (container(" " * (64 << 20)), ["zip bomb"]),
        "zip without score": (container("x", "score.txt"), ["not XML"]),
        "audio that is none": (b"hello" * 20, ["not an audio file"]),
        "audio empty": (b"", ["empty"]),
    }.get(case, (None, None))
    if blob is not None:
        path.write_bytes(blob)
        return path, words
    wave = {"audio silent": np.zeros(RATE), "audio nan": np.full(RATE, np.nan)}[case]
    soundfile.write(path, wave, RATE, subtype="FLOAT")
    return path, ["silent" if case == "audio silent" else "not finite"]


@pytest.mark.parametrize(
    "case",
    [
        "missing",
        "folder",
        "empty file",
        "no score",
        "html",
        "no notes",
        "rests only",
        "broken",
        "too many notes",
        "xml bomb",
        "external entity",
        "endless note",
        "midi that is none",
        "midi truncated",
        "midi without notes",
        "zip that is none",
        "zip bomb",
        "zip without score",
        "audio that is none",
        "audio empty",
        "audio silent",
        "audio nan",
    ],
)
def test_bad_prompts_get_one_line(tiny_run, tmp_path, case):
    """One line that names the file, and nothing is written."""
    path, words = bad_prompt(case, tmp_path)
    result = predict(tiny_run, path, tmp_path / "out.wav", "--frames", 10, timeout=60)
    assert_one_line(result, str(path), *words)
    assert not (tmp_path / "out.wav").exists() and not list(tmp_path.glob("*.tmp"))


@pytest.mark.parametrize(
    "words, named",
    [
        (["--frames", 0], "--frames 0"),
        (["--frames", -3], "--frames -3"),
        (["--frames", 10**12], "--frames 10000"),
        (["--seconds", 0], "--seconds 0"),
        (["--seconds", "nan"], "--seconds nan"),
        (["--seconds", 1e9], "--seconds"),
        (["--frames", 5, "--temperature", -1], "--temperature"),
        (["--frames", 5, "--top-k", 40], "--top-k"),
        (["--frames", 5, "--seed", -1], "--seed"),
        (["--frames", 5, "--threads", 0], "--threads"),
    ],
)
def test_bad_numbers_get_one_line(tiny_run, tone, tmp_path, words, named):
    assert_one_line(predict(tiny_run, tone, tmp_path / "out.wav", *words), named)
    assert not (tmp_path / "out.wav").exists()


@pytest.mark.parametrize(
    "case",
    [
        "exists",
        "no folder",
        "folder",
        "not wav",
        "the prompt",
        "missing metadata",
        "foreign metadata",
        "newer metadata",
        "no state",
        "damaged state",
        "foreign state",
        "state of another run",
    ],
)
def test_bad_files_get_one_line(tiny_run, tone, tmp_path, case):
    import json
    import shutil

    metadata, out, words, prompt = tmp_path / "tiny.json", tmp_path / "out.wav", [], tone
    shutil.copy(tiny_run, metadata)
    shutil.copytree(tiny_run.parent / "tiny", tmp_path / "tiny")
    state = tmp_path / "tiny" / "state.safetensors"
    if case == "exists":
        out.write_text("mine")
        words = [str(out), "--force"]
    elif case == "no folder":
        out, words = tmp_path / "nowhere" / "out.wav", ["nowhere", "make it"]
    elif case == "folder":
        out.mkdir()
        words = [str(out), "folder"]
    elif case == "not wav":
        out, words = tmp_path / "out.ogg", ["out.ogg", ".wav"]
    elif case == "the prompt":
        out, words = tone, [str(tone)]
    elif case == "missing metadata":
        metadata.unlink()
        words = [str(metadata), "train"]
    elif case == "foreign metadata":
        metadata.write_text('{"a": 1}')
        words = [str(metadata), "not a metadata file"]
    elif case == "newer metadata":
        metadata.write_text(json.dumps({**json.loads(metadata.read_text()), "format_version": 99}))
        words = [str(metadata), "newer"]
    elif case == "no state":
        state.unlink()
        words = [str(state), "no state yet"]
    elif case == "damaged state":
        blob = bytearray(state.read_bytes())
        blob[len(blob) // 3] ^= 4
        state.write_bytes(blob)
        words = [str(state), "damaged"]
    elif case == "foreign state":
        state.write_bytes(b"PK\3\4 something else")
        words = [str(state)]
    else:
        from checkpoint import save_state

        save_state(state, {}, {"config": {}})
        words = [str(state), "belong"]
    result = predict(metadata, prompt, out, "--frames", 5)
    assert_one_line(result, *words)
    if case == "exists":
        assert out.read_text() == "mine"


def test_disk_full_leaves_nothing_half_written(tiny_run, tone, tmp_path):
    def full():
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))

    result = predict(tiny_run, tone, tmp_path / "out.wav", "--frames", 50, preexec_fn=full)
    assert_one_line(result, "out.wav", "disk space")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["tone.wav"]


def test_a_slow_score_is_given_up(prompts, monkeypatch):
    """Time is bounded whatever the score does."""
    import prompt as module
    from errors import UserError

    monkeypatch.setattr(module, "SCORE_TIMEOUT", 0.01)
    with pytest.raises(UserError, match="takes more than"):
        module.load_prompt(prompts / "scale.mxl", RATE)


# Lowers the limit of processor time to 4 s, and does something before the score is read.
LOWER = """
import resource, sys, time
set_limit = resource.setrlimit

def lower(what, limits):
    if what != resource.RLIMIT_CPU:
        return set_limit(what, limits)
    assert limits == (30, 30)
    set_limit(what, (4, 4))
    {}

if sys.orig_argv[-7:-5] == ["-m", "score"]:
    resource.setrlimit = lower
"""


@pytest.mark.parametrize("before, played", [("time.sleep(5)", True), ("while True: pass", False)])
def test_the_limit_of_a_score_is_processor_time(prompts, tmp_path, monkeypatch, before, played):
    """The real child: one that waits for longer than the limit is waited for, one that works for longer is ended."""
    import prompt as module
    from errors import UserError
    from score.__main__ import MAX_CPU_SECONDS

    (tmp_path / "sitecustomize.py").write_text(LOWER.format(before))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    if played:
        assert len(module.load_prompt(prompts / "scale.mid", RATE)) == pytest.approx(2 * RATE, abs=10)
    else:
        with pytest.raises(UserError, match="more time or memory than a score may; shorten it"):
            module.load_prompt(prompts / "scale.mid", RATE)
    assert module.SCORE_TIMEOUT >= 20 * MAX_CPU_SECONDS  # by the clock, which a loaded machine spends on others


def test_a_player_that_is_missing_is_told(prompts, tmp_path, monkeypatch):
    """As after ``pip install -e .`` alone."""
    from errors import UserError
    from prompt import load_prompt

    (tmp_path / "tinysoundfont.py").write_text("raise ImportError")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(UserError) as error:
        load_prompt(prompts / "scale.mid", RATE)
    assert "pip install --no-deps -r requirements-nodeps.txt" in str(error.value) and "\n" not in str(error.value)


def test_where_bars_go_on(tmp_path):
    """A bar line at the end of the prompt, in seconds: of a score that changes its tempo and ends with a rest, of a
    MIDI clip that ends before its bar does, of chords; of a recording nobody knows."""
    import mido

    from meter import Meter
    from prompt import load, load_chords

    slower = '<direction><sound tempo="{}"/></direction>'
    rest = REST.replace("4", "1")
    notes = slower.format(120) + NOTE.format("C", 1) * 2 + slower.format(80) + NOTE.format("C", 1) + rest
    (tmp_path / "a.musicxml").write_text(musicxml(notes))
    score = load(tmp_path / "a.musicxml", RATE)
    assert score.line == pytest.approx(2 * 0.5 + 2 * 0.75) and score.meter == Meter(80, 4, 4)
    assert len(score.waveform) == pytest.approx((score.line - 0.75) * RATE, abs=10)
    track = mido.MidiTrack([mido.MetaMessage("time_signature", numerator=3, denominator=4)])
    for pitch, tempo in ((60, 500_000), (62, 600_000)):
        track.append(mido.MetaMessage("set_tempo", tempo=tempo))
        track += [mido.Message("note_on", note=pitch), mido.Message("note_off", note=pitch, time=480 * 2)]
    mido.MidiFile(tracks=[track], ticks_per_beat=480).save(tmp_path / "a.mid")
    assert load(tmp_path / "a.mid", RATE).line == pytest.approx(2 * 0.5 + 4 * 0.6)
    assert load_chords("C | F", Meter(120, 4, 4), None, None, RATE).line == 0.0
    soundfile.write(tmp_path / "a.wav", chord(1.0, RATE), RATE)
    assert load(tmp_path / "a.wav", RATE).line is None


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_what_plays_a_score_ends_with_the_command(tiny_run, tmp_path, number):
    """The child is stopped, so that it would be waited for: it is ended at once, and nothing is left."""
    command = [sys.executable, ROOT / "predict.py", tiny_run, PROMPT, "--seconds", "1", "-o", tmp_path / "a.wav"]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, env=environment)
    children = []
    try:
        parent = psutil.Process(process.pid)
        wait_for(lambda: process.poll() is not None or children.extend(parent.children()) or children)
        children[0].suspend()
        process.send_signal(number)
        _, stderr = process.communicate(timeout=60)
    finally:
        process.kill()
        for child in children:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
    assert process.returncode == 130 and stderr.splitlines()[-1].startswith("predict.py: interrupted"), stderr
    assert "Traceback" not in stderr and not children[0].is_running() and not list(tmp_path.iterdir())


def test_the_prompt_folder_stays_clean(prompts):
    """No cache, no converted score beside the user's file."""
    from prompt import load_prompt

    before = sorted(prompts.iterdir())
    load_prompt(prompts / "scale.mxl", RATE)
    assert sorted(prompts.iterdir()) == before


def test_the_trained_model_of_the_repository(tmp_path):
    """At most 17 MB. It goes on for 10 s: each second within 20 dB of the prompt's level, tonal (spectral flatness
    below -15 dB; white noise has 0), and no two seconds alike by more than 0.999."""
    import metrics

    metadata, state = load_run(ROOT / "metadata" / "chorales.json")
    assert metadata.resolve("state").stat().st_size <= 17e6 and not state.group("optimizer")
    out = tmp_path / "bach.wav"
    result = predict(ROOT / "metadata" / "chorales.json", PROMPT, out, "--seconds", 10)
    assert result.returncode == 0, result.stderr
    waveform, rate = soundfile.read(out)
    new, prompt = waveform[-10 * rate :], waveform[: -10 * rate]
    figures = metrics.spectral_figures(new, rate)
    assert abs(figures["loudness"] - 10 * np.log10(np.square(prompt).mean())).max() < 20
    assert figures["flatness"].max() < -15
    assert metrics.movement(new, rate)["second_correlation"].max() < 0.999
