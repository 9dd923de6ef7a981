"""A network while it learns: one step, and all that must be kept so that the next one is the same after a restart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..errors import TrainingError
from ..model.checkpoint import Model, read_tensors, write_tensors
from ..model.device import mixed_precision
from ..model.networks import build_network
from ..model.plan import Plan
from .batches import Batch
from .finetune import carry_over
from .losses import SegmentationLoss
from .run import RunFolder

#: So many unusable steps in a row end a training: the weights have left the region where numbers are finite.
BAD_STEPS_IN_A_ROW = 3


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
    """

    def __init__(self, plan: Plan, device: torch.device) -> None:
        self.plan, self.device = plan, device
        torch.manual_seed(plan.seed)
        self.network = build_network(plan).to(device)
        self.loss = SegmentationLoss(plan).to(device)
        self.optimizer = _optimizer(self.network, plan)
        self.step = self.epoch = self.bad_steps = 0
        self.validated_step = -1
        self.best_dice, self.elapsed_s = -1.0, 0.0
        self.epoch_losses: list[float] = []

    def start_from(self, model: Model) -> list[str]:
        """Take over a model's weights; return in words what could not be taken."""
        return carry_over(self.network, self.plan, model)

    def learn(self, batch: Batch, progress: float) -> float | None:
        """Make one step and return its loss, or None when the step had to be left out.

        A step whose loss or gradient is not finite changes nothing.

        Parameters
        ----------
        progress : float
            Part of the training that is over, from 0 to 1; the learning rate follows from it.

        Raises
        ------
        TrainingError
            After three such steps in a row.
        """
        images, target = batch
        # Dropout draws from torch's own state: set from the step, so that a resumed training draws the same.
        torch.manual_seed((self.plan.seed << 32) + self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate(progress)
        self.network.train()
        self.optimizer.zero_grad(set_to_none=True)
        with mixed_precision(self.device):
            outputs = self.network(images)
        loss = self.loss(outputs, target)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.plan.clip_norm)
        self.step += 1
        if not torch.isfinite(loss + norm):
            self._leave_out()
            return None
        self.optimizer.step()
        self.bad_steps = 0
        value = float(loss.detach())
        self.epoch_losses.append(value)
        return value

    def _leave_out(self) -> None:
        self.bad_steps += 1
        if self.bad_steps >= BAD_STEPS_IN_A_ROW:
            raise TrainingError(
                f"The loss is no longer a finite number since step {self.step - self.bad_steps}. The model before that "
                "is kept. Lower the learning rate, or check the images for broken voxels, and start again."
            )

    def learning_rate(self, progress: float) -> float:
        """The learning rate at a part of the training, from 0 to 1."""
        plan = self.plan
        rate = plan.learning_rate
        if plan.schedule == "poly":
            rate *= max(0.0, 1 - progress) ** 0.9
        elif plan.schedule == "cosine":
            rate *= 0.5 * (1 + float(torch.cos(torch.tensor(progress * torch.pi))))
        if self.step < plan.warmup_steps:
            rate *= (self.step + 1) / plan.warmup_steps
        return rate

    def model(self, history: Mapping[str, Any]) -> Model:
        """Return the weights as they are now, as a model."""
        return Model(self.plan, self.network.state_dict(), history)

    def save(self, run: RunFolder) -> None:
        """Write everything that resuming needs, whole or not at all."""
        tensors = {f"network.{name}": tensor for name, tensor in self.network.state_dict().items()}
        state = self.optimizer.state_dict()
        for index, values in state["state"].items():
            tensors |= {f"optimizer.{index}.{name}": torch.as_tensor(value) for name, value in values.items()}
        facts = {
            "step": self.step,
            "epoch": self.epoch,
            "bad_steps": self.bad_steps,
            "validated_step": self.validated_step,
            "best_dice": self.best_dice,
            "elapsed_s": self.elapsed_s,
            "epoch_losses": self.epoch_losses,
        }
        write_tensors(run.checkpoint, tensors, "checkpoint", facts)

    def load(self, run: RunFolder) -> None:
        """Go back to the state that `save` wrote; raises `ModelError` when the file is damaged."""
        tensors, facts, _ = read_tensors(run.checkpoint, "checkpoint")
        self.network.load_state_dict(_under("network.", tensors))
        state: dict[int, dict[str, Tensor]] = {}
        for name, tensor in _under("optimizer.", tensors).items():
            index, key = name.split(".", 1)
            state.setdefault(int(index), {})[key] = tensor
        self.optimizer.load_state_dict({"state": state, "param_groups": self.optimizer.state_dict()["param_groups"]})
        self.step, self.epoch, self.bad_steps = int(facts["step"]), int(facts["epoch"]), int(facts["bad_steps"])
        self.validated_step = int(facts["validated_step"])
        self.best_dice, self.elapsed_s = float(facts["best_dice"]), float(facts["elapsed_s"])
        self.epoch_losses = [float(loss) for loss in facts["epoch_losses"]]


def _optimizer(network: torch.nn.Module, plan: Plan) -> torch.optim.Optimizer:
    # Norms and biases are left out of the decay: pulling them to zero only shrinks the signal.
    decayed = [p for p in network.parameters() if p.ndim > 1]
    others = [p for p in network.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": plan.weight_decay}, {"params": others, "weight_decay": 0.0}]
    if plan.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=plan.learning_rate, momentum=plan.momentum, nesterov=plan.momentum > 0)
    kind = torch.optim.AdamW if plan.optimizer == "adamw" else torch.optim.Adam
    return kind(groups, lr=plan.learning_rate)


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
