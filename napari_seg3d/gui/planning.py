"""From what the user chose to a plan, in the background: the cases are read, the plan is made, its size is counted.

It runs in the child process, so that the window itself need not load torch. The fingerprint of the cases comes back
with the plan: with it, another choice is planned at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..cases.case import CaseFiles
from ..cases.fingerprint import Fingerprint, fingerprint
from ..errors import DatasetError, PlanError
from ..events import Event, Failed, Finished, Progress, job
from ..model.plan import Plan
from ..model.planner import make_plan
from ..model.recipes import plan_from_recipe

#: What the first choice of a plan is called; all others are recipes.
AUTOMATIC = "automatic"


@dataclass(frozen=True)
class Choices:
    """What a user chooses for a training, besides the cases.

    Parameters
    ----------
    recipe : str
        `AUTOMATIC` or the name of a recipe. Not asked when there is a start model: its plan is taken.
    network : str
        For the automatic plan.
    preset : str
        How long the automatic plan trains if neither `budget_s` (seconds) nor `epochs` is given.
    budget_s, epochs : float, int, optional
    start : Path, optional
        Model whose weights and plan are taken over.
    device : str
    seed : int
    changes : mapping
        Settings of the plan that were changed by hand.
    """

    recipe: str = AUTOMATIC
    network: str = "unet"
    preset: str = "balanced"
    budget_s: float | None = None
    epochs: int | None = None
    start: Path | None = None
    device: str = "auto"
    seed: int = 0
    changes: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Proposal:
    """A plan and what the window says about it.

    Parameters
    ----------
    choices : Choices
        What it was made from.
    fingerprint : Fingerprint
        Of the cases.
    base : Plan
        The plan without the changes by hand.
    plan : Plan
        With them; the same as `base` if they do not fit (`problem` says why).
    parameters : int
        Trainable numbers of the network.
    devices : tuple of str
        What can compute here.
    problem : str
        Why the changes cannot be used, in words.
    """

    choices: Choices
    fingerprint: Fingerprint
    base: Plan
    plan: Plan
    parameters: int
    devices: tuple[str, ...]
    problem: str = ""


@job
def propose(cases: tuple[CaseFiles, ...], choices: Choices, known: Fingerprint | None = None) -> Iterator[Event]:
    """Plan a training; Finished.result = Proposal.

    Parameters
    ----------
    cases : tuple of CaseFiles
        Read only when their fingerprint is not `known`.
    choices : Choices
    known : Fingerprint, optional
    """
    # torch comes with these; the window imports this module without it.
    from ..model.device import available_devices
    from ..model.networks import parameter_count

    facts = known
    if facts is None:
        for event in fingerprint(cases):
            if isinstance(event, Finished):
                facts = event.result
            else:
                yield event
                if isinstance(event, Failed):
                    return
    if facts is None:
        raise DatasetError("The cases could not be read. Check them on the Data page.")
    yield Progress("Making the plan", 0)
    base = _planned(facts, choices, {})
    plan, problem = base, ""
    try:
        plan = _planned(facts, choices, choices.changes)
    except PlanError as error:
        problem = str(error)
    yield Finished(Proposal(choices, facts, base, plan, parameter_count(plan), available_devices(), problem))


@job
def list_layers(plan: Plan) -> Iterator[Event]:
    """List the layers of a plan's network; Finished.result = ModelSummary."""
    from ..model.summary import summarise

    yield Progress("Listing the network's layers", 0)
    yield Finished(summarise(plan))


def _planned(facts: Fingerprint, choices: Choices, changes: Mapping[str, object]) -> Plan:
    if choices.start is None and choices.recipe != AUTOMATIC:
        return plan_from_recipe(
            choices.recipe, facts, budget_s=choices.budget_s, epochs=choices.epochs, device=choices.device,
            seed=choices.seed, changes=changes,
        )  # fmt: skip
    start = None
    if choices.start is not None:
        from ..model.checkpoint import read_model_plan

        start = read_model_plan(choices.start)
    return make_plan(
        facts, network=choices.network if start is None else start.network.name, preset=choices.preset,
        budget_s=choices.budget_s, epochs=choices.epochs, device=choices.device, seed=choices.seed, start=start,
        changes=changes,
    )  # fmt: skip
