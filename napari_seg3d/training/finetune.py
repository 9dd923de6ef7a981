"""Weights carried over from one model to another with other images or labels."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from ..errors import ModelError
from ..model.checkpoint import Model
from ..model.plan import Plan


def carry_over(network: nn.Module, plan: Plan, start: Model) -> list[str]:
    """Load a trained model's weights into a fresh network as far as both mean the same.

    Everything of equal shape is taken. Where the first layer's input channels differ, they are matched by the name of
    the modality; where the heads' output channels differ, by the name of the class or region. What has no counterpart
    keeps its fresh weights.

    Parameters
    ----------
    network : Module
        Built from `plan`; changed in place.

    Returns
    -------
    list of str
        What could not be carried over, in words; empty when all was.

    Raises
    ------
    ModelError
        If the start model is another kind of network.
    """
    if plan.network.name != start.plan.network.name:
        raise ModelError(
            f"The start model is a {start.plan.network.name}, the plan asks for a {plan.network.name}. "
            "Choose the same network, or start from scratch."
        )
    inputs = [_place(start.plan.modalities, name) for name in plan.modalities]
    outputs = [_place(_outputs(start.plan), name) for name in _outputs(plan)]
    fresh, notes, taken = network.state_dict(), [], 0
    for name, tensor in fresh.items():
        old = start.weights.get(name)
        if old is None or old.ndim != tensor.ndim:
            continue
        new = _matched(tensor, old, start.plan, plan, inputs, outputs)
        if new is not None:
            fresh[name] = new
            taken += 1
    if taken < len(fresh) / 2:
        raise ModelError(
            "The start model has other widths or depth than the plan's network. "
            "Take the plan from the model, or start from scratch."
        )
    network.load_state_dict(fresh)
    if new_images := [n for n, place in zip(plan.modalities, inputs, strict=True) if place is None]:
        notes.append(f"the start model has not seen {', '.join(new_images)}; their weights start fresh")
    if new_labels := [n for n, place in zip(_outputs(plan), outputs, strict=True) if place is None]:
        notes.append(f"the start model does not know {', '.join(new_labels)}; their weights start fresh")
    if taken < len(fresh):
        notes.append(f"{len(fresh) - taken} of {len(fresh)} tensors have another shape and start fresh")
    return notes


def _matched(
    tensor: Tensor, old: Tensor, before: Plan, after: Plan, inputs: Sequence[int | None], outputs: Sequence[int | None]
) -> Tensor | None:
    """Return `tensor` with the matching channels of `old`, or None when their shapes do not fit."""
    new = tensor.clone()
    reads_images = old.ndim == 5 and (old.shape[1], tensor.shape[1]) == (len(before.modalities), len(after.modalities))
    writes_outputs = (old.shape[:1] + tensor.shape[:1]) == (before.outputs, after.outputs)
    if reads_images and old.shape[0] == tensor.shape[0] and old.shape[2:] == tensor.shape[2:]:
        for channel, place in enumerate(inputs):
            if place is not None:
                new[:, channel] = old[:, place]
        return new
    if writes_outputs and old.shape[1:] == tensor.shape[1:]:
        for channel, place in enumerate(outputs):
            if place is not None:
                new[channel] = old[place]
        return new
    return old.clone() if old.shape == tensor.shape else None


def _outputs(plan: Plan) -> tuple[str, ...]:
    return plan.output_names if plan.targets == "regions" else ("background", *plan.output_names)


def _place(names: Sequence[str], name: str) -> int | None:
    lowered = [n.lower() for n in names]
    return lowered.index(name.lower()) if name.lower() in lowered else None
