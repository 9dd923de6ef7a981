"""What a trained model expects and promises, read without its weights, and whether a case fits it, in words."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import FileError, ModelError
from ..model.members import check_members, members_of, model_name
from ..model.plan import Plan
from ..training.cross_validation import is_cross_validation, read_cross_validation
from ..volumes.files import strip_suffix

if TYPE_CHECKING:
    from ..cases.case import Case, CaseFiles
    from ..cases.dataset import Dataset

#: Voxels that differ by more than this factor from those the model works on make a case odd for it.
ODD_SPACING = 2.0


@dataclass(frozen=True)
class ModelFacts:
    """The plan of a model, and its mean Dice on validation cases by class, if it was validated.

    Of an ensemble it is the plan of its first member, `members` the names of all, and the Dice that of the
    cross-validation, if it is one and finished.
    """

    plan: Plan
    dice: dict[str, float]
    members: tuple[str, ...] = ()

    def in_words(self) -> str:
        """Say what the model wants and on which grid it works."""
        plan = self.plan
        spacing = "×".join(f"{size:.3g}" for size in plan.spacing_mm)
        images = "image" if len(plan.modalities) == 1 else "images"
        lines = [f"Wants the {images} {', '.join(plan.modalities)}; works on voxels of {spacing} mm."]
        if self.members:
            lines.insert(0, f"Mean of {len(self.members)} models.")
        if self.dice and self.members:
            mean = sum(self.dice.values()) / len(self.dice)
            lines.append(f"Mean Dice {mean:.3f} over all cases, each judged by a model that did not see it.")
        elif self.dice:
            mean = sum(self.dice.values()) / len(self.dice)
            lines.append(f"Mean Dice {mean:.3f} on its validation cases.")
        return " ".join(lines)


def read_model_facts(path: Path) -> ModelFacts:
    """Read the facts of a run folder or a model file from the readable file beside the weights.

    Raises
    ------
    FileError, ModelError, PlanError
        If it is missing, damaged, or made by a newer version.
    """
    file = path / "model.json" if path.is_dir() else path.with_suffix(".json")
    try:
        values = json.loads(file.read_text("utf-8"))
        plan, history = values["plan"], values.get("history", {})
    except OSError:
        raise FileError(f"There is no {file.name} beside the model. Copy it together with the weights.") from None
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ModelError(f"{file.name} is not the description of a model of napari-seg3d.") from None
    dice = history.get("validation_dice") or {}
    return ModelFacts(Plan.from_json(json.dumps(plan)), {str(name): float(value) for name, value in dice.items()})


def read_ensemble_facts(paths: Sequence[Path]) -> ModelFacts:
    """Read the facts of a model, or of several that predict together; a cross-validation stands for its folds.

    Raises
    ------
    FileError, ModelError, PlanError
        As `read_model_facts`, or if the models do not belong together.
    """
    members = [member for path in paths for member in members_of(path)]
    facts = [read_model_facts(member) for member in members]
    if len(members) == 1:
        return facts[0]
    names = tuple(model_name(member) for member in members)
    check_members(names, [each.plan for each in facts])
    dice: dict[str, float] = {}
    if len(paths) == 1 and is_cross_validation(paths[0]):
        dice = {name: spread.mean for name, spread in read_cross_validation(paths[0]).dice().items()}
    return ModelFacts(facts[0].plan, dice, names)


def model_of_prediction(path: Path) -> str:
    """Return the model that made a predicted label file, as the file beside it says; empty if that says nothing."""
    try:
        return str(json.loads(path.with_name(f"{strip_suffix(path)}.json").read_text("utf-8"))["model"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return ""


def misfit(facts: ModelFacts, case: CaseFiles | Case) -> str:
    """Say why a model cannot predict a case; empty if it can."""
    missing = [name for name in facts.plan.modalities if name not in case.modalities]
    if not missing:
        return ""
    return f"{case.id} lacks {', '.join(missing)}; it has {', '.join(case.modalities)}."


def oddities(facts: ModelFacts, case: Case | None, dataset: Dataset | None) -> list[str]:
    """Say what is unusual about a case that a model can predict: other voxels, other classes than the dataset's."""
    found = []
    if case is not None:
        ours, its = sorted(case.geometry.spacing_mm), sorted(facts.plan.spacing_mm)
        ratios = [max(a / b, b / a) for a, b in zip(ours, its, strict=True)]
        if max(ratios) > ODD_SPACING:
            spacing = "×".join(f"{size:.3g}" for size in case.geometry.spacing_mm)
            found.append(f"Its voxels of {spacing} mm differ much from the model's; it is resampled, expect less.")
    if dataset is not None and len(dataset.table):
        known = {label.value: label.name for label in dataset.table}
        other = [x.name for x in facts.plan.labels if known.get(x.value, "").lower() != x.name.lower()]
        if other:
            found.append(f"The model's {', '.join(other)} mean something else in this dataset, or nothing.")
    return found
