"""A network while it learns: one step, and all that must be kept so that the next one is the same after a restart."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import TrainingError
from ..model.checkpoint import Model, read_tensors, write_tensors
from ..model.device import memory_format, mixed_precision
from ..model.networks import build_network, in_encoder
from ..model.plan import Plan
from .batches import Batch
from .finetune import carry_over
from .losses import SegmentationLoss
from .ranks import Ranks
from .run import RunFolder

#: So many unusable steps in a row mean that the weights have left the region where numbers are finite.
BAD_STEPS_IN_A_ROW = 3
#: The training diverges when the running loss is this many times its best, and as much above it as `_MARGIN`.
_DIVERGED, _MARGIN = 2.0, 0.5
#: How fast the running loss follows, and how many steps it needs before it is believed.
_FOLLOW, _SETTLED = 0.05, 40
#: A loss before there is one.
_UNKNOWN = 1e9
#: A training that had to go back more often will not get anywhere.
MOST_ROLLBACKS = 3
#: Weight of the newest validation in the smoothed Dice by which the best model is chosen.
_NEWEST = 0.4
#: Steps that a GPU may be ahead of the numbers that are reported.
_AHEAD = 4


@dataclass(frozen=True)
class Made:
    """A step that was made: its loss, None if it was left out, and further numbers by name."""

    step: int
    loss: float | None
    details: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class RoundMeans:
    """Means over the steps of a round: loss, soft Dice by label name, and the details of the steps."""

    loss: float
    dice: Mapping[str, float]
    details: Mapping[str, float]


class Learner:
    """Network, optimiser and the numbers of a training.

    Attributes
    ----------
    step, epoch : int
        Steps made, rounds finished.
    validated_step : int
        Step after which the newest validation was made; -1 before the first.
    best_dice : float
        Mean Dice of the best model so far; -1 before the first validation.
    elapsed_s : float
        Time spent training, over all sessions.
    rate_factor : float
        What the learning rate is multiplied with: halved each time the training had to go back.
    epoch_losses, epoch_sums : list of float
        Of the round under way: the loss of each step, and sums of soft Dice by output and of each of `details`.
    """

    #: Further numbers that each step reports.
    details: ClassVar[tuple[str, ...]] = ()
    #: The numbers that a checkpoint holds.
    kept: ClassVar[tuple[str, ...]] = (
        "step", "epoch", "bad_steps", "rollbacks", "validated_step", "validations_since_best", "best_dice",
        "smoothed_dice", "best_smoothed_dice", "elapsed_s", "rate_factor", "running_loss", "best_running_loss",
        "losses_seen", "epoch_losses", "epoch_sums", "epoch_summed",
    )  # fmt: skip

    def __init__(self, plan: Plan, device: torch.device, ranks: Ranks | None = None) -> None:
        self.plan, self.device = plan, device
        self.ranks = ranks or Ranks()
        torch.manual_seed(plan.seed)
        self.network = build_network(plan).to(device)
        self.network.to(memory_format=memory_format(device))  # type: ignore[call-overload]
        self.averaged = deepcopy(self.network).requires_grad_(False) if plan.ema_decay else None
        self.optimizer = _optimizer(self.network, plan)
        self.loss = SegmentationLoss(plan, self.ranks.sum if self.ranks.size > 1 else None).to(device)
        self._shared = self.ranks.shared(self.network, device)
        self._reports = _Reports(device)
        self.step = self.epoch = self.bad_steps = self.rollbacks = self.validations_since_best = 0
        self.validated_step = -1
        self.best_dice = self.smoothed_dice = self.best_smoothed_dice = -1.0
        self.elapsed_s, self.rate_factor = 0.0, 1.0
        self.running_loss = self.best_running_loss = _UNKNOWN
        self.losses_seen = 0
        self.epoch_losses: list[float] = []
        self.epoch_sums = [0.0] * (len(plan.output_names) + len(self.details))
        self.epoch_summed = 0

    @property
    def judged(self) -> nn.Module:
        """The network that is validated and saved: the averaged one, if there is one."""
        return self.network if self.averaged is None else self.averaged

    def start_from(self, model: Model) -> list[str]:
        """Take over a model's weights; return in words what could not be taken."""
        notes = carry_over(self.network, self.plan, model)
        if self.averaged is not None:
            self.averaged.load_state_dict(self.network.state_dict())
        return notes

    def change_plan(self, plan: Plan) -> None:
        """Go on with another patch or batch; the weights stay."""
        self.plan = plan
        self.optimizer.zero_grad(set_to_none=True)

    def learn(self, batch: Batch, progress: float) -> list[Made]:
        """Make one step and return those whose numbers are known by now.

        A step whose loss or gradient is not finite changes nothing; its loss is None. On a GPU the numbers come a few
        steps late, because waiting for them would leave it idle.

        Parameters
        ----------
        progress : float
            Part of the training that is over, from 0 to 1; the learning rate follows from it.
        """
        images, target = batch
        # Dropout draws from torch's own state: set from the step, so that a resumed training draws the same.
        torch.manual_seed((self.plan.seed << 32) + self.step * self.ranks.size + self.ranks.rank)
        self._set_rate(progress)
        self.network.train()
        values = self._improve(images.contiguous(memory_format=memory_format(self.device)), target)
        self.step += 1
        self._average()
        self._reports.put(self.step, values)
        return self._heard(self._reports.arrived())

    def wait(self) -> list[Made]:
        """Wait for the numbers of all steps made, and return those not returned yet."""
        return self._heard(self._reports.arrived(wait=True))

    def round_means(self) -> RoundMeans:
        """Return the means of the round that is over, and begin the next."""
        names = self.plan.output_names
        means = [total / self.epoch_summed if self.epoch_summed else float("nan") for total in self.epoch_sums]
        loss = float(np.mean(self.epoch_losses)) if self.epoch_losses else float("nan")
        self.epoch_losses, self.epoch_sums, self.epoch_summed = [], [0.0] * len(means), 0
        self.epoch += 1
        dice, details = means[: len(names)], means[len(names) :]
        return RoundMeans(loss, dict(zip(names, dice, strict=True)), dict(zip(self.details, details, strict=True)))

    def _set_rate(self, progress: float) -> None:
        rate = self.learning_rate(progress)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["factor"]

    def _improve(self, images: Tensor, target: Tensor) -> Tensor:
        """Change the weights by what a batch teaches; return loss, 1 if it was left out, and Dice by output."""
        self.optimizer.zero_grad(set_to_none=True)
        before = statistics(self.network)
        with mixed_precision(self.device):
            outputs = self._shared(images)
        loss = self.loss(outputs, target)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.plan.clip_norm)
        unusable = left_out(loss, norm)
        step_unless(self.optimizer, unusable)
        restore_if(unusable, self.network, before)
        return torch.cat((torch.stack((loss.detach(), unusable)), self.loss.dice))

    @property
    def diverged(self) -> bool:
        """Whether the training must go back: no finite step for a while, or a loss that has left its course."""
        if self.bad_steps >= BAD_STEPS_IN_A_ROW:
            return True
        limit = max(_DIVERGED * self.best_running_loss, self.best_running_loss + _MARGIN)
        return self.losses_seen > _SETTLED and self.running_loss > limit

    @property
    def healthy(self) -> bool:
        """Whether this state is worth going back to: the loss is not far above its best."""
        return self.bad_steps == 0 and (
            self.losses_seen <= _SETTLED or self.running_loss < self.best_running_loss + 0.5 * _MARGIN
        )

    def go_back(self, run: RunFolder) -> str:
        """Return to the last checkpoint with half the learning rate; tell so in words.

        Raises
        ------
        TrainingError
            If there is no checkpoint, or it has been tried too often.
        """
        step, why = self.step, "left its course" if self.bad_steps < BAD_STEPS_IN_A_ROW else "is no finite number"
        rollbacks, factor = self.rollbacks + 1, self.rate_factor / 2
        if not run.checkpoint.is_file() or rollbacks > MOST_ROLLBACKS:
            raise TrainingError(
                f"The loss {why} since about step {step - self.bad_steps}. The last good model is kept. "
                "Lower the learning rate, or check the images for broken voxels, and start again."
            )
        self.load(run)
        self.rollbacks, self.rate_factor = rollbacks, factor
        return (
            f"The loss {why} at step {step}: back to step {self.step}, from here with "
            f"{self.rate_factor:g} times the planned learning rate."
        )

    def learning_rate(self, progress: float) -> float:
        """The learning rate at a part of the training, from 0 to 1."""
        plan = self.plan
        rate = plan.learning_rate * self.rate_factor
        if plan.schedule == "poly":
            rate *= max(0.0, 1 - progress) ** 0.9
        elif plan.schedule == "cosine":
            rate *= 0.5 * (1 + float(torch.cos(torch.tensor(progress * torch.pi))))
        if self.step < plan.warmup_steps:
            rate *= (self.step + 1) / plan.warmup_steps
        return rate

    def scored(self, mean_dice: float) -> bool:
        """Take in a validation; tell whether this is the best model so far, by the smoothed mean Dice.

        A handful of validation cases makes a noisy score; the single best of many would be chosen by luck.
        """
        first = self.smoothed_dice < 0
        self.smoothed_dice = mean_dice if first else self.smoothed_dice + _NEWEST * (mean_dice - self.smoothed_dice)
        self.validated_step = self.step
        best = self.smoothed_dice > self.best_smoothed_dice
        self.validations_since_best = 0 if best else self.validations_since_best + 1
        if best:
            self.best_dice, self.best_smoothed_dice = mean_dice, self.smoothed_dice
        return best

    @property
    def out_of_patience(self) -> bool:
        """Whether the training is to stop early: no better model for as many validations as the plan allows."""
        return self.plan.patience is not None and self.validations_since_best >= self.plan.patience

    def model(self, history: Mapping[str, Any]) -> Model:
        """Return the weights as they are now, as a model."""
        return Model(self.plan, self.judged.state_dict(), history)

    def save(self, run: RunFolder) -> None:
        """Write everything that resuming needs, whole or not at all."""
        write_tensors(run.checkpoint, self._tensors(), "checkpoint", {name: getattr(self, name) for name in self.kept})

    def load(self, run: RunFolder) -> None:
        """Go back to the state that `save` wrote; raises `ModelError` when the file is damaged."""
        tensors, facts, _ = read_tensors(run.checkpoint, "checkpoint")
        self._reports.forget()
        self._take(tensors)
        for name in self.kept:
            setattr(self, name, facts.get(name, getattr(self, name)))

    def _tensors(self) -> dict[str, Tensor]:
        """Return all tensors that a checkpoint holds."""
        tensors = {f"network.{name}": tensor for name, tensor in self.network.state_dict().items()}
        if self.averaged is not None:
            tensors |= {f"averaged.{name}": tensor for name, tensor in self.averaged.state_dict().items()}
        tensors |= optimizer_tensors("optimizer.", self.optimizer)
        return tensors

    def _take(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over what `_tensors` gave."""
        self.network.load_state_dict(under("network.", tensors))
        if self.averaged is not None:
            self.averaged.load_state_dict(under("averaged.", tensors))
        load_optimizer(self.optimizer, under("optimizer.", tensors))

    @torch.no_grad()
    def _average(self) -> None:
        if self.averaged is None:
            return
        # In the beginning the average forgets faster, or it would drag the random weights along.
        decay = min(self.plan.ema_decay, (1 + self.step) / (10 + self.step))
        torch._foreach_lerp_(list(self.averaged.parameters()), list(self.network.parameters()), 1 - decay)
        for mean, newest in zip(self.averaged.buffers(), self.network.buffers(), strict=True):
            mean.copy_(newest)

    def _heard(self, reports: Iterator[tuple[int, list[float]]]) -> list[Made]:
        heard: list[Made] = []
        for step, (loss, unusable, *others) in reports:
            details = dict(zip(self.details, others[len(self.plan.output_names) :], strict=True))
            heard.append(Made(step, None if unusable else loss, {} if unusable else details))
            if unusable:
                self.bad_steps += 1
                continue
            self.bad_steps = 0
            self.epoch_losses.append(loss)
            self.epoch_sums = [total + value for total, value in zip(self.epoch_sums, others, strict=True)]
            self.epoch_summed += 1
            self._follow(loss, details)
        return heard

    def _follow(self, loss: float, details: Mapping[str, float]) -> None:
        """Let the running loss, by which a training is seen to diverge, follow a step."""
        self.losses_seen += 1
        # A mean over all at first, then one that follows.
        follow = max(_FOLLOW, 1 / self.losses_seen)
        self.running_loss = loss if follow == 1 else self.running_loss + follow * (loss - self.running_loss)
        if self.losses_seen > _SETTLED:
            self.best_running_loss = min(self.best_running_loss, self.running_loss)


class _Reports:
    """The numbers of each step on their way from the device, read when they have arrived."""

    def __init__(self, device: torch.device) -> None:
        self._later = device.type == "cuda"
        self._waiting: deque[tuple[int, Tensor, Any]] = deque()

    def put(self, step: int, values: Tensor) -> None:
        """Send the values of a step: loss, 1 if it was left out, and whatever else is reported, all in one copy."""
        event = None
        if self._later:
            on_host = torch.empty(values.shape, pin_memory=True)
            values = on_host.copy_(values, non_blocking=True)
            event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            event.record()
        self._waiting.append((step, values, event))

    def arrived(self, wait: bool = False) -> Iterator[tuple[int, list[float]]]:
        """Yield step and values of what has arrived, oldest first."""
        while self._waiting:
            step, values, event = self._waiting[0]
            if event is not None:
                if wait or len(self._waiting) > _AHEAD:
                    event.synchronize()
                elif not event.query():
                    return
            self._waiting.popleft()
            yield step, values.tolist()

    def forget(self) -> None:
        """Drop what is on its way."""
        self._waiting.clear()


def _optimizer(network: nn.Module, plan: Plan) -> torch.optim.Optimizer:
    groups = []
    named = list(network.named_parameters())
    for encoder in (True, False):
        factor = plan.encoder_rate if encoder else 1.0
        part = [p for name, p in named if in_encoder(plan.network.name, name) == encoder]
        if factor == 0:
            for parameter in part:
                parameter.requires_grad_(False)
            continue
        # Norms and biases are left out of the decay: pulling them to zero only shrinks the signal.
        for many, decay in ((True, plan.weight_decay), (False, 0.0)):
            if chosen := [p for p in part if (p.ndim > 1) == many]:
                groups.append({"params": chosen, "weight_decay": decay, "factor": factor})
    rate, momentum = plan.learning_rate, plan.momentum
    if plan.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=rate, momentum=momentum, nesterov=plan.nesterov and momentum > 0, fused=True)
    if plan.optimizer == "rmsprop":
        return torch.optim.RMSprop(groups, lr=rate, momentum=momentum)
    kind = torch.optim.AdamW if plan.optimizer == "adamw" else torch.optim.Adam
    return kind(groups, lr=rate, betas=plan.adversarial.betas if plan.adversarial else (0.9, 0.999), fused=True)


def left_out(*values: Tensor) -> Tensor:
    """Return a scalar float32 Tensor on the device: 1 if any of some scalars is not finite, so that no step is made."""
    return (~torch.isfinite(torch.stack([value.detach() for value in values]).sum())).float()


@torch.no_grad()
def step_unless(optimizer: torch.optim.Optimizer, held: Tensor) -> None:
    """Let an optimiser make its step, unless the scalar Tensor `held` is 1.

    The fused optimisers read it on the device itself, as torch's GradScaler sets it. RMSprop has no fused form: there
    the number is waited for, which on a GPU costs the lead that the steps otherwise have.
    """
    if isinstance(optimizer, torch.optim.RMSprop):
        if not held.item():
            optimizer.step()
        return
    optimizer.found_inf = held  # type: ignore[attr-defined]
    optimizer.step()


def statistics(network: nn.Module) -> dict[str, Tensor]:
    """Return copies of what batch normalisation remembers; empty for networks that have none."""
    return {
        name: buffer.clone()
        for name, buffer in network.named_buffers()
        if name.endswith(("running_mean", "running_var"))
    }


@torch.no_grad()
def restore_if(unusable: Tensor, network: nn.Module, before: Mapping[str, Tensor]) -> None:
    """Give `statistics` back if the scalar Tensor `unusable` is 1: one pass of NaN would spoil them for ever."""
    for name, was in before.items():
        now = network.get_buffer(name)
        now.copy_(torch.where(unusable.bool(), was, now))


def optimizer_tensors(prefix: str, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return all that an optimiser remembers as named tensors."""
    tensors: dict[str, Tensor] = {}
    for index, values in optimizer.state_dict()["state"].items():
        # SGD has no momentum yet before its first step.
        present = {name: value for name, value in values.items() if value is not None}
        tensors |= {f"{prefix}{index}.{name}": torch.as_tensor(value) for name, value in present.items()}
    return tensors


def load_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Give an optimiser back what `optimizer_tensors` named, without the prefix."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        index, key = name.split(".", 1)
        state.setdefault(int(index), {})[key] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors whose names begin with a prefix, without it."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
