"""How much memory a training step of a plan needs, without making one."""

from __future__ import annotations

import torch
from torch import Tensor

from .networks import build_network
from .plan import Plan

#: Copies of the weights that a step holds: themselves, their gradients, and two moments of the optimiser.
_COPIES_OF_WEIGHTS = 4


def step_memory_mb(plan: Plan) -> float:
    """Return the memory in megabytes of one training step in float32.

    Counted are weights, gradients, the optimiser's moments, all activations that the backward pass keeps, and twice the
    largest of them for the gradients on their way. The libraries' own work space comes on top.

    Notes
    -----
    The network runs on torch's "meta" device, where tensors have a shape but no memory, so this takes no time to speak
    of even for plans that do not fit this computer.
    """
    with torch.device("meta"):
        network = build_network(plan).train()
        images = torch.empty((plan.batch_size, len(plan.modalities), *plan.patch_voxels))
    weights = {parameter.untyped_storage()._cdata: parameter.nbytes for parameter in network.parameters()}
    # The tensors are held until the end: a storage that was freed could lend its identity to the next one.
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage()._cdata] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        network(images)
    activations = [tensor.untyped_storage().nbytes() for storage, tensor in kept.items() if storage not in weights]
    total = _COPIES_OF_WEIGHTS * sum(weights.values()) + sum(activations) + 2 * max(activations, default=0)
    return total / 2**20
