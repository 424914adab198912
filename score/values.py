"""Numbers in the text of a score, which comes from strangers: None for what is none."""

from __future__ import annotations

import math
from fractions import Fraction

import regex

_LARGEST = 1e15
_DECIMAL = regex.compile(r"\s*[-+]?\d{1,15}(\.\d{1,9})?\s*")
_INTEGER = regex.compile(r"\s*([-+]?\d{1,9})")


def fraction(text: str | None) -> Fraction | None:
    """A decimal number, exactly; up to 1e15."""
    value = finite(text)
    if value is None or abs(value) > _LARGEST:
        return None
    if _DECIMAL.fullmatch(text or ""):
        return Fraction(text.strip())
    return Fraction(value).limit_denominator(10**6)


def finite(text: str | None) -> float | None:
    """A number that is neither infinite nor none."""
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def integer(text: str | None, limit: int) -> int:
    """0 where there is none; cut at ``limit``."""
    match = _INTEGER.match(text or "")
    return max(-limit, min(limit, int(match[1]))) if match else 0


def ordinal(text: str | None) -> str:
    """The number of a staff, from 1, as text; the first where none is said."""
    return str(max(1, integer(text, 1000)))
