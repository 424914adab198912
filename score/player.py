"""A performance -> a waveform, by TinySoundFont and a General MIDI soundfont."""

from __future__ import annotations

from score.performance import BadScore, Performance

SILENCE = 1e-5
DRUM_BANK = 128
MAX_VOICES = 256


def synthesize(performance: Performance, sample_rate: int, soundfont: str, channels: int = 1, release: float = 0.0):
    """Play: float32 ``[n_samples]``, or ``[2, n_samples]`` where ``channels`` is 2.

    Args:
        release: seconds that are kept after the end of the last note. By default the release of the last chord is cut
            off: a continuation goes on from the sounding music.

    Raises:
        BadScore: nothing to be heard.
    """
    import numpy as np

    synth, out_of = _Synth(sample_rate, soundfont), {}
    events = []  # (sample, order, call, arguments): at one instant notes end before others begin
    end = 0
    for note in performance.notes:
        pitch = round(note.pitch)
        cents = round(100 * (note.pitch - pitch))
        key = (note.instrument, cents)
        if key not in out_of:
            out_of[key] = synth.channel(performance.instruments[note.instrument], cents)
        channel = out_of[key]
        start, stop = round(note.onset * sample_rate), round(note.end * sample_rate)
        end = max(end, stop)
        if channel is not None:
            events.append((start, 2, synth.on, (channel, pitch, note.velocity)))
            events.append((max(stop, start + 1), 0, synth.off, (channel, pitch)))
    by_instrument: dict[int, list[int]] = {}
    for (instrument, _), channel in out_of.items():
        if channel is not None:
            by_instrument.setdefault(instrument, []).append(channel)
    for change in performance.changes:
        for channel in by_instrument.get(change.instrument, ()):
            drums = performance.instruments[change.instrument].drums
            events.append((round(change.time * sample_rate), 1, synth.change, (channel, change, drums)))
    events = sorted((event for event in events if event[0] <= end), key=lambda event: event[:2])
    end += round(release * sample_rate)
    waveform = np.zeros((channels, max(1, end)) if channels == 2 else max(1, end), np.float32)
    now = 0
    for sample, _, call, arguments in [*events, (end, 3, None, ())]:
        if sample > now:
            stereo = synth.generate(sample - now)
            waveform[..., now:sample] = stereo.T if channels == 2 else stereo.mean(axis=1)
            now = sample
        if call is not None:
            call(*arguments)
    if not np.isfinite(waveform).all() or np.abs(waveform).max(initial=0.0) < SILENCE:
        raise BadScore("sounds of nothing; give a score whose notes have a pitch and a dynamic")
    return waveform


class _Synth:
    """TinySoundFont with a channel for each instrument and tuning."""

    def __init__(self, sample_rate: int, soundfont: str):
        try:
            import tinysoundfont
        except ImportError:
            remedy = "pip install --no-deps -r requirements-nodeps.txt"
            raise BadScore(f"cannot be played, since tinysoundfont is not installed; {remedy}") from None

        self.synth = tinysoundfont.Synth(samplerate=sample_rate)
        try:
            self.font = self.synth.sfload(soundfont, max_voices=MAX_VOICES)
        except Exception as error:  # RuntimeError or SoundFontException, by the version
            raise BadScore(f"cannot be played, since {soundfont} is no soundfont that can be read") from error
        self.n_channels, self.banks, self.cents = 0, {}, {}
        self.on, self.off = self.synth.noteon, self.synth.noteoff

    def channel(self, instrument, cents: int) -> int | None:
        """A new channel that sounds so; None where the soundfont has nothing for it (a drum kit, as a rule)."""
        channel = self.n_channels
        wanted = [(DRUM_BANK, instrument.program), (DRUM_BANK, 0)] if instrument.drums else self._programs(instrument)
        for bank, program in wanted:
            if self._select(channel, bank, program, instrument.drums):
                break
        else:
            return None
        self.n_channels += 1
        self.cents[channel] = cents
        if cents:
            self.synth.set_tuning(channel, cents / 100)
        return channel

    def _programs(self, instrument):
        yield instrument.bank, instrument.program
        yield 0, instrument.program
        yield 0, 0
        yield from ((0, program) for program in range(128))  # a soundfont of one instrument

    def _select(self, channel: int, bank: int, program: int, drums: bool) -> bool:
        if self.synth.sfpreset_name(self.font, bank, program) is None:
            return False
        try:
            self.synth.program_select(channel, self.font, bank, program, drums)
        except RuntimeError:
            return False
        return True

    def change(self, channel: int, change, drums: bool):
        if change.kind == "bend":
            self.synth.pitchbend(channel, change.value + 8192)
        elif change.kind == "range":
            self.synth.pitchbend_range(channel, change.value / 100)
        elif change.kind == "tuning":
            self.synth.set_tuning(channel, (change.value + self.cents[channel]) / 100)
        elif change.kind == "bank":
            self.banks[channel] = change.value
        elif change.kind == "control":
            self.synth.control_change(channel, change.number, change.value)
        elif drums:
            self._select(channel, DRUM_BANK, change.value, True)
        else:
            bank = self.banks.get(channel, self.synth.program_info(channel)[1])
            _ = self._select(channel, bank, change.value, False) or self._select(channel, 0, change.value, False)

    def generate(self, n_samples: int):
        """float32 ``[n_samples, 2]``"""
        import numpy as np

        return np.frombuffer(self.synth.generate(n_samples), dtype=np.float32).reshape(-1, 2)
