"""A case and a model, or several, in; a label map on the case's own grid out."""

from __future__ import annotations

import json
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ..cases.case import Case, CaseFiles
from ..errors import FileError, ModelError, Seg3dError
from ..events import Event, Finished, Progress, Saved, Warned, job
from ..model.device import choose_device
from ..model.plan import AXES, Plan
from ..model.prepare import Grid, Prepared, check_modalities, prepare, restore, restore_intensities
from ..volumes.atomic import write_text_whole
from ..volumes.files import write_label_map, write_volume
from ..volumes.volume import LabelMap, Volume
from .ensemble import Ensemble, MeanOutputs, Models
from .window import predict_windows

#: Ranges of voxels along X, Y, Z of the case's stored array.
Roi = tuple[slice, slice, slice]
#: Logit where the network has not looked: as good as certain, and float32 can hold its probability.
CERTAIN = 20.0


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a model says about a case, on the case's own grid.

    Parameters
    ----------
    label_map : LabelMap
        With the model's label values, names and colours.
    probabilities : dict of str to Volume, optional
        From 0 to 1, one for each class or region.
    logits : dict of str to Volume, optional
        What the network puts out before it becomes a probability: one map for each region, or for background and each
        class, whose softmax are the probabilities. Of several models, logarithms of their mean probabilities (classes)
        or log-odds (regions). Outside what the network has seen, background is certain (`CERTAIN`).
    uncertainty : Volume, optional
        Entropy of the classes relative to its maximum, from 0 (certain) to 1; the largest of all for regions.
    seconds : float
        How long it took.
    """

    case_id: str
    label_map: LabelMap
    probabilities: dict[str, Volume] | None
    uncertainty: Volume | None
    seconds: float
    logits: dict[str, Volume] | None = None


@dataclass(frozen=True)
class Options:
    """How to predict.

    Parameters
    ----------
    mirrors : bool
        Also predict the mirrored case along the axes that training mirrored (all three if none) and average.
    roi : Roi, optional
        Only inside this box of voxels; outside is background.
    probabilities, uncertainty, logits : bool
        Also return these maps.
    """

    mirrors: bool = False
    roi: Roi | None = None
    probabilities: bool = False
    uncertainty: bool = False
    logits: bool = False


@job
def predict(
    case: Case | CaseFiles,
    model: Models,
    *,
    device: str = "auto",
    threads: int | None = None,
    mirrors: bool = False,
    roi: Roi | None = None,
    probabilities: bool = False,
    uncertainty: bool = False,
    logits: bool = False,
) -> Iterator[Event]:
    """Predict one case.

    Parameters
    ----------
    case : Case or CaseFiles
        With all modalities of the model.
    model : Path, Model, or a sequence of them
        Run folder, model file, or a model already read. Of several, and of the folds in the folder of a
        cross-validation, the mean of the probabilities decides (see `napari_seg3d.prediction.ensemble`).
    device, threads
        As in `napari_seg3d.training.loop.train`.
    mirrors, roi, probabilities, uncertainty, logits
        See `Options`.

    Yields
    ------
    Event
        Progress window by window; at the end Finished with a `Prediction`, or Failed.
    """
    predictor = _Predictor(Ensemble.of(model), device, threads)
    options = Options(mirrors, roi, probabilities, uncertainty, logits)
    prediction = yield from predictor.predict(case, options)
    yield Finished(prediction, f"Predicted {prediction.case_id} in {prediction.seconds:.1f} s.", prediction.seconds)


@job
def predict_many(
    cases: Sequence[Case | CaseFiles],
    model: Models,
    output: Path,
    *,
    overwrite: bool = False,
    device: str = "auto",
    threads: int | None = None,
    mirrors: bool = False,
    roi: Roi | None = None,
    probabilities: bool = False,
    uncertainty: bool = False,
    logits: bool = False,
) -> Iterator[Event]:
    """Predict cases and write each as ``<output>/<case>.nii.gz`` with a ``.json`` beside it.

    A case that cannot be predicted is reported with a `Warned` and left out; the others go on. Maps that are asked for
    are written as ``<case>.probability-<name>.nii.gz``, ``<case>.logits-<name>.nii.gz`` (both float32) and
    ``<case>.uncertainty.nii.gz``.

    Yields
    ------
    Event
        Progress, Saved for each file; at the end Finished with the tuple of label files, or Failed if no case could be
        predicted.
    """
    began = time.monotonic()
    ensemble = Ensemble.of(model)
    predictor = _Predictor(ensemble, device, threads)
    options = Options(mirrors, roi, probabilities, uncertainty, logits)
    output = Path(output)
    written: list[Path] = []
    problems: list[str] = []
    if not overwrite and (there := [c.id for c in cases if (output / f"{c.id}.nii.gz").exists()]):
        raise FileError(
            f"{len(there)} of {len(cases)} predictions are there already ({', '.join(there[:3])} …). "
            "Choose another folder, or allow to overwrite."
        )
    _make_folder(output)
    for number, case in enumerate(cases):
        try:
            for event in (inner := _Kept(predictor.predict(case, options))):
                if isinstance(event, Progress):
                    done = number + event.done / (event.total or 1)
                    spent = time.monotonic() - began
                    left = spent / done * (len(cases) - done) if done else None
                    event = Progress(f"Predicting {case.id}", done, len(cases), left)
                yield event
            files = _write(inner.value, case, output, ensemble, overwrite)
        except Seg3dError as error:
            problems.append(str(error))
            yield Warned(f"{case.id} is left out: {error}")
            continue
        written.append(files[0])
        for path in files:
            yield Saved(path, "prediction")
    if not written:
        raise ModelError(f"No case could be predicted. {problems[0] if problems else 'There are no cases.'}")
    seconds = time.monotonic() - began
    yield Finished(tuple(written), f"Predicted {len(written)} of {len(cases)} cases in {seconds:.1f} s.", seconds)


class _Kept:
    """Iterate a generator and keep what it returns in `value`."""

    def __init__(self, generator: Generator[Event, None, Prediction]) -> None:
        self._generator = generator
        self.value: Prediction

    def __iter__(self) -> Iterator[Event]:
        self.value = yield from self._generator


class _Predictor:
    """Models on a device, ready for one case after the other."""

    def __init__(self, ensemble: Ensemble, device: str, threads: int | None) -> None:
        self.device = choose_device(device)
        if threads is not None:
            torch.set_num_threads(threads)
        self.ensemble = ensemble
        self.plan = ensemble.plan

    def predict(self, source: Case | CaseFiles, options: Options) -> Generator[Event, None, Prediction]:
        """Predict one case; the generator's return value is the `Prediction`."""
        began = time.monotonic()
        check_modalities(source.id, tuple(source.modalities), self.plan)
        yield Progress("Preparing the case", 0, None)
        case = source.load()
        prepared: tuple[Plan, Prepared] | None = None
        mean = MeanOutputs(self.plan)
        windowed = time.monotonic()
        count = len(self.ensemble.members)
        for number, (member, network) in enumerate(self.ensemble.networks(self.device)):
            if prepared is None or prepared[0] != member:
                prepared = member, prepare(case, member)
            if number == 0:
                windowed = time.monotonic()
            logits: Tensor | None = None
            for done, total, result in self._windows(network, member, prepared[1], options):
                logits = result
                yield _progress(number, count, done, total, time.monotonic() - windowed)
            assert logits is not None  # the last window always brings them
            mean.add(logits, prepared[1].grid, member)
            # Nothing of this member may be in memory beside the next one.
            del logits, network
        return self._answer(case, *mean.logits(), options, began)

    def _windows(
        self, network: nn.Module, plan: Plan, prepared: Prepared, options: Options
    ) -> Iterator[tuple[int, int, Tensor | None]]:
        """Predict a prepared case with one network, only in the box if there is one."""
        region = None if options.roi is None else _on_network_grid(options.roi, prepared.grid)
        image = torch.from_numpy(prepared.image if region is None else prepared.image[(slice(None), *region)])
        mirrors = _mirror_axes(plan) if options.mirrors else ()
        for done, total, result in predict_windows(
            network, image, plan.patch_voxels, plan.window_overlap, self.device, mirrors
        ):
            if result is not None and region is not None:
                result = _embedded(result, region, prepared.image.shape[1:], plan)
            yield done, total, result

    def _answer(self, case: Case, logits: Tensor, grid: Grid, options: Options, began: float) -> Prediction:
        plan = self.plan
        data = restore(logits, grid, plan)
        if options.roi is not None:
            inside = np.zeros(data.shape, bool)
            inside[options.roi] = True
            data[~inside] = 0
        first = next(iter(case.modalities.values()))
        return Prediction(
            case.id,
            LabelMap(data, case.geometry, plan.label_table, case.id, first.source),
            _probabilities(logits, grid, plan) if options.probabilities else None,
            _uncertainty(logits, grid, plan) if options.uncertainty else None,
            time.monotonic() - began,
            _logits(logits, grid, plan) if options.logits else None,
        )


def _progress(number: int, count: int, done: int, total: int, spent_s: float) -> Progress:
    """Return how far the windows of one model are, or, of several, how many models are done."""
    if count == 1:
        return Progress("Predicting", done, total, spent_s / done * (total - done))
    models = number + done / total
    return Progress(
        f"Predicting with model {number + 1} of {count}", models, count, spent_s / models * (count - models)
    )


def _mirror_axes(plan: Plan) -> tuple[int, ...]:
    chosen = plan.augmentation.mirror or AXES
    return tuple(i for i, axis in enumerate(AXES) if axis in chosen)


def _on_network_grid(roi: Roi, grid: Grid) -> Roi:
    """Return the box of the network's grid that covers a box of the case's own voxels."""
    inside = np.zeros(grid.case.shape, bool)
    inside[roi] = True
    box = np.asarray(grid.inside(inside))
    region = []
    for axis in range(3):
        occupied = np.flatnonzero(box.any(axis=tuple(a for a in range(3) if a != axis)))
        if not occupied.size:
            raise ModelError("The box to predict lies outside the head or the image. Choose a box that meets it.")
        scale = grid.network.shape[axis] / box.shape[axis]
        start, stop = int(np.floor(occupied[0] * scale)), int(np.ceil((occupied[-1] + 1) * scale))
        region.append(slice(start, max(start + 1, stop)))
    return region[0], region[1], region[2]


def _embedded(logits: Tensor, region: Roi, shape: tuple[int, ...], plan: Plan) -> Tensor:
    """Put logits of a box into a whole volume that is background elsewhere."""
    whole = torch.full((len(logits), *shape), -CERTAIN, device=logits.device)
    if plan.targets == "classes":
        whole[0] = CERTAIN
    whole[(slice(None), *region)] = logits
    return whole


def _probabilities(logits: Tensor, grid: Grid, plan: Plan) -> dict[str, Volume]:
    maps = logits.sigmoid() if plan.targets == "regions" else logits.softmax(0)[1:]
    return {
        name: Volume(restore_intensities(values, grid), grid.case, f"probability of {name}")
        for name, values in zip(plan.output_names, maps, strict=True)
    }


def _logits(logits: Tensor, grid: Grid, plan: Plan) -> dict[str, Volume]:
    names = plan.output_names if plan.targets == "regions" else ("background", *plan.output_names)
    seen = grid.outside(np.ones(grid.box_shape, bool))
    maps = {}
    for number, (name, values) in enumerate(zip(names, logits, strict=True)):
        unseen = CERTAIN if plan.targets == "classes" and number == 0 else -CERTAIN
        data = np.where(seen, restore_intensities(values, grid), np.float32(unseen))
        maps[name] = Volume(data, grid.case, f"logits of {name}")
    return maps


def _uncertainty(logits: Tensor, grid: Grid, plan: Plan) -> Volume:
    if plan.targets == "regions":
        p = logits.sigmoid()
        entropy = -(p * p.clamp_min(1e-7).log2() + (1 - p) * (1 - p).clamp_min(1e-7).log2()).amax(0)
    else:
        p = logits.softmax(0)
        entropy = -(p * p.clamp_min(1e-7).log()).sum(0) / float(np.log(len(logits)))
    return Volume(restore_intensities(entropy, grid), grid.case, "uncertainty")


def _write(
    prediction: Prediction, case: Case | CaseFiles, output: Path, ensemble: Ensemble, overwrite: bool
) -> list[Path]:
    source = prediction.label_map.source
    files = [
        write_label_map(
            output / f"{prediction.case_id}.nii.gz",
            LabelMap(
                prediction.label_map.data,
                prediction.label_map.geometry,
                prediction.label_map.table,
                prediction.case_id,
            ),
            overwrite=overwrite,
            like=source,
        )
    ]
    for what, maps in (("probability", prediction.probabilities), ("logits", prediction.logits)):
        for name, volume in (maps or {}).items():
            slug = "".join(c if c.isalnum() else "-" for c in name)
            path = output / f"{prediction.case_id}.{what}-{slug}.nii.gz"
            files.append(write_volume(path, volume, overwrite=overwrite))
    if prediction.uncertainty is not None:
        path = output / f"{prediction.case_id}.uncertainty.nii.gz"
        files.append(write_volume(path, prediction.uncertainty, overwrite=overwrite))
    sidecar = {
        "case": prediction.case_id,
        "model": ensemble.name,
        **_members(ensemble),
        "labels": {str(label.value): label.name for label in prediction.label_map.table},
        # Of several models they are not a network's own outputs, which somebody might take them for.
        **({"logits": _kind_of_logits(ensemble)} if prediction.logits is not None else {}),
        "inputs": _inputs(case),
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "seconds": round(prediction.seconds, 2),
    }
    write_text_whole(output / f"{prediction.case_id}.json", json.dumps(sidecar, indent=1))
    return files


def _kind_of_logits(ensemble: Ensemble) -> str:
    if len(ensemble.members) == 1:
        return "outputs of the network"
    of_regions = ensemble.plan.targets == "regions"
    return f"{'log-odds' if of_regions else 'logarithms'} of the models' mean probabilities"


def _members(ensemble: Ensemble) -> dict[str, object]:
    members = [{"model": member.name, "model_sha256": member.sha256} for member in ensemble.members]
    return {"model_sha256": members[0]["model_sha256"]} if len(members) == 1 else {"members": members}


def _inputs(case: Case | CaseFiles) -> dict[str, str]:
    """File names only: folders can carry patients' names."""
    files = case if isinstance(case, CaseFiles) else case.files
    return {} if files is None else {name: image.path.name for name, image in files.modalities.items()}


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(f"The folder {folder} cannot be made: {error.strerror or error}.") from None
