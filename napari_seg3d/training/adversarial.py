"""A generator that learns against a discriminator, after Vox2Vox (Cirillo 2020, https://arxiv.org/abs/2003.13653).

The network of the plan is the generator. The discriminator sees image and mask together, one channel for each image and
for each output, and gives a map of scores: 1 where it takes the mask for the truth, 0 where for the network's. Both
play by least squares (Mao 2017, https://arxiv.org/abs/1611.04076). A discriminator that is right too often has nothing
to teach; it rests as long as more than a given share of its answers is right (Kan 2020).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from ..errors import TrainingError
from ..model.device import memory_format, mixed_precision
from ..model.plan import Plan
from ..model.prepare import IGNORED
from .learner import (
    Learner,
    left_out,
    load_optimizer,
    optimizer_tensors,
    restore_if,
    statistics,
    step_unless,
    under,
)
from .ranks import Ranks

#: Makes a discriminator: (B, images + outputs, X, Y, Z) -> a map of scores of any shape.
Judge = Callable[[Plan], nn.Module]


class AdversarialLearner(Learner):
    """A `Learner` with a second network that judges the masks.

    What is validated, averaged and saved as the model is the generator alone; a checkpoint holds both networks and both
    optimisers.

    Parameters
    ----------
    plan : Plan
        With `adversarial` set.
    judge : callable, optional
        Makes another discriminator than the one that the plan names.

    Attributes
    ----------
    accuracy : float
        Share of the newest step's answers of the discriminator that were right; -1 before the first step.
    updates : int
        Steps in which the discriminator learned.
    """

    details: ClassVar[tuple[str, ...]] = (
        "D loss", "D accuracy", "D updated", "G loss", "voxel loss", "adversarial loss",
    )  # fmt: skip
    kept: ClassVar[tuple[str, ...]] = (*Learner.kept, "accuracy", "updates")

    def __init__(
        self, plan: Plan, device: torch.device, ranks: Ranks | None = None, judge: Judge | None = None
    ) -> None:
        super().__init__(plan, device, ranks)
        assert plan.adversarial is not None  # else a `Learner` would do
        self.settings = plan.adversarial
        self.discriminator = (judge or _planned)(plan).to(device)
        self.discriminator.to(memory_format=memory_format(device))  # type: ignore[call-overload]
        self.judging = torch.optim.Adam(
            self.discriminator.parameters(),
            lr=self.settings.learning_rate,
            betas=self.settings.betas,
            fused=True,
        )
        self.accuracy, self.updates = -1.0, 0

    def change_plan(self, plan: Plan) -> None:
        """Go on with another patch or batch; the weights stay."""
        super().change_plan(plan)
        self.judging.zero_grad(set_to_none=True)

    def _set_rate(self, progress: float) -> None:
        """Let both learning rates follow the plan's schedule."""
        super()._set_rate(progress)
        part = self.learning_rate(progress) / self.plan.learning_rate
        for group in self.judging.param_groups:
            group["lr"] = self.settings.learning_rate * part

    def _improve(self, images: Tensor, target: Tensor) -> Tensor:
        """Let first the discriminator learn, unless it rests, then the generator; the generator runs once."""
        self.discriminator.train()
        before = statistics(self.network), statistics(self.discriminator)
        with mixed_precision(self.device):
            logits = self._shared(images).float()
        fake = logits.sigmoid() if self.plan.targets == "regions" else logits.softmax(1)
        fake = fake * (target != IGNORED)
        judged, d_unusable = self._judge(images, self.loss.one_hot(target), fake.detach())

        self.optimizer.zero_grad(set_to_none=True)
        # Its own gradients are not wanted here, only those that flow through it.
        self.discriminator.requires_grad_(False)
        adversarial = (self._scores(images, fake) - 1).square().mean()
        self.discriminator.requires_grad_(True)
        voxel = self.loss(logits, target)
        loss = adversarial + self.settings.weight * voxel
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.plan.clip_norm)
        unusable = torch.maximum(left_out(loss, norm), d_unusable)
        step_unless(self.optimizer, unusable)
        restore_if(unusable, self.network, before[0])
        restore_if(unusable, self.discriminator, before[1])
        parts = torch.stack((loss, voxel, adversarial)).detach()
        return torch.cat((parts[:1], unusable[None], self.loss.dice, judged, parts))

    def _judge(self, images: Tensor, real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
        """Let the discriminator learn, unless it is right too often.

        Returns
        -------
        judged : (3,) Tensor
            Its loss, the share of its answers that were right, and 1 if it learned.
        unusable : scalar Tensor
            1 if its loss or gradient is not finite.
        """
        self.judging.zero_grad(set_to_none=True)
        of_real, of_fake = self._scores(images, real), self._scores(images, fake)
        loss = 0.5 * ((of_real - 1).square().mean() + of_fake.square().mean())
        loss.backward()  # type: ignore[no-untyped-call]
        right = torch.cat(((of_real >= 0.5).flatten(), (of_fake < 0.5).flatten())).float().mean()
        norm = torch.nn.utils.clip_grad_norm_(self.discriminator.parameters(), self.plan.clip_norm)
        unusable = left_out(loss, norm)
        # Held on the device itself, so that a GPU need not be waited for; that costs the backward pass when it rests.
        held = torch.maximum(unusable, (right > self.settings.threshold).float())
        step_unless(self.judging, held)
        return torch.stack((loss.detach(), right, 1 - held)), unusable

    def _scores(self, images: Tensor, masks: Tensor) -> Tensor:
        pairs = torch.cat((images, masks), 1).contiguous(memory_format=memory_format(self.device))
        with mixed_precision(self.device):
            scores: Tensor = self.discriminator(pairs)
        return scores.float()

    def _follow(self, loss: float, details: Mapping[str, float]) -> None:
        # The judgement grows harder as the discriminator learns: only the segmentation tells whether it diverges.
        super()._follow(details["voxel loss"], details)
        self.accuracy = details["D accuracy"]
        self.updates += round(details["D updated"])

    def _tensors(self) -> dict[str, Tensor]:
        tensors = super()._tensors()
        tensors |= {f"discriminator.{name}": tensor for name, tensor in self.discriminator.state_dict().items()}
        return tensors | optimizer_tensors("judging.", self.judging)

    def _take(self, tensors: Mapping[str, Tensor]) -> None:
        try:
            self.discriminator.load_state_dict(under("discriminator.", tensors))
        except RuntimeError:
            raise TrainingError(
                "This run was trained against another discriminator. Pass the same one to `resume` as to `train`."
            ) from None
        load_optimizer(self.judging, under("judging.", tensors))
        super()._take(tensors)


def _planned(plan: Plan) -> nn.Module:
    # Its module imports MONAI, which takes seconds that only those who train like this should pay.
    from ..model.networks.discriminators import build_discriminator

    return build_discriminator(plan)
