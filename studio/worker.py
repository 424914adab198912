"""``python -m studio.worker``: the child process that rolls out, one job after another.

It reads a JSON object a line, and answers with lines of ``{"id": ..., "event": ...}``: ``begun``, ``progress``, then
``done`` or ``error``. It runs in one thread at a low priority, so that a training beside it hardly notices.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import threading
import traceback
from collections import OrderedDict
from pathlib import Path

from errors import UserError
from studio.job import MAX_SECONDS, MAX_TOTAL, Job, download_name, sentence, take_name

NICE = 13  # about a twentieth of a busy core, by the scheduler's weights: a training goes first
MAX_MODELS = 2  # kept in memory
BITS = 24


class Models:
    """Predictors, each loaded once as long as its files are the same."""

    def __init__(self):
        self.loaded: OrderedDict = OrderedDict()

    def get(self, path: Path, previous: bool):
        """The newest complete state of a run, or the one before it."""
        from checkpoint import previous_state, read_metadata
        from predictor import Predictor

        place = read_metadata(path).resolve("state")
        key = (path, previous, identity(path), identity(previous_state(place) if previous else place))
        if key not in self.loaded:
            self.loaded[key] = Predictor.load(path, previous=previous)
            while len(self.loaded) > MAX_MODELS:
                self.loaded.popitem(last=False)
        self.loaded.move_to_end(key)
        return self.loaded[key]


def identity(path: Path) -> tuple:
    """Changes whenever a file is replaced; empty where there is none."""
    try:
        status = path.stat()
    except OSError:
        return ()
    return status.st_ino, status.st_mtime_ns, status.st_size


class Listening:
    """What has been made so far, for who plays it meanwhile: 16-bit samples in ``K.pcm``, and peaks.

    Args:
        files: one for each take.
        n_samples: of each take, at most.
        channels: of each, 1 or 2.
        first: the sample that the peaks begin at.
    """

    def __init__(self, files: list[Path], n_samples: int, channels: int, first: int = 0):
        from studio.picture import Peaks

        self.files = [open(path, "wb", buffering=0) for path in files]  # noqa: SIM115
        self.n_samples, self.channels = n_samples, channels
        self.waves = [Peaks(n_samples, first) for _ in files]
        self.n_done = [0] * len(files)

    def hear(self, index: int, samples):
        """Add samples of one take. Shape: float32 ``[n]`` or ``[2, n]``"""
        import numpy as np

        start = self.n_done[index]
        samples = np.atleast_2d(samples)[:, : self.n_samples - start]
        self.waves[index].add(start, samples)
        integers = np.rint(32767 * np.clip(samples, -1, 1)).astype("<i2")
        self.files[index].write(np.ascontiguousarray(integers.T).tobytes())
        self.n_done[index] = start + samples.shape[1]

    def peaks(self) -> list[list[int]]:
        """Of each take, up to where it is: 0 to 100 for each column."""
        return [wave.columns(n) for wave, n in zip(self.waves, self.n_done, strict=True)]

    def close(self):
        for file in self.files:
            file.close()


def load_prompt(job: Job, framing):
    """The prompt with the meter that its bars are counted in."""
    from meter import Meter, with_options
    from prompt import load, load_chords

    sound = framing.sample_rate, framing.channels, None
    tempo, beats = job.tempo, job.meter.strip() or None
    if job.chords.strip():
        meter = with_options(Meter(), tempo, beats)
        return load_chords(job.chords, meter, job.key.strip() or None, job.instrument.strip() or None, *sound)
    prompt = load(job.prompt, *sound, job.start, job.stop)
    meter = with_options(prompt.meter, tempo, beats)
    if job.unit == "bars" and meter is None:
        raise UserError(f"{job.prompt}: has no tempo that bars could be counted in; give a tempo")
    return dataclasses.replace(prompt, name=job.name, meter=meter)


def roll_out(models: Models, job: Job, folder: Path, say, stopped) -> dict:
    """Write the continuations of a job into ``folder``, and tell of them meanwhile."""
    from audio_file import AudioFormat
    from spectrogram import frequency_ticks
    from studio.picture import SHOWN_PROMPT, peaks_of, spectrogram
    from takes import lengths, plan, write_takes

    predictor = models.get(Path(job.metadata), job.previous)
    framing, n = predictor.config.featurizer, job.continuations
    prompt, bars = load_prompt(job, framing), int(job.length) if job.unit == "bars" else None
    n_frames, seconds = lengths(framing, [prompt], None, None if bars else job.length, bars)
    if bars and (seconds[0] > MAX_SECONDS or n * seconds[0] > MAX_TOTAL):
        raise UserError(f"{n} x {bars} bars are {n * seconds[0]:.0f} seconds, which is too much; ask for less.")
    stem = f"{prompt.name}-next"
    paths = [folder / (f"{stem}.wav" if n == 1 else f"{stem}-{k}.wav") for k in range(1, n + 1)]
    takes = plan(predictor, [prompt], paths, seconds)
    rate, n_prompt = framing.sample_rate, takes[0].waveform.shape[-1]
    n_samples = n_prompt + round(seconds[0] * rate)
    live = {"sample_rate": rate, "channels": framing.channels, "n_samples": n_samples}
    (folder / "live.json").write_text(json.dumps(live))
    first = max(0, n_prompt - round(SHOWN_PROMPT * rate))
    heard = [folder / f"{k}.pcm" for k in range(1, n + 1)]
    listening = Listening(heard, n_samples, framing.channels, first)
    say(
        "begun",
        step=predictor.step,
        join=n_prompt / rate,
        shown_from=first / rate,
        seconds=n_samples / rate,
        n_columns=len(listening.waves[0].heights),
        peaks=listening.peaks(),
    )
    try:
        written = write_takes(
            predictor,
            takes,
            n,
            n_frames,
            AudioFormat("wav", BITS, rate, framing.channels),
            loop=bars is not None,
            stopped=stopped,
            heard=listening.hear,
            progress=lambda n_done: say("progress", done=n_done / n_frames, peaks=listening.peaks()),
            temperature=job.temperature,
            seed=job.seed,
        )
    finally:
        listening.close()
    results = []
    for k, one in enumerate(written, 1):
        one.take.path.with_suffix(".png").write_bytes(spectrogram(one.take.path, framing, first))
        meter = None if prompt.meter is None else dataclasses.astuple(prompt.meter)
        numbers = {field.name: getattr(one, field.name) for field in dataclasses.fields(one) if field.name != "take"}
        result = {"file": one.take.path.name, "written": numbers, "meter": meter, "name": prompt.name}
        result["line"] = prompt.line
        results.append({**result, "download": download_name(take_name(job, k))})
    n_written = min(one.n_samples for one in written)
    live["n_samples"] = n_written
    (folder / "live.json").write_text(json.dumps(live))
    (folder / "results.json").write_text(json.dumps(results))
    peaks = [peaks_of(path, framing.channels, n_written, first) for path in heard]
    return {
        "step": predictor.step,
        "join": n_prompt / rate,
        "seconds": n_written / rate,
        "files": [result["file"] for result in results],
        "peaks": peaks,
        "n_columns": len(peaks[0]),
        "hertz": [[place, hertz] for hertz, place in frequency_ticks(framing).items()],
        "stopped": n_written < n_samples,
        "remarks": prompt.remarks,
        "other_tempo": next((one.other_tempo for one in written if one.other_tempo), None),
    }


def render(folder: Path, index: int, form: str) -> dict:
    """Another form of a result: ``flac`` or ``mid``, beside its WAV file."""
    from meter import Meter
    from prompt import Prompt
    from takes import Take, Written, write_flac, write_midi

    result = json.loads((folder / "results.json").read_text())[index]
    meter = None if result["meter"] is None else Meter(*result["meter"])
    take = Take(folder / result["file"], Prompt(result["name"], None, meter, line=result["line"]), None, 0.0)
    written = Written(take, **result["written"])
    path = take.path.with_suffix(f".{form}")
    if not path.exists() and form == "flac":
        write_flac(written)
    elif not path.exists():
        from transcription import Transcriber

        write_midi(written, Transcriber())
    return {"file": path.name}


def answer(models: Models, request: dict, say, stopped):
    """Do what a request asks; every end of it is said."""
    folder = Path(request["folder"])
    private = {f"{folder}/": ""}
    try:
        if request["do"] == "render":
            say("done", **render(folder, request["index"], request["form"]))
            return
        job = Job(**request["job"])
        private |= {f"{Path(job.metadata).parent}/": ""}
        if job.prompt is not None:
            private = {job.prompt: Path(job.prompt).name, **private}
        say("done", **roll_out(models, job, folder, say, stopped))
    except UserError as error:
        say("error", text=sentence(str(error), private))
    except KeyboardInterrupt:
        say("error", text="Stopped before there was anything to hear.")
    except OSError as error:
        traceback.print_exc()
        say("error", text=f"A file could not be used ({error.strerror}); see the server's log.")
    except Exception:  # a mistake of ours must not end the studio
        traceback.print_exc()
        say("error", text="The rollout failed; the server's log says why.")


def main() -> int:
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # nobody else writes between the lines
    requests: list[dict] = []
    wanted, stops = threading.Condition(), set()

    def listen():
        for line in sys.stdin:
            request = json.loads(line)
            with wanted:
                if request["do"] == "stop":
                    stops.add(request["id"])
                else:
                    requests.append(request)
                wanted.notify()
        os._exit(0)  # the server is gone

    threading.Thread(target=listen, daemon=True).start()
    import torch

    torch.set_num_threads(1)
    import takes  # noqa: F401 - the first job need not wait for it

    os.nice(NICE)  # from here on; beside a training on all cores, what stands above would take a minute

    models = Models()
    while True:
        with wanted:
            wanted.wait_for(lambda: requests)
            request = requests.pop(0)
        number = request["id"]

        def say(event: str, number=number, **fields):
            out.write(json.dumps({"id": number, "event": event, **fields}) + "\n")
            out.flush()

        answer(models, request, say, lambda number=number: number in stops)
        stops.discard(number)


if __name__ == "__main__":
    sys.exit(main())
