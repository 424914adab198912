"""Instruments by their names: which General MIDI sound they have, or which drum they are.

Many programs write no sound but a name ("5-string Bass Guitar", "Altsaxophon 2", "Becken"). The longest run of words in
it that names an instrument tells, the later of two; of "Flute/Piccolo" the first, as MuseScore reads it. Accents, case
and plurals do not count, and the end of a German compound tells as a word of its own ("Altblockflöte"). Names are those
of this module, General MIDI's, and music21's in English, German, French, Italian, Spanish and Russian. music21's own
search is not used: it takes "Bass Guitar" for a guitar and "Tenor Sax" for an alto.
"""

from __future__ import annotations

import unicodedata
from functools import cache

import regex

Known = tuple[int, bool, int | None]  # program, whether it is drums, and the key of the drum where it is one
CHOIR = 52  # "choir aahs", as MuseScore plays voices
_MAX_NAME = 60  # characters; a sentence is no name
_MAX_WORDS = 4  # of the name of an instrument
_MIN_COMPOUND = 6  # letters of the end of a compound
_WORDS = {
    "el": "electric", "elec": "electric", "gtr": "guitar", "guit": "guitar", "git": "gitarre", "trpt": "trumpet",
    "tbn": "trombone", "pos": "posaune", "klar": "klarinette", "hrn": "horn", "org": "organ", "dr": "drum",
    "ten": "tenor", "sop": "soprano", "bari": "baritone", "sx": "sax", "cymb": "cymbal",
}  # fmt: skip
_PITCHED = {
    0: "piano|grand piano|pianoforte|klavier|flügel|keyboard|keys|pno",
    3: "honky tonk",
    4: "electric piano|e piano|e klavier|rhodes|fender rhodes|wurlitzer|piano électrique|piano elettrico",
    6: "harpsichord|hpsd|cembalo|clavecin|clavicembalo|spinet",
    7: "clavinet|clavichord",
    9: "glockenspiel|crotales|lyra|bell lyre",
    12: "mallet|mallet percussion|tuned percussion|pitched percussion|stabspiele",
    14: "chimes|tubular bells|röhrenglocken|glocken|campane|cloches|campanas",
    15: "dulcimer|hackbrett|cimbalom|zither",
    16: "hammond|hammond organ|electric organ|e orgel",
    19: "organ|orgel|kirchenorgel|orgue|organo|órgano",
    20: "harmonium|reed organ|pump organ",
    21: "accordion|steirische harmonika|akkordeon|fisarmonica|concertina",
    22: "harmonica|mundharmonika|blues harp|mouth organ|melodica|melodika",
    23: "bandoneon",
    24: "guitar|gitarre|guitare|chitarra|guitarra|nylon guitar|classical guitar|lute|laute|ukulele|uke|cavaquinho",
    25: "mandolinen|steel guitar|steel string guitar|western guitar|westerngitarre|folk guitar|12 string guitar|"
        "mandolin|mandoline|mandolino|mandolina|bouzouki",
    26: "jazz guitar|lap steel|pedal steel|pedal steel guitar|hawaiian guitar",
    27: "electric guitar|e guitar|e gitarre|elektrogitarre|guitare électrique|chitarra elettrica|guitarra eléctrica|"
        "clean guitar",
    28: "muted guitar|palm muted guitar",
    29: "overdriven guitar|overdrive guitar",
    30: "distortion guitar|distorted guitar",
    32: "acoustic bass|upright bass|guitarron",
    33: "bass guitar|fender bass|electric bass|electric bass guitar|e bass|bassgitarre|elektrobass|guitare basse|"
        "basse électrique|basso elettrico|b guitar|chitarra basso|bajo eléctrico|guitarra bajo|finger bass|"
        "fingered bass",
    34: "pick bass|picked bass",
    35: "fretless bass|fretless electric bass",
    36: "slap bass",
    38: "synth bass|synthesizer bass|bass synth|bass synthesizer",
    40: "violin|violino piccolo|violine|violino|violon|geige",
    41: "viola|bratsche",
    42: "cello|celli|violone|violoncello|violoncelle|viola da gamba|gambe",
    43: "double bass|d b|kb|contrabbassi|bassi|contrabass|kontrabass|contrabasso|contrebasse|contrabajo|string bass",
    46: "harp|harfe|harpe|arpa",
    48: "strings|string ensemble|string orchestra|string section|string quartet|streicher|archi|cordes|cuerdas",
    50: "synth strings|synthesizer strings|string synth",
    CHOIR: "voice|voices|vocal|vocals|lead vocal|backing vocals|singer|vox|gesang|stimme|singstimme|canto|chant|voix|"
        "voz|voce|choir|chorus|chor|männerchor|frauenchor|kinderchor|choeur|chœur|coro|soprano|sopran|alto|altos|"
        "soprane|soprani|tenori|contralti|mezzo|mezzo soprano|tenor|tenore|ténor|countertenor|cantus|superius|"
        "discantus|altus|bassus|quintus|women|men|frauen|männer|satb|ssaa|ttbb",
    54: "synth voice|synth vocals",
    56: "trumpet|fliscorno|flygelhorn|trompete|trompette|tromba|trompeta|cornet|kornett|cornetto|cornetti|flugelhorn|"
        "flügelhorn|flicorno|bugle",
    57: "trombone|posaune|bass trombone|sackbut",
    58: "tuba|basstuba|euph|eb bass|bb bass|bombardino|bombardon|euphonium|euphonium tc|baritone horn|baritone tc|"
        "baritone bc|baritonhorn|tenorhorn|sousaphone|ophicleide",
    59: "muted trumpet",
    60: "horn|french horn|waldhorn|corno|cor|trompa|alto horn|althorn|tenor horn|mellophone|wagner tuba|alphorn|"
        "corno francese|cor d harmonie",
    61: "brass|brass section|brass ensemble|horn section|blechbläser|ottoni|cuivres",
    62: "synth brass",
    64: "soprano sax|sax soprano|saxophone soprano|sopransax|saxofón soprano|soprano saxophone|sopransaxophon|"
        "sopransaxofon",
    65: "sax|altsax|saxofón|saxofón alto|saxophone|saxophon|alto sax|alto saxophone|altsaxophon|saxophone alto|"
        "sax alto|sassofono contralto",
    66: "tenor sax|tenorsax|saxofón tenor|tenor saxophone|tenorsaxophon|saxophone ténor|sax tenore|sax tenor",
    67: "baritone sax|barisax|baritonsax|saxofón barítono|baritone saxophone|baritonsaxophon|saxophone baryton|"
        "sax baritono|bass sax|bass saxophone",
    69: "english horn|englischhorn|cor anglais|corno inglese|corno inglés",
    70: "bassoon|fagote|fagott|basson|fagotto|fagot|contrabassoon|kontrafagott|double bassoon",
    71: "clarinet|chalumeau|klarinet|klarinette|clarinette|clarinetto|bass clarinet|basset horn|bassetthorn|"
        "alto clarinet",
    72: "piccolo|piccolo flute|flautino|ottavino|fife|pikkoloflöte|piccoloflöte",
    73: "flute|traverso|flauto traverso|flöte|flute traversiere|querflöte|flauto|flûte|flauta|alto flute|altflöte|"
        "bass flute|bassflöte",
    74: "recorder|blockflöte|flauto dolce|flûte à bec|flauta dulce|soprano recorder|alto recorder|tenor recorder|"
        "bass recorder",
    75: "pan flute|panpipes|panflöte|flûte de pan",
    78: "whistle|tin whistle|penny whistle|low whistle",
    80: "lead synth|synth lead",
    81: "synth|synthesizer|synthesiser",
    89: "synth pad|pad synth|pad",
    105: "banjo|tenor banjo",
    109: "bagpipes|bagpipe|dudelsack|cornemuse|gaita",
    110: "fiddle",
    114: "steel drums|steel drum|steel pan|steelpan",
}  # fmt: skip
# By General MIDI's key for the drum.
_DRUMS = {
    31: "sticks|drum sticks",
    36: "bass drum|b d|gr trommel|bumbo|kick|kick drum|grosse trommel|gran cassa|grancassa|cassa|grosse caisse|bombo",
    37: "rim shot|rimshot|cross stick|rim click",
    38: "snare|s d|kl trommel|caixa|tambor|snare drum|side drum|field drum|military drum|kleine trommel|caisse claire|"
        "tamburo|tamburo militare|rullante|caja|redoblante|tambour",
    39: "hand clap|handclap|clap|finger snap|snap|whip|slapstick|peitsche|frusta|fouet|palmas",
    42: "hi hat|hi hat cymbal|hihat|closed hihat|hi hat closed",
    43: "floor tom",
    44: "pedal hihat|foot hi hat|hi hat pedal",
    45: "tom|tom tom|tenor drum|rührtrommel|caisse roulante",
    46: "open hihat|hi hat open",
    47: "mid tom|middle tom",
    49: "cymbal|cymbals|pratos|crash|crash cymbal|suspended cymbal|clash cymbal|hand cymbal|becken|piatti|piatto|"
        "cymbale|platillos|platos",
    50: "hi tom",
    51: "ride|ride cymbal",
    52: "china|china cymbal|gong|tam tam|tamtam",
    54: "tambourine|tamburin|tamburello|pandereta|pandeiro|schellentrommel|tambour de basque",
    55: "splash|splash cymbal",
    56: "cowbell|kuhglocke|cencerro|anvil|amboss|brake drum",
    58: "vibraslap|flexaton",
    60: "bongo|bongo drum",
    63: "conga|conga drum",
    67: "agogo|agogo bell",
    70: "maraca|maracas",
    73: "guiro|güiro",
    75: "claves|clave|klanghölzer",
    76: "wood block|woodblock|holzblock|temple block|templeblock|tempelblock",
    81: "triangle|triangel|triangolo|triángulo",
    82: "shaker|egg shaker|ganza|caxixi",
    83: "sleigh bell|sleigh bells|jingle bell|jingle bells|schellen|sonagli|grelots|cascabeles",
    84: "bell tree|wind chimes|mark tree|bar chimes|windspiel",
    85: "castanets|kastagnetten|castagnettes|nacchere|castañuelas",
}  # fmt: skip
_KIT: Known = (0, True, None)
# Several drums, or one that General MIDI has not: by their places on the stave.
_KITS = (
    "drum|drums|drumset|drum set|drumkit|drum kit|drumline|percussion|perc|schlagzeug|schlagwerk|trommel|trommeln|"
    "batterie|batteria|batería|percusión|percussione|percussioni|perkussion|slagwerk|body percussion|stomp|rute|cajón|"
    "djembe|tabla|darbuka"
)


@cache
def by_name(name: str) -> Known | None:
    """The sound of an instrument with this name; None for a name that tells nothing."""
    if len(name) > _MAX_NAME:
        return None
    pieces = regex.split(r"[/,;&+]", name)
    # What stands in parentheses may belong to the name ("Electric Guitar (jazz)") or be beside it ("Piano (Strings)").
    whole = _names().get(" ".join(_words(pieces[0])))
    if whole is not None:
        return whole
    pieces = [part for piece in pieces for part in regex.split(r"[()\[\]]|\s(?:and|und|et|e|y)\s", piece)]
    found = [known for piece in pieces if (known := _in(_words(piece))) is not None]
    if found and found[0] == _KIT and len(found) == 2 and found[1][1]:
        return found[1]  # "Percussion 1 (Snare)"
    return found[0] if found else None


def _in(words: list[str]) -> Known | None:
    """What these words name: a run of them, the end of one, or an abbreviation among them."""
    names, short = _names(), _abbreviations()
    runs = [words[k : k + n] for n in range(min(_MAX_WORDS, len(words)), 0, -1) for k in range(len(words) - n, -1, -1)]
    found = [names.get(" ".join(run)) or (short.get(" ".join(run)) if len(run) > 1 else None) for run in runs]
    found = [known for known in found if known is not None]
    if found:  # "Saxophone tenor" does not sing
        return next((known for known in found if known[0] != CHOIR), found[0])
    ends = (word[k:] for word in reversed(words) for k in range(1, len(word) - _MIN_COMPOUND + 1))
    found = next((names[end] for end in ends if end in names), None)
    return found or next((short[word] for word in reversed(words) if word in short), None)


def _words(name: str) -> list[str]:
    """Without case and accents, some abbreviations written out."""
    plain = unicodedata.normalize("NFKD", name.casefold())
    words = regex.findall(r"\p{L}+|\d+", "".join(c for c in plain if not unicodedata.combining(c)))
    return [_WORDS.get(word, word) for word in words]


@cache
def _names() -> dict[str, Known]:
    """Sounds by their names as words; what stands here comes before General MIDI's, that before music21's."""
    from music21.languageExcerpts import instrumentLookup
    from pretty_midi.constants import DRUM_MAP, INSTRUMENT_MAP

    told: list[tuple[str, Known]] = []
    for language in ("russian", "spanish", "italian", "french", "german", "english"):
        told += _of_classes(getattr(instrumentLookup, f"{language}ToClassName"))
    told += [(name, (program, False, None)) for program, name in enumerate(INSTRUMENT_MAP)]
    told += [(name, (0, True, key)) for key, name in enumerate(DRUM_MAP, 35)]
    told += [(name, (program, False, None)) for program, names in _PITCHED.items() for name in names.split("|")]
    told += [(name, (0, True, key)) for key, names in _DRUMS.items() for name in names.split("|")]
    told += [(name, _KIT) for name in _KITS.split("|")]
    plurals = {" ".join(_words(f"{name}s")): known for name, known in told}
    return plurals | {" ".join(_words(name)): known for name, known in told}


@cache
def _abbreviations() -> dict[str, Known]:
    from music21.languageExcerpts import instrumentLookup

    return {" ".join(_words(name)): known for name, known in _of_classes(instrumentLookup.abbreviationToClassName)}


def _of_classes(names: dict[str, str]) -> list[tuple[str, Known]]:
    """Sounds of music21's classes, each with a name for it."""
    found = [(name, _of_class(kind)) for name, kind in names.items()]
    return [(name, known) for name, known in found if known is not None]


@cache
def _of_class(kind: str) -> Known | None:
    from music21 import instrument

    made = getattr(instrument, kind)()
    if isinstance(made, instrument.Vocalist | instrument.Choir):
        return CHOIR, False, None
    if isinstance(made, instrument.UnpitchedPercussion):
        return 0, True, getattr(made, "percMapPitch", None)
    return None if made.midiProgram is None else (int(made.midiProgram), False, None)
