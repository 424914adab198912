"""The mean of rows that differ by the seed of their training only, and how far they lie apart."""

from __future__ import annotations

import math

# Elementwise means of these; other lists are of single prompts or rollouts, and stay in the rows themselves.
LISTS = ("fad_interval",)


def mean_row(name: str, rows: list[dict]) -> dict:
    """The mean of every figure, with its spread under ``spread``: the standard deviation over the seeds, of n - 1.

    It is taken rather than the distance of the largest from the smallest since that one grows with the number of
    seeds: five of one model would seem to lie farther apart than three of it. Two means of n seeds differ by chance
    by about their spread times the root of 2 / n. Of figures that some rows have not, it is the mean of the others, and
    ``counted`` tells of how many.
    """
    row = {"row": f"{name}, mean of {len(rows)} (spread)", "mean_of": [one["row"] for one in rows]}
    spread, counted = {}, {}
    for key in dict.fromkeys(key for one in rows for key in one):
        values = [one.get(key) for one in rows]
        if key in LISTS:
            if all(values):
                row[key] = [sum(column) / len(column) for column in zip(*values, strict=True)]
            continue
        known = [float(value) for value in values if is_figure(value)]
        if not any(is_number(value) for value in values):
            continue
        if not known:
            row[key] = math.nan
            continue
        row[key] = sum(known) / len(known)
        if len(known) < len(rows):
            counted[key] = len(known)
        if len(known) > 1:
            spread[key] = math.sqrt(sum((x - row[key]) ** 2 for x in known) / (len(known) - 1))
    return row | {"spread": spread} | ({"counted": counted} if counted else {})


def is_number(value) -> bool:
    """Whether it is one number, NumPy's included."""
    return not isinstance(value, (bool, str, list, tuple, dict, type(None))) and hasattr(value, "__float__")


def is_figure(value) -> bool:
    """Whether it is a finite number."""
    return is_number(value) and math.isfinite(value)
