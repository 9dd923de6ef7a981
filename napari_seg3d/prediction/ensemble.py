"""Several models that predict together: the mean of their probabilities decides.

The members may differ in network, patch and normalisation, and work on different grids. Their probabilities are added
up one member after the other, on the network's grid as long as all share it, else on the case's own. So there is one
sum and one member's outputs in memory, however many members there are; their weights stay in memory only where they
are small together.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from ..errors import ModelError
from ..model.checkpoint import Model, load_model, model_path, read_model_plan
from ..model.members import check_members, members_of, model_name, output_order
from ..model.plan import Plan
from ..model.prepare import Grid, restore_intensities
from ..volumes.resample import reoriented_geometry

#: One model or several: run folders, model files, folders of cross-validations, models already read.
Models = Path | Model | Sequence[Path | Model]

#: Members whose files are larger than this together are read anew for every case.
KEPT_BYTES = 1 << 30
#: Probabilities nearer to 0 or 1 are taken as this: their logarithm must stay finite.
_SURE = 1e-7


@dataclass(eq=False)
class Member:
    """One model of an ensemble; `sha256` is empty until its weights have been read."""

    source: Path | Model
    name: str
    plan: Plan
    sha256: str = ""

    @classmethod
    def of(cls, source: Path | Model) -> Member:
        """Read what is known without the weights."""
        if isinstance(source, Model):
            return cls(source, source.name, source.plan, source.sha256)
        return cls(source, model_name(source), read_model_plan(source))

    @property
    def size_bytes(self) -> int:
        """Size of its file; 0 if it is in memory anyway."""
        return 0 if isinstance(self.source, Model) else model_path(self.source).stat().st_size

    def network(self, device: torch.device) -> nn.Module:
        """Build the network with its weights, ready to predict on `device`."""
        model = self.source if isinstance(self.source, Model) else load_model(self.source)
        self.sha256 = model.sha256
        return model.network(device)


class Ensemble:
    """Models that belong together, at least one.

    Parameters
    ----------
    members : sequence of Member
    name : str
        For people and records.

    Raises
    ------
    ModelError
        If they want other images or find other things than the first.
    """

    def __init__(self, members: Sequence[Member], name: str) -> None:
        if not members:
            raise ModelError("No model was given. Name at least one run folder or model file.")
        check_members([member.name for member in members], [member.plan for member in members])
        self.members = tuple(members)
        self.name = name
        self._kept: dict[int, nn.Module] = {}
        self._keep = len(members) == 1 or sum(member.size_bytes for member in members) <= KEPT_BYTES

    @classmethod
    def of(cls, models: Models) -> Ensemble:
        """Read which models are meant; a cross-validation's folder stands for its folds."""
        given = [models] if isinstance(models, Path | Model | str) else list(models)
        members: list[Member] = []
        names: list[str] = []
        for source in given:
            if isinstance(source, Model):
                members.append(Member.of(source))
                names.append(source.name)
            else:
                path = Path(source)
                members += [Member.of(part) for part in members_of(path)]
                names.append(model_name(path))
        sources = [member.source for member in members]
        if any(source in sources[:place] for place, source in enumerate(sources)):
            raise ModelError("A model was named twice, which would count it double. Name each model once.")
        return cls(members, " + ".join(names))

    @property
    def plan(self) -> Plan:
        """That of the first member, whose labels and outputs stand for all."""
        return self.members[0].plan

    def networks(self, device: torch.device) -> Iterator[tuple[Plan, nn.Module]]:
        """Yield each member's plan and network; one at a time is in memory if its taker lets it go before the next."""
        for number, member in enumerate(self.members):
            network = self._kept.get(number)
            if network is None:
                network = member.network(device)
                if self._keep:
                    self._kept[number] = network
            yield member.plan, network
            del network


class MeanOutputs:
    """The mean of members' probabilities, added up as they come.

    Parameters
    ----------
    plan : Plan
        Whose outputs and order of outputs count.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._sum: Tensor | None = None
        self._grid: Grid | None = None
        self._count = 0

    def add(self, logits: Tensor, grid: Grid, plan: Plan) -> None:
        """Add a member's logits (K, X, Y, Z) on ``grid.network``."""
        order = output_order(plan, self._plan)
        if order != sorted(order):
            logits = logits[order]
        self._count += 1
        if self._sum is None or self._grid is None:
            # The logits of a model that predicts alone are not touched at all.
            self._sum, self._grid = logits, grid
            return
        if self._count == 2:
            self._sum = _probabilities(self._sum, self._plan)
        values = _probabilities(logits, self._plan)
        if grid != self._grid:
            own = _own_grid(grid)
            if self._grid != own:
                self._sum, self._grid = _moved(self._sum, self._grid, own, self._plan), own
            values = _moved(values, grid, own, self._plan)
        self._sum = self._sum.add_(values)

    def logits(self) -> tuple[Tensor, Grid]:
        """Return logits whose probabilities are the mean, and the grid they lie on."""
        assert self._sum is not None  # there is at least one member
        assert self._grid is not None
        if self._count == 1:
            return self._sum, self._grid
        mean = self._sum.div_(self._count).clamp_(_SURE, 1 - _SURE)
        return mean.logit_() if self._plan.targets == "regions" else mean.log_(), self._grid


def _probabilities(logits: Tensor, plan: Plan) -> Tensor:
    return logits.sigmoid() if plan.targets == "regions" else logits.softmax(0)


def _own_grid(grid: Grid) -> Grid:
    """Return the grid of the case's own voxels, without crop or resampling."""
    ras = reoriented_geometry(grid.case, "RAS")
    x, y, z = ras.shape
    return Grid(grid.case, ((0, x), (0, y), (0, z)), ras)


def _moved(values: Tensor, grid: Grid, own: Grid, plan: Plan) -> Tensor:
    """Return probabilities on the case's own voxels; outside a member's crop it sees background for sure."""
    moved = torch.empty((len(values), *own.box_shape), device=values.device)
    for channel, one in enumerate(values):
        moved[channel] = torch.from_numpy(own.inside(restore_intensities(one, grid)).copy())
    if plan.targets == "classes":
        moved[0] = 1 - moved[1:].sum(0)
    return moved
