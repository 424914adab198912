"""The order in which measures are played: repeats, brackets, D.C., D.S., coda, fine.

A section between repeat signs is played twice (``times`` as often as it says), under brackets as often as the highest
number in them. After D.C. or D.S. repeats are not taken and of brackets the last is played; the jump to the coda and
the fine count only then. A jump is taken at the end of its measure, once.
"""

from __future__ import annotations

from score.performance import BadScore
from score.sheet import Marks

MAX_PLAYED = 50_000  # measures


def route(marks: list[Marks]) -> list[tuple[int, int]]:
    """Indices of measures in playing order, each with the number of the pass through its section (from 1).

    Raises:
        BadScore: it would go on for longer than ``MAX_PLAYED`` measures.
    """
    marks = _resolved(marks)
    order: list[tuple[int, int]] = []
    taken: set[int] = set()
    section, n_pass, i, jumped = 0, 1, 0, False
    last = _last_numbers(marks)
    while i < len(marks):
        here = marks[i]
        if here.forward and i != section:
            section, n_pass = i, 1
        if here.ending and (n_pass if not jumped else last[i]) not in here.ending:
            i += 1
            continue
        if not here.ending and i and marks[i - 1].ending and i != section:  # behind the brackets
            section, n_pass = i, 1
        order.append((i, n_pass))
        if len(order) > MAX_PLAYED:
            raise BadScore(f"has more than {MAX_PLAYED} measures with its repeats; shorten it")
        if jumped and here.fine:
            break
        if jumped and here.to_coda is not None:
            target = _find(marks, "coda", here.to_coda)
            if target is not None:
                i, section, n_pass, jumped = target, target, 1, False
                continue
        if here.backward and (not jumped or here.after_jump):
            passes = last[i] if here.ending else here.backward
            if n_pass < passes:
                n_pass, i = n_pass + 1, section
                continue
            section, n_pass = i + 1, 1
        wants = here.da_capo or here.dal_segno is not None
        if wants and i not in taken and (not here.jump_passes or n_pass in here.jump_passes):
            target = 0 if here.da_capo else _find(marks, "segno", here.dal_segno)
            if target is not None:
                taken.add(i)
                i, section, n_pass, jumped = target, target, 1, True
                continue
        i += 1
    return order


def _resolved(marks: list[Marks]) -> list[Marks]:
    """Of two coda signs without words, the first says where the jump begins."""
    codas = [i for i, mark in enumerate(marks) if "" in mark.coda]
    if len(codas) >= 2 and not any(mark.to_coda is not None for mark in marks):
        marks[codas[0]].coda.discard("")
        marks[codas[0]].to_coda = ""
    return marks


def _last_numbers(marks: list[Marks]) -> list[int]:
    """For each measure under a bracket, the highest number of the brackets beside it."""
    out, i = [0] * len(marks), 0
    while i < len(marks):
        j = i
        while j < len(marks) and marks[j].ending and not (j > i and marks[j].forward):
            j += 1
        highest = max((max(mark.ending) for mark in marks[i:j]), default=0)
        out[i:j] = [highest] * (j - i)
        i = max(j, i + 1)
    return out


def _find(marks: list[Marks], sign: str, label: str) -> int | None:
    """The measure of a sign with this label; else the only kind there is: the last coda, the first segno."""
    found = [i for i, mark in enumerate(marks) if label in getattr(mark, sign)]
    found = found or [i for i, mark in enumerate(marks) if getattr(mark, sign)]
    return (found[-1] if sign == "coda" else found[0]) if found else None
