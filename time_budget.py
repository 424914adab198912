"""How much time a training spends on what is not a step: saving, held-out loss, previews."""

from __future__ import annotations

SHARE = 0.1  # of the time in steps, for all of it together
EARLY_STEPS = 100  # before that, a held-out loss or a preview tells nothing
LAST_SECONDS = 30.0  # that they may take together at the end of a run, however short that was
FIRST_GUESS = {"held-out loss": 3.0, "preview": 3.0}  # what each is taken to cost, s, until it has been measured


class TimeBudget:
    """Seconds spent on each task of one call of train.py, and what may still be spent.

    Times are in seconds; ``step_seconds`` is the time that the call has spent in optimizer steps.
    """

    def __init__(self):
        self.spent: dict[str, float] = {}
        self.cost = dict(FIRST_GUESS)
        self.before_end: float | None = None  # what had been spent when the end began

    def left(self, step_seconds: float) -> float:
        """Seconds that may be spent now."""
        return SHARE * step_seconds - sum(self.spent.values())

    def limit(self, task: str, step: int, step_seconds: float, last: bool = False) -> float | None:
        """Seconds that a task may take now; None where it is to be left out.

        Args:
            step: of the run.
            last: at the end of a run, whose state is to be complete.
        """
        left = self.left(step_seconds)
        if last:
            spent = sum(self.spent.values())
            if self.before_end is None:
                self.before_end = spent
            left = max(left, LAST_SECONDS - (spent - self.before_end))
            return left if left > 0 else None
        return left if step >= EARLY_STEPS and left >= self.cost[task] else None

    def book(self, task: str, seconds: float, complete: bool = True):
        """A task has taken ``seconds``. Where it was given up, it is taken to need twice as many."""
        self.spent[task] = self.spent.get(task, 0.0) + seconds
        self.cost[task] = seconds if complete else 2 * seconds

    def why(self, step: int, last: bool) -> str:
        """Why something was left out, see :meth:`limit`."""
        if last:
            return f"{LAST_SECONDS:.0f} s are spent"
        return f"before step {EARLY_STEPS} it tells nothing" if step < EARLY_STEPS else "a tenth of the time is spent"

    def save_interval(self, wanted: float) -> float:
        """Seconds in steps between two saves: longer than wanted where one takes more than a tenth of that."""
        return max(wanted, self.cost.get("saving", 0.0) / SHARE)

    def __str__(self) -> str:
        return ", ".join(f"{task} {seconds:.1f} s" for task, seconds in self.spent.items())
