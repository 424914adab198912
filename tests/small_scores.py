"""Small scores, written in few words, and what is heard of them at 60 quarters a minute: a quarter is a second."""

from fractions import Fraction

from score import read

STEPS = ["C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B"]


def note(what: str, duration=None, kind=None, voice=None, staff=None, dots=0, tuplet=None, chord=False, more="") -> str:
    """A ``<note>``: ``C4``, ``C#4``; ``x:C5`` without pitch, with head x, ``o:`` with a plain one; ``r`` a rest, ``R``
    one of a bar.

    Args:
        tuplet: (actual, normal) or (actual, normal, type).
        more: elements behind the staff.
    """
    unpitched, head = "", ""
    if ":" in what:
        head, what = what.split(":")
        unpitched = "display-"
    step, octave, alter = what[0], what[-1], {"#": 1, "b": -1}.get(what[1:-1])
    if what in ("r", "R"):
        inner = '<rest measure="yes"/>' if what == "R" else "<rest/>"
    else:
        tag = "unpitched" if unpitched else "pitch"
        inner = f"<{unpitched}step>{step}</{unpitched}step>" + (f"<alter>{alter}</alter>" if alter else "")
        inner = f"<{tag}>{inner}<{unpitched}octave>{octave}</{unpitched}octave></{tag}>"
    out = "<chord/>" * chord + inner
    out += "" if duration is None else f"<duration>{duration}</duration>"
    out += "" if voice is None else f"<voice>{voice}</voice>"
    out += "" if kind is None else f"<type>{kind}</type>"
    out += "<dot/>" * dots
    if tuplet:
        last = f"<normal-type>{tuplet[2]}</normal-type>" if len(tuplet) > 2 else ""
        out += "<time-modification><actual-notes>{}</actual-notes><normal-notes>{}</normal-notes>".format(*tuplet[:2])
        out += last + "</time-modification>"
    out += "<notehead>x</notehead>" if head == "x" else ""
    out += "" if staff is None else f"<staff>{staff}</staff>"
    return f"<note>{out}{more}</note>"


def notes(text: str, *arguments, **keywords) -> str:
    """Several alike, by their names."""
    return "".join(note(what, *arguments, **keywords) for what in text.split())


def attributes(divisions=1, time="4/4", more="") -> str:
    out = "" if divisions is None else f"<divisions>{divisions}</divisions>"
    if time:
        out += "<time><beats>{}</beats><beat-type>{}</beat-type></time>".format(*time.split("/"))
    return f"<attributes>{out}{more}</attributes>"


def move(tag: str, duration=None) -> str:
    return f"<{tag}>" + ("" if duration is None else f"<duration>{duration}</duration>") + f"</{tag}>"


def header(name="Piano", *instruments, number=1) -> str:
    """A ``<score-part>``; instruments are (id, name, inside of midi-instrument or None)."""
    out = f"<part-name>{name}</part-name>"
    out += "".join(
        f'<score-instrument id="{key}"><instrument-name>{its}</instrument-name></score-instrument>'
        for key, its, _ in instruments
    )
    out += "".join(
        f'<midi-instrument id="{key}">{midi}</midi-instrument>' for key, _, midi in instruments if midi is not None
    )
    return f'<score-part id="P{number}">{out}</score-part>'


def score(*parts, headers=None, defaults="") -> bytes:
    """A score of parts, each a list of measures (their insides, or whole with their attributes)."""
    headers = headers or [header(number=i + 1) for i in range(len(parts))]
    bodies = []
    for i, measures in enumerate(parts):
        inside = [
            m if m.startswith("<measure") else f'<measure number="{k + 1}">{m}</measure>'
            for k, m in enumerate(measures)
        ]
        if i == 0:
            at = inside[0].index(">") + 1
            inside[0] = inside[0][:at] + '<sound tempo="60"/>' + inside[0][at:]
        bodies.append(f'<part id="P{i + 1}">{"".join(inside)}</part>')
    return (
        f'<?xml version="1.0" encoding="UTF-8"?><score-partwise version="4.0">{defaults}<part-list>{"".join(headers)}'
        f"</part-list>{''.join(bodies)}</score-partwise>"
    ).encode()


def heard(blob: bytes) -> str:
    """``C4 0-1, D4 1-2``; of drums ``#36 0-1``."""
    performance = read(blob)
    out = []
    for n in sorted(performance.notes, key=lambda n: (round(n.onset, 4), n.pitch)):
        drums = performance.instruments[n.instrument].drums
        pitch = f"#{n.pitch:g}" if drums else f"{STEPS[round(n.pitch) % 12]}{round(n.pitch) // 12 - 1}"
        out.append(f"{pitch} {_number(n.onset)}-{_number(n.end)}")
    return ", ".join(out)


def _number(seconds: float) -> str:
    return str(Fraction(seconds).limit_denominator(64))


def programs(blob: bytes) -> list:
    """The General MIDI program of each note from 0, in order of time; "drums"."""
    performance = read(blob)
    found = sorted(performance.notes, key=lambda n: (round(n.onset, 4), n.pitch))
    instruments = [performance.instruments[n.instrument] for n in found]
    return ["drums" if instrument.drums else instrument.program for instrument in instruments]


def left_out(performance) -> list[str]:
    """What of a score is not played, a sentence for each kind."""
    return [remark.removeprefix("not played: ") for remark in performance.remarks if "not played: " in remark]
