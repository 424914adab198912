"""The corpus of a base model: what its tables hold, what is made of packages and scores, and how it goes on."""

import csv
import hashlib
import io
import math
import re
import shutil
import subprocess
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile

from demo import base_corpus, catalogue, charts, packages, rendering
from demo.catalogue import recordings, scores, select
from demo.chorales import HELD_OUT
from prompt import general_midi

FREE = {"CC-BY-3.0", "CC-BY-4.0", "CC-BY-SA-3.0", "CC-BY-SA-4.0", "MIT", "public domain"}
MUSIC = "usr/share/game/music/"
needs_dpkg = pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="packages are built by dpkg-deb")

# What the tables hold.


def test_only_free_music_is_listed_and_what_models_are_judged_by_is_not():
    listed = recordings()
    text = catalogue.RECORDINGS_TABLE.read_text()
    assert {entry.licence for entry in listed} == FREE and "GPL" not in text
    for left_out in ("wesnoth", "drascula", "legacy_soundtrack", "original_soundtrack", "_fast"):
        assert left_out not in text
    assert any("aftermath_soundtrack" in part.path for entry in listed for part in entry.parts)
    assert all(entry.credit and entry.package in catalogue.PACKAGES and entry.seconds >= 30 for entry in listed)
    assert {entry.package for entry in listed} == set(catalogue.PACKAGES)
    sums = [part.sha256 for entry in listed for part in entry.parts]
    assert len(sums) == len(set(sums)) and all(re.fullmatch("[0-9a-f]{64}", one) for one in sums)
    stems = [entry for entry in listed if len(entry.parts) > 1]
    assert len(stems) == 8 and all(
        [Path(part.path).name for part in entry.parts] == ["guitar.ogg", "song.ogg"] for entry in stems
    )
    assert sum(entry.seconds for entry in listed) / 3600 > 15


def test_each_score_is_rendered_once_and_none_that_may_not_be_published():
    played = scores()
    names = [entry.file for entry in [*played, *recordings()]]
    assert len(names) == len(set(names)) and all(re.fullmatch(r"[a-z0-9-]+\.(ogg|opus)", name) for name in names)
    sources = [s for entry in played if entry.style != "accompaniment" for s in entry.sources]
    assert len(sources) == len(set(sources))
    assert not any(s.startswith(("palestrina", "essenFolksong")) or HELD_OUT in s for s in sources)
    # Movements of one work are one file, or they could be on both sides of the split.
    works = Counter(re.sub(r"/movement.*", "", s) for e in played if e.style == "chamber" for s in {e.sources[0]})
    assert max(works.values()) == 1
    assert all(20 <= entry.seconds <= 363 and entry.credit for entry in played)
    hours = Counter()
    for entry in played:
        hours[entry.style] += entry.seconds / 3600
    assert sum(hours.values()) > 10 and min(hours.values()) > 1
    by_piano = [
        e for e in played if e.style != "accompaniment" and rendering.ensemble_of(e.file[:-4], e.style) == "piano"
    ]
    assert 0.4 < sum(entry.seconds for entry in by_piano) / 3600 / sum(hours.values()) < 0.6


@pytest.mark.parametrize("hours", [1, 4, 13])
def test_fewer_hours_are_a_mix_in_the_same_proportions(hours):
    everything = [*recordings(), *scores()]
    whole = sum(entry.seconds for entry in everything)
    some = select(everything, 3600 * hours / whole)
    # Half a file of each style may be missing, or too much.
    assert sum(entry.seconds for entry in some) / 3600 == pytest.approx(hours, abs=0.25)
    wanted, got, longest = Counter(), Counter(), Counter()
    for entry in everything:
        wanted[entry.style] += entry.seconds * 3600 * hours / whole
        longest[entry.style] = max(longest[entry.style], entry.seconds)
    for entry in some:
        got[entry.style] += entry.seconds
    assert all(abs(got[style] - wanted[style]) <= longest[style] / 2 for style in wanted)
    assert set(some) <= set(select(everything, 3600 * (hours + 1) / whole))
    assert some == select(everything, 3600 * hours / whole)


def test_all_hours_are_all_files():
    assert len(select(recordings(), 1.0)) == len(recordings())


# What is made of packages.


def sine(frequency: float, seconds: float = 0.5) -> np.ndarray:
    """``[n_samples, 2]``"""
    t = np.arange(round(seconds * 44100)) / 44100
    return np.stack([0.3 * np.sin(2 * math.pi * frequency * t)] * 2, axis=1).astype(np.float32)


def build(folder: Path, package: str, files: dict[str, bytes], version: str = "1.0") -> Path:
    """A package made by dpkg-deb."""
    tree = folder / f"tree-{package}"
    (tree / "DEBIAN").mkdir(parents=True)
    control = (
        f"Package: {package}\nVersion: {version}\nArchitecture: all\nMaintainer: t <t@example.org>\nDescription: t\n"
    )
    (tree / "DEBIAN/control").write_text(control)
    for path, blob in files.items():
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).write_bytes(blob)
    out = folder / f"{package}_{version}_all.deb"
    subprocess.run(["dpkg-deb", "-Znone", "--root-owner-group", "--build", tree, out], check=True, capture_output=True)
    return out


@pytest.fixture
def debian(tmp_path, monkeypatch):
    """A folder of packages that a stub of apt-get "downloads" from; each call is a line in its file ``calls``."""
    archive = tmp_path / "archive"
    archive.mkdir()
    stub = tmp_path / "bin/apt-get"
    stub.parent.mkdir()
    stub.write_text(
        f'#!/bin/sh\nfor package; do :; done\necho "$package" >> {archive}/calls\n'
        f'cp {archive}/"$package"_*.deb . 2>/dev/null && exit 0\n'
        'echo "W: a warning" >&2\necho "E: Unable to locate package $package" >&2\nexit 100\n'
    )
    stub.chmod(0o755)
    monkeypatch.setenv("PATH", str(stub.parent), prepend=":")
    return archive


ROWS = ("a.ogg", "b.ogg", "zipped.ogg", "mixed.ogg", "other.ogg")


@pytest.fixture
def games(debian, tmp_path, monkeypatch):
    """Two packages, and a table of their five files: two copies, one out of an archive, a mix, one of the other."""
    song = {
        name: rendering.encoded(sine(f)) for name, f in (("a", 220), ("b", 330), ("z", 440), ("s", 550), ("g", 660))
    }
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w") as archive:
        archive.writestr("base/z.ogg", song["z"])
        archive.writestr("base/picture.png", b"no music")
    one = {f"{MUSIC}{name}.ogg": song[name] for name in "ab"}
    one |= {f"{MUSIC}data.pk3": zipped.getvalue(), f"{MUSIC}x/song.ogg": song["s"], f"{MUSIC}x/guitar.ogg": song["g"]}
    build(debian, "game-one", one)
    build(debian, "game-two", {f"{MUSIC}o.ogg": (other := rendering.encoded(sine(990)))})
    lines = [
        ("a.ogg", "game-one", f"{MUSIC}a.ogg", song["a"]),
        ("b.ogg", "game-one", f"{MUSIC}b.ogg", song["b"]),
        ("zipped.ogg", "game-one", f"{MUSIC}data.pk3//base/z.ogg", song["z"]),
        ("mixed.ogg", "game-one", f"{MUSIC}x/guitar.ogg", song["g"]),
        ("mixed.ogg", "game-one", f"{MUSIC}x/song.ogg", song["s"]),
        ("other.ogg", "game-two", f"{MUSIC}o.ogg", other),
    ]
    table = tmp_path / "recordings.csv"
    with table.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "package", "path", "seconds", "sha256", "licence", "credit"])
        for name, package, path, blob in lines:
            digest = hashlib.sha256(blob).hexdigest()
            writer.writerow([name, package, path, 0.5, digest, "MIT", f"Author of {name} | and others"])
    monkeypatch.setattr(catalogue, "RECORDINGS_TABLE", table)
    monkeypatch.setitem(catalogue.PACKAGES, "game-one", ("1.0", 1, "rock"))
    monkeypatch.setitem(catalogue.PACKAGES, "game-two", ("1.0", 1, "pop"))
    return song


def run(out: Path, *options) -> int:
    return base_corpus.main([str(out), *options])


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@needs_dpkg
def test_recordings_are_copied_mixed_and_credited(games, debian, tmp_path, capsys):
    out = tmp_path / "out"
    assert run(out, "--only", "recordings") == 0
    said = capsys.readouterr()
    assert names(out / "recordings") == sorted(ROWS) and names(out) == ["CREDITS.md", "recordings"]
    assert (out / "recordings/a.ogg").read_bytes() == games["a"]
    assert (out / "recordings/zipped.ogg").read_bytes() == games["z"]
    mixed, rate = soundfile.read(out / "recordings/mixed.ogg")
    both = sine(550) + sine(660)
    assert rate == 44100 and mixed.shape == both.shape
    assert np.abs(mixed - both)[2000:-2000].max() < 0.05  # what Vorbis changes
    credits = (out / "CREDITS.md").read_text()
    assert "CC-BY-SA-4.0" in credits
    for row in ROWS:
        line = next(line for line in credits.splitlines() if line.startswith(f"| {row} "))
        assert f"Author of {row} \\| and others" in line and "MIT" in line and "game-" in line
    assert "5 of 5 files" in said.out and "left" in said.err and "100 %" in said.err


@needs_dpkg
def test_a_file_of_another_version_is_left_out_with_a_line(games, debian, tmp_path, capsys):
    text = catalogue.RECORDINGS_TABLE.read_text()
    digest = hashlib.sha256(games["b"]).hexdigest()
    catalogue.RECORDINGS_TABLE.write_text(text.replace(digest, "0" * 64).replace("/o.ogg", "/gone.ogg"))
    out = tmp_path / "out"
    assert run(out, "--only", "recordings") == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("left out")]
    assert len(lines) == 2
    assert "b.ogg" in lines[0] and "another version" in lines[0] and "gone.ogg is not in" in lines[1]
    assert names(out / "recordings") == ["a.ogg", "mixed.ogg", "zipped.ogg"]
    assert "b.ogg" not in (out / "CREDITS.md").read_text()


@needs_dpkg
def test_a_package_that_cannot_be_had_is_one_line_and_a_status(games, debian, tmp_path, capsys):
    (debian / "game-one_1.0_all.deb").unlink()
    out = tmp_path / "out"
    assert run(out, "--only", "recordings") == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("demo.base_corpus: ")]
    assert len(lines) == 1 and "Unable to locate package game-one" in lines[0] and "apt-get update" in lines[0]
    assert names(out / "recordings") == ["other.ogg"]


@needs_dpkg
def test_it_goes_on_where_it_was_broken_off(games, debian, tmp_path, monkeypatch, capsys):
    out, written = tmp_path / "out", []
    write = base_corpus.write_atomic

    def interrupted(path, blob):
        if len(written) == 2:
            path.with_name(f"{path.name}.999999999.tmp").write_bytes(blob[:10])  # as a process that is killed leaves it
            raise KeyboardInterrupt
        write(path, blob)
        written.append(path.name)

    monkeypatch.setattr(base_corpus, "write_atomic", interrupted)
    assert run(out, "--only", "recordings") == 130
    said = capsys.readouterr().err.splitlines()
    assert said[-1] == "demo.base_corpus: interrupted; what is made stays; the same command goes on"
    assert len([name for name in names(out / "recordings") if name.endswith("ogg")]) == 2
    monkeypatch.setattr(base_corpus, "write_atomic", write)
    before = {name: (out / "recordings" / name).stat().st_mtime_ns for name in written}
    assert run(out, "--only", "recordings") == 0
    assert names(out / "recordings") == sorted(ROWS)  # nor anything half-written
    assert before == {name: (out / "recordings" / name).stat().st_mtime_ns for name in written}
    # A file that was cut off is made again, and only its package is fetched; then there is nothing to do.
    (out / "recordings/other.ogg").write_bytes(b"cut off")
    (debian / "calls").unlink()
    assert run(out, "--only", "recordings") == 0
    assert (debian / "calls").read_text() == "game-two\n"
    assert soundfile.info(out / "recordings/other.ogg").frames == 22050
    assert run(out, "--only", "recordings") == 0 and (debian / "calls").read_text() == "game-two\n"


@needs_dpkg
def test_packages_are_kept_where_they_are(games, debian, tmp_path):
    store = tmp_path / "store"
    assert run(tmp_path / "out", "--only", "recordings", "--packages", str(store)) == 0
    assert names(store) == ["game-one_1.0_all.deb", "game-two_1.0_all.deb"]
    calls = (debian / "calls").read_text()
    assert run(tmp_path / "again", "--only", "recordings", "--packages", str(store)) == 0
    assert (debian / "calls").read_text() == calls
    (store / "game-one_1.0_all.deb").write_bytes(b"half of it")
    assert run(tmp_path / "third", "--only", "recordings", "--packages", str(store)) == 1


@needs_dpkg
def test_a_full_disk_is_told_before_anything_is_downloaded(games, debian, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(2e6, 1e6, 1e6))
    assert run(tmp_path / "out", "--only", "recordings") == 1
    assert "are free; free some" in capsys.readouterr().err and not (debian / "calls").exists()


def test_of_several_versions_the_known_one_is_read(debian):
    for name in ("game_0.9_all.deb", "game_2%3a1.1_all.deb", "game_9_all.deb"):
        (debian / name).touch()
    assert packages.fetch("game", "2:1.1", debian).name == "game_2%3a1.1_all.deb"


def test_what_is_missing_is_one_line(tmp_path, monkeypatch, capsys):
    assert run(tmp_path / "out", "--hours", "0") == 1
    assert "above 0" in capsys.readouterr().err
    monkeypatch.setenv("PATH", str(tmp_path))
    assert run(tmp_path / "out", "--hours", "1") == 1
    assert capsys.readouterr().err.startswith("demo.base_corpus: apt-get is not installed; ")


# What is rendered.


def flux(waveform: np.ndarray, n_fft: int = 1024, hop: int = 441) -> np.ndarray:
    """How much louder the bins of each frame are than those before, by logarithm; frames are 10 ms apart."""
    frames = np.lib.stride_tricks.sliding_window_view(waveform.mean(axis=1), n_fft)[::hop] * np.hanning(n_fft)
    level = np.log1p(100 * np.abs(np.fft.rfft(frames)))
    return np.maximum(np.diff(level, axis=0), 0).sum(axis=1)


def test_a_score_sounds_where_its_notes_begin(monkeypatch):
    source = "ryansMammoth/AlbemarleHornpipe.abc"
    monkeypatch.setattr(rendering, "ensemble_of", lambda name, kind: "piano")
    performance = rendering.of_scores("tune-albemarle", "tune", [source])
    score = rendering.read_score(source)
    tempo = score.first.tempo * rendering.tempo_factor(source, "tune", score.first.tempo)
    assert rendering.TEMPOS["tune"][0] <= tempo <= rendering.TEMPOS["tune"][1]
    assert [note.pitch for note in performance.notes] == [note.pitch for note in score.notes]
    sixteenth = 15 / tempo
    onsets = np.array(sorted({note.onset for note in performance.notes}))
    assert np.abs(onsets / sixteenth - np.round(onsets / sixteenth)).max() < 0.34  # its triplets are off the grid
    waveform = rendering.sound(performance, general_midi())
    assert len(waveform) == pytest.approx((performance.end + rendering.RELEASE) * 44100, abs=2)
    blob = rendering.encoded(waveform)
    heard, rate = soundfile.read(io.BytesIO(blob))
    assert rate == 44100 and heard.shape == waveform.shape
    assert 0.05 < np.abs(heard).max() < 0.95
    assert np.sqrt((waveform**2).mean()) == pytest.approx(0.1, rel=0.02) or np.abs(waveform).max() > 0.83
    assert np.abs(heard[-441:]).max() < 2e-3
    rise = flux(heard)
    frames = np.round(onsets[1:] * 100).astype(int)
    near = np.array([rise[max(0, i - 4) : i + 4].max() for i in frames])
    rest = np.delete(rise, np.unique(np.clip(frames[:, None] + np.arange(-5, 7), 0, len(rise) - 1)))
    assert (near > 2 * np.median(rest)).mean() > 0.95 and len(frames) > 100


def test_movements_share_a_file_and_each_part_has_its_place():
    voices = rendering.read_score("bach/bwv269.mxl")
    quartet = rendering.played(voices, 1.0, rendering.ENSEMBLES["string quartet"])
    assert [i.program for i in quartet.instruments] == [40, 40, 41, 42]
    pans = [change.value for change in quartet.changes]
    assert pans == sorted(pans) and pans[0] < 64 < pans[-1]
    both = rendering.joined([quartet, quartet], longest=60.0)
    share = (60.0 - rendering.PAUSE) / 2
    assert both.end <= 60.0 + 1e-9 and max(note.instrument for note in both.notes) == 7
    second = min(note.onset for note in both.notes if note.instrument > 3)
    assert second == pytest.approx(min(quartet.end, share) + rendering.PAUSE)
    fast = rendering.played(voices, 2.0, (0,))
    assert fast.end == pytest.approx(quartet.end / 2) and len(fast.notes) == len(voices.notes)


def test_charts_differ_in_key_tempo_and_form():
    keys, tempos = set(), set()
    for i in range(40):
        text = charts.chart(f"piece {i}", "stdlib/waltz.mma", "WALTZINTRO", "WALTZ", "WALTZSUS", "WALTZEND", 3)
        assert text == charts.chart(f"piece {i}", "stdlib/waltz.mma", "WALTZINTRO", "WALTZ", "WALTZSUS", "WALTZEND", 3)
        tempos.add(tempo := int(re.search(r"Tempo (\d+)", text)[1]))
        keys.add(re.search(r"KeySig (\w+)", text)[1])
        bars = re.findall(r"(?m)^(\d+) ((?:[A-G]b?(?:m|7|m7|maj7|m6|dim|m7b5)?)(?: / [A-G]\S* /)?)$", text)
        assert 96 <= tempo <= 150 and [int(number) for number, _ in bars] == list(range(1, len(bars) + 1))
        assert 80 - 1 <= len(bars) * 3 * 60 / tempo <= 200 and "/" not in bars[0][1]
    assert len(keys) > 6 and len(tempos) > 12


@needs_dpkg
def test_scores_and_accompaniments_are_rendered(debian, tmp_path, monkeypatch, capsys):
    """With packages of the right names: a small soundfont, and an accompanist that knows one song."""
    build(debian, base_corpus.FONT_PACKAGE, {base_corpus.FONT_PATH: Path(general_midi()).read_bytes()})
    midi = _midi()
    program = f"import sys\nif '-G' in sys.argv: sys.exit()\nopen(sys.argv[3], 'wb').write({midi!r})\n"
    build(debian, "mma", {"usr/bin/mma": program.encode(), "usr/bin/mma-gb": b"", "usr/share/mma/lib/x.mma": b""})
    table = tmp_path / "scores.csv"
    table.write_text(
        "file,style,seconds,sources,credit\n"
        "tune-one.ogg,tune,30,ryansMammoth/AlbemarleHornpipe.abc,a tune\n"
        "tune-none.ogg,tune,30,ryansMammoth/None.abc,no tune\n"
        "accompaniment-x.ogg,accompaniment,9,stdlib/x.mma - X X - 4,a chart\n"
    )
    monkeypatch.setattr(catalogue, "SCORES_TABLE", table)
    out = tmp_path / "out"
    assert run(out, "--only", "rendered") == 1  # of the one that is not there
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("demo.base_corpus: ")]
    assert len(lines) == 1 and "tune-none.ogg" in lines[0]
    assert names(out / "rendered") == ["accompaniment-x.ogg", "tune-one.ogg"]
    for name in names(out / "rendered"):
        heard, rate = soundfile.read(out / "rendered" / name)
        assert rate == 44100 and heard.shape[1] == 2 and 0.05 < np.abs(heard).max() < 0.95
    credits = (out / "CREDITS.md").read_text()
    assert "| tune-one.ogg | a tune | ryansMammoth/AlbemarleHornpipe.abc |" in credits
    assert "FluidR3" in credits and "TinySoundFont" in credits and "Bob van der Poel" in credits


def _midi() -> bytes:
    """Four notes of a piano."""
    import pretty_midi

    song = pretty_midi.PrettyMIDI()
    piano = pretty_midi.Instrument(0)
    piano.notes = [pretty_midi.Note(90, 60 + 2 * i, i, i + 1.0) for i in range(4)]
    song.instruments.append(piano)
    blob = io.BytesIO()
    song.write(blob)
    return blob.getvalue()
