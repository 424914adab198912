"""Which General MIDI sound an instrument has, from what the part list says of it."""

from __future__ import annotations

from collections.abc import Iterator

from score.instrument_names import Known, by_name
from score.notations import STEPS
from score.sheet import Sound
from score.standard_sounds import by_sound

_BASS_GUITAR = 33
PIZZICATO = 45
STRINGS = frozenset(range(40, 52))  # programs that can be plucked
_VOICES = {"soprano", "alto", "tenor", "baritone", "cantus", "superius", "voice", "discantus", "altus"}
# Which General MIDI keys stand where on a five-line drum stave, the usual one first: MuseScore's drumset, which follows
# A Guide to Standardized Drumset Notation (Weinberg 1998).
_DRUM_STAVE = {
    "normal": {
        "D4": (44,), "E4": (36, 35), "F4": (36, 35), "G4": (41, 43), "A4": (43, 41), "B4": (45,), "C5": (38, 40),
        "D5": (47, 45), "E5": (48, 47, 50), "F5": (50, 48), "G5": (42, 46), "A5": (49, 57), "B5": (57, 52, 55),
    },
    "cross": {
        "D4": (44,), "F4": (44,), "C5": (37,), "D5": (59, 51), "E5": (46, 51), "F5": (51, 59), "G5": (42, 46),
        "A5": (49, 57), "B5": (57, 52, 55), "C6": (52, 55, 57),
    },
    "circle": {"F5": (51,), "G5": (46, 42), "A5": (52, 49), "B5": (55, 52)},
    "diamond": {"D5": (54,), "F5": (53,), "G5": (46,)},
    "triangle": {"E5": (56,), "F5": (53,), "G5": (56,), "A5": (81,)},
}  # fmt: skip
_HEADS = {"x": "cross", "cross": "cross", "circle-x": "circle", "diamond": "diamond"}
_HEADS |= {"triangle": "triangle", "inverted triangle": "triangle"}
_PAIRS = ((60, 61), (63, 64), (65, 66), (67, 68), (76, 77))  # bongos, congas, timbales, agogos, wood blocks: high, low
_CLOSED, _OPEN, _SIDE_STICK = 42, 46, 37


def number(element, path: str, low: float, high: float) -> float | None:
    """The number in a child element; None where there is none, or one that cannot be (some write 0 for none)."""
    try:
        value = float(element.findtext(path, ""))
    except ValueError:
        return None
    return value if low <= value <= high else None


def sounds_of(part, names: set[str]) -> dict[str, Sound]:
    """The instruments of one ``<score-part>``, by id.

    The order of what is believed: midi-program (and channel 10 for drums), instrument-sound by MusicXML's
    standard, the names of the instrument and of the part, piano.

    Args:
        names: lower-case names of all parts: a bass among singers sings, alone it is a bass guitar.
    """
    out: dict[str, Sound] = {}
    part_names = [part.findtext("part-name", ""), part.findtext("part-abbreviation", "")]
    midis = part.findall("midi-instrument")
    # Without score-instruments several midi-instruments are those of the part.
    for instrument in part.findall("score-instrument") or (midis if len(midis) > 1 else [part]):
        key = "" if instrument is part else instrument.get("id", "").strip()
        said = [instrument.findtext("instrument-name", ""), *part_names]
        said.append(instrument.findtext("virtual-instrument/virtual-name", ""))
        known = _by_sound(instrument)
        midi = next((m for m in midis if m.get("id", "").strip() == key), None)
        if midi is None and (len(midis) == 1 or not key) and len(part.findall("score-instrument")) < 2:
            midi = next(iter(midis), None)  # whatever it is called
        out[key] = _sound(midi, known, said, names)
    return out


def _sound(midi, found, said: list[str], names: set[str]) -> Sound:
    sound = Sound()
    told = {} if midi is None else _told(midi)
    for name, value in told.items():
        setattr(sound, name, value)
    standard = found is not None
    found = found or next((known for name in said if (known := by_name(name)) is not None), None)
    sound.said = bool(told.keys() & {"program", "drums", "key"}) or found is not None
    if "program" in told or sound.drums:
        sound.drums |= sound.key is not None and "drums" not in told
        if sound.drums and sound.key is None and found is not None and found[1]:
            sound.key = found[2]
        return sound
    if found is not None:
        sound.program, sound.drums, key = found
        sound.key = key if sound.key is None else sound.key
    if not standard and "bass" in {name.strip().lower() for name in said} and not names & _VOICES:
        sound.program = _BASS_GUITAR
    return sound


def _by_sound(element) -> Known | None:
    """The sound that an ``<instrument-sound>`` names, by the standard or by a plain name, as some write."""
    sound = element.findtext("instrument-sound", "")
    return by_sound(sound) or by_name(sound.replace(".", " "))


def _told(midi) -> dict:
    """The fields of a :class:`score.sheet.Sound` that a ``<midi-instrument>`` tells."""
    channel, program = number(midi, "midi-channel", 1, 16), number(midi, "midi-program", 1, 128)
    bank, key = number(midi, "midi-bank", 1, 16384), number(midi, "midi-unpitched", 1, 128)
    volume, pan = number(midi, "volume", 0, 100), number(midi, "pan", -180, 180)
    # 100 % is the loudest that a controller of 0 to 127 can say; pan 90 degrees is hard right.
    told = {
        "program": None if program is None else int(program) - 1,
        "drums": None if channel is None else channel == 10,
        "bank": None if bank is None else int(bank) - 1,
        "key": None if key is None else int(key) - 1,
        "volume": None if volume is None else round(1.27 * volume),
        "pan": None if pan is None else round(64 + 63 * max(-90, min(90, pan)) / 90),
    }
    return {name: value for name, value in told.items() if value is not None}


def changes_in(sound) -> Iterator[tuple[str, str, dict]]:
    """What a ``<sound>`` changes: the kind of :class:`score.sheet.Direction`, the id of the instrument, and the fields
    of its :class:`score.sheet.Sound`.

    ``<instrument-change>`` (4.0) names another instrument, by ``instrument-sound``, else by the name of its virtual
    instrument; MuseScore 4 writes a whole ``<score-instrument>`` into it. Finale 26 writes the sound into
    ``<other-play>`` (w3c/musicxml issue 413). What ``<midi-instrument>`` says comes before.
    """
    found: list[tuple[str | None, Known | None]] = []
    for change in sound.findall("instrument-change"):
        inner = change.find("score-instrument")
        inner = change if inner is None else inner
        virtual, name = inner.findtext("virtual-instrument/virtual-name", ""), inner.findtext("instrument-name", "")
        found.append((change.get("id") or inner.get("id"), _by_sound(inner) or by_name(virtual) or by_name(name)))
    for play in sound.findall("play"):
        others = (other for other in play.findall("other-play") if other.get("type") == "instrument-sound")
        found.extend((play.get("id"), by_sound(other.text or "")) for other in others)
    for key, known in found:
        if known is not None:
            fields = dict(zip(("program", "drums", "key"), known, strict=True)) | {"bank": 0}
            yield "instrument", (key or "").strip(), fields
    for midi in sound.findall("midi-instrument"):
        told = _told(midi)
        if "key" in told and "drums" not in told:
            told["drums"] = True
        if told:
            yield "sound", (midi.get("id") or "").strip(), told


def is_kit(name: str) -> bool:
    """Whether a part's name says that it is several drums."""
    found = by_name(name)
    return found is not None and found[1] and found[2] is None


def noise() -> int:
    """The General MIDI key of a note without pitch in a part that has pitches, e.g. on damped strings."""
    return _SIDE_STICK


def of_pair(key: int, high: bool) -> int:
    """The high or the low one of two drums that General MIDI has as a pair; any other key as it is."""
    return next((pair[not high] for pair in _PAIRS if key in pair), key)


def drum_at(place: int | None, head: str, open_hi_hat: bool = False) -> tuple[int, ...]:
    """General MIDI keys of a drum by its place on the stave and its head, the usual one first; of places that have
    none, those of the nearest.

    Args:
        place: as under a treble clef, C0 is 0 and seven an octave; None: nothing is said, a side stick.
        head: a ``<notehead>``.
        open_hi_hat: whether a circle stands above.
    """
    if place is None:
        return (_SIDE_STICK,)
    table = _DRUM_STAVE[_HEADS.get(head, "normal")]
    if f"{STEPS[place % 7]}{place // 7}" not in table and table is not _DRUM_STAVE["normal"]:
        table = _DRUM_STAVE["cross"] | table
    where = {7 * int(name[1]) + STEPS.index(name[0]): keys for name, keys in table.items()}
    keys = where[min(where, key=lambda known: (abs(known - place), known))]
    return (_OPEN, *keys) if open_hi_hat and keys[0] == _CLOSED else keys
