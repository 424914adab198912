"""Train on a folder of recordings, refreshing the state file all the while."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path

from config import PRESETS, override
from errors import UserError, exit_status

FIRST_SAVE = 20.0  # s after the first step: early enough to be heard, late enough to be music
MAX_REPORTED = 20  # unusable files named on the screen; the report names all
CALIBRATION_SHARE = 10  # of the time, one part at most
PREVIEW_PROMPT, PREVIEW_LENGTH = 3.0, 6.0  # s


def parse_arguments(argv=None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="train.py",
        description="Train a model on a folder of recordings. The same command again goes on where it stopped.",
    )
    parser.add_argument("recordings", metavar="RECORDINGS", type=Path, help="folder of recordings, any depth")
    parser.add_argument("--metadata", required=True, type=Path, metavar="FILE", help="metadata/NAME.json to write")
    parser.add_argument("--preset", choices=list(PRESETS), help="model and framing (default: small)")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        dest="overrides",
        help="one hyperparameter, e.g. model.hidden_size=256",
    )
    budget = parser.add_mutually_exclusive_group()
    budget.add_argument("--minutes", type=float, help="training time of the run as a whole (default: 20)")
    budget.add_argument("--steps", type=int, help="optimizer steps of the run as a whole")
    parser.add_argument("--save-every", type=float, default=60.0, metavar="SECONDS", help="default: 60")
    parser.add_argument("--seed", type=int, help="of weights, order and noise (default: 0)")
    parser.add_argument("--include", default="", metavar="REGEX", help="only recordings whose path matches")
    parser.add_argument(
        "--device", choices=["auto", "cuda", "mps", "cpu"], default="auto", help="auto: CUDA, then MPS, then CPU"
    )
    parser.add_argument("--threads", type=int, default=0, help="CPU threads (default: one a core)")
    parser.add_argument("--no-preview", action="store_true", help="no preview WAV and PNG with each state")
    parser.add_argument(
        "--slim", action="store_true", help="at the end, keep only what predict.py needs, an eighth of the size"
    )
    parser.add_argument("--force", action="store_true", help="start anew over an existing run")
    arguments = parser.parse_args(argv)
    if arguments.steps is None and arguments.minutes is None:
        arguments.minutes = 20.0
    for name in ("steps", "minutes"):
        value = getattr(arguments, name)
        if value is not None and not 0 < value < 1e9:
            parser.error(f"--{name} must be above 0, not {value}")
    if not arguments.save_every > 0:
        parser.error(f"--save-every must be above 0, not {arguments.save_every}")
    if arguments.seed is not None and not 0 <= arguments.seed < 2**63:
        parser.error("--seed must be 0 or more, below 2^63")
    if arguments.threads < 0:
        parser.error("--threads must be 0 or more")
    return arguments


def main(argv=None) -> int:
    arguments = parse_arguments(argv)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # leaves no decoding process behind
    return exit_status("train.py", lambda: run(arguments), "before the first step: the same command begins again")


def run(arguments: argparse.Namespace) -> int:
    from checkpoint import sweep

    metadata_path = arguments.metadata
    if metadata_path.suffix != ".json":
        raise UserError(f"{metadata_path}: a metadata file ends in .json; write --metadata metadata/NAME.json")
    if metadata_path.is_dir():
        raise UserError(f"{metadata_path}: is a folder; name a file, e.g. --metadata metadata/NAME.json")
    if not arguments.recordings.exists():
        raise UserError(f"{arguments.recordings}: no such folder; give the folder that holds the recordings")
    folder = metadata_path.parent / metadata_path.stem
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = lock_run(folder / "lock")
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror}); choose another --metadata") from None
    try:
        sweep(folder)
        for leftover in metadata_path.parent.glob(f"{metadata_path.name}.*.tmp"):
            leftover.unlink(missing_ok=True)
        return TrainingRun(arguments).train()
    finally:
        lock.close()


def lock_run(path: Path):
    """Hold the run for this process: two trainings of one run would overwrite each other."""
    import fcntl
    import time

    handle = open(path, "w")  # noqa: SIM115 - held as long as the run
    for wait in (0.1, 0.2, None):  # who looks whether the run is held (the studio) holds it for an instant
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except OSError:
            if wait is None:
                handle.close()
                raise UserError(f"{path.parent}: another train.py is training this run; stop it first") from None
            time.sleep(wait)
    return handle


class TrainingRun:
    """One call of train.py: opens the corpus, makes or resumes the run, trains and saves."""

    def __init__(self, arguments: argparse.Namespace):
        import torch

        from checkpoint import new_metadata
        from device import keep_freed_memory, n_usable_cores, select_device
        from run_log import Progress

        self.arguments, self.progress = arguments, Progress()
        torch.set_num_threads(arguments.threads or n_usable_cores())
        self.device = select_device(arguments.device)
        keep_freed_memory()
        self.stop_signal, self.slimmed, self.seconds_left = 0, False, 0.0
        self.calibrated, self.calibration_seconds = 0.0, 0.0  # when last, and how long it took
        path, state = arguments.metadata, None
        exists = path.exists() and not arguments.force
        if exists:
            self.metadata, state = self.resume()
        else:
            preset = arguments.preset or "small"
            orphan = path.parent / path.stem / "state.safetensors"
            if orphan.exists() and not arguments.force:
                raise UserError(f"{orphan}: a state without its metadata; restore {path}, or start anew with --force")
            where = os.path.relpath(arguments.recordings.resolve(), path.parent.resolve())
            self.metadata = new_metadata(
                path, self.wanted_config(preset), preset=preset, recordings=where, include=arguments.include
            )
        self.prepare(state)

    def wanted_config(self, preset: str):
        """The preset with what the command line changes in it."""
        seed = [] if self.arguments.seed is None else [f"training.seed={self.arguments.seed}"]
        return override(PRESETS[preset], [*self.arguments.overrides, *seed])

    def resume(self):
        """The run that is there, if the command asks for the same one."""
        from checkpoint import load_run, read_metadata
        from trainer import Trainer

        arguments, path = self.arguments, self.arguments.metadata
        metadata = read_metadata(path)
        wanted = arguments.preset or metadata.preset
        config = metadata.config
        if arguments.overrides or arguments.seed is not None or wanted != metadata.preset:
            config = self.wanted_config(wanted)
        same_folder = metadata.resolve("recordings").resolve() == arguments.recordings.resolve()
        if config != metadata.config or not same_folder or arguments.include != metadata.include:
            raise UserError(f"{path}: holds a run with other recordings or settings; choose another name, or --force")
        if not metadata.resolve("state").exists():  # stopped before its first save
            return metadata, None
        metadata, state = load_run(path)
        if not Trainer.can_resume(state):
            raise UserError(f"{path}: finished with --slim, it cannot go on; choose another name, or --force")
        return metadata, state

    def prepare(self, state):
        """Corpus, split, trainer: everything up to the first step."""
        import dataclasses
        import json
        import time

        from checkpoint import previous_state, write_atomic, write_metadata
        from corpus import open_corpus
        from dataset import split
        from run_log import RunLog
        from trainer import Trainer

        start, metadata = time.monotonic(), self.metadata
        config, report_path = metadata.config, metadata.resolve("state").with_name("corpus.json")

        def decoded(done, total, name):
            left = (time.monotonic() - start) / done * (total - done)
            self.progress.update(done / total, left, f"decoding {done}/{total} {Path(name).name}")

        corpus = open_corpus(
            self.arguments.recordings,
            metadata.resolve("store"),
            config.featurizer.sample_rate,
            include=metadata.include,
            progress=decoded,
            skip=[report_path.parent],
            channels=config.featurizer.channels,
        )
        self.progress.close()
        say = self.progress.say
        for problem in corpus.problems[:MAX_REPORTED]:
            say(f"not used: {problem['file']}: {problem['reason']}")
        if len(corpus.problems) > MAX_REPORTED:
            say(f"not used: {len(corpus.problems) - MAX_REPORTED} more files, see {report_path}")
        training, self.held_out = split(corpus, config.training.hold_out)
        report = {"held_out": [s.recording.name for s in self.held_out], **corpus.report()}
        write_atomic(report_path, (json.dumps(report, indent=1) + "\n").encode())
        say(
            f"corpus: {len(corpus.recordings)} recordings, {corpus.seconds / 60:.1f} min; {len(corpus.problems)} not "
            f"used, {len(corpus.ignored)} other files (see {report_path}); {time.monotonic() - start:.1f} s"
        )
        start = time.monotonic()
        self.trainer = Trainer(config, training, corpus.level, self.device)
        if state is None:
            self.trainer.fit()
            summary = {k: v for k, v in corpus.report().items() if not isinstance(v, list)}
            summary["n_held_out"] = len(self.held_out)
            self.metadata = dataclasses.replace(metadata, corpus=summary)
            try:
                if self.arguments.force:  # metadata and state must never be of two runs
                    path = metadata.resolve("state")
                    pictures = metadata.resolve("previews").glob("step-*.*")
                    events = metadata.resolve("tensorboard").glob("events.*")
                    for old in (path, previous_state(path), metadata.resolve("log"), *pictures, *events):
                        old.unlink(missing_ok=True)
                write_metadata(self.metadata)
            except OSError as error:
                raise UserError(f"{metadata.path}: cannot be written ({error.strerror}); free some space") from None
            say(f"scaler and codebooks: {time.monotonic() - start:.1f} s")
        else:
            self.trainer.load_state(state)
            say(f"resumed at step {self.trainer.step}")
        self.log = RunLog(self.metadata, say)

    def train(self) -> int:
        """Train until the budget is spent or a signal comes; returns the exit status."""
        import time

        trainer, arguments = self.trainer, self.arguments

        def stop(number, frame):
            self.stop_signal = number
            signal.signal(number, signal.SIG_DFL)  # a second one is not waited for

        old = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
        began, seconds_before, steps_before = time.monotonic(), trainer.seconds, trainer.step
        last_save = last_log = began
        next_save = FIRST_SAVE if trainer.step == 0 else arguments.save_every
        next_save = min(next_save, arguments.save_every)
        losses = []
        try:
            while not self.stop_signal and not self.finished():
                result = trainer.train_step()
                now = time.monotonic()
                trainer.seconds = seconds_before + now - began
                losses.append(result["loss"])
                speed = (trainer.step - steps_before) * trainer.frames_per_step / max(now - began, 1e-6)
                self.report(sum(losses[-20:]) / len(losses[-20:]), speed, now - began, trainer.step - steps_before)
                if now - last_log >= 2 or trainer.step == steps_before + 1:
                    result["loss"] = sum(losses) / len(losses)
                    framing = self.metadata.config.featurizer
                    self.log.scalars(
                        trainer.step,
                        {
                            **result,
                            "frames_per_second": speed,
                            "audio_seconds_per_second": speed / framing.frame_rate,
                            "seconds": trainer.seconds,
                            "seconds_left": self.seconds_left,
                            "skipped": trainer.n_skipped,
                        },
                    )
                    losses, last_log = [], now
                if now - last_save >= next_save and not self.finished():
                    self.save(final=False)
                    last_save, next_save = time.monotonic(), arguments.save_every
            if trainer.step > steps_before or arguments.slim or not self.metadata.resolve("state").exists():
                self.save(final=True)
        finally:
            self.progress.close()
            self.log.close()
            for number, handler in old.items():
                signal.signal(number, handler)
        return self.goodbye()

    def finished(self) -> bool:
        arguments, trainer = self.arguments, self.trainer
        if arguments.steps is not None:
            return trainer.step >= arguments.steps
        return trainer.seconds >= 60 * arguments.minutes

    def report(self, loss: float, speed: float, elapsed: float, n_steps: int):
        """Loss, speed and time left on the progress line."""
        arguments, trainer = self.arguments, self.trainer
        if arguments.steps is not None:
            fraction = trainer.step / arguments.steps
            left = elapsed / n_steps * (arguments.steps - trainer.step)
        else:
            fraction, left = trainer.seconds / (60 * arguments.minutes), 60 * arguments.minutes - trainer.seconds
        self.seconds_left = max(0.0, left)
        audio = speed / self.metadata.config.featurizer.frame_rate
        text = f"step {trainer.step}, loss {loss:.3f}, {speed:,.0f} frames/s, {audio:,.0f} audio-s/s"
        self.progress.update(fraction, left, text)

    def save(self, final: bool):
        """State, held-out loss, preview. A full disk costs this save, not the run."""
        import time

        from checkpoint import previous_state, save_state

        now = time.monotonic()
        if final or now - self.calibrated >= CALIBRATION_SHARE * self.calibration_seconds:
            self.trainer.calibrate()
            self.calibrated = time.monotonic()
            self.calibration_seconds = self.calibrated - now
        slim = final and self.arguments.slim and self.finished()
        state = self.trainer.slim_state() if slim else self.trainer.state()
        path = self.metadata.resolve("state")
        try:
            save_state(path, state.tensors, state.info)
        except OSError as error:
            line = f"{path}: not saved ({error.strerror}); the state before stays; free some disk space"
            if final:
                raise UserError(line) from None
            self.progress.say(line)
            return
        if slim:
            previous_state(path).unlink(missing_ok=True)
            self.slimmed = True
        self.progress.say(f"saved step {state.info['step']}: {path}")
        left = 0.0 if self.finished() else self.seconds_left
        loss = self.trainer.held_out_loss(self.held_out)
        self.log.scalars(self.trainer.step, {"held_out_loss": loss, "seconds_left": left})
        if not self.arguments.no_preview:
            self.preview(state)

    def preview(self, state):
        """A few seconds from a held-out recording on, as WAV and PNG beside the state."""
        import io

        import soundfile
        import torch

        from checkpoint import write_atomic
        from predictor import Predictor
        from spectrogram import spectrogram_png

        framing = self.metadata.config.featurizer
        segment = max(self.held_out or self.trainer.segments, key=lambda s: s.n_samples)
        n_prompt = int(min(PREVIEW_PROMPT * framing.sample_rate, segment.n_samples))
        waveform, _ = segment.read((segment.n_samples - n_prompt) // 3, n_prompt)
        predictor = Predictor.from_state(self.metadata.config, state, self.device)
        prompt = predictor.match_level(torch.from_numpy(waveform).unsqueeze(0))
        # The preview draws from its own generator: the training's random states stay as they are.
        out = predictor.continue_(prompt, int(PREVIEW_LENGTH * framing.frame_rate))[0].cpu().clamp(-1, 1)
        title = f"step {predictor.step}: {segment.recording.name}"
        png = spectrogram_png(out, framing, title, n_prompt / framing.sample_rate)
        wav = io.BytesIO()
        soundfile.write(wav, out.numpy().T, framing.sample_rate, format="WAV", subtype="PCM_16")
        stem = self.metadata.resolve("previews") / f"step-{predictor.step:07d}"
        try:
            write_atomic(stem.with_suffix(".wav"), wav.getvalue())
            write_atomic(stem.with_suffix(".png"), png)
        except OSError as error:
            self.progress.say(f"{stem}: no preview ({error.strerror})")
        self.log.preview(predictor.step, out, framing.sample_rate, png)

    def goodbye(self) -> int:
        trainer, path = self.trainer, self.metadata.path
        if self.stop_signal and not self.slimmed:
            print(f"stopped at step {trainer.step}, saved; the same command goes on", file=sys.stderr)
            return 128 + self.stop_signal
        more = "" if self.slimmed else "; more: raise --minutes or --steps"
        print(
            f"finished at step {trainer.step}{more}. Hear it: python predict.py {path} PROMPT --seconds 10",
            file=sys.stderr,
        )
        return 0


if __name__ == "__main__":
    sys.exit(main())
