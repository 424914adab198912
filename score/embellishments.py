"""Replaces notes by what their ornaments, glissandi and slides make of them."""

from __future__ import annotations

from dataclasses import dataclass, replace

from score.ornaments import expand, glissando
from score.performance import Note, Performance, check_count
from score.sheet import Written
from score.slides import Slides


class Embellishments:
    """The ornaments of one part. They are marked while its notes are laid out, since ties and grace notes can still
    change the lengths of these."""

    def __init__(self, out: Performance, slides: Slides):
        self.out, self.slides = out, slides
        self.marked: dict[int, _Mark] = {}  # by the id of the note

    def mark(self, note: Note, written: Written, begin: float, unit: float):
        """Remember what stands at a note, or at the end of one over ties.

        Args:
            begin: of ``written``, in s.
            unit: :func:`score.ornaments.note_length` there.
        """
        known = self.marked.get(id(note))
        trilled = known is not None and known.is_trill and written.ornament is not None and bool(written.ornament.cycle)
        if (written.ornament or written.glide) and not trilled:
            known = self.marked[id(note)] = _Mark(note, written, begin, unit)
        if known is not None and known.end is None and written.line_ends:
            known.end = note.end

    def apply(self, notes: list[Note]) -> list[Note]:
        """All notes as they are played.

        Raises:
            BadScore: too many.
        """
        played: list[Note] = []
        for note in notes:
            mark = self.marked.get(id(note))
            if mark is None:
                played.append(note)
                continue
            end, glide = note.end if mark.end is None else min(mark.end, note.end), mark.written.glide
            length = max(0.0, end - mark.begin)
            if mark.written.ornament is not None:
                steps = expand(mark.written.ornament, length, mark.unit)
            elif glide is not None and glide[0] == "slide" and self.slides.bend(note, glide[1], mark.begin):
                played.append(note)
                continue
            else:
                steps = glissando(glide[1] - note.pitch, length)
            if mark.begin > note.onset:  # a note that is held until then
                steps = [(note.onset - mark.begin, 0.0), *(steps[1:] if steps[0][1] == 0 else steps)]
            check_count(len(self.out.notes) + len(played) + len(steps))
            ends = [*(step for step, _ in steps[1:]), note.end - mark.begin]
            for (step, away), stop in zip(steps, ends, strict=True):
                pitch = max(0.0, min(127.0, note.pitch + away))
                played.append(replace(note, onset=mark.begin + step, duration=max(0.0, stop - step), pitch=pitch))
        return played


@dataclass(slots=True)
class _Mark:
    """``note`` is played as several from ``begin`` on; ``end`` is None while its ornament lasts as long as it."""

    note: Note
    written: Written
    begin: float  # s
    unit: float  # s
    end: float | None = None

    @property
    def is_trill(self) -> bool:
        return self.written.ornament is not None and self.written.ornament.cycle is not None
