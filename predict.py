"""Continue scores, recordings or chords with what the newest state of a model makes."""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import os
import signal
import sys
from pathlib import Path

from config import YOUNG_STEPS, is_young
from errors import UserError, count, exit_status
from meter import MAX_TEMPO, MIN_TEMPO, Meter, parse_time_signature, with_options
from terminal import Output, Stop, interruptible

MAX_SECONDS = 6 * 3600.0  # of continuation
DEFAULT_SECONDS = 10.0  # of continuation
MIN_SECONDS = 0.1  # of an audio prompt's part
MAX_ROWS = 64  # prompts times continuations
RATES = 8000, 192000  # Hz, lowest and highest
TYPED = "chords"  # name of a typed prompt
LEFTOVERS = "*.f32.tmp", "*.new.tmp", "*.png.*.tmp", "*.mid.*.tmp"  # see audio_file.AudioFile, takes.write_picture


def parse_arguments(argv=None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="predict.py", description="Turn prompts into sound, go on for N frames and write audio files."
    )
    add = parser.add_argument
    add("metadata", metavar="METADATA", type=Path, help="the file that train.py writes")
    add(
        "prompts",
        metavar="PROMPT",
        type=Path,
        nargs="*",
        help="MusicXML (.musicxml .xml .mxl), MIDI or audio; several go on in one batch",
    )
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--frames", type=int, metavar="N", help="length of the continuation in frames")
    length.add_argument(
        "--seconds", type=float, metavar="S", help="length of the continuation in seconds, to the sample (default: 10)"
    )
    length.add_argument("--bars", type=int, metavar="N", help="length in bars of the prompt's tempo, to the sample")

    add = parser.add_argument_group("prompt").add_argument
    add("--from", type=float, metavar="S", dest="start", help="begin an audio prompt there")
    add("--to", type=float, metavar="S", dest="stop", help="end an audio prompt there")
    add("--chords", metavar="TEXT", help='a typed prompt: "Dm7 | G7 | Cmaj7 | A7"; with --key also "i VI III VII"')
    add("--key", metavar="KEY", help='of Roman numerals, e.g. "D minor"')
    add("--instrument", metavar="NAME", help="General MIDI's, that plays --chords (default: piano)")
    add(
        "--tempo",
        type=float,
        metavar="T",
        help="quarters a minute of --chords, bars and the continuation's beat (default: the score's)",
    )
    add("--meter", metavar="N/M", help="time signature, as --tempo (default: the score's, or 4/4)")
    add(
        "--voice",
        choices=["corpus", "plain"],
        default="corpus",
        help="how scores and chords sound: brought to the corpus' room and spectral envelope, or as they are played",
    )
    add("--soundfont", type=Path, metavar="FILE.sf2", help="plays scores and chords instead of the one built in")

    add = parser.add_argument_group("continuation").add_argument
    add("--continuations", type=int, default=1, metavar="C", help="different futures of each prompt, in numbered files")
    add(
        "--temperature",
        type=float,
        default=1.0,
        metavar="T",
        help="0: the likeliest, 1: as varied as the recordings (default: 1)",
    )
    add("--top-k", help=argparse.SUPPRESS)
    add("--seed", type=int, default=0, metavar="S", help="another seed, another continuation")

    add = parser.add_argument_group("output").add_argument
    add("-o", "--output", metavar="OUT", help="file (.wav or .flac) or folder; default: PROMPT-next.wav, here")
    add("--format", choices=["wav", "flac"], help="default: by the name of OUT, or wav")
    add("--bits", type=int, choices=[16, 24, 32], default=24, help="32: floats, in WAV only (default: 24)")
    add("--rate", type=int, metavar="HZ", help="sample rate (default: the model's)")
    add("--channels", type=int, choices=[1, 2], help="mono or stereo (default: as the model)")
    add("--only-new", action="store_true", help="write the continuation alone, to be put right behind the prompt")
    add("--fade", type=float, default=0.0, metavar="S", help="fade out at the end (equal power)")
    add("--picture", action="store_true", help="write a spectrogram beside it, OUT.png")
    add("--midi", action="store_true", help="write the notes that are heard in the continuation, OUT.mid")
    add("--midi-raw", action="store_true", help="the same as they are heard: not on the prompt's grid, with ghosts")
    add("--force", action="store_true", help="overwrite what is there")

    add = parser.add_argument_group("machine").add_argument
    add(
        "--device",
        choices=["auto", "cuda", "mps", "cpu"],
        default="cpu",
        help="default: cpu, so that a training on the accelerator is not disturbed",
    )
    add("--threads", type=int, default=1, help="CPU threads (default: 1, for the same reason)")
    arguments = parser.parse_intermixed_args(argv)
    if arguments.frames is None and arguments.seconds is None and arguments.bars is None:
        arguments.seconds = DEFAULT_SECONDS
    arguments.midi |= arguments.midi_raw
    return arguments


def check(arguments: argparse.Namespace) -> list[Path]:
    """Everything that can be said before anything heavy is loaded; the files to be written, the futures of each
    prompt one after another."""
    check_numbers(arguments)
    names = [prompt.stem for prompt in arguments.prompts] + [TYPED] * (arguments.chords is not None)
    if not names:
        raise UserError("no prompt; give a MusicXML, MIDI or audio file, or --chords")
    if len(names) * arguments.continuations > MAX_ROWS:
        prompts = count(len(names), "prompt")
        raise UserError(f"{prompts} x --continuations {arguments.continuations}: more than {MAX_ROWS} files")
    if arguments.soundfont is not None:
        from prompt import check_soundfont

        check_soundfont(arguments.soundfont)
    paths = output_paths(arguments, names)
    for path in paths:
        for file in [path, *besides(arguments, path)]:
            check_output(arguments, file)
    return paths


def check_numbers(arguments: argparse.Namespace):
    """Each option alone, and those that need each other."""
    frames, seconds, start, stop = arguments.frames, arguments.seconds, arguments.start, arguments.stop
    typed = arguments.chords is not None
    if frames is not None and frames < 1:
        raise UserError(f"--frames {frames}: must be at least 1")
    if seconds is not None and not 0 < seconds <= MAX_SECONDS:
        raise UserError(f"--seconds {seconds}: must be above 0 and at most {MAX_SECONDS:.0f}")
    if arguments.bars is not None and arguments.bars < 1:
        raise UserError(f"--bars {arguments.bars}: must be at least 1")
    if not 0 <= arguments.temperature <= 10:
        raise UserError(f"--temperature {arguments.temperature}: must be 0 to 10")
    if arguments.top_k is not None:
        raise UserError("--top-k: is no more, since models have no codes to choose among; use --temperature")
    if not 0 <= arguments.seed < 2**63:
        raise UserError(f"--seed {arguments.seed}: must be 0 or more, below 2^63")
    if arguments.threads < 1:
        raise UserError(f"--threads {arguments.threads}: must be at least 1")
    if arguments.continuations < 1:
        raise UserError(f"--continuations {arguments.continuations}: must be at least 1")
    if not 0 <= arguments.fade < MAX_SECONDS:
        raise UserError(f"--fade {arguments.fade}: must be 0 or more seconds")
    if arguments.rate is not None and not RATES[0] <= arguments.rate <= RATES[1]:
        raise UserError(f"--rate {arguments.rate}: must be {RATES[0]} to {RATES[1]} Hz")
    if arguments.tempo is not None and not MIN_TEMPO <= arguments.tempo <= MAX_TEMPO:
        raise UserError(f"--tempo {arguments.tempo}: must be {MIN_TEMPO:.0f} to {MAX_TEMPO:.0f} quarters a minute")
    if arguments.meter is not None:
        parse_time_signature(arguments.meter)
    if start is not None and not 0 <= start < float("inf"):
        raise UserError(f"--from {start}: must be 0 or more seconds")
    if stop is not None and not (start or 0) + MIN_SECONDS <= stop < float("inf"):
        raise UserError(f"--to {stop}: must be at least {MIN_SECONDS} s after --from {start or 0:g}")
    for name, option in (("key", arguments.key), ("instrument", arguments.instrument)):
        if option is not None and not typed:
            raise UserError(f"--{name} {option}: is for a typed prompt; give --chords too")
    if start is not None or stop is not None:
        from prompt import is_score

        if all(is_score(path) for path in arguments.prompts):
            raise UserError("--from, --to: are for audio; cut a score in its editor")


def output_paths(arguments: argparse.Namespace, names: list[str]) -> list[Path]:
    """Where each future of each prompt goes; prompts of one name get a number."""
    given, form = arguments.output or ".", arguments.format
    output, suffix = Path(given), f".{form or 'wav'}"
    if output.suffix.lower() in (".wav", ".flac") and not given.endswith(os.sep):
        if output.is_dir():
            raise UserError(f"{output}: is a folder; choose another name")
        if len(names) > 1:
            raise UserError(f"{output}: several prompts need a folder; write -o {output.with_suffix('')}{os.sep}")
        if form and output.suffix.lower() != suffix:
            raise UserError(f"{output}: is not named as --format {form} is; leave one of them out")
        stems, suffix = [str(output.with_suffix(""))], output.suffix
    elif output.is_dir() or given.endswith(os.sep) or len(names) > 1:
        stems = []
        for name in names:
            count, stem = 2, str(output / f"{name}-next")
            while stem.lower() in [other.lower() for other in stems]:
                count, stem = count + 1, str(output / f"{name}_{count}-next")
            stems.append(stem)
    else:
        raise UserError(f"{output}: the output is a .wav or .flac file, or a folder; name it OUT.wav")
    if suffix.lower() == ".flac" and arguments.bits == 32:
        raise UserError("--bits 32: FLAC has 16 or 24; write a WAV file")
    if arguments.continuations == 1:
        return [Path(stem + suffix) for stem in stems]
    return [Path(f"{stem}-{k}{suffix}") for stem in stems for k in range(1, arguments.continuations + 1)]


def besides(arguments: argparse.Namespace, path: Path) -> list[Path]:
    """What is written beside ``path``."""
    return [path.with_suffix(".png")] * arguments.picture + [path.with_suffix(".mid")] * arguments.midi


def check_output(arguments: argparse.Namespace, path: Path):
    """That ``path`` can be written, and may be."""
    folder, made = path.parent, Path(arguments.output or ".")
    if folder == made:  # a folder that is named as the output is made where it is missing
        while not folder.exists():
            folder = folder.parent
    if not folder.is_dir():
        raise UserError(f"{path}: there is no folder {path.parent}; make it first")
    if not os.access(folder, os.W_OK):
        raise UserError(f"{path}: no permission to write in {folder}; choose another folder with -o")
    if path.is_dir():
        raise UserError(f"{path}: is a folder; choose another name")
    if path.exists() and not arguments.force:
        raise UserError(f"{path}: exists; choose another name with -o, or overwrite it with --force")
    if path.exists() and any(prompt.exists() and path.samefile(prompt) for prompt in arguments.prompts):
        raise UserError(f"{path}: is the prompt itself; choose another name with -o")


def main(argv=None) -> int:
    with Output("predict.py") as output:
        arguments = parse_arguments(argv)
        with interruptible():  # what is unfinished is removed
            status = exit_status(
                "predict.py",
                lambda: run(arguments, check(arguments)),
                "no unfinished file is left",
                "ask for fewer --continuations or prompts at a time",
            )
        return output.status(status)


def run(arguments: argparse.Namespace, paths: list[Path]) -> int:
    from leftovers import sweep_leftovers

    for folder, pattern in itertools.product({path.parent for path in paths}, LEFTOVERS):
        for left in sweep_leftovers(folder, pattern):
            print(f"note: removed {left}, which a predict.py that was killed had left half-written", file=sys.stderr)
    stop = Stop(signal.default_int_handler)  # an exception would end PyTorch's import with a core dump
    try:
        return roll_out(arguments, paths, stop)
    finally:
        stop.give_back()


def roll_out(arguments: argparse.Namespace, paths: list[Path], stop: Stop) -> int:
    """Write the files, until ``stop`` asks for an end; returns the exit status."""
    # One pool of threads, and one that does not spin while it waits: training runs beside this.
    os.environ.setdefault("OMP_NUM_THREADS", str(arguments.threads))

    import threading
    import time
    from concurrent.futures import ThreadPoolExecutor

    from checkpoint import read_metadata

    began = time.monotonic()
    config = read_metadata(arguments.metadata).config
    framing = config.featurizer
    if arguments.frames:
        check_length(f"--frames {arguments.frames}", arguments.frames / framing.frame_rate)
    cancelled = threading.Event()
    with ThreadPoolExecutor(1) as pool:  # scores are played in a process of their own meanwhile
        try:
            loading = pool.submit(load_prompts, arguments, framing, lambda: stop.number or cancelled.is_set())
            import torch

            from audio_file import AudioFormat
            from device import select_device
            from predictor import Predictor
            from run_log import Progress
            from takes import lengths, plan, write_midi, write_picture, write_takes

            torch.set_num_threads(arguments.threads)
            predictor = Predictor.load(arguments.metadata, select_device(arguments.device), threads=arguments.threads)
            prompts = loading.result()
        except BaseException:
            cancelled.set()  # the pool waits for what it began
            raise
    if stop.number:
        raise KeyboardInterrupt
    for path, prompt in zip(arguments.prompts, prompts, strict=False):  # the typed one, behind them, has none
        for remark in prompt.remarks:
            print(f"{path}: {remark}", file=sys.stderr)
    if arguments.bars:
        check_length(f"--bars {arguments.bars}", arguments.bars * max(p.meter.bar_seconds for p in prompts))
    n_frames, seconds = lengths(framing, prompts, arguments.frames, arguments.seconds, arguments.bars)
    if arguments.fade > min(seconds):
        raise UserError(f"--fade {arguments.fade:g}: longer than the continuation of {min(seconds):.1f} s")

    if arguments.midi:
        from transcription import Transcriber

        transcriber = Transcriber()
    if is_young(predictor.step):
        young = f"step {predictor.step} is young: it needs about {YOUNG_STEPS} steps to be music"
        print(f"note: {young}; train on, or try again later", file=sys.stderr)
    progress, rolling = Progress(), time.monotonic()

    def frames_done(n_done: int):
        left = (time.monotonic() - rolling) / n_done * (n_frames - n_done)
        progress.update(n_done / n_frames, left, f"{n_done}/{n_frames} frames")

    form = AudioFormat(
        paths[0].suffix[1:].lower(),
        arguments.bits,
        arguments.rate or framing.sample_rate,
        arguments.channels or framing.channels,
    )
    sampling = {name: getattr(arguments, name) for name in ("temperature", "seed")}
    written = write_takes(
        predictor,
        plan(predictor, prompts, paths, seconds, arguments.voice),
        arguments.continuations,
        n_frames,
        form,
        arguments.only_new,
        arguments.fade,
        loop=arguments.bars is not None and not arguments.fade,
        stopped=lambda: bool(stop.number),
        progress=frames_done,
        **sampling,
    )
    progress.close()
    for i, one in enumerate(written):
        number = f", {i % arguments.continuations + 1} of {arguments.continuations}" * (arguments.continuations > 1)
        origin = f"step {predictor.step}, seed {arguments.seed}{number}"
        if arguments.picture:
            write_picture(one, framing, f"{one.take.prompt.name}, {origin}")
        if one.other_tempo:
            print(
                f"{one.take.path}: goes on at about {one.other_tempo:.0f} quarters a minute, not "
                f"{one.take.prompt.meter.tempo:g}; it claims no tempo and no loop",
                file=sys.stderr,
            )
        if arguments.midi and not write_midi(one, transcriber, arguments.midi_raw) and not arguments.midi_raw:
            why = "the tempo is another one" if one.other_tempo else "no tempo is known; give it by --tempo"
            print(f"{one.take.path.with_suffix('.mid')}: not on a grid, since {why}", file=sys.stderr)
        print(
            f"{one.take.path}: {one.n_samples / form.sample_rate:.1f} s, {one.n_new / form.sample_rate:.1f} s of them "
            f"new, by {origin}; {time.monotonic() - began:.1f} s"
        )
    if stop.number:
        print("predict.py: interrupted; what was made until then is in these files", file=sys.stderr)
    return 130 if stop.number else 0


def check_length(option: str, seconds: float):
    """Raise UserError beyond ``MAX_SECONDS``."""
    if seconds > MAX_SECONDS:
        raise UserError(f"{option}: more than {MAX_SECONDS:.0f} s; ask for less")


def load_prompts(arguments: argparse.Namespace, framing, cancelled) -> list:
    """All prompts as :class:`prompt.Prompt`, files first; with ``--bars`` each has a meter.

    Args:
        cancelled: as of :func:`prompt.load`.

    Raises:
        UserError: one of them cannot be played, or has no tempo.
        KeyboardInterrupt: cancelled.
    """
    from prompt import load, load_chords

    sound, prompts = (framing.sample_rate, framing.channels, arguments.soundfont), []
    for path in arguments.prompts:
        prompt = load(path, *sound, arguments.start, arguments.stop, cancelled)
        meter = with_options(prompt.meter, arguments.tempo, arguments.meter)
        if arguments.bars and meter is None:
            raise UserError(f"{path}: has no tempo that bars could be counted in; give it by --tempo")
        prompts.append(dataclasses.replace(prompt, meter=meter))
    if arguments.chords is not None:
        meter = with_options(Meter(), arguments.tempo, arguments.meter)
        typed = arguments.chords, meter, arguments.key, arguments.instrument
        prompts.append(load_chords(*typed, *sound, name=TYPED, cancelled=cancelled))
    return prompts


if __name__ == "__main__":
    sys.exit(main())
