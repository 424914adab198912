"""Tempo in words: a note and a number, a way back to a tempo, a change in passing, a name such as "Allegro".

The lists hold what stands in scores in Italian, French, German, English and Spanish; ``*`` is any ending of a word.
"""

from __future__ import annotations

from fractions import Fraction

import regex

from score.performance import LeftOut
from score.tempi import BACK, FIRST, NUMBER, tempo_of


def _any_of(words: str, before: str = r"(?<!\p{L})", after: str = r"(?!\p{L})") -> regex.Pattern:
    """Any of these words, between what must stand before and after them."""
    pattern = words.replace("*", r"\w*")
    return regex.compile(f"{before}(?:{pattern}){after}", regex.IGNORECASE)


# How a note is written in text, and its length in quarters: in Unicode, also as a head with a stem (and a flag); in
# SMuFL, whose two ranges begin with two breves and then have stems up and down; in the letters that the fonts Maestro
# (Finale) and Opus (Sibelius) draw as notes; and by its name.
_SYMBOLS = {"\u2669": 1, "\u266a": Fraction(1, 2), "\U0001d15d": 4, "\U0001d15e": 2, "\U0001d15f": 1}
_SYMBOLS |= {"\U0001d160": Fraction(1, 2), "\U0001d161": Fraction(1, 4)}
_SYMBOLS |= {"\U0001d157\U0001d165": 2, "\U0001d158\U0001d165": 1, "\U0001d158\U0001d165\U0001d16e": Fraction(1, 2)}
_SMUFL = (8, 8, 4, 2, 2, 1, 1, Fraction(1, 2), Fraction(1, 2), Fraction(1, 4), Fraction(1, 4))
_SYMBOLS |= {chr(first + k): length for first in (0xE1D0, 0xECA0) for k, length in enumerate(_SMUFL)}
_LETTERS = {"w": 4, "h": 2, "q": 1, "e": Fraction(1, 2), "x": Fraction(1, 4)}
_NAMES = {"whole": 4, "half": 2, "quarter": 1, "eighth": Fraction(1, 2), "sixteenth": Fraction(1, 4)}
_NAMES |= {"semibreve": 4, "minim": 2, "crotchet": 1, "quaver": Fraction(1, 2), "semiquaver": Fraction(1, 4)}
_NAMES |= {"ganze": 4, "halbe": 2, "viertel": 1, "achtel": Fraction(1, 2)}
_NOTES = _SYMBOLS | _LETTERS | _NAMES
_IN_TEXT = regex.compile(
    rf"(?P<note>{'|'.join(sorted(_SYMBOLS, key=len, reverse=True))}|(?<!\w)(?P<dotted>dotted[\s-]+)?"
    rf"(?:{'|'.join([*_LETTERS, *_NAMES])})(?![^\W\d_]))(?:[\s-]+note)?\s*(?P<dot>[.\ue1e7\uecb7\U0001d16d]?)"
    rf"\s*=\s*(?:c(?:a|irca)?\b\.?\s*|[~\u2248]\s*)?(?P<number>{NUMBER})",
    regex.IGNORECASE,
)
_START = r"(?:^|[,;:.\u2013\u2014-])\W*"  # where an instruction among words may begin
_ONE = r"(?:i|1|1 ?[o\u00ba\u00b0]|i ?[o\u00ba\u00b0]|1mo|imo|1 ?er|primo)"
_FIRST = _any_of(
    f"(?:a )?tempo {_ONE}|tempo (?:di )?prima|tempo (?:iniziale|inicial|initial|original*|principale)|"
    f"tempo (?:del|al) (?:comienzo|principio|inizio)|(?:tempo )?come prima|come al principio|(?:premier|{_ONE}) mouv*|"
    r"(?:au )?mouv*\.? (?:du d\u00e9but|initial)|tempo (?:des anfangs|du d\u00e9but)|"
    r"(?:tempo )?wie (?:am |zu )?(?:anfangs?|beginn)|"
    "(?:im )?(?:anfangstempo|hauptzeitma*)|(?:erstes|im ersten) zeitma*|"
    f"(?:{_ONE}|premier|erstes|original|first|initial|opening) tempo",
    before=_START,
)
_BACK = _any_of(
    "(?:(?:molto|sempre|subito|poi|di nuovo|nuovamente|again|back|wieder) )?(?:"
    "(?:a|in|al|im|zum|to|at|resume|in strict) (?:tempo|tpo)|in (?:strict )?time|"
    "(?:lo |l. ?)?i?stesso (?:tempo|movimento)|"
    "medesimo (?:tempo|movimento)|tempo (?:precedente|normale|ordinario)|riprende(?:re|te) il tempo|"
    "(?:vorheriges|voriges|previous) tempo|tempo as before|"
    "(?:im|voriges|im vorigen|im fr\u00fcheren) zeitma*|(?:au|reprenez le|reprise du) mouv*)",
    before=_START,
    after=r"(?!\w)(?! (?:d[ie]|rubato)\b)",
)
_BARE = regex.compile(r"\W*(?:tempo|mouv\w*)\W*", regex.IGNORECASE)
_PASSING = _any_of(
    "rit|ritard*|riten|ritenuto|ritenendo|ritenente|rall|rallent*|accel*|string|stringen|stringendo|allarg*|largando|slarg|"
    "slargando|slent|slentando|lentando|stent|stentando|tardando|calando|morendo|smorz*|perdendosi|cedendo|affrett*|"
    "precipitando|incalzando|animando|spingendo|tratt|tratten*|ratten*|"
    "c\u00e9dez|c\u00e9dant|retenu|retenez|retenir|retenant|ralenti*|\u00e9larg*|press(?:ez|er|ant)|serr(?:ez|er|ant)|"
    "en animant|animez|acc\u00e9l\u00e9r*|"
    "zur\u00fcckh*|verlangsam*|verbreiter*|(?:langsamer|schneller|breiter) werd*|nachlass*|nachgeb*|z\u00f6gernd|"
    "beschleunig*|dr\u00e4ngen*|eilend|eilen|treibend|"
    "slow down|slowing|slacken*|(?:getting|gradually) (?:slower|faster)|(?:hold|pull)(?:ing)? back|"
    "speed(?:ing)? up|push(?:ing)? (?:ahead|forward)|"
    "winding down|broaden*|quicken*|hurry*|dying away|retard*|acelerando",
    before=r"(?<!\p{L})(?<!\b(?:senza|non|no|sans|ohne|without|nicht|kein) )",
)
_FREE = _any_of("rubato|ad lib(?:itum)?|senza (?:misura|tempo)|a piacere|colla (?:voce|parte)|recit(?:ativo)?")
_RELATIVE = _any_of(
    "(?:pi\u00f9|piu|pi\u00fa|meno) (?:mosso|moto|lento|vivo|vivace|animato|agitato|allegro|tranquillo|calmo|presto|"
    "largo|adagio|andante|sostenuto|veloce)|(?:un )?poco (?:pi\u00f9|piu|meno)(?=\\W{0,9}$)|"
    "(?:plus|moins) (?:lent|vite|vif|anim\u00e9|calme|mod\u00e9r\u00e9|large)|"
    "langsamer|schneller|bewegter|ruhiger|lebhafter|belebter|rascher|breiter|slower|faster|broader|quicker|calmer"
)


def change(text: str) -> str:
    """What change words speak of, that "a tempo" ends: ``gradual``, whose number holds in passing, ``free``, or none.
    Words that begin with a tempo ("Andante rubato") are a tempo."""
    passing = _PASSING.search(text)
    found = "gradual" if passing else "free" if _FREE.search(text) else ""
    begins = passing is not None and not regex.search(r"\w", text[: passing.start()])  # "slow down" is no "slow"
    return "" if found and not begins and _of_table(text.lower().strip(" .,:()[]")) is not None else found


def is_relative(text: str) -> bool:
    """Whether words are of a tempo beside the one before, such as "meno mosso"."""
    return bool(_RELATIVE.search(text))


def words_tempo(text: str, left_out: LeftOut) -> float | str | None:
    """What words alone say: quarters a minute, ``FIRST``, ``BACK`` or nothing."""
    written = _IN_TEXT.search(text)
    if written:
        name = regex.split(r"[\s-]", written["note"].lower())[-1]
        dotted = bool(written["dot"] or written["dotted"])
        return tempo_of(written["number"], left_out, _NOTES[name] * Fraction(3 if dotted else 2, 2))
    if _FIRST.search(text):
        return FIRST
    if _BACK.search(text) or _BARE.fullmatch(text):
        return BACK
    low = text.lower().strip(" .,:()[]")
    return _of_table(low) if low[:1].isalpha() and not change(text) else None


def _of_table(low: str) -> float | None:
    """``Allegro``, ``Andante con moto``: the longest beginning that music21 knows."""
    from music21.tempo import defaultTempoValues

    words = regex.split(r"[\s,.(]+", low)
    for n in range(min(3, len(words)), 0, -1):
        found = defaultTempoValues.get(" ".join(words[:n]))
        if found is not None:
            return float(found)
    return None
