"""Continue a score or a recording with what the newest state of a model makes."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from errors import UserError, exit_status

MAX_SECONDS = 3600.0  # of continuation


def parse_arguments(argv=None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="predict.py", description="Turn a prompt into sound, go on for N frames and write a WAV file."
    )
    parser.add_argument("metadata", metavar="METADATA", type=Path, help="the file that train.py writes")
    parser.add_argument("prompt", metavar="PROMPT", type=Path, help="MusicXML (.musicxml .xml .mxl), MIDI or audio")
    length = parser.add_mutually_exclusive_group(required=True)
    length.add_argument("--frames", type=int, metavar="N", help="length of the continuation in frames")
    length.add_argument("--seconds", type=float, metavar="S", help="length of the continuation in seconds")
    parser.add_argument("-o", "--output", type=Path, metavar="OUT.wav", help="default: PROMPT-next.wav, here")
    parser.add_argument(
        "--temperature",
        type=float,
        default=1.0,
        metavar="T",
        help="0: the likeliest, 1: as varied as the recordings (default: 1)",
    )
    parser.add_argument("--top-k", type=int, default=0, metavar="K", help="draw from the K likeliest codes (0: all)")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="another seed, another continuation")
    parser.add_argument(
        "--only-new", action="store_true", help="write the continuation alone, to be put right behind the prompt"
    )
    parser.add_argument("--picture", action="store_true", help="write a spectrogram beside it, OUT.png")
    parser.add_argument(
        "--device",
        choices=["auto", "cuda", "mps", "cpu"],
        default="cpu",
        help="default: cpu, so that a training on the accelerator is not disturbed",
    )
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default: 1, for the same reason)")
    parser.add_argument("--force", action="store_true", help="overwrite OUT.wav")
    return parser.parse_args(argv)


def check(arguments: argparse.Namespace):
    """Everything that can be said before anything heavy is loaded."""
    frames, seconds = arguments.frames, arguments.seconds
    if frames is not None and frames < 1:
        raise UserError(f"--frames {frames}: must be at least 1")
    if seconds is not None and not 0 < seconds <= MAX_SECONDS:
        raise UserError(f"--seconds {seconds}: must be above 0 and at most {MAX_SECONDS:.0f}")
    if not 0 <= arguments.temperature <= 10:
        raise UserError(f"--temperature {arguments.temperature}: must be 0 to 10")
    if arguments.top_k < 0:
        raise UserError(f"--top-k {arguments.top_k}: must be 0 (all) or more")
    if not 0 <= arguments.seed < 2**63:
        raise UserError(f"--seed {arguments.seed}: must be 0 or more, below 2^63")
    if arguments.threads < 1:
        raise UserError(f"--threads {arguments.threads}: must be at least 1")
    if arguments.output is None:
        arguments.output = Path(f"{arguments.prompt.stem}-next.wav")
    output = arguments.output
    if output.suffix.lower() != ".wav":
        raise UserError(f"{output}: the output is a WAV file; name it OUT.wav")
    if not output.parent.is_dir():
        raise UserError(f"{output}: there is no folder {output.parent}; make it first")
    if not os.access(output.parent, os.W_OK):
        raise UserError(f"{output}: no permission to write in {output.parent}; choose another folder with -o")
    for path in [output, output.with_suffix(".png")][: 1 + arguments.picture]:
        if path.is_dir():
            raise UserError(f"{path}: is a folder; choose another name")
        if path.exists() and not arguments.force:
            raise UserError(f"{path}: exists; choose another name with -o, or overwrite it with --force")
    if output.exists() and arguments.prompt.exists() and output.samefile(arguments.prompt):
        raise UserError(f"{output}: is the prompt itself; choose another name with -o")


def main(argv=None) -> int:
    arguments = parse_arguments(argv)
    sys.stdout.reconfigure(errors="backslashreplace")  # file names need not be text

    def command() -> int:
        check(arguments)
        return run(arguments)

    return exit_status("predict.py", command, "nothing was written")


def run(arguments: argparse.Namespace) -> int:
    # One pool of threads, and one that does not spin while it waits: training runs beside this.
    os.environ.setdefault("OMP_NUM_THREADS", str(arguments.threads))

    import io
    import time
    from concurrent.futures import ThreadPoolExecutor

    from checkpoint import read_metadata

    start = time.monotonic()
    framing = read_metadata(arguments.metadata).config.featurizer
    n_frames = arguments.frames or max(1, round(arguments.seconds * framing.frame_rate))
    if n_frames > MAX_SECONDS * framing.frame_rate:
        raise UserError(f"--frames {n_frames}: more than {MAX_SECONDS:.0f} s; ask for less")
    with ThreadPoolExecutor(1) as pool:  # the score is played in a process of its own meanwhile
        from prompt import load_prompt

        prompt_waveform = pool.submit(load_prompt, arguments.prompt, framing.sample_rate, framing.channels)
        import torch

        from device import select_device
        from predictor import Predictor

        torch.set_num_threads(arguments.threads)
        predictor = Predictor.load(arguments.metadata, select_device(arguments.device))
        waveform = torch.from_numpy(prompt_waveform.result())
    prompt = predictor.match_level(waveform.unsqueeze(0))

    from run_log import Progress

    progress, began = Progress(), time.monotonic()

    def frames_done(n_done: int):
        left = (time.monotonic() - began) / n_done * (n_frames - n_done)
        progress.update(n_done / n_frames, left, f"{n_done}/{n_frames} frames")

    out = predictor.continue_(prompt, n_frames, arguments.temperature, arguments.top_k, arguments.seed, frames_done)[
        0
    ].cpu()
    progress.close()
    n_prompt = waveform.shape[-1]
    out = out / max(1.0, float(out.abs().max()) / 0.99)  # a mix that would clip is turned down as a whole
    written = out[..., n_prompt:] if arguments.only_new else out

    import soundfile

    from checkpoint import write_atomic

    wav = io.BytesIO()
    soundfile.write(wav, written.numpy().T, framing.sample_rate, format="WAV", subtype="PCM_24")
    try:
        write_atomic(arguments.output, wav.getvalue())
        if arguments.picture:
            from spectrogram import spectrogram_png

            join = None if arguments.only_new else n_prompt / framing.sample_rate
            title = f"{arguments.prompt.name}, step {predictor.step}, seed {arguments.seed}"
            write_atomic(arguments.output.with_suffix(".png"), spectrogram_png(written, framing, title, join))
    except OSError as error:
        raise UserError(f"{arguments.output}: cannot be written ({error.strerror}); free some disk space") from None
    new = n_frames / framing.frame_rate
    print(
        f"{arguments.output}: {written.shape[-1] / framing.sample_rate:.1f} s, {new:.1f} s of them new, by step "
        f"{predictor.step}, seed {arguments.seed}; {time.monotonic() - start:.1f} s"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
