"""MusicXML's standard sounds (``sounds.xml`` of version 4.0) as General MIDI sounds.

A sound that has no line of its own has that of its family: ``wind.reed.clarinet.bflat`` is a clarinet.
"""

from __future__ import annotations

_PROGRAMS = {
    "brass": 61, "brass.alphorn": 60, "brass.alto-horn": 60, "brass.baritone-horn": 58, "brass.bugle": 56,
    "brass.cimbasso": 58, "brass.conch-shell": 60, "brass.cornet": 56, "brass.cornett": 56, "brass.cornettino": 56,
    "brass.euphonium": 58, "brass.fiscorn": 58, "brass.flugelhorn": 56, "brass.french-horn": 60, "brass.group": 61,
    "brass.group.synth": 62, "brass.helicon": 58, "brass.kuhlohorn": 56, "brass.mellophone": 60,
    "brass.natural-horn": 60, "brass.ophicleide": 58, "brass.posthorn": 56, "brass.sackbutt": 57, "brass.saxhorn": 58,
    "brass.serpent": 58, "brass.shofar": 60, "brass.sousaphone": 58, "brass.trombone": 57, "brass.trumpet": 56,
    "brass.tuba": 58, "brass.vienna-horn": 60, "brass.wagner-tuba": 60,
    "drum.taiko": 116, "drum.timpani": 47, "drum.tom-tom.synth": 118, "effect.applause": 126, "effect.bird": 123,
    "effect.breath": 121, "effect.guitar-fret": 120, "effect.gunshot": 127, "effect.helicopter": 125,
    "effect.seashore": 122, "effect.telephone-ring": 124,
    "keyboard": 0, "keyboard.accordion": 21, "keyboard.bandoneon": 23, "keyboard.celesta": 8, "keyboard.clavichord": 7,
    "keyboard.concertina": 21, "keyboard.harmonium": 20, "keyboard.harpsichord": 6, "keyboard.ondes-martenot": 80,
    "keyboard.organ": 19, "keyboard.organ.drawbar": 16, "keyboard.organ.percussive": 17, "keyboard.organ.reed": 20,
    "keyboard.organ.rotary": 18, "keyboard.piano.electric": 4, "keyboard.piano.honky-tonk": 3, "keyboard.virginal": 6,
    "metal.bells.agogo": 113, "metal.bells.carillon": 14, "metal.bells.chimes": 14, "metal.bells.church": 14,
    "metal.bells.tinklebell": 112, "metal.crotales": 9, "metal.cymbal.reverse": 119, "metal.hang": 114,
    "metal.steel-drums": 114,
    "pitched-percussion": 12, "pitched-percussion.bell-lyre": 9, "pitched-percussion.bells": 14,
    "pitched-percussion.cimbalom": 15, "pitched-percussion.crystal-glasses": 92, "pitched-percussion.fangxiang": 9,
    "pitched-percussion.gangsa": 9, "pitched-percussion.gender": 11, "pitched-percussion.glass-harmonica": 92,
    "pitched-percussion.glockenspiel": 9, "pitched-percussion.hammer-dulcimer": 15, "pitched-percussion.handbells": 14,
    "pitched-percussion.kalimba": 108, "pitched-percussion.khim": 15, "pitched-percussion.likembe": 108,
    "pitched-percussion.mbira": 108, "pitched-percussion.metallophone": 11, "pitched-percussion.music-box": 10,
    "pitched-percussion.sanza": 108, "pitched-percussion.tsymbaly": 15, "pitched-percussion.tubular-bells": 14,
    "pitched-percussion.vibraphone": 11, "pitched-percussion.xylophone": 13, "pitched-percussion.xylorimba": 13,
    "pitched-percussion.yangqin": 15,
    "pluck": 24, "pluck.bajo": 32, "pluck.banjo": 105, "pluck.banjolele": 105, "pluck.bass": 33,
    "pluck.bass.acoustic": 32, "pluck.bass.fretless": 35, "pluck.bass.guitarron": 32, "pluck.bass.synth": 38,
    "pluck.bass.washtub": 32, "pluck.celtic-harp": 46, "pluck.dulcimer": 15, "pluck.guitar.electric": 27,
    "pluck.guitar.steel-string": 25, "pluck.guzheng": 107, "pluck.harp": 46, "pluck.kantele": 46, "pluck.kanun": 15,
    "pluck.kayagum": 107, "pluck.koto": 107, "pluck.lyre": 46, "pluck.mandobass": 32, "pluck.mandolin": 25,
    "pluck.psaltery": 46, "pluck.sanshin": 106, "pluck.santoor": 15, "pluck.sanxian": 106, "pluck.shamisen": 106,
    "pluck.sitar": 104, "pluck.synth": 84, "pluck.synth.chiff": 83, "pluck.veena": 104, "pluck.zither": 15,
    "strings": 48, "strings.arpeggione": 42, "strings.baryton": 42, "strings.cello": 42, "strings.contrabass": 43,
    "strings.erhu": 110, "strings.fiddle": 110, "strings.group.synth": 50, "strings.hurdy-gurdy": 110,
    "strings.nyckelharpa": 110, "strings.octobass": 43, "strings.rebec": 40, "strings.stroh-violin": 40,
    "strings.vielle": 40, "strings.viol": 42, "strings.viol.alto": 41, "strings.viol.treble": 40,
    "strings.viol.violone": 43, "strings.viola": 41, "strings.viola-damore": 41, "strings.violin": 40,
    "strings.violono.piccolo": 40, "strings.violotta": 41,
    "synth": 81, "synth.effects": 96, "synth.effects.atmosphere": 99, "synth.effects.brightness": 100,
    "synth.effects.crystal": 98, "synth.effects.echoes": 102, "synth.effects.goblins": 101, "synth.effects.rain": 96,
    "synth.effects.sci-fi": 103, "synth.effects.soundtrack": 97, "synth.group": 50, "synth.group.fifths": 86,
    "synth.group.orchestra": 55, "synth.pad": 88, "synth.pad.bowed": 92, "synth.pad.choir": 91, "synth.pad.halo": 94,
    "synth.pad.metallic": 93, "synth.pad.polysynth": 90, "synth.pad.sweep": 95, "synth.pad.warm": 89,
    "synth.theremin": 80, "synth.tone.sine": 80, "synth.tone.square": 80,
    "voice": 52, "voice.aw": 53, "voice.doo": 53, "voice.mm": 53, "voice.oo": 53, "voice.synth": 54,
    "wind": 73, "wind.flutes.blown-bottle": 76, "wind.flutes.calliope": 82, "wind.flutes.fife": 72,
    "wind.flutes.flute.piccolo": 72, "wind.flutes.ocarina": 79, "wind.flutes.panpipes": 75, "wind.flutes.recorder": 74,
    "wind.flutes.shakuhachi": 77, "wind.flutes.whistle": 78, "wind.jug": 76, "wind.pipes": 109, "wind.reed": 68,
    "wind.reed.basset-horn": 71, "wind.reed.bassoon": 70, "wind.reed.chalumeau": 71, "wind.reed.clarinet": 71,
    "wind.reed.clarinette-damour": 71, "wind.reed.contrabass": 70, "wind.reed.contrabassoon": 70,
    "wind.reed.dulcian": 70, "wind.reed.english-horn": 69, "wind.reed.harmonica": 22, "wind.reed.heckelphone": 69,
    "wind.reed.heckelphone-clarinet": 71, "wind.reed.melodica": 22, "wind.reed.oboe-da-caccia": 69,
    "wind.reed.rackett": 70, "wind.reed.sarrusaphone": 70, "wind.reed.saxophone": 65,
    "wind.reed.saxophone.baritone": 67, "wind.reed.saxophone.bass": 67, "wind.reed.saxophone.contrabass": 67,
    "wind.reed.saxophone.sopranino": 64, "wind.reed.saxophone.sopranissimo": 64, "wind.reed.saxophone.soprano": 64,
    "wind.reed.saxophone.subcontrabass": 67, "wind.reed.saxophone.tenor": 66, "wind.reed.shenai": 111,
    "wind.reed.tarogato": 71, "wind.reed.zurna": 111,
}  # fmt: skip
# Keys of General MIDI's drums; None: several, or none of them in particular.
_DRUMS = {
    "drum": None, "drum.bass-drum": 36, "drum.bongo": 60, "drum.conga": 63, "drum.cuica": 79, "drum.kick-drum": 36,
    "drum.snare-drum": 38, "drum.snare-drum.electric": 40, "drum.tambourine": 54, "drum.tenor-drum": 45,
    "drum.timbale": 65, "drum.tom-tom": 45, "effect": None, "effect.hand-clap": 39, "effect.whip": 39,
    "effect.whistle": 71, "metal": None, "metal.anvil": 56, "metal.bells.bell-tree": 83, "metal.bells.cowbell": 56,
    "metal.bells.jingle-bell": 83, "metal.bells.sleigh-bells": 83, "metal.brake-drums": 56, "metal.cymbal": 49,
    "metal.cymbal.chinese": 52, "metal.cymbal.ride": 51, "metal.cymbal.splash": 55, "metal.gong": 52, "metal.guira": 73,
    "metal.hi-hat": 42, "metal.tamtam": 52, "metal.triangle": 81, "rattle": 70, "rattle.cabasa": 69,
    "rattle.maraca": 70, "rattle.shaker": 82, "rattle.vibraslap": 58, "voice.percussion": None, "wood": 76,
    "wood.castanets": 85, "wood.claves": 75, "wood.drum-sticks": 31, "wood.guiro": 73, "wood.slapstick": 39,
}  # fmt: skip


def by_sound(sound: str) -> tuple[int, bool, int | None] | None:
    """Program, whether it is drums, and which drum, of an ``<instrument-sound>``; None of one that is not standard."""
    words = sound.strip().lower().split(".")
    if words[0] == "drum" and words[1:2] == ["group"]:
        return 0, True, None
    for n in range(len(words), 0, -1):
        name = ".".join(words[:n])
        if name in _PROGRAMS:
            return _PROGRAMS[name], False, None
        if name in _DRUMS:
            return 0, True, _DRUMS[name]
    return None
