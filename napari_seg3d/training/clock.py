"""How far a training is: by steps when epochs are planned, by monotonic time when a budget is."""

from __future__ import annotations

import time
from dataclasses import dataclass

from ..model.plan import Plan
from .learner import Learner

#: Under a time budget validation gets at most this part of the time, apart from the last one.
VALIDATION_SHARE = 0.08


@dataclass
class Clock:
    """Time and progress of a training, over all sessions.

    Parameters
    ----------
    began : float
        When this session began, by `time.monotonic`.
    leg_step, leg_s : int, float
        Where the schedule of the learning rate begins: after the end of the run that is gone on with, or 0.
    before_s : float
        Seconds spent in earlier sessions.
    """

    plan: Plan
    began: float
    leg_step: int = 0
    leg_s: float = 0.0
    before_s: float = 0.0
    validating_s: float = 0.0
    longest_validation_s: float = 0.0
    first_step: int | None = None
    steps_began: float = 0.0

    @property
    def elapsed_s(self) -> float:
        """Seconds spent on this training, over all sessions."""
        return self.before_s + time.monotonic() - self.began

    @property
    def total_steps(self) -> int | None:
        """Steps of the whole training, or None under a budget."""
        return None if self.plan.epochs is None else self.plan.epochs * self.plan.steps_per_epoch

    def progress(self, learner: Learner) -> float:
        """Part of the schedule that is over, from 0 to 1."""
        if self.total_steps is not None:
            return min(1.0, (learner.step - self.leg_step) / max(1, self.total_steps - self.leg_step))
        return min(1.0, (self.elapsed_s - self.leg_s) / max(1e-3, self._usable_s() - self.leg_s))

    def over(self, learner: Learner) -> bool:
        """Whether the last step has been made."""
        if self.first_step is None:
            self.first_step, self.steps_began = learner.step, self.elapsed_s
        if self.total_steps is not None:
            return learner.step >= self.total_steps
        return learner.step > self.leg_step and self.elapsed_s + self._step_s(learner) > self._usable_s()

    def seconds_left(self, learner: Learner) -> float | None:
        """Seconds that the training will probably still take; None before anything is known."""
        if self.total_steps is None:
            return max(0.0, float(self.plan.budget_s or 0) - self.elapsed_s)
        made = learner.step - (self.first_step or 0)
        if made < 1:
            return None
        return (self.elapsed_s - self.steps_began) / made * (self.total_steps - learner.step)

    def time_to_validate(self, learner: Learner) -> bool:
        """Whether a validation is due: after each so many rounds, within its share of a time budget."""
        if learner.step % self.plan.steps_per_epoch or learner.validated_step == learner.step:
            return False
        if learner.epoch % self.plan.validate_every:
            return False
        if self.total_steps is not None:
            return True
        spent = self.elapsed_s - self.before_s
        return (self.validating_s + self.longest_validation_s) / max(1.0, spent) < VALIDATION_SHARE

    def validation_took(self, seconds: float) -> None:
        """Remember what a validation cost."""
        self.validating_s += seconds
        self.longest_validation_s = max(self.longest_validation_s, seconds)

    def rest(self, done: int, total: int) -> float | None:
        """Seconds left of the preparation, from its pace so far."""
        spent = time.monotonic() - self.began
        return spent / done * (total - done) if done else None

    def _usable_s(self) -> float:
        # The last validation and the writing of the model belong into the budget.
        budget = float(self.plan.budget_s or 0)
        own = budget - self.leg_s
        return self.leg_s + max(0.5 * own, own - 1.1 * self.longest_validation_s - 1.0)

    def _step_s(self, learner: Learner) -> float:
        made = learner.step - (self.first_step or 0)
        return (self.elapsed_s - self.steps_began) / made if made else 0.0
