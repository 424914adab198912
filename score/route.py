"""The order in which measures are played: repeats, brackets, D.C., D.S., coda, fine.

A section between repeat signs is played twice (``times`` as often as it says). Without a forward sign it begins behind
the section before, or at the beginning; a backward sign that has a forward sign left over from before an inner section
repeats both (nested, as in music21: A |: B :| C :| after |: is A B B C, twice).

Under brackets a section is played as often as the highest number in them. A bracket is passed over in all passes but
its own:

- A first bracket alone is left out the second time (as in MuseScore); a second one alone, behind the repeat sign, is
  played the second time.
- A bracket in the middle of a section, whose repeat sign is further on, belongs to its passes and turns nowhere.
- Brackets one behind the other turn back at their ends, with a sign there or without; but if a D.C. or D.S. stands
  there, or no sign at all and one of these further on, they are what is played before it and after it.
- Their numbers are counted without gaps: 1 and 3, 2 and 3, or twice 99 (Audiveris, of what it cannot read) are 1 and
  2, as verovio plays endings one after the other. A bracket 2 alone that turns back is left out the first time.
- Brackets that no repeat belongs to are played.

After D.C. or D.S. repeats are not taken and of brackets the last is played, unless ``after-jump`` says otherwise; the
jump to the coda and the fine count only then, and after words such as "D.S. al Coda" only what they name, where the
score has it. A jump is taken at the end of its measure, once, in the last pass through its section.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from score.performance import BadScore, LeftOut
from score.sheet import Bracket, Marks

MAX_PLAYED = 50_000  # measures
UNHEARD = "{n} measure{s} under brackets that no pass comes to"
NOWHERE = "{n} jump{s} to a sign that is not there"


@dataclass(slots=True, eq=False)
class _Section:
    """Measures that are played several times; ``turns`` are those at whose end it goes back, if the pass is less than
    the number there."""

    first: int
    last: int
    brackets: list[Bracket] = field(default_factory=list)
    chain: list[Bracket] = field(default_factory=list)  # of these, the ones at its end
    turns: dict[int, int] = field(default_factory=dict)
    passes: int = 2
    after_jump: bool = False


def route(marks: list[Marks], brackets: list[Bracket], left_out: LeftOut) -> list[tuple[int, int]]:
    """Indices of measures in playing order, each with the number of the pass through its section (from 1).

    Raises:
        BadScore: it would go on for longer than ``MAX_PLAYED`` measures.
    """
    marks = _resolved(marks)
    sections = _sections(marks, brackets)
    begins: dict[int, list[_Section]] = {}
    turns: dict[int, _Section] = {}
    inner: list[_Section | None] = [None] * len(marks)
    for section in sorted(sections, key=lambda s: s.first - s.last):  # the inner ones last
        begins.setdefault(section.first, []).append(section)
        turns |= dict.fromkeys(section.turns, section)
        inner[section.first : section.last + 1] = [section] * (section.last + 1 - section.first)
    under = {b.first: (section, b) for section in sections for b in section.brackets}
    has_fine, has_to_coda = any(m.fine for m in marks), any(m.to_coda is not None for m in marks)
    order: list[tuple[int, int]] = []
    n_pass: dict[_Section, int] = {}
    taken: set[int] = set()
    i, jumped, until, turned = 0, False, "", None
    while i < len(marks):
        here = marks[i]
        for section in begins.get(i, ()):
            if section is not turned:
                n_pass[section] = 1
        turned = None
        section, bracket = under.get(i, (None, None))
        if section is not None:
            n = n_pass.get(section, 1) if not jumped or section.after_jump else section.passes
            if n not in bracket.numbers:
                if bracket in section.chain and n < min(min(b.numbers) for b in section.chain):
                    n_pass[section], i, turned = n + 1, section.first, section
                else:
                    i = bracket.last + 1
                continue
        order.append((i, n_pass.get(inner[i], 1)))
        if len(order) > MAX_PLAYED:
            raise BadScore(f"has more than {MAX_PLAYED} measures with its repeats; shorten it")
        if jumped and here.fine and until != "coda":
            break
        if jumped and here.to_coda is not None and until != "fine":
            target = _find(marks, "coda", here.to_coda, i)
            if target is not None:
                i, jumped = target, False
                n_pass.clear()
                continue
            left_out[NOWHERE] += 1
        section = turns.get(i)
        if section is not None and (not jumped or section.after_jump):
            n = n_pass.get(section, 1)
            if n < section.turns[i]:
                n_pass[section], i, turned = n + 1, section.first, section
                continue
        wants = here.da_capo or here.dal_segno is not None
        if wants and i not in taken and _in_turn(here, inner[i], i, n_pass.get(inner[i], 1), jumped):
            taken.add(i)
            target = 0 if here.da_capo else _find(marks, "segno", here.dal_segno, i)
            if target is not None:
                until = here.until if (has_fine if here.until == "fine" else has_to_coda) else ""
                i, jumped = target, True
                n_pass.clear()
                continue
            left_out[NOWHERE] += 1
        i += 1
    if not taken:
        reached = {i for i, _ in order}
        unheard = sum(i not in reached for b in brackets for i in range(b.first, b.last + 1))
        left_out.update({UNHEARD: unheard} if unheard else {})
    return order


def _in_turn(here: Marks, section: _Section | None, i: int, n: int, jumped: bool) -> bool:
    """Whether a D.C. or D.S. is taken in this pass: as it says, else in the last one, or the last of its bracket."""
    if here.jump_passes:
        return n in here.jump_passes
    if section is None or jumped:
        return True
    return n >= next((max(b.numbers) for b in section.brackets if b.first <= i <= b.last), section.passes)


def _sections(marks: list[Marks], brackets: list[Bracket]) -> list[_Section]:
    """What is repeated, by repeat signs and brackets."""
    at = {bracket.first: bracket for bracket in brackets}
    found: list[_Section] = []
    opened: list[int] = []  # forward signs without a backward sign until here
    pending: list[Bracket] = []  # brackets without a section
    floor, section = 0, None  # where a section without forward sign begins; the one whose brackets may go on
    around: list[_Section] = []  # sections with brackets that go on behind an inner section
    for i, mark in enumerate(marks):
        bracket = at.get(i)
        while section is not None and i > section.last and around:
            section = around.pop()
        if section is not None and i > section.last:
            plain = not section.chain
            first_again = bracket is not None and 1 in bracket.numbers
            if bracket is None or (first_again and (plain or mark.forward)):
                floor, section = i, None
            else:
                section.chain.append(bracket)
                section.last = bracket.last
        elif bracket is not None and pending and pending[-1].last == i - 1 and _unsigned(marks, bracket, at):
            first = opened.pop() if opened else floor
            chain = [b for b in pending if b.first >= first]
            section = _Section(first, bracket.last, chain=[*_adjacent(chain), bracket])
            section.brackets = chain[: -len(section.chain) + 1]
            found.append(section)
            pending = []
            bracket = None
        if mark.forward:
            opened.append(i)
        if bracket is not None and (section is None or bracket not in section.chain):
            pending.append(bracket)
        if mark.backward:
            own = section is not None and section.last == i and section.chain
            if own and not (opened and opened[-1] >= section.chain[-1].first):
                section.turns[i] = 0
                continue
            first = opened.pop() if opened else floor
            if section is not None and section.last > i:
                around.append(section)
            section = _Section(first, i, turns={i: 0})
            inside = [b for b in pending if b.first >= first]
            chain = _adjacent(inside) if inside and inside[-1].last == i else []
            section.brackets, section.chain = inside[: len(inside) - len(chain)], chain
            pending = []
            found.append(section)
    for section in found:
        _count(section, marks)
    return found


def _adjacent(brackets: list[Bracket]) -> list[Bracket]:
    """The last brackets, as far back as each begins where the one before it ends."""
    k = len(brackets) - 1
    while k > 0 and brackets[k - 1].last + 1 == brackets[k].first:
        k -= 1
    return brackets[max(k, 0) :]


def _unsigned(marks: list[Marks], bracket: Bracket, at: dict[int, Bracket]) -> bool:
    """Whether no repeat sign belongs to a chain of brackets, so that it turns back by itself."""
    for i in range(bracket.first, len(marks)):
        if marks[i].forward and i > bracket.first:
            return True
        if marks[i].backward:
            return False
    return True


def _count(section: _Section, marks: list[Marks]):
    """How often a section is played, and up to which pass each of its signs turns back."""
    plain = [i for i in section.turns if not any(b.first <= i <= b.last for b in section.chain)]
    before = max((max(b.numbers) for b in section.brackets), default=0)
    times = max((marks[i].times or 2 for i in plain), default=0)
    said = set().union(*(b.numbers for b in section.chain))
    if said and (len(section.chain) > 1 or plain or min(said) > 2):
        rank = {n: k for k, n in enumerate(sorted(said | set(range(1, times))), 1)}
        section.chain = [replace(b, numbers=frozenset(rank[n] for n in b.numbers)) for b in section.chain]
    section.turns = dict.fromkeys(plain, max(times, before))
    section.passes = max(times, before, *(max(b.numbers) for b in section.chain), 0)
    if len(section.chain) == 1 and not plain and 1 in section.chain[0].numbers:  # alone: once more without it
        said = marks[section.chain[0].last].times
        if not 2 <= said <= section.passes:
            section.passes += 1
    signed = bool(plain) or any(marks[b.last].backward for b in section.chain)
    jumps = {i for i, mark in enumerate(marks) if mark.da_capo or mark.dal_segno is not None}
    for bracket in section.chain:
        served = bracket.last in jumps or (not signed and max(jumps, default=-1) > bracket.last)
        if marks[bracket.last].backward or not served:
            section.turns[bracket.last] = section.passes
    section.after_jump = any(marks[i].after_jump for i in section.turns)
    section.brackets = [*section.brackets, *section.chain]


def _resolved(marks: list[Marks]) -> list[Marks]:
    """Marks whose meaning depends on others: the words "al Coda" without a D.C. or D.S. beside them mean "To Coda", and
    the first of two coda signs without words is where the coda is jumped to from."""
    for mark in marks:
        if mark.al_coda and not mark.da_capo and mark.dal_segno is None and mark.to_coda is None:
            mark.to_coda = ""
    codas = [i for i, mark in enumerate(marks) if "" in mark.coda]
    if len(codas) >= 2 and not any(mark.to_coda is not None for mark in marks):
        marks[codas[0]].coda.discard("")
        marks[codas[0]].to_coda = ""
    return marks


def _find(marks: list[Marks], sign: str, label: str, at: int) -> int | None:
    """The measure of a sign with this label, else of any: the last segno before, the first coda behind."""
    found = [i for i, mark in enumerate(marks) if label in getattr(mark, sign)]
    found = found or [i for i, mark in enumerate(marks) if getattr(mark, sign)]
    if sign == "coda":
        return next((i for i in found if i > at), found[-1] if found else None)
    return next((i for i in reversed(found) if i <= at), found[0] if found else None)
