"""What a network consists of: every layer with its output's shape and its parameters, and the size of the data.

The library torchinfo walks through the network once, on torch's "meta" device, where tensors have a shape but no
memory. So a summary takes a second even for plans that do not fit this computer.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torchinfo

from ..errors import ModelError
from .networks import build_network
from .plan import Plan

_MB = 2**20


@dataclass(frozen=True)
class LayerRow:
    """One layer, or one group of layers.

    Attributes
    ----------
    name : str
        Its place in the module, as in the names of the weights: "down.0.1"; empty for the network itself.
    kind : str
        Its class.
    depth : int
        0 for the network itself, 1 for what it consists of, and so on.
    output_shape : tuple of int
        (B, C, X, Y, Z), or another shape inside a transformer; of several outputs the first; empty where a group is
        not called as a whole.
    parameters : int
        Numbers that it and everything inside it hold; 0 where a layer is used again.
    """

    name: str
    kind: str
    depth: int
    output_shape: tuple[int, ...]
    parameters: int


@dataclass(frozen=True)
class ModelSummary:
    """The layers of a plan's network in the order in which they are computed, and what they add up to.

    Attributes
    ----------
    network : str
        The family's name.
    input_shape : tuple of int
        (B, images, X, Y, Z) of a training step.
    rows : tuple of LayerRow
    parameters, trainable : int
    input_mb, forward_backward_mb, parameters_mb : float
        Data in megabytes (2**20 bytes) as torchinfo counts it: the images of a step in float32; the outputs of all
        layers that have parameters, twice, for their gradients; the parameters.
    """

    network: str
    input_shape: tuple[int, ...]
    rows: tuple[LayerRow, ...]
    parameters: int
    trainable: int
    input_mb: float
    forward_backward_mb: float
    parameters_mb: float

    def as_text(self, depth: int | None = None) -> str:
        """Return a table, a line a layer; with `depth` only down to that level."""
        rows = [row for row in self.rows if depth is None or row.depth <= depth]
        cells = [
            ("layer", "kind", "output", "parameters"),
            *(
                (
                    row.name or self.network,
                    row.kind,
                    " × ".join(map(str, row.output_shape)),
                    f"{row.parameters:,}" if row.parameters else "",
                )
                for row in rows
            ),
        ]
        widths = [max(len(line[i]) for line in cells) for i in range(4)]
        lines = [
            f"{name:{widths[0]}}  {kind:{widths[1]}}  {shape:{widths[2]}}  {count:>{widths[3]}}".rstrip()
            for name, kind, shape, count in cells
        ]
        return "\n".join((*lines, "", *self.totals()))

    def totals(self) -> tuple[str, ...]:
        """Return the sums in plain lines."""
        fixed = self.parameters - self.trainable
        return (
            f"Parameters: {self.parameters:,}" + (f", of which {fixed:,} are fixed" if fixed else ", all trainable"),
            f"Input: {' × '.join(map(str, self.input_shape))}, {self.input_mb:.1f} MB",
            f"Forward and backward: {self.forward_backward_mb:,.1f} MB",
            f"Parameters in memory: {self.parameters_mb:,.1f} MB",
        )


def summarise(plan: Plan) -> ModelSummary:
    """Return what the network of a plan consists of, for a training step of the plan.

    Raises
    ------
    ModelError
        If the network cannot be built or computed for this plan.
    """
    with torch.device("meta"):
        network = build_network(plan)
        images = torch.empty((plan.batch_size, len(plan.modalities), *plan.patch_voxels))
    try:
        seen = torchinfo.summary(
            network, input_data=images, device="meta", mode="train", depth=10**3, col_names=("output_size",), verbose=0
        )
    except RuntimeError as error:
        raise ModelError(f"This {plan.network.name} cannot be computed: {error.__cause__ or error}.") from error
    rows: list[LayerRow] = []
    path: list[str] = []
    known: set[int] = set()
    for layer in seen.summary_list:
        # The rows come in the order of computation: whatever is deeper than the one before lies inside it.
        path[layer.depth :] = [layer.var_name]
        repeated = layer.layer_id in known
        known.add(layer.layer_id)
        output = tuple(layer.output_size)
        if repeated and not output:
            continue  # a list of layers, told once is enough
        rows.append(
            LayerRow(
                name=".".join(path[1:]),
                kind=layer.class_name,
                depth=layer.depth,
                output_shape=output,
                parameters=0 if repeated else max(0, layer.num_params),
            )
        )
    parameters = list(network.parameters())
    return ModelSummary(
        network=plan.network.name,
        input_shape=tuple(images.shape),
        rows=tuple(rows),
        parameters=sum(p.numel() for p in parameters),
        trainable=sum(p.numel() for p in parameters if p.requires_grad),
        input_mb=images.nbytes / _MB,
        forward_backward_mb=seen.total_output_bytes / _MB,
        parameters_mb=sum(p.nbytes for p in parameters) / _MB,
    )
