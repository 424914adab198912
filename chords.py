"""Typed chord progressions -> notes: chord symbols and Roman numerals, by music21, in voicings for a keyboard."""

from __future__ import annotations

import io
import itertools
from dataclasses import dataclass

import regex

from errors import UserError
from meter import Meter

MAX_SECONDS = 600.0
MAX_VOICES = 4  # above the bass
VELOCITY = 80
MIDDLE = 62.0  # MIDI pitch around which the right hand stays: D4
BASS = 36  # lowest MIDI pitch of the left hand: C2

# What stands after the root, as music21 names it; the longest that fits is taken.
_KINDS = {
    "major": ("", "maj", "M", "ma"),
    "minor": ("m", "min", "mi", "-"),
    "diminished": ("dim", "°", "o"),
    "augmented": ("aug", "+"),
    "dominant-seventh": ("7", "dom7"),
    "major-seventh": ("maj7", "M7", "ma7", "Maj7", "Δ", "Δ7", "△", "△7", "j7"),
    "minor-seventh": ("m7", "min7", "mi7", "-7"),
    "minor-major-seventh": ("mM7", "mmaj7", "mMaj7", "m(maj7)", "m(M7)", "minmaj7", "-maj7", "-Δ7", "-M7", "mΔ7"),
    "half-diminished-seventh": ("ø", "ø7", "Ø", "Ø7"),
    "diminished-seventh": ("dim7", "°7", "o7"),
    "augmented-seventh": ("aug7", "+7", "7+"),
    "augmented-major-seventh": ("maj7+", "+maj7", "augmaj7", "+M7"),
    "major-sixth": ("6", "maj6", "M6"),
    "minor-sixth": ("m6", "min6", "mi6", "-6"),
    "dominant-ninth": ("9",),
    "major-ninth": ("maj9", "M9", "ma9", "Maj9", "Δ9"),
    "minor-ninth": ("m9", "min9", "mi9", "-9"),
    "dominant-11th": ("11",),
    "minor-11th": ("m11", "min11", "mi11", "-11"),
    "dominant-13th": ("13",),
    "major-13th": ("maj13", "M13", "ma13", "Maj13", "Δ13"),
    "minor-13th": ("m13", "min13", "mi13", "-13"),
    "power": ("5",),
}
_ALIASES = {alias: kind for kind, aliases in _KINDS.items() for alias in aliases}
_SHORTHANDS = {"69": "6add9", "6/9": "6add9", "m69": "m6add9", "m6/9": "m6add9", "7alt": "7#5#9", "alt": "7#5#9"}
_DEGREES = {2: 2, 3: 4, 4: 5, 5: 7, 6: 9, 7: 10, 9: 2, 11: 5, 13: 9}  # semitones above the root, octaves left out
_ROOT = regex.compile(r"([A-G])([b#]*)")
_CHANGE = regex.compile(r"\s*[(,]?\s*(add|sus|no|omit|b|#)(2|4|3|5|6|7|9|11|13)?\)?")
_ROMAN = regex.compile(
    r"[b#]?(VII|VI|IV|V|III|II|I|vii|vi|iv|v|iii|ii|i)(o|ø|\+)?(maj7|M7|7|9|64|65|6|43|42)?(/[b#]?(?i:vii|vi|iv|v|iii|ii|i))?"
)
_KEY = regex.compile(r"([A-Ga-g])([b#]?)[\s-]*(major|minor|dorian|phrygian|lydian|mixolydian|locrian)?")
_SIGNS = str.maketrans("♭♯\u2212\u2013", "b#--")  # signs, minus and dash
_PLAIN_NAMES = {"strings": 48, "brass": 61, "choir": 52, "voice": 52, "epiano": 4, "rhodes": 4, "pad": 89}


@dataclass(frozen=True)
class Chord:
    """Pitch classes (0: C), from the root up in thirds, and that of the bass."""

    bass: int
    pitch_classes: tuple[int, ...]


def progression(text: str, key: str | None = None) -> list[list[Chord | None]]:
    """The bars of a progression and the chords in each, which share it evenly; None is silence (``N.C.``).

    Args:
        text: bars between ``|``; without any, each chord is a bar. ``%`` repeats a bar, ``/`` a chord within it.
        key: of Roman numerals, e.g. ``D minor``; chord symbols may stand beside them.

    Raises:
        UserError: no chord, with its place; no such key; nothing to be played.
    """
    found = None if key is None else _key(key)
    text = text.translate(_SIGNS)
    bars = [bar.split() for bar in text.split("|") if bar.strip(" :\t\r\n")]
    if "|" not in text:
        bars = [[chord] for bar in bars for chord in bar]
    played: list[list[Chord | None]] = []
    for number, bar in enumerate(bars, 1):
        if bar == ["%"]:
            if not played:
                raise UserError('--chords: "%" in bar 1 has no bar before it to repeat')
            played.append(played[-1])
            continue
        chords: list[Chord | None] = []
        for place, token in enumerate(bar, 1):
            where = f"{token!r} (bar {number}, chord {place})"
            if token in ("/", "."):
                if not chords:
                    raise UserError(f"--chords: {where} has no chord before it in the bar")
                chords.append(chords[-1])
            elif token.upper().strip(".") in ("N.C", "NC"):
                chords.append(None)
            else:
                chords.append(_chord(token, found, where))
        played.append(chords)
    if not any(chord for bar in played for chord in bar):
        raise UserError(f"--chords {text!r}: no chord to play; write bars such as Dm7 | G7 | Cmaj7")
    return played


def to_midi(bars: list[list[Chord | None]], meter: Meter, instrument: str) -> bytes:
    """The bars as the bytes of a MIDI file: the bass in the left hand, a close position in the right.

    Raises:
        UserError: General MIDI has no such instrument; too long.
    """
    import pretty_midi

    if len(bars) * meter.bar_seconds > MAX_SECONDS:
        raise UserError(f"--chords: {len(bars)} bars last more than {MAX_SECONDS:.0f} s; write fewer")
    song = pretty_midi.PrettyMIDI(initial_tempo=meter.tempo, resolution=960)
    song.time_signature_changes.append(pretty_midi.TimeSignature(*meter.time_signature, 0))
    player = pretty_midi.Instrument(program_of(instrument))
    song.instruments.append(player)
    voices: tuple[int, ...] = ()
    for number, bar in enumerate(bars):
        place = 0
        for chord, same in itertools.groupby(bar):  # what is held is struck once
            n = len(list(same))
            start, stop = (meter.bar_seconds * (number + x / len(bar)) for x in (place, place + n))
            place += n
            if chord is None:
                continue
            voices = voice(chord, voices)
            for pitch in (BASS + chord.bass, *voices):
                player.notes.append(pretty_midi.Note(VELOCITY, pitch, start, stop))
    buffer = io.BytesIO()
    song.write(buffer)
    return buffer.getvalue()


def voice(chord: Chord, before: tuple[int, ...] = ()) -> tuple[int, ...]:
    """MIDI pitches of the right hand: the close position with the least movement from ``before``, which stays near
    the middle. What the bass has, the fifth, and a natural eleventh over a major third give way where there are more
    than :data:`MAX_VOICES`."""
    classes, root = list(chord.pitch_classes), chord.pitch_classes[0]
    if len(classes) > 3 and root == chord.bass:
        classes.remove(root)
    for spare in (root + 7, root + 5, root + 2, root):
        if len(classes) > MAX_VOICES and spare % 12 in classes:
            classes.remove(spare % 12)
    classes.sort()
    candidates = []
    for turn in range(len(classes)):
        order = classes[turn:] + [c + 12 for c in classes[:turn]]
        candidates += [tuple(c + octave for c in order) for octave in (36, 48, 60, 72)]

    def effort(pitches: tuple[int, ...]) -> float:
        away = abs(sum(pitches) / len(pitches) - MIDDLE)
        if not before:
            return away
        steps = [min(abs(p - q) for q in before) for p in pitches] + [min(abs(p - q) for p in pitches) for q in before]
        return sum(steps) / 2 + 0.5 * away

    return min(candidates, key=effort)


def program_of(name: str) -> int:
    """The General MIDI program (0 to 127) that ``name`` means, e.g. ``electric piano``.

    Raises:
        UserError: none; the nearest is named.
    """
    import difflib

    from pretty_midi.constants import INSTRUMENT_MAP

    words = name.lower().replace("-", " ").split()
    if "".join(words) in _PLAIN_NAMES:
        return _PLAIN_NAMES["".join(words)]
    known = [regex.findall(r"[a-z0-9]+", one.lower()) for one in INSTRUMENT_MAP]
    phrase = f" {' '.join(words)} "
    tests = (lambda one: phrase in f" {' '.join(one)} ", lambda one: set(words) <= set(one))
    for test in tests:
        for program, one in enumerate(known):
            if words and test(one):
                return program
    near = difflib.get_close_matches(name, INSTRUMENT_MAP, n=1, cutoff=0) or ["Acoustic Grand Piano"]
    raise UserError(f"--instrument {name!r}: General MIDI has none of that name; nearest: {near[0]}")


def _key(text: str):
    from music21 import key

    match = _KEY.fullmatch(text.translate(_SIGNS).strip())
    if not match:
        raise UserError(f"--key {text!r}: not a key; write it as D minor, or Bb major")
    tonic, sign, mode = match.groups()
    mode = mode or ("minor" if tonic.islower() else "major")
    return key.Key(tonic.upper() + sign.replace("b", "-"), mode)


def _chord(token: str, key, where: str) -> Chord:
    roman = _ROMAN.fullmatch(token.replace("°", "o"))
    if roman and key is not None:
        return _roman(token.replace("°", "o"), key)
    chord = _symbol(token)
    if chord is None and roman:
        raise UserError(f'--chords: {where} is a Roman numeral; give its key, e.g. --key "D minor"')
    if chord is None:
        raise UserError(f"--chords: {where} is not a chord; write such as Dm7, Bbmaj7, F#m7b5, C/E, N.C.")
    return chord


def _roman(figure: str, key) -> Chord:
    from music21 import roman

    if key.mode == "minor" and figure.startswith(("bVII", "bVI", "bIII")):
        figure = figure[1:]  # flat against major, as it is often written: in minor they are so anyway
    numeral = roman.RomanNumeral(figure.replace("M7", "maj7"), key)
    root = numeral.root().pitchClass
    classes = {pitch.pitchClass for pitch in numeral.pitches}
    return Chord(numeral.bass().pitchClass, _in_thirds(root, {(c - root) % 12 for c in classes}))


def _symbol(token: str) -> Chord | None:
    """A chord symbol; None where it is none."""
    root = _ROOT.match(token)
    if not root:
        return None
    rest, bass = token[root.end() :], None
    body, slash, low = rest.rpartition("/")
    if slash and _ROOT.fullmatch(low):
        rest, bass = body, low
    if rest in _SHORTHANDS:
        rest = _SHORTHANDS[rest]
    fitting = sorted((alias for alias in _ALIASES if rest.startswith(alias)), key=len, reverse=True)
    for alias in fitting:  # the longest that leaves only changes behind it
        changes = _changes(rest[len(alias) :])
        if changes is not None:
            break
    else:
        return None
    from music21 import harmony, pitch

    def pitch_class(match) -> int:
        return pitch.Pitch(match[1] + match[2].replace("b", "-")).pitchClass

    lowest = pitch_class(root)
    kind = harmony.ChordSymbol(root="C", kind=_ALIASES[alias])
    steps = {p.pitchClass for p in kind.pitches}
    for what, degree in changes:
        step = _DEGREES[degree]
        if what == "add":
            steps.add(step)
        elif what == "sus":
            steps = steps - {3, 4} | {step}
        elif what in ("no", "omit"):
            steps -= {3, 4} if degree == 3 else {step}
        else:
            altered = (step + (1 if what == "#" else -1)) % 12
            removed = {step} if degree == 5 or step in steps else set()
            steps = (steps - removed) | {altered}
    return Chord(pitch_class(_ROOT.fullmatch(bass)) if bass else lowest, _in_thirds(lowest, steps))


def _changes(text: str) -> list[tuple[str, int]] | None:
    """``b9``, ``add9``, ``sus4`` and so on, one after another; None where something else stands there."""
    changes, place = [], 0
    while place < len(text):
        match = _CHANGE.match(text, place)
        if not match or (match[2] is None and match[1] != "sus"):
            return None
        changes.append((match[1], int(match[2] or 4)))
        place = match.end()
    return changes


def _in_thirds(root: int, steps: set[int]) -> tuple[int, ...]:
    """Pitch classes of a chord whose steps are semitones above the root: root, third, fifth, seventh, ninth ..."""
    order = (0, 3, 4, 6, 7, 8, 10, 11, 9, 1, 2, 5)
    return tuple((root + step) % 12 for step in sorted(steps, key=order.index))
