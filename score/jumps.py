"""Words that jump: D.C., D.S., To Coda, Fine, and Coda as an aim.

Words are an instruction if all of them are of its language: "D.C. al Fine (senza ripetizione)" is one, "Aria da capo",
"al fine del brano" and "Finesse" are none. Nor are words of what to do behind a jump: "no repeats on D.C.", "before the
D.S.", "senza D.C.". ``<sound>`` comes before words. Above the first note of a score "Da Capo" is
a title, since the first measure has nothing to go back from.
"""

from __future__ import annotations

import regex

from score.performance import LeftOut
from score.sheet import Marks

NO_INSTRUCTION = "{n} text{s} with the words da capo, dal segno or coda inside others"
_SEGNO, _CODA = "\U0001d10b\ue047\ue04a%\u00a7", "\U0001d10c\ue048\ue049\u2295\u00d8\u00f8"
_TOKENS = regex.compile(
    r"d\s?\.?\s?c\b\.?|dal?\W{0,2}capo|d\s?\.?\s?s\s?\.?\s?s\b\.?|d\s?\.?\s?s\b\.?|d[ae]l+a?\s+segno|"
    rf"d[ae]l+a?(?= *[{_SEGNO}])|[{_SEGNO}]|[{_CODA}]|"
    r"\d+(?:st|nd|rd|th|[x\u00ba\u00aa\u00b0oa]|er|e|\.)?(?!\w)|\w+"
)
_BESIDE = """
al alla alle a la le lo il to the and then e ed poi und et y go goto jump till til until up fino sino sin fine fin ende
coda codetta segno sign senza con without with no non ohne mit sans avec rep reps repeat repeats repetition repetitions
repetizione repetizioni ripetizione ripetizioni ripetere replica repliche ritornello ritornelli wiederholung
wiederholungen reprise reprises wdh from beginning start top dal capo volta volte time times only last first second
third fourth final next seconda prima ultima terza ultimo on bis zum zur zu signe jusqu au \u00e0 x if play take use
after before ending endings end all optional opt ad lib libitum or for each every both chorus verse solo solos fade out
omit omitting skip ignore observe taking w wo o finale menuet menuett menuetto minuet minuetto scherzo trio marcia march
gavotte gavotta polonaise valse waltz polka
"""
_LANGUAGE = frozenset(_BESIDE.split())
_AL_FINE = regex.compile(
    r"\b(al|alla|to|till?|until|bis zum|sin|fino al|au|jusqu.\s?(\u00e0|au))\W+(al )?(the )?(fin|fine|ende)\b"
)
_AL_CODA = regex.compile(rf"\b(al|alla|to|zur|\u00e0 la|a la)\s+(the\s+)?(coda|[{_CODA}])")
# A jump that is spoken of as a time or place, or is not to be taken: "on D.S. to Coda" only leads to the coda.
_SPOKEN_OF = regex.compile(
    r"\b(on|upon|before|after|at|for|during|in|no|not|without|senza|ohne|sans|beim?|vor|nach|lors|avant|apr\u00e8s|"
    r"prima|dopo|nel|nella|alla|au) ((the|il|la|le|du|de|das|dem|del|each|every|last|final|1st|2nd) )*"
    r"(d\s?\.?\s?[cs]\b\.?|dal?\W{0,2}capo|d[ae]l+a?\s+segno)( alla?( the)? (coda|fine)\b)?"
)
_MENTIONS = regex.compile(r"\bda capo\b|\bdal segno\b|\bd\.\s?[cs]\.|\b(to|al) coda\b", regex.IGNORECASE)


def until(text: str) -> str:
    """What the words of a jump name as its end: ``fine``, ``coda`` or neither."""
    low = text.lower()
    fine, coda = _AL_FINE.search(low), _AL_CODA.search(low)
    return "" if bool(fine) == bool(coda) else "fine" if fine else "coda"


def read_jump(words: list[str], coda_sign: bool, marks: Marks, left_out: LeftOut, heading: bool) -> bool:
    """Write the words of a direction to ``marks``, together or else one by one; whether they are an instruction, so
    that signs beside them are no aims.

    Args:
        heading: they stand above the first note of the score.
    """
    text = " ".join(words).strip()
    if coda_sign and regex.fullmatch(r"\W*(to|al|alla)( the)?\W*", text, regex.IGNORECASE):
        marks.to_coda = ""
        return True
    candidates = [text] if len(words) < 2 or _kind(text) else words
    leads = False
    for candidate in candidates:
        kind, label = _kind(candidate) or ("", "")
        if kind in ("da capo", "dal segno") and heading:
            kind = ""
        if kind == "coda":
            marks.coda.add(label)
            continue
        leads = leads or bool(kind)
        if kind == "da capo":
            marks.da_capo, marks.until = True, until(text) or marks.until
        elif kind == "dal segno":
            marks.dal_segno, marks.until = label, until(text) or marks.until
        elif kind == "to coda":
            marks.to_coda = label
        elif kind == "al coda":
            marks.al_coda = True
        elif kind == "fine":
            marks.fine = True
        elif not kind and _MENTIONS.search(candidate):
            left_out[NO_INSTRUCTION] += 1
    if marks.al_coda and not marks.until:
        marks.until = "coda"
    return leads


def _kind(text: str) -> tuple[str, str] | None:
    """What words are, and the number of the sign that they name; None: no instruction."""
    low = _SPOKEN_OF.sub(" ", " ".join(text.lower().replace("\u2019", "'").split()))
    tokens = [token.strip(" .") for token in _TOKENS.findall(low)]
    if not tokens or len(tokens) > 14:
        return None
    kinds = ["".join(t.split()).replace(".", "") for t in tokens]
    known = _LANGUAGE | {"dc", "ds", "dss"}
    for token, kind in zip(tokens, kinds, strict=True):
        plain = kind in known or token in _SEGNO + _CODA or regex.match(r"\d{1,2}(?!\d)", kind)
        if not (plain or regex.fullmatch(r"d[ae]l+a?(segno)?", kind) or regex.fullmatch(r"dal?\W{0,2}capo", token)):
            return None
    label = kinds[-1] if regex.fullmatch(r"[1-9]", kinds[-1]) and len(kinds) > 1 else ""
    if any(k == "dc" or regex.fullmatch(r"dal?\W{0,2}capo", t) for t, k in zip(tokens, kinds, strict=True)):
        return "da capo", ""
    if any(k in ("ds", "dss") or regex.fullmatch(r"d[ae]l+a?(segno)?", k) for k in kinds):
        signs = regex.search(rf"segno|sign|[{_SEGNO}]|\bd\s?\.?\s?s", low)
        return ("dal segno", "") if signs else None
    coda = next((i for i, t in enumerate(tokens) if t in ("coda", "codetta") or t in _CODA), None)
    if coda is not None and "fine" not in kinds:
        before = set(kinds[:coda])
        if len(kinds) == 2 and coda == 1 and kinds[0] in ("al", "alla"):
            return "al coda", ""
        if before & {"to", "al", "alla", "zur", "goto", "jump", "\u00e0"} or {"a", "la"} <= before:
            return "to coda", label
        rest = [t for t in tokens if not (t in ("coda", "codetta") or t[:1].isdigit() or t in _CODA)]
        return None if rest else ("coda", label)
    ends = next((i for i, k in enumerate(kinds) if k in ("fine", "fin")), None)
    if ends is not None and not set(kinds[:ends]) & {"al", "alla", "to", "till", "til", "until", "au", "fino", "sino"}:
        return "fine", ""
    return None
