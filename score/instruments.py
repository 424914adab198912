"""Which General MIDI sound an instrument has, from what the part list says of it."""

from __future__ import annotations

from functools import cache

from score.sheet import Sound

CHOIR = 52  # "choir aahs", as MuseScore plays voices
BASS_GUITAR = 33
PIZZICATO = 45
STRINGS = frozenset(range(40, 52))  # programs that can be plucked
_VOICES = {"soprano", "alto", "tenor", "baritone", "cantus", "superius", "voice", "discantus", "altus"}
# Where a five-line drum stave shows what; A Guide to Standardized Drumset Notation (Weinberg 1998) as far as it goes.
_DRUM_STAVE = {
    "D4": 44, "E4": 36, "F4": 36, "G4": 41, "A4": 43, "B4": 45, "C5": 38, "D5": 47, "E5": 48, "F5": 51, "G5": 42,
    "A5": 49, "B5": 57,
}  # fmt: skip


def number(element, path: str, low: float, high: float) -> float | None:
    """The number in a child element; None where there is none, or one that cannot be (some write 0 for none)."""
    try:
        value = float(element.findtext(path, ""))
    except ValueError:
        return None
    return value if low <= value <= high else None


def sounds_of(part, names: set[str]) -> dict[str, Sound]:
    """The instruments of one ``<score-part>``, by id.

    The order of what is believed: midi-program (and channel 10 for drums), instrument-sound, the names of the
    instrument and of the part (by music21, in English, German, French, Italian, Spanish and Russian), piano.

    Args:
        names: lower-case names of all parts: a bass among singers sings, alone it is a bass guitar.
    """
    out: dict[str, Sound] = {}
    part_names = [part.findtext("part-name", ""), part.findtext("part-abbreviation", "")]
    for instrument in part.findall("score-instrument") or [part]:
        key = "" if instrument is part else instrument.get("id", "")
        said = [instrument.findtext("instrument-sound", "").replace(".", " ")]
        said += [instrument.findtext("instrument-name", ""), *part_names]
        midis = part.findall("midi-instrument")
        midi = next((m for m in midis if m.get("id") == key), None) if key else next(iter(midis), None)
        out[key] = _sound(midi, said, names)
    return out


def _sound(midi, said: list[str], names: set[str]) -> Sound:
    sound = Sound()
    channel = program = None
    if midi is not None:
        channel, program = number(midi, "midi-channel", 1, 16), number(midi, "midi-program", 1, 128)
        bank, key = number(midi, "midi-bank", 1, 16384), number(midi, "midi-unpitched", 1, 128)
        volume, pan = number(midi, "volume", 0, 100), number(midi, "pan", -180, 180)
        sound.bank = 0 if bank is None else int(bank) - 1
        sound.key = None if key is None else int(key) - 1
        # 100 % is the loudest that a controller of 0 to 127 can say; pan 90 degrees is hard right.
        sound.volume = None if volume is None else round(1.27 * volume)
        sound.pan = None if pan is None else round(64 + 63 * max(-90, min(90, pan)) / 90)
    if program is not None:
        sound.program = int(program) - 1
        sound.drums = channel == 10 or (channel is None and sound.key is not None)
    elif channel == 10:
        sound.drums = True
    else:
        found = next((known for name in said if (known := by_name(name)) is not None), None)
        if found is not None:
            sound.program, sound.drums, key = found
            sound.key = key if sound.key is None else sound.key
        if "bass" in {name.strip().lower() for name in said[1:]} and not names & _VOICES:
            sound.program = BASS_GUITAR
    return sound


@cache
def by_name(name: str) -> tuple[int, bool, int | None] | None:
    """Program, whether it is drums, and which drum, of an instrument's name; None for a name that tells nothing."""
    name = name.strip()
    # music21 tries every run of words: a sentence would take it long.
    if not name or len(name) > 60:
        return None
    from music21 import instrument

    low = name.lower()
    if any(word in low for word in ("drumset", "drum set", "drum kit", "drumkit", "drums", "percussion")):
        return 0, True, None
    try:
        found = instrument.fromString(name)
    except Exception:  # it raises several kinds on odd names; a name is no reason to refuse a score
        return (CHOIR, False, None) if low.split()[0] in _VOICES else None
    if isinstance(found, instrument.Vocalist | instrument.Choir):
        return CHOIR, False, None
    if isinstance(found, instrument.UnpitchedPercussion):
        return 0, True, getattr(found, "percMapPitch", None)
    return (int(found.midiProgram), False, None) if found.midiProgram is not None else None


def drum_at(step: str, octave: str) -> int:
    """The General MIDI key of a drum by its place on the stave; a side stick for places that have none."""
    return _DRUM_STAVE.get(f"{step}{octave}", 37)
