"""Models on disk: weights, plan, labels and history in one file that cannot run code and knows whether it is whole.

A model is a safetensors file. Its metadata holds the plan, the history and a SHA-256 of all weights, so that the file
alone is enough and a flipped bit is found; ``model.json`` beside it repeats the metadata for human readers. The state
from which a training resumes is kept the same way (`write_tensors`, `read_tensors`): no pickle anywhere.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..errors import FileError, ModelError
from ..volumes.atomic import write_text_whole, write_whole
from .networks import build_network
from .plan import Plan
from .prepare import check_modalities

if TYPE_CHECKING:
    from torch import nn

FORMAT = "napari-seg3d"
FORMAT_VERSION = 1
MODEL_FILE = "model.safetensors"
_METADATA_LIMIT_BYTES = 16 * 2**20


@dataclass(frozen=True, eq=False)
class Model:
    """A trained network: its plan, its weights, and how it came about.

    Parameters
    ----------
    plan : Plan
        With the labels, the modalities and the preprocessing that prediction repeats.
    weights : mapping of str to Tensor
        On the CPU.
    history : mapping
        Numbers about the training: epoch, step, mean Dice …
    """

    plan: Plan
    weights: Mapping[str, Tensor]
    history: Mapping[str, Any] = field(default_factory=dict)
    sha256: str = ""
    path: Path | None = None

    @property
    def name(self) -> str:
        """A short name for people: that of the run."""
        if self.path is None:
            return self.plan.recipe
        return self.path.parent.name if self.path.name == MODEL_FILE else self.path.stem

    def network(self, device: torch.device) -> nn.Module:
        """Build the network with these weights, ready to predict on `device`."""
        network = build_network(self.plan)
        network.load_state_dict(dict(self.weights))
        return network.to(device).eval()

    def check_modalities(self, case_id: str, modalities: tuple[str, ...]) -> None:
        """Refuse a case that lacks an image which the model wants, with a `ModelError` in words."""
        check_modalities(case_id, modalities, self.plan)


def model_path(path: Path) -> Path:
    """Return the model file that a run folder or a file stands for.

    Raises
    ------
    FileError
        If there is none.
    """
    file = path / MODEL_FILE if path.is_dir() else path
    if not file.is_file():
        what = f"{path.name} has no finished model ({MODEL_FILE})" if path.is_dir() else f"There is no file {path}"
        raise FileError(f"Expected a run folder or a model file. {what}.")
    return file


def save_model(path: Path, model: Model) -> Path:
    """Write a model whole or not at all, over an older one; with a readable ``.json`` beside it."""
    facts = {"plan": model.plan.model_dump(mode="json"), "history": dict(model.history)}
    digest = write_tensors(path, model.weights, "model", facts)
    write_text_whole(
        path.with_suffix(".json"),
        json.dumps({"format": FORMAT, "format_version": FORMAT_VERSION, "sha256": digest, **facts}, indent=1),
    )
    return path


def load_model(path: str | Path) -> Model:
    """Read a model from a run folder or a model file.

    Raises
    ------
    FileError
        If there is no such file.
    ModelError
        If it is damaged, of another kind, made by a newer version, or its weights do not fit its own plan.
    """
    file = model_path(Path(path))
    weights, facts, digest = read_tensors(file, "model")
    plan = Plan.from_json(json.dumps(facts.get("plan")))
    _check_weights(file, weights, plan)
    return Model(plan, weights, facts.get("history", {}), digest, file)


def read_model_plan(path: str | Path) -> Plan:
    """Read only the plan of a model: quick, without its weights. Raises as `load_model`."""
    file = model_path(Path(path))
    return Plan.from_json(json.dumps(_metadata(file, "model").get("plan")))


def write_tensors(path: Path, tensors: Mapping[str, Tensor], kind: str, facts: Mapping[str, Any]) -> str:
    """Write named tensors and plain facts whole or not at all; return the SHA-256 over the tensors."""
    on_cpu = {name: tensor.detach().to("cpu").contiguous() for name, tensor in tensors.items()}
    digest = _digest(on_cpu)
    header = {"format": FORMAT, "format_version": FORMAT_VERSION, "kind": kind, "sha256": digest, **facts}
    with write_whole(path) as temporary:
        save_file(on_cpu, temporary, metadata={FORMAT: json.dumps(header)})
    return digest


def read_tensors(path: Path, kind: str) -> tuple[dict[str, Tensor], dict[str, Any], str]:
    """Read what `write_tensors` wrote: tensors on the CPU, the facts, and the SHA-256, which is checked.

    Raises
    ------
    ModelError
        If the file is damaged or of another kind.
    """
    facts = _metadata(path, kind)
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise ModelError(f"The file {path.name} is damaged ({error}). Use a copy of it, or the previous one.") from None
    digest = _digest(tensors)
    if digest != facts.get("sha256"):
        raise ModelError(
            f"The file {path.name} is damaged: its weights are not those that were saved. Use a copy of it."
        )
    return tensors, facts, digest


def read_facts(path: Path, kind: str) -> dict[str, Any]:
    """Read the facts that `write_tensors` wrote, without the tensors. Raises as `read_tensors`."""
    return _metadata(path, kind)


def _metadata(path: Path, kind: str) -> dict[str, Any]:
    """Read the facts of a safetensors file without its tensors, every size checked before it is believed."""
    foreign = ModelError(f"{path.name} is not a {kind} file of napari-seg3d.")
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if not 2 <= length <= min(_METADATA_LIMIT_BYTES, path.stat().st_size - 8):
                raise foreign
            header = json.loads(file.read(length))
            facts = json.loads(header["__metadata__"][FORMAT])
            found = facts["format_version"], facts["kind"]
    except OSError as error:
        raise FileError(f"{path.name} cannot be read: {error.strerror or error}.") from None
    except (struct.error, ValueError, KeyError, TypeError, RecursionError):
        raise foreign from None
    if found[0] != FORMAT_VERSION:
        raise ModelError(f"{path.name} was made by a newer napari-seg3d (format {found[0]}). Upgrade to read it.")
    if found[1] != kind:
        raise ModelError(f"Expected a {kind} file, but {path.name} is a {found[1]} file.")
    result: dict[str, Any] = facts
    return result


def _digest(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b"")
    return digest.hexdigest()


def _check_weights(path: Path, weights: Mapping[str, Tensor], plan: Plan) -> None:
    with torch.device("meta"):
        expected = {name: tensor.shape for name, tensor in build_network(plan).state_dict().items()}
    if expected != {name: tensor.shape for name, tensor in weights.items()}:
        raise ModelError(
            f"The weights in {path.name} do not fit its own plan ({plan.network.name}, {len(plan.modalities)} images, "
            f"{plan.outputs} outputs). The file was changed or mixed up; use the original."
        )
