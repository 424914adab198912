"""What a row of :mod:`bench.sound` is measured against: prompts, what really follows, the usual range."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from errors import UserError

PROMPT_SECONDS = 3.0
REFERENCE_WINDOWS = 800  # of the training recordings, 3 s each
CORPUS_SECONDS = 3600.0  # of the corpus, from which the usual range of each figure is taken
N_SHARED = 32  # recordings in which it is looked for what they share with others
N_LONG = 4  # prompts that are continued for longer, unless more are asked for
QUIET = 0.03  # of the corpus' level: a prompt below (-30 dB) is skipped


@dataclass(frozen=True)
class Protocol:
    """What every row at one sample rate is measured against; made by :func:`make_protocol`.

    ``real`` are the prompts and what follows, ``[n_prompts, n_prompt + n_piece]``, and ``real_long_pieces`` the same
    for each of the prompts ``long_rows``, for as long as its recording goes on, at most ``n_prompt + n_long`` samples;
    each piece scaled so that its prompt has the RMS ``level``. ``long_rows`` are continued for longer by the models,
    however long their recordings are; those whose recording is long enough come first. ``recordings`` names the
    recording of each prompt, ``bands`` the corpus' percentiles ``{figure: {percent: value}}``.
    """

    sample_rate: int
    n_prompt: int
    n_piece: int
    n_long: int
    level: float
    recordings: list
    starts: list
    real: object
    long_rows: list
    real_long_pieces: list
    reference: object  # [m, 200], training recordings
    real_embeddings: object  # [n_prompts, n_windows, 200]
    bands: dict
    training_frames: object  # [m, metrics.COPY_MELS], unit length
    frame_mean: object
    tempos: list  # quarters a minute, of each prompt with what really follows
    shared: list  # s, of pieces of the corpus: the longest stretch that follows one place of another recording
    network: object
    transcriber: object = None
    seed: int = 0
    real_row: dict = field(default_factory=dict)

    @property
    def real_long(self):
        """What follows those of ``long_rows`` whose recording is long enough, ``[k, n_prompt + n_long]``; None where
        none is."""
        import torch

        whole = [piece for piece in self.real_long_pieces if len(piece) == self.n_prompt + self.n_long]
        return torch.stack(whole) if whole else None

    @property
    def groups(self) -> list:
        """What the classifier leaves out together: recordings, or prompts of the only one."""
        return self.recordings if len(set(self.recordings)) > 1 else [str(i) for i in range(len(self.recordings))]


def make_protocol(
    corpus,
    hold_out: float,
    network,
    transcriber=None,
    n_prompts=32,
    seconds=20.0,
    long_seconds=60.0,
    seed=0,
    say=print,
    n_long_prompts=N_LONG,
) -> Protocol:
    """Choose the prompts in the held-out recordings and measure the corpus.

    Args:
        n_long_prompts: how many of them are continued for ``long_seconds``, or all where there are not so many.

    Raises:
        UserError: no held-out recording is long enough.
    """
    import numpy as np
    import torch

    import metrics
    import rhythm
    from dataset import split, spread_chunks

    rate, level = corpus.sample_rate, corpus.level
    n_prompt, n_piece, n_long = (round(s * rate) for s in (PROMPT_SECONDS, seconds, long_seconds))
    training, held_out = split(corpus, hold_out)
    places = spread_places(held_out, n_prompts, n_prompt, n_piece, rate, QUIET * level)
    if len(places) < 2:
        wanted = f"{PROMPT_SECONDS + seconds:.0f} s long"
        raise UserError(f"recordings: none that is held out is {wanted} and not silent; add some, or lower --seconds")
    real = torch.stack([_scaled(s.read(at, n_prompt + n_piece)[0], n_prompt, level) for s, at in places])
    long_places = [i for i, (s, at) in enumerate(places) if at + n_prompt + n_long <= s.n_samples]
    names = [s.recording.name for s, _ in places]
    rest = [i for i in range(len(places)) if i not in long_places]
    long_rows = _over_recordings(long_places, names, n_long_prompts)
    long_rows += _over_recordings(rest, names, n_long_prompts - len(long_rows))
    lengths = [(s, at, min(n_prompt + n_long, s.n_samples - at)) for s, at in (places[i] for i in long_rows)]
    real_long_pieces = [_scaled(s.read(at, n)[0], n_prompt, level) for s, at, n in lengths]

    say("embeddings of the training recordings")
    reference = embed_all(network, _reference_windows(training, rate), rate)
    reference = reference.reshape(-1, reference.shape[-1])
    real_embeddings = embed_all(network, real[:, n_prompt:], rate)
    say("figures of the corpus")
    whole = [s for s in [*training, *held_out] if s.n_samples >= n_prompt + n_piece]
    n_chunks = max(1, int(CORPUS_SECONDS * rate / (n_prompt + n_piece)))
    chunks = spread_chunks(whole, n_chunks, n_prompt + n_piece, seed)
    loud = [c for c in chunks if np.sqrt(np.square(c[:n_prompt]).mean()) >= QUIET * level]
    bands = corpus_bands([_scaled(c, n_prompt, level)[n_prompt:] for c in loud], rate)
    parts = [(s.recording.name, frames) for s in training for frames in _training_frames(s, rate)]
    frames, owners = np.concatenate([f for _, f in parts]), np.repeat([n for n, _ in parts], [len(f) for _, f in parts])
    mean = frames[frames.any(-1)].mean(0)
    frames = metrics.unit_frames(frames, mean)
    say("what recordings share")
    shared = list(_shared(whole, frames, owners, mean, n_piece, rate))
    return Protocol(
        sample_rate=rate,
        n_prompt=n_prompt,
        n_piece=n_piece,
        n_long=n_long,
        level=level,
        recordings=names,
        starts=[(s.start + at) / rate for s, at in places],
        real=real,
        long_rows=long_rows,
        real_long_pieces=real_long_pieces,
        reference=reference,
        real_embeddings=real_embeddings,
        bands=bands,
        training_frames=frames,
        frame_mean=mean,
        tempos=[rhythm.tempo(piece.numpy(), rate) for piece in real],
        shared=shared,
        network=network,
        transcriber=transcriber,
        seed=seed,
    )


def spread_places(segments, n: int, n_prompt: int, n_piece: int, sample_rate: int, quiet: float) -> list[tuple]:
    """``(segment, first sample)`` of prompts that n_piece samples follow: as many in each segment as its
    length demands, evenly spaced (they overlap only where there is no room), none of them near silence."""
    import numpy as np

    rooms = [(s, s.n_samples - n_prompt - n_piece) for s in segments if s.n_samples >= n_prompt + n_piece]
    total = sum(s.n_samples for s, _ in rooms)
    edges = np.cumsum([0] + [s.n_samples for s, _ in rooms]) * n / max(total, 1)
    places = []
    for (segment, room), first, last in zip(rooms, edges[:-1].round(), edges[1:].round(), strict=True):
        stride = room / max(1, last - first)
        for j in range(int(last - first)):
            tries = range(int((j + 0.5) * stride), int((j + 1) * stride) + 1, sample_rate)
            for at in tries:  # from the middle of its share on, second by second
                if np.sqrt(np.square(segment.read(at, n_prompt)[0]).mean()) >= quiet:
                    places.append((segment, at))
                    break
    return places


def corpus_bands(pieces, sample_rate: int) -> dict:
    """Percentiles 1 to 99 of the figures: per second, and (``movement_*``) of each piece as a whole."""
    import numpy as np

    import metrics

    values = {}
    for piece in pieces:
        for name, seconds in metrics.spectral_figures(piece, sample_rate).items():
            values.setdefault(name, []).append(seconds)
        for name, value in metrics.movement(piece, sample_rate).items():
            values.setdefault(f"movement_{name}", []).append(np.atleast_1d(value))
    percents = (1, 5, 10, 50, 90, 95, 99)
    columns = {name: np.concatenate(parts) for name, parts in values.items()}
    return {
        name: dict(zip(percents, map(float, np.nanpercentile(column, percents)), strict=True))
        for name, column in columns.items()
        if np.isfinite(column).any()
    }


def _over_recordings(candidates, names: list, n: int) -> list[int]:
    """n of the candidates, from as many recordings as there are."""
    seen, ranked = {}, []
    for i in candidates:
        seen[names[i]] = seen.get(names[i], -1) + 1
        ranked.append((seen[names[i]], i))
    return sorted(i for _, i in sorted(ranked)[:n])


def stereo_pieces(protocol: Protocol, corpus):
    """What ``protocol.real`` is, from the same recordings opened in stereo: ``[n_prompts, 2, n_prompt + n_piece]``.

    One gain for both channels brings the prompt to that corpus' level.
    """
    import torch

    p, by_name = protocol, {recording.name: recording for recording in corpus.recordings}
    places = [(by_name[name], round(start * p.sample_rate)) for name, start in zip(p.recordings, p.starts, strict=True)]
    return torch.stack([_scaled(r.read(at, p.n_prompt + p.n_piece), p.n_prompt, corpus.level) for r, at in places])


def mixed_down(protocol: Protocol, waveforms):
    """Waveforms as the figures see them: of stereo ``[n, 2, n_samples]``, the mix to mono ``[n, n_samples]`` with
    each prompt at the protocol's level; mono as it is."""
    import torch

    if waveforms.dim() == 2:
        return waveforms
    return torch.stack([_scaled(w, protocol.n_prompt, protocol.level) for w in waveforms.mean(1)])


def _scaled(waveform, n_prompt: int, level: float):
    """The piece as a tensor, with its prompt at ``level``."""
    import torch

    waveform = torch.as_tensor(waveform)
    return waveform * (level / waveform[..., :n_prompt].square().mean().sqrt().clamp(min=1e-8))


def embed_all(network, waveforms, sample_rate: int):
    """Embeddings of the windows of waveforms of one length, float64 ``[n_waveforms, n_windows, 200]``."""
    import torch

    from bench.musicnn import windows

    parts = [windows(torch.as_tensor(waveform).contiguous(), sample_rate) for waveform in waveforms]
    # Two at a time: larger batches need memory that is handed back and asked for at every layer.
    embeddings = torch.cat([network.embed(pair) for pair in torch.cat(parts).split(2)])
    return embeddings.numpy().astype("float64").reshape(len(parts), len(parts[0]), -1)


def _reference_windows(training, sample_rate: int):
    """Up to REFERENCE_WINDOWS pieces of a window's length, 1.5 s or more apart, spread over all."""
    import numpy as np

    size, hop = math.ceil(3.0 * sample_rate), round(1.5 * sample_rate)
    places = [(s, at) for s in training for at in range(0, s.n_samples - size + 1, hop)]
    if len(places) < 2:
        raise UserError("recordings: those trained on are shorter than 3 s; add longer ones")
    for i in np.linspace(0, len(places) - 1, min(REFERENCE_WINDOWS, len(places))).astype(int):
        yield places[i][0].read(places[i][1], size)[0]


def _shared(segments, frames, owners, mean, n_piece: int, sample_rate: int, n: int = N_SHARED):
    """Of the middles of up to n recordings: the longest stretch, s, that follows one place of another one."""
    import numpy as np

    import metrics

    segments = list({s.recording.name: s for s in segments}.values())
    for i in np.linspace(0, len(segments) - 1, min(n, len(segments))).round().astype(int):
        piece, _ = segments[i].read((segments[i].n_samples - n_piece) // 2, n_piece)
        others = frames[owners != segments[i].recording.name]
        if len(others):
            own = metrics.unit_frames(metrics.copy_frames(piece, sample_rate), mean)
            yield metrics.longest_copy(own, others) / metrics.COPY_RATE


def _training_frames(segment, sample_rate: int, n_frames: int = 600):
    """A recording's frames, a minute at a time."""
    import metrics

    step = n_frames * metrics.COPY_PHASES * round(sample_rate / metrics.COPY_RATE / metrics.COPY_PHASES)
    for at in range(0, segment.n_samples, step):
        waveform, _ = segment.read(at, step + sample_rate)  # its last window reaches beyond
        yield metrics.copy_frames(waveform, sample_rate, 1)[0, :n_frames].astype("float32")
