"""One call of train.py: opens the corpus, makes or resumes the run, trains, saves and previews."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import signal
import sys
import time
from pathlib import Path

import torch

import provenance
from checkpoint import (
    NotFinite,
    check_finite,
    load_run,
    previous_state,
    save_state,
    why_not_written,
    write_atomic,
    write_metadata,
)
from config import is_young
from corpus import open_corpus
from dataset import split, without
from device import busy_hint, keep_freed_memory, n_usable_cores, select_device
from errors import UserError, count, is_out_of_memory, remedy
from featurizer import Unvaried
from pcm_store import Lost, Notices
from predictor import Predictor
from preview import make_preview
from run_folder import REPORT, Hold, put_back
from run_log import Progress, RunLog, duration
from run_start import begin_or_resume
from terminal import Stop
from time_budget import TimeBudget
from trainer import Abandoned, Diverged, Trainer

FIRST_SAVE = 20.0  # s in steps: early enough to be heard, late enough to be music


class Session:
    """One call of train.py.

    Args:
        arguments: of its command line.
        progress: where it says what it does.
        hold: of the run, which is held anew where its folder is removed meanwhile.

    Raises:
        UserError: the run or its recordings cannot be used.
    """

    def __init__(self, arguments, progress: Progress, hold: Hold | None = None):
        self.arguments, self.progress, self.hold, self.budget = arguments, progress, hold, TimeBudget()
        with self.progress.task("starting"):
            self.threads = arguments.threads or n_usable_cores()
            torch.set_num_threads(self.threads)
            self.device = select_device(arguments.device)
            keep_freed_memory()
        if self.device.type == "cpu" and not arguments.threads and (hint := busy_hint(self.threads)):
            self.progress.say(hint)
        self.stop, self.slimmed, self.seconds_left, self.left_out = None, False, 0.0, []
        self.stays, self.notice = "no state has been saved yet", Notices(self.progress.say)
        self.metadata, state = begin_or_resume(arguments)
        self.prepare(state)

    def prepare(self, state):
        """Corpus, split, trainer: everything up to the first step."""
        start, metadata = time.monotonic(), self.metadata
        config, report_path = metadata.config, metadata.resolve("state").with_name(REPORT)
        with self.progress.task("decoding"):

            def decoded(done, total, name):
                left = (time.monotonic() - start) / done * (total - done)
                self.progress.update(done / total, left, f"decoding {done}/{total} {Path(name).name}")

            corpus = open_corpus(
                self.arguments.recordings,
                metadata.resolve("store"),
                config.featurizer.sample_rate,
                include=metadata.include,
                progress=decoded,
                skip=[metadata.resolve("previews")],
                channels=config.featurizer.channels,
                say=self.progress.say,
            )
        self.progress.close()
        say = self.progress.say
        for line in corpus.left_out(report_path):
            say(line)
        training, self.held_out = split(corpus, config.training.hold_out)
        report = {"held_out": [s.recording.name for s in self.held_out], **corpus.report()}
        self.corpus_report = (json.dumps(report, indent=1) + "\n").encode()
        write_atomic(report_path, self.corpus_report)
        decoding = time.monotonic() - start
        say(
            f"corpus: {count(len(corpus.recordings), 'recording')}, {corpus.seconds / 60:.1f} min; "
            f"{len(corpus.problems)} not used, {count(len(corpus.ignored), 'other file')} (see {report_path}); "
            f"{decoding:.1f} s"
        )
        start = time.monotonic()
        origin = provenance.of_session(corpus.sha256, self.device, self.threads, self.arguments.words)
        with self.progress.task("making the model"):
            self.trainer = Trainer(config, training, corpus.level, self.device)
        if state is None:
            what, method = "scaler and latents", self.trainer.fit
            if metadata.origin:
                before, learned = load_run(metadata.resolve("origin"))
                what, method = f"weights of {before.path}", functools.partial(self.trainer.start_from, learned)
            with self.progress.task(what):
                self.fit(method)
            self.progress.close()
            summary = {k: v for k, v in corpus.report().items() if not isinstance(v, list)}
            summary["n_held_out"] = len(self.held_out)
            self.metadata = dataclasses.replace(metadata, corpus=summary, sessions=[origin])
            if self.arguments.force:  # metadata and state must never be of two runs
                path = metadata.resolve("state")
                pictures = metadata.resolve("previews").glob("step-*.*")
                events = metadata.resolve("tensorboard").glob("events.*")
                for old in (path, previous_state(path), metadata.resolve("log"), *pictures, *events):
                    old.unlink(missing_ok=True)
            say(f"{what}: {time.monotonic() - start:.1f} s")
        else:
            self.trainer.load_state(state)
            self.stays = f"the state of step {self.trainer.step} stays"
            origin |= {"from_step": self.trainer.step}
            self.metadata = dataclasses.replace(metadata, sessions=provenance.added(metadata.sessions, origin))
            say(f"resumed at step {self.trainer.step}{provenance.differences(metadata.sessions, origin)}")
        try:
            write_metadata(self.metadata)
        except OSError as error:
            raise UserError(f"{metadata.path}: cannot be written ({error.strerror}); {remedy(error)}") from None
        self.preparation = f"decoding {decoding:.1f} s, latents {time.monotonic() - start:.1f} s"
        with self.progress.task("opening the log"):
            self.log = RunLog(self.metadata, say)

    def fit(self, method):
        """``method()`` of the trainer, without what can be read no more."""
        while self.trainer.segments:
            with self.losing():
                return self.fit_once(method)
        raise UserError(self.nothing_left())

    def fit_once(self, method):
        """The same; recordings that nothing can be learned from become a line."""
        recordings = self.arguments.recordings
        try:
            method()
            check_finite(self.trainer.state().tensors, {})
        except NotFinite as error:
            mend = "leave out those whose samples are far beyond 1"
            raise UserError(f"{recordings}: {error} of them is not finite; {mend}") from None
        except Unvaried:
            raise UserError(f"{recordings}: nothing changes in them, so nothing can be learned; give music") from None

    @contextlib.contextmanager
    def losing(self):
        """Give up what is done inside where a recording can be read no more; say so, and go on without it."""
        try:
            yield
        except Lost as lost:
            self.notice(f"not used any more: {lost.recording.name}: {lost.reason}")
            self.held_out = without(self.held_out, lost.recording)
            self.trainer.forget(lost.recording)

    def nothing_left(self) -> str:
        """What is said where there is no recording any more."""
        return f"{self.arguments.recordings}: none of its recordings can be read any more; restore them, and go on"

    # -- training ----------------------------------------------------------------------------

    def train(self) -> int:
        """Train until the budget is spent or a signal comes; returns the exit status.

        Raises:
            UserError: training has diverged, or is out of memory, or the last state cannot be written.
        """

        def asked():
            if self.trainer.interruptible:  # a step may take many seconds
                raise Abandoned

        self.stop = Stop(signal.SIG_DFL, asked)
        try:
            self.take_steps()
            return self.goodbye()
        finally:
            self.stop.give_back()

    def take_steps(self):
        """Step after step, saving every now and then and at the end."""
        trainer = self.trainer
        self.seconds_before, self.steps_before = trainer.seconds, trainer.step
        self.told = contextlib.ExitStack()
        last_log, last_save = time.monotonic(), 0.0
        next_save = self.arguments.save_every
        if trainer.step == 0:
            next_save = min(FIRST_SAVE, next_save)
        losses = []
        try:
            self.told.enter_context(self.progress.task("first step"))
            while not self.stop_signal and not self.finished() and trainer.segments:
                began, result = time.monotonic(), None
                try:
                    with self.losing():
                        result = self.take_step()
                except Abandoned:
                    break
                if result is None:
                    continue
                trainer.seconds += time.monotonic() - began
                losses.append(result["loss"])
                self.report(sum(losses[-20:]) / len(losses[-20:]))
                if time.monotonic() - last_log >= 2 or self.n_steps == 1:
                    result["loss"] = sum(losses) / len(losses)
                    self.log_step(result)
                    losses, last_log = [], time.monotonic()
                due = self.step_seconds - last_save >= next_save and not self.finished() and not self.stop_signal
                if due and not trainer.skipped_in_row:  # what gives no usable loss must not replace what did
                    self.save(final=False)
                    last_save, next_save = self.step_seconds, self.budget.save_interval(self.arguments.save_every)
            if self.n_steps or self.arguments.slim or not self.metadata.resolve("state").exists():
                self.save(final=True)
        finally:
            self.told.close()
            self.progress.close()
            self.log.close()
        if not trainer.segments:
            raise UserError(f"{self.nothing_left()}; step {trainer.step} is saved")

    def take_step(self) -> dict:
        """One step of the trainer; what ends the training in it becomes a line."""
        trainer, training, path = self.trainer, self.metadata.config.training, self.metadata.path
        n_returns = trainer.n_returns
        try:
            result = trainer.train_step()
        except Diverged as error:
            less = f"--set training.learning_rate={training.learning_rate / 10:g}"
            raise UserError(f"{path}: diverged: {error}; {self.stays}; start anew with {less} --force") from None
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            less = f"a smaller --preset or --set training.batch_size={max(1, training.batch_size // 2)}"
            raise UserError(
                f"{path}: out of memory in step {trainer.step + 1}; {self.stays}; end other programs and give the same "
                f"command, or start anew with {less} --force"
            ) from None
        if trainer.n_returns > n_returns:
            self.progress.say(
                f"step {trainer.step}: no usable loss in {training.skips_in_row} steps; the weights go back to their "
                f"average, and learn at {training.return_rate:g} of the rate from here on"
            )
        return result

    @property
    def stop_signal(self) -> int:
        """The first signal that has asked for an end; 0 where none has."""
        return self.stop.number if self.stop else 0

    @property
    def n_steps(self) -> int:
        """Steps of this session."""
        return self.trainer.step - self.steps_before

    @property
    def step_seconds(self) -> float:
        """Seconds in them."""
        return self.trainer.seconds - self.seconds_before

    def finished(self) -> bool:
        """Whether the run has what the command asks for. It does not end on a step without a usable loss."""
        arguments, trainer = self.arguments, self.trainer
        if trainer.skipped_in_row:
            return False
        if arguments.steps is not None:
            return trainer.step >= arguments.steps
        half_step = trainer.seconds / (2 * trainer.step) if trainer.step else 0.0
        return trainer.seconds + half_step >= 60 * arguments.minutes  # as near to it as whole steps come

    def frames_per_second(self) -> float:
        """Speed of the steps."""
        return self.n_steps * self.trainer.frames_per_step / max(self.step_seconds, 1e-6)

    def report(self, loss: float):
        """Loss, speed and time left on the progress line."""
        arguments, trainer = self.arguments, self.trainer
        if arguments.steps is not None:
            fraction = trainer.step / arguments.steps
            left = self.step_seconds / self.n_steps * (arguments.steps - trainer.step)
        else:
            fraction, left = trainer.seconds / (60 * arguments.minutes), 60 * arguments.minutes - trainer.seconds
        self.seconds_left, speed = max(0.0, left), self.frames_per_second()
        audio = speed / self.metadata.config.featurizer.frame_rate
        young = ", young" * is_young(trainer.step)
        text = f"step {trainer.step}{young}, loss {loss:.3f}, {speed:,.0f} frames/s, {audio:,.0f} audio-s/s"
        self.progress.update(fraction, left, text)

    def log_step(self, result: dict):
        """A line of the log."""
        speed = self.frames_per_second()
        values = {
            **result,
            "frames_per_second": speed,
            "audio_seconds_per_second": speed / self.metadata.config.featurizer.frame_rate,
            "seconds": self.trainer.seconds,
            "seconds_left": self.seconds_left,
            "skipped": self.trainer.n_skipped,
        }
        self.log.scalars(self.trainer.step, values)

    # -- beside the steps --------------------------------------------------------------------

    @contextlib.contextmanager
    def beside(self, task: str, limit: float = float("inf")):
        """Name a task on the screen while it lasts, book its time, and give it up where a signal or its limit asks.

        Yields:
            a function that the task calls with the share that is done, and that raises :class:`trainer.Abandoned`.
        """
        began = time.monotonic()

        def watch(share: float):
            shown.fraction = share
            if self.stop_signal or time.monotonic() - began > limit:
                raise Abandoned

        complete = False
        how = "" if task == "saving" else " (Ctrl-C gives it up)"
        try:
            with self.progress.task(f"{task}{how}") as shown, self.losing():
                yield watch
                complete = True
        except Abandoned:
            why = "given up" if self.stop_signal else f"not done within {limit:.0f} s, left out"
            self.progress.say(f"{task}: {why}")
        except (FloatingPointError, MemoryError, RuntimeError) as error:
            if task == "saving" or not (isinstance(error, FloatingPointError) or is_out_of_memory(error)):
                raise
            self.progress.say(f"{task}: {'out of memory' if is_out_of_memory(error) else error}, left out")
        finally:
            self.budget.book(task, time.monotonic() - began, complete)

    def limit(self, task: str, final: bool) -> float | None:
        """Seconds for a task now, None to leave it out. After a signal there is time for the weights only."""
        if self.stop_signal or not self.trainer.segments:
            return None
        limit = self.budget.limit(task, self.trainer.step, self.step_seconds, final)
        if limit is None:
            self.left_out.append(task)
        return limit

    def save(self, final: bool):
        """State; in time that is left held-out loss, preview. A write that fails costs this save alone."""
        left_out_before, self.left_out = self.left_out, []
        slim = final and self.arguments.slim and self.finished()
        path = self.metadata.resolve("state")
        try:
            if gone := put_back(self.hold, self.metadata, self.corpus_report):
                self.log.begin_anew()
                self.progress.say(f"{' and '.join(map(str, gone))}: removed or renamed meanwhile; written anew")
            with self.beside("saving"):
                state = self.trainer.slim_state() if slim else self.trainer.state()
                save_state(path, state.tensors, state.info)
        except (OSError, NotFinite, MemoryError, RuntimeError) as error:
            why, mend = why_not_written(error)
            if final:
                raise UserError(f"{path}: not saved ({why}); {self.stays}; {mend}") from None
            self.progress.say(f"{path}: not saved ({why}); {self.stays}; the next save tries again; {mend}")
            return
        self.stays = f"the state of step {state.info['step']} stays"
        if slim:
            previous_state(path).unlink(missing_ok=True)
            self.slimmed = True
        young = " (young: it needs some hundred steps to be music)" * is_young(state.info["step"])
        self.progress.say(f"saved step {state.info['step']}{young}: {path}")
        values = {"seconds_left": 0.0 if self.finished() else self.seconds_left}
        if limit := self.limit("held-out loss", final):
            with self.beside("held-out loss", limit) as watch:
                values["held_out_loss"] = self.trainer.held_out_loss(self.held_out, watch=watch)
        self.log.scalars(self.trainer.step, values)
        if not self.arguments.no_preview and (limit := self.limit("preview", final)):
            with self.beside("preview", limit) as watch:
                self.preview(state, watch)
        if self.left_out not in ([], left_out_before):
            self.progress.say(f"left out: {', '.join(self.left_out)} ({self.budget.why(self.trainer.step, final)})")

    def preview(self, state, watch):
        """A few seconds from a held-out recording on, as WAV and PNG beside the state."""
        segment = max(self.held_out or self.trainer.segments, key=lambda s: s.n_samples)
        predictor = Predictor.from_state(self.metadata.config, state, self.device)
        made = make_preview(predictor, segment, watch)
        stem = self.metadata.resolve("previews") / f"step-{predictor.step:07d}"
        try:
            write_atomic(stem.with_suffix(".wav"), made.wav)
            write_atomic(stem.with_suffix(".png"), made.png)
        except OSError as error:
            self.progress.say(f"{stem}: no preview ({error.strerror})")
        self.log.preview(predictor.step, made.waveform, predictor.config.featurizer.sample_rate, made.png)

    def goodbye(self) -> int:
        """What the session has done and where its time went, on stderr; returns the exit status."""
        trainer, path = self.trainer, self.metadata.path
        booked = f"{duration(self.step_seconds)} in {count(self.n_steps, 'step')}"
        booked += f"; beside them {self.budget}" if self.budget.spent else ""
        booked += f"; before them {self.preparation}"
        if self.stop_signal and not self.slimmed:
            print(f"stopped at step {trainer.step}, saved; the same command goes on ({booked})", file=sys.stderr)
            return 128 + self.stop_signal
        more = "" if self.slimmed else "; more: raise --minutes or --steps"
        print(f"finished at step {trainer.step}: {booked}", file=sys.stderr)
        print(f"hear it: python predict.py {path} PROMPT{more}", file=sys.stderr)
        return 0
