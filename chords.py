"""Typed chord progressions -> notes: chord symbols and Roman numerals, by music21, played by two hands."""

from __future__ import annotations

import io
import itertools

import regex

from errors import UserError
from meter import Meter
from voicing import Chord, in_thirds, left, voice

MAX_SECONDS = 600.0
VELOCITY = 80

# What stands after the root, as music21 names it; the longest that fits is taken.
_KINDS = {
    "major": ("", "maj", "M", "ma"),
    "minor": ("m", "min", "mi", "-"),
    "diminished": ("dim", "°", "o"),
    "augmented": ("aug", "+"),
    "dominant-seventh": ("7", "dom7"),
    "major-seventh": ("maj7", "M7", "ma7", "Maj7", "MA7", "Δ", "Δ7", "△", "△7", "^", "^7", "j7"),
    "minor-seventh": ("m7", "min7", "mi7", "MI7", "-7"),
    "minor-major-seventh": ("mM7", "mmaj7", "mMaj7", "m(maj7)", "m(M7)", "minmaj7", "-maj7", "-Δ7", "-M7", "mΔ7"),
    "half-diminished-seventh": ("ø", "ø7", "Ø", "Ø7", "h", "h7"),
    "diminished-seventh": ("dim7", "°7", "o7"),
    "augmented-seventh": ("aug7", "+7", "7+"),
    "augmented-major-seventh": ("maj7+", "+maj7", "augmaj7", "+M7"),
    "major-sixth": ("6", "maj6", "M6"),
    "minor-sixth": ("m6", "min6", "mi6", "-6"),
    "dominant-ninth": ("9",),
    "major-ninth": ("maj9", "M9", "ma9", "Maj9", "Δ9", "△9", "^9"),
    "minor-ninth": ("m9", "min9", "mi9", "-9"),
    "dominant-11th": ("11",),
    "minor-11th": ("m11", "min11", "mi11", "-11"),
    "dominant-13th": ("13",),
    "major-13th": ("maj13", "M13", "ma13", "Maj13", "Δ13", "△13", "^13"),
    "minor-13th": ("m13", "min13", "mi13", "-13"),
    "power": ("5",),
}
_ALIASES = {alias: kind for kind, aliases in _KINDS.items() for alias in aliases}
_SHORTHANDS = {
    "2": "add9", "m2": "madd9", "69": "6add9", "6/9": "6add9", "m69": "m6add9", "m6/9": "m6add9", "-69": "-6add9",
    "-6/9": "-6add9", "M69": "6add9", "maj6/9": "6add9", "7alt": "7#5#9", "alt": "7#5#9",
}  # fmt: skip
_DEGREES = {2: 2, 3: 4, 4: 5, 5: 7, 6: 9, 7: 10, 9: 2, 11: 5, 13: 9}  # semitones above the root, octaves left out
_HOLDS = ("/", ".")
# One sign, with how often a repeat is played: :| x3, or :| 3x.
_BARLINE = regex.compile(r"([:\[\]|]*\|[:\[\]|]*)(?:(?<=:\|+\]?)\s*(?:x\s*(\d{1,2})\b|(\d{1,2})\s*x(?!\w)))?")
_BRACKETS = regex.compile(r"\([^()]*\)")
# A comma or dash where a chord begins behind it: not that of C7(b9,#11) or C-7.
_BETWEEN = regex.compile(r"[,;](?=\s|$|%|/|[A-GN]|[b#]?[IViv])|(?<=\S)-(?=[A-G]|N\.?C|[b#]?[IViv])")
_ROOT = regex.compile(r"([A-G])([b#]*)")
_CHANGE = regex.compile(r"\s*[(,]?\s*(add|sus|no|omit|b|#)(2|4|3|5|6|7|9|11|13)?\)?")
_DEGREE = r"[b#]?(?:VII|VI|IV|V|III|II|I|vii|vi|iv|v|iii|ii|i)(?![IVivx])"
# As in harmony: figures tell the inversion.
_ROMAN = regex.compile(rf"({_DEGREE})(o|ø|\+)?(maj7|M7|7|9|6/5|65|6/4|64|6|4/3|43|4/2|42|2)?(/{_DEGREE})?")
# As in jazz: a chord symbol with a degree in place of its root.
_JAZZ_ROMAN = regex.compile(rf"({_DEGREE})(.*)")
_KEY = regex.compile(r"([A-Ga-g])([b#]?)[\s-]*(major|minor|dorian|phrygian|lydian|mixolydian|locrian)?")
_SIGNS = str.maketrans("♭♯\u2212\u2013\u2014\u00d7", "b#---x")  # signs, minus, dashes, times
_PLAIN_NAMES = {"strings": 48, "brass": 61, "choir": 52, "voice": 52, "epiano": 4, "rhodes": 4, "pad": 89}


def progression(text: str, key: str | None = None) -> list[list[Chord | None]]:
    """The bars of a progression as they are played, and the chords in each, which share it evenly; None is silence
    (``N.C.``).

    Args:
        text: bars between ``|``; without any, each chord is a bar. ``%`` repeats a bar, ``/`` a chord within it, the
            chord before goes on over a bar with nothing in it; between ``|:`` and ``:|`` (``:| x3``) all is repeated.
            ``||`` and ``|]`` are as ``|``, commas and dashes between chords as spaces.
        key: of Roman numerals, e.g. ``D minor``; chord symbols may stand beside them.

    Raises:
        UserError: no chord, with its place; a repeat that is not closed; no such key; nothing to be played.
    """
    found = None if key is None else _key(key)
    text = text.translate(_SIGNS)
    signs = [*_BARLINE.finditer(text)]
    edges = [0, *(edge for sign in signs for edge in sign.span()), len(text)]
    segments = [text[i:j] for i, j in zip(edges[::2], edges[1::2], strict=True)]
    if not signs:
        segments = [" ".join(group) for group in _groups(_tokens(segments[0], 1))]
    played: list[list[Chord | None]] = []
    number, start, opened = 0, 0, None
    for i, (segment, sign) in enumerate(itertools.zip_longest(segments, signs)):
        inside = 0 < i < len(segments) - 1 and "\n" not in segment  # what is blank elsewhere is no bar
        if segment.strip() or (inside and signs):
            number += 1
            played.append(_bar(_tokens(segment, number), number, found, played))
        if sign is None:
            continue
        if sign[1].startswith(":"):
            times = int(sign[2] or sign[3] or 2)
            if start == len(played) or times < 1:
                raise UserError(f'--chords: "{sign[0]}" before bar {number + 1} has nothing to repeat')
            played += played[start:] * (times - 1)
            start, opened = len(played), None
        if sign[1].endswith(":"):
            if opened is not None:
                raise UserError(f'--chords: "|:" before bar {opened} has no ":|" behind it')
            start, opened = len(played), number + 1
    if opened is not None:
        raise UserError(f'--chords: "|:" before bar {opened} has no ":|" behind it')
    if not any(chord for bar in played for chord in bar):
        raise UserError(f"--chords {text!r}: no chord to play; write bars such as Dm7 | G7 | Cmaj7")
    return played


def _tokens(segment: str, number: int) -> list[str]:
    """The chords of a bar, and what stands for one."""
    segment = _BRACKETS.sub(lambda brackets: "".join(brackets[0].split()), segment)
    tokens = _BETWEEN.sub(" ", segment).split()
    for place, token in enumerate(tokens):
        before = tokens[place - 1] if place else "-"
        after = tokens[place + 1] if place + 1 < len(tokens) else "-"
        if token == "-" and "-" in (before, after):
            raise UserError(f'--chords: "-" (bar {number}) has no chord on both sides; "/" holds the one before it')
    return [token for token in tokens if token != "-"]


def _groups(tokens: list[str]) -> list[list[str]]:
    """Each chord is a bar; what holds it belongs to it."""
    groups: list[list[str]] = []
    for token in tokens:
        if token in _HOLDS and groups:
            groups[-1].append(token)
        else:
            groups.append([token])
    return groups


def _bar(tokens: list[str], number: int, key, before: list[list[Chord | None]]) -> list[Chord | None]:
    """One bar; ``before`` are those that have been played."""
    if tokens in ([], ["%"]):
        if not before:
            what = '"%" in bar 1' if tokens else "bar 1 is empty and"
            raise UserError(f"--chords: {what} has no bar before it to repeat")
        return before[-1] if tokens else [before[-1][-1]]
    chords: list[Chord | None] = []
    for place, token in enumerate(tokens, 1):
        where = f"{token!r} (bar {number}, chord {place})"
        if token in _HOLDS:
            if not chords:
                raise UserError(f"--chords: {where} has no chord before it in the bar")
            chords.append(chords[-1])
        elif token.upper().strip(".") in ("N.C", "NC"):
            chords.append(None)
        else:
            chords.append(_chord(token, key, where))
    return chords


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
            for pitch in (left(chord), *voices):
                player.notes.append(pretty_midi.Note(VELOCITY, pitch, start, stop))
    buffer = io.BytesIO()
    song.write(buffer)
    return buffer.getvalue()


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
    figure = token.replace("°", "o")
    roman, jazz = _ROMAN.fullmatch(figure), _JAZZ_ROMAN.fullmatch(token)
    if key is not None and roman:
        return _roman(figure, key)
    chord = _jazz_roman(jazz[1], jazz[2], key) if key is not None and jazz else _symbol(token)
    if chord is None and jazz and key is None and (roman or _jazz_roman(jazz[1], jazz[2], _key("C")) is not None):
        raise UserError(f'--chords: {where} is a Roman numeral; give its key, e.g. --key "D minor"')
    if chord is None:
        raise UserError(f"--chords: {where} is not a chord; write such as Dm7, Bbmaj7, F#m7b5, C/E, N.C.")
    return chord


def _numeral(figure: str, key):
    from music21 import roman

    if key.mode == "minor" and figure.startswith(("bVII", "bVI", "bIII")):
        figure = figure[1:]  # flat against major, as it is often written: in minor they are so anyway
    return roman.RomanNumeral(figure, key)


def _roman(figure: str, key) -> Chord:
    head, slash, of = figure.rpartition("/") if figure[-1].isalpha() else (figure, "", "")
    numeral = _numeral(head.replace("M7", "maj7").replace("/", "") + slash + of, key)
    root = numeral.root().pitchClass
    classes = {pitch.pitchClass for pitch in numeral.pitches}
    return Chord(numeral.bass().pitchClass, in_thirds(root, {(c - root) % 12 for c in classes}))


def _jazz_roman(degree: str, kind: str, key) -> Chord | None:
    """``IIm7``, ``V7b9``, ``bIIImaj7``: a chord symbol; a small numeral is minor."""
    if degree.lstrip("b#").islower() and not kind.startswith(("m", "-", "dim", "°", "o", "ø", "Ø", "h")):
        kind = f"m{kind}"
    return _symbol(_numeral(degree, key).root().name.replace("-", "b") + kind)


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
    return Chord(pitch_class(_ROOT.fullmatch(bass)) if bass else lowest, in_thirds(lowest, steps))


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
