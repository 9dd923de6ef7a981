"""The Predict page: a model, the cases it shall label, and what came out."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from glob import escape
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from napari.layers import Image
from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QCheckBox,
    QFileDialog,
    QFormLayout,
    QHBoxLayout,
    QMenu,
    QPushButton,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from ..cases.case import CaseFiles
from ..errors import Seg3dError
from ..events import Event, Failed, Finished, Saved, Warned
from ..volumes.volume import Volume
from .box_chooser import BoxChooser
from .editors import WheelGuard, combo
from .labels_from_file import LabelsFromFile
from .layers import Display, image_layer
from .model_facts import ModelFacts, misfit, model_of_prediction, oddities, read_ensemble_facts
from .navigate import show_page
from .result_list import Result, ResultList
from .run_view import output_colours
from .widgets import EmptyState, MainButton, Panel, listen, quiet_label, swatches
from .work import Job

if TYPE_CHECKING:
    from napari import Viewer

    from .workspace import Workspace

_BROWSE = "browse…"
#: Whom to predict, by key, with how it is called; "{}" is the number of cases.
TARGETS = {
    "this": "this case",
    "selected": "selected cases ({})",
    "missing": "cases not yet predicted ({})",
    "all": "all cases ({})",
}
#: Logits of this size stand where the network has not looked (`napari_seg3d.prediction.predict.CERTAIN`, which torch
#: would come with).
CERTAIN = 20.0
#: Letters of the name of a folder.
_LONGEST_NAME = 80
#: Seconds between two updates of the case table while many cases are predicted.
_REFRESH_S = 5.0


class PredictPanel(Panel):
    """Everything about predicting with a trained model.

    Parameters
    ----------
    workspace : Workspace
    viewer : napari.Viewer
    """

    def __init__(self, workspace: Workspace, viewer: Viewer, parent: QWidget | None = None) -> None:
        super().__init__(workspace, viewer, parent)
        self._facts: ModelFacts | None = None
        #: Models that predict together with the one in the box.
        self._others: tuple[Path, ...] = ()
        self._problem = ""
        self._left_out: list[str] = []
        self._failure: Failed | None = None
        self._there: frozenset[str] = frozenset()
        self._makers: dict[Path, str] = {}
        self._refreshed = 0.0
        self._tried_ahead: set[Path] = set()
        self._maps: dict[Job, tuple[str, str]] = {}
        self._labels = LabelsFromFile(workspace, viewer)
        self._build()
        self._connect()
        self._results_changed()

    # What the page is made of

    def _build(self) -> None:
        self.model_box = combo("The trained model: a run of this project, or a file from elsewhere")
        self._model_words = quiet_label()
        self._model_words.setTextFormat(Qt.TextFormat.RichText)
        self._model_words.setToolTip("What the model wants to see and what it finds")
        self._fit = quiet_label()
        self._fit.setToolTip("Whether the cases fit the model")
        self.target_box = combo("Which cases to label; mark several in the table of the Data page")
        for key in TARGETS:
            self.target_box.addItem(TARGETS[key], key)
        self.device_box = combo("What computes: automatic takes the first GPU, or else the CPU")
        form = QFormLayout()
        form.setContentsMargins(0, 0, 0, 0)
        form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        self.others_button = QToolButton()
        self.others_button.setText("+")
        self.others_button.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
        self.others_button.setStyleSheet("QToolButton::menu-indicator { image: none; }")
        self.others_button.setToolTip("Tick further models: the mean of their probabilities decides (an ensemble)")
        self.others_button.setMenu(QMenu(self.others_button))
        self.others_button.menu().aboutToShow.connect(self._list_others)
        models = QHBoxLayout()
        models.setSpacing(4)
        models.addWidget(self.model_box, 1)
        models.addWidget(self.others_button)
        form.addRow("With", models)
        form.addRow(self._model_words)
        form.addRow("For", self.target_box)
        form.addRow(self._fit)
        form.addRow("Device", self.device_box)
        self.body.addLayout(form)
        self.body.addLayout(self._build_options())
        self.predict_button = MainButton("Predict", "Label the cases in the background; the window stays usable")
        self.stop_button = QPushButton("Stop")
        self.stop_button.setToolTip("End the prediction; cases that are done are kept")
        buttons = QHBoxLayout()
        buttons.addWidget(self.predict_button, 2)
        buttons.addWidget(self.stop_button, 1)
        self.body.addLayout(buttons)
        self.results = ResultList()
        self.body.addWidget(self.results, 1)
        self.body.addStretch(0)
        viewer = self.viewer
        self.set_empty_state(
            EmptyState(
                "No dataset is open",
                "Open a folder with cases first, then label them here with a trained model.",
                [("To the Data page", "Choose a dataset folder there", lambda: show_page(viewer, "Data"))],
            )
        )
        self._guard = WheelGuard(self)
        self._guard.watch(self)

    def _build_options(self) -> QVBoxLayout:
        self.mirrors = QCheckBox("Mirrors: average mirrored copies")
        self.box = BoxChooser(self.workspace, self.viewer)
        self.uncertainty = QCheckBox("Uncertainty")
        self.uncertainty.setToolTip("Also show where the model hesitates: 0 certain, 1 undecided")
        self.probabilities = QCheckBox("Probabilities")
        self.probabilities.setToolTip("Also show the probability of each class, 0 to 1")
        self.logits = QCheckBox("Logits")
        self.logits.setToolTip(
            "Also show what the network puts out before it becomes a probability: above 0 for, below 0 against. "
            "Of several models, the logarithms of their mean probabilities"
        )
        self.again = QCheckBox("Again")
        self.again.setToolTip(
            "Also predict cases again that this model has predicted before; the old files are replaced"
        )
        options = QVBoxLayout()
        options.setSpacing(3)
        options.addWidget(self.mirrors)
        options.addWidget(self.box)
        maps = QHBoxLayout()
        maps.addWidget(self.uncertainty)
        maps.addWidget(self.probabilities)
        maps.addWidget(self.logits)
        maps.addStretch(1)
        options.addLayout(maps)
        options.addWidget(self.again)
        return options

    def _connect(self) -> None:
        self.model_box.activated.connect(self._model_chosen)
        for box in (self.target_box, self.device_box):
            box.activated.connect(self._enable)
        self.mirrors.toggled.connect(self._list_results)
        self.again.toggled.connect(self._enable)
        self.box.changed.connect(self._enable)
        self.predict_button.clicked.connect(self.predict)
        self.stop_button.clicked.connect(self._stop)
        self.results.wanted.connect(self._show_file)
        # psygnal and napari hold bound methods weakly: a closed panel is not kept alive by these.
        workspace = self.workspace
        listen(self, workspace.dataset_changed, self._results_changed)
        listen(self, workspace.results_changed, self._results_changed)
        listen(self, workspace.case_changed, self._enable)
        listen(self, workspace.selection_changed, self._enable)
        listen(self, workspace.jobs_changed, self._enable)
        listen(self, workspace.job_started, self._job_started)
        listen(self, workspace.job_event, self._take_event)
        listen(self, workspace.job_ended, self._job_ended)

    # The model

    @property
    def model(self) -> Path | None:
        """The chosen run folder or model file."""
        path: Path | None = self.model_box.currentData()
        return path

    @property
    def models(self) -> tuple[Path, ...]:
        """The chosen model and those that predict together with it; empty if there is none."""
        return () if self.model is None else (self.model, *(path for path in self._others if path != self.model))

    def average_with(self, others: Sequence[Path]) -> None:
        """Choose the models that predict together with the one in the box."""
        self._others = tuple(others)
        self._read_model()

    def _list_others(self) -> None:
        menu = self.others_button.menu()
        menu.clear()
        offered = [(name, path) for name, path in self.workspace.models() if path != self.model]
        if not offered:
            menu.addAction("There is no other model").setEnabled(False)
        for name, path in offered:
            action = menu.addAction(f"and {name}")
            action.setCheckable(True)
            action.setChecked(path in self._others)
            action.toggled.connect(lambda ticked, path=path: self._tick(path, ticked))

    def _tick(self, path: Path, ticked: bool) -> None:
        self.average_with([*(other for other in self._others if other != path), *([path] if ticked else [])])

    def choose_model(self, path: Path) -> None:
        """Choose a model that is in the list."""
        for index in range(self.model_box.count()):
            if self.model_box.itemData(index) == path:
                self.model_box.setCurrentIndex(index)
        self._read_model()

    def _model_chosen(self) -> None:
        if self.model_box.currentData() == _BROWSE:
            self.model_box.setCurrentIndex(0)
            path, _ = QFileDialog.getOpenFileName(self, "Model", "", "Models (*.safetensors)")
            if path:
                self._add_model(Path(path))
                return
        self._read_model()

    def _add_model(self, path: Path) -> None:
        try:
            self.workspace.add_model(path)
        except Seg3dError as error:
            self.messages.show_message("error", str(error))
            return
        self.choose_model(path)

    def _read_model(self) -> None:
        self._facts, self._problem = None, ""
        offered = {path for _, path in self.workspace.models()}
        self._others = tuple(path for path in self._others if path in offered)
        self.others_button.setText(f"+{len(self.models) - 1}" if len(self.models) > 1 else "+")
        if self.model is not None:
            try:
                self._facts = read_ensemble_facts(self.models)
            except Seg3dError as error:
                self._problem = str(error)
        if self._facts is None:
            none = "No model yet: train one on the Train page, or browse for a model file in the list above."
            self._model_words.setText(f"⚠ {self._problem}" if self._problem else none)
        else:
            names = swatches(output_colours(self._facts.plan).items())
            self._model_words.setText(f"{self._facts.in_words()} Finds {names}.")
        self._model_words.setToolTip(
            "\n".join(self._facts.members)
            if self._facts and self._facts.members
            else "What the model wants to see and what it finds"
        )
        self._offer_mirrors()
        self._list_results()

    def _offer_mirrors(self) -> None:
        """Offer mirrored copies only where the model has learned that a mirrored image means the same."""
        axes = self._facts.plan.augmentation.mirror if self._facts is not None else ()
        self.mirrors.setEnabled(bool(axes))
        if not axes:
            self.mirrors.setChecked(False)
        learned = f"Mirrored {', '.join(axes)} as in training: often a little better, {2 ** len(axes)} × as slow"
        never = "This model has not learned from mirrored images; what it makes of them would spoil the result"
        self.mirrors.setToolTip(f"{learned if axes else never} (test-time augmentation)")

    def _results_changed(self) -> None:
        self.show_empty(self.workspace.dataset is None)
        chosen = self.model
        self.model_box.clear()
        for name, path in self.workspace.models():
            self.model_box.addItem(name, path)
            self.model_box.setItemData(self.model_box.count() - 1, str(path), Qt.ItemDataRole.ToolTipRole)
        if not self.model_box.count():
            self.model_box.addItem("none yet", None)
        self.model_box.addItem(_BROWSE, _BROWSE)
        paths = [self.model_box.itemData(i) for i in range(self.model_box.count())]
        self.model_box.setCurrentIndex(paths.index(chosen) if chosen in paths else 0)
        self._read_model()

    # Whom to predict

    @property
    def folder(self) -> Path | None:
        """Where predictions with this model and these options are kept, so that none is written over another's."""
        if self.model is None or self.workspace.output is None:
            return None
        name = _name_of_models(self.models)
        return self.workspace.predictions_folder / (f"{name} mirrored" if self.mirrors.isChecked() else name)

    def cases(self, target: str) -> tuple[CaseFiles, ...]:
        """Return the cases that a choice of `TARGETS` means."""
        dataset = self.workspace.dataset
        if dataset is None:
            return ()
        if target == "this":
            return tuple(case for case in dataset.cases if case.id == self.workspace.case_id)
        if target == "selected":
            return tuple(case for case in dataset.cases if case.id in self.workspace.selected)
        if target == "missing":
            return tuple(case for case in dataset.cases if not self._is_there(case))
        return dataset.cases

    def _is_there(self, case: CaseFiles) -> bool:
        return case.id in self._there

    def _fitting(self) -> tuple[CaseFiles, ...]:
        """Return the chosen cases that the model can predict and that are not predicted already."""
        target = self.target_box.currentData()
        facts = self._facts
        if facts is None:
            return ()
        fitting = tuple(case for case in self.cases(target) if not misfit(facts, case))
        if target == "this" or self.again.isChecked():
            return fitting
        return tuple(case for case in fitting if not self._is_there(case))

    def _predicting(self) -> Job | None:
        """The prediction that runs or waits for its turn."""
        runners = (self.workspace.jobs, self.workspace.quick)
        jobs = [job for runner in runners for job in (runner.current, *runner.queue)]
        return next((job for job in jobs if job is not None and job.kind == "predict"), None)

    def _enable(self, *_: object) -> None:
        """Say whether the cases fit, and let only that be pressed which makes sense now."""
        one = self.target_box.currentData() == "this"
        for index, (key, text) in enumerate(TARGETS.items()):
            case_id = self.workspace.case_id
            shown = f"{text} ({case_id})" if key == "this" and case_id else text
            self.target_box.setItemText(index, shown.format(len(self.cases(key))))
        self.box.setEnabled(one)
        self.again.setVisible(not one)
        boxed = self.box.is_wanted
        undrawn = boxed and self.box.box is None
        self._fit.setText(self._fit_in_words(undrawn))
        predicting = self._predicting()
        fits = bool(self._fitting()) and not undrawn
        self.predict_button.setEnabled(fits and predicting is None)
        there = one and not boxed and any(self._is_there(case) for case in self._fitting())
        self.predict_button.setText(
            "Predicting …" if predicting is not None else "Predict again" if there else "Predict"
        )
        self.stop_button.setVisible(predicting is not None)
        self.stop_button.setEnabled(predicting is not None)
        self._list_devices()

    def _fit_in_words(self, box_is_missing: bool) -> str:
        facts, target = self._facts, self.target_box.currentData()
        cases = self.cases(target)
        if facts is None:
            return ""
        if not cases:
            return {
                "this": "No case is open: double click one on the Data page, or choose other cases here.",
                "selected": "No cases are marked in the table of the Data page.",
                "missing": "This model has predicted all cases.",
            }.get(target, "The dataset has no cases.")
        problems = [problem for case in cases if (problem := misfit(facts, case))]
        if problems:
            more = f" {len(problems)} of {len(cases)} cases are left out." if len(cases) > 1 else ""
            return f"⚠ {problems[0]}{more}"
        if box_is_missing:
            return "Draw a rectangle on the slice: press Draw, then drag over the image."
        words = oddities(facts, self.workspace.case if target == "this" else None, self.workspace.dataset)
        if words:
            return f"⚠ {' '.join(words)}"
        if target == "this":
            there = self._is_there(cases[0])
            return f"{cases[0].id} fits." + (
                " It was predicted before; predicting again replaces the file." if there else ""
            )
        left = sum(map(self._is_there, cases)) if not self.again.isChecked() else 0
        return f"All {len(cases)} cases fit." + (f" {left} were predicted before and are left out." if left else "")

    def _list_devices(self) -> None:
        names = ("auto", *(self.workspace.settings.get("devices", []) or ["cpu"]))
        if [self.device_box.itemData(i) for i in range(self.device_box.count())] != list(names):
            self.device_box.clear()
            for name in names:
                self.device_box.addItem({"auto": "automatic", "cpu": "CPU"}.get(name, name), name)

    # Predicting

    def predict(self) -> None:
        """Predict the chosen cases."""
        models, folder, cases = self.models, self.folder, self._fitting()
        if not models or folder is None or not cases or self._predicting() is not None:
            return
        kwargs: dict[str, object] = {
            "model": models[0] if len(models) == 1 else models,
            "device": self.device_box.currentData(),
            "mirrors": self.mirrors.isChecked(),
            "uncertainty": self.uncertainty.isChecked(),
            "probabilities": self.probabilities.isChecked(),
            "logits": self.logits.isChecked(),
        }
        if self.box.is_wanted:
            if (box := self.box.box) is None:
                return
            # Part of a prediction is no prediction of the case: it becomes a layer, not a file that is scored.
            function, kwargs = "predict", {**kwargs, "case": cases[0], "roi": box}
        else:
            one = self.target_box.currentData() == "this"
            overwrite = one or self.again.isChecked()
            function, kwargs = "predict_many", {**kwargs, "cases": cases, "output": folder, "overwrite": overwrite}
        title = f"Predicting {cases[0].id}" if len(cases) == 1 else f"Predicting {len(cases)} cases"
        # One case need not wait for a training to end: the user wants to see how far it is.
        beside = len(cases) == 1 and self.workspace.current_job is not None
        self.messages.clear()
        self.workspace.start(
            Job(title, f"napari_seg3d.prediction.predict:{function}", kwargs, "process", "predict", beside)
        )
        self._enable()

    def predict_ahead(self, case_id: str) -> bool:
        """Predict a case in the background, if a model is chosen that fits it; tell whether that was begun."""
        models, folder, facts = self.models, self.folder, self._facts
        cases = tuple(case for case in self.cases("missing") if case.id == case_id)
        if not models or folder is None or facts is None or not cases or self._predicting() is not None:
            return False
        target = folder / case_id
        if misfit(facts, cases[0]) or target in self._tried_ahead:
            return False
        # Once only: what failed would fail again each time.
        self._tried_ahead.add(target)
        kwargs = {
            "model": models[0] if len(models) == 1 else models,
            "device": self.device_box.currentData(),
            "mirrors": self.mirrors.isChecked(),
            "uncertainty": self.uncertainty.isChecked(),
            "probabilities": False,
            "logits": False,
            "cases": cases,
            "output": folder,
        }
        function = "napari_seg3d.prediction.predict:predict_many"
        self.workspace.start(Job(f"Predicting {case_id}", function, kwargs, "process", "predict"))
        return True

    def _stop(self) -> None:
        if (job := self._predicting()) is not None:
            (self.workspace.quick if job.quick else self.workspace.jobs).drop(job)
            self.stop_button.setEnabled(False)

    def _job_started(self, job: Job) -> None:
        if job.kind == "predict":
            self._left_out, self._failure = [], None
        self._enable()

    def _take_event(self, job: Job, event: Event) -> None:
        if job in self._maps and isinstance(event, Finished):
            self._add_maps(*self._maps[job], {path.name: volume for path, volume in event.result.items()})
        if job.kind != "predict":
            return
        if isinstance(event, Warned):
            self._left_out.append(event.message)
        elif isinstance(event, Failed):
            self._failure = event
        elif isinstance(event, Saved) and time.monotonic() - self._refreshed > _REFRESH_S:
            self._refreshed = time.monotonic()
            self.workspace.refresh_results()
        elif isinstance(event, Finished):
            self._show_result(job, event)

    def _show_result(self, job: Job, event: Finished) -> None:
        name = self._name_of(job)
        if "case" in job.kwargs:
            prediction = event.result
            self._labels.add(prediction.label_map, prediction.case_id, f"{name} box")
            maps = {f"probability of {key}": volume for key, volume in (prediction.probabilities or {}).items()}
            maps |= {f"logits of {key}": volume for key, volume in (prediction.logits or {}).items()}
            if prediction.uncertainty is not None:
                maps["uncertainty"] = prediction.uncertainty
            self._add_maps(prediction.case_id, name, maps)
        elif len(job.kwargs["cases"]) == 1 and job.kwargs["cases"][0].id == self.workspace.case_id:
            case_id = job.kwargs["cases"][0].id
            self._labels.show(case_id, event.result[0], name)
            kinds = {"uncertainty": "uncertainty", "probabilities": "probability-*", "logits": "logits-*"}
            wanted = [pattern for name, pattern in kinds.items() if job.kwargs[name]]
            folder = event.result[0].parent
            paths = [path for pattern in wanted for path in sorted(folder.glob(f"{escape(case_id)}.{pattern}.nii.gz"))]
            if paths:
                task = Job(
                    "Reading maps", "napari_seg3d.gui.tasks:read_volumes", {"paths": paths}, "thread", "maps", True
                )
                self._maps[task] = (case_id, name)
                self.workspace.start(task)
        text = event.message
        if self._left_out:
            text = f"{text} {len(self._left_out)} were left out."
        self.messages.show_message("warning" if self._left_out else "info", text, "\n".join(self._left_out))

    def _add_maps(self, case_id: str, name: str, maps: Mapping[str, Volume]) -> None:
        if case_id != self.workspace.case_id:
            return
        for key, volume in maps.items():
            what = key.removeprefix(f"{case_id}.").removesuffix(".nii.gz").replace("-", " ")
            signed = what.startswith("logits")
            display = _signed_display(volume) if signed else Display(0.0, 1.0, 0.0, 1.0)
            layer = image_layer(volume, name=f"{name} {what}", case_id=case_id, display=display)
            layer.colormap = "PiYG" if signed else "inferno"
            layer.opacity = 0.6
            layer.visible = "uncertainty" in what
            self.viewer.add_layer(layer)
            # Below the labels, so that these stay readable.
            images = [i for i, other in enumerate(self.viewer.layers[:-1]) if isinstance(other, Image)]
            self.viewer.layers.move(len(self.viewer.layers) - 1, max(images, default=-1) + 1)

    def _job_ended(self, job: Job, how: str) -> None:
        self._maps.pop(job, None)
        if job.kind == "predict":
            if job.quick:
                self.workspace.refresh_results()
            if how in ("failed", "crashed") and self._failure is not None:
                self.messages.show_message("error", self._failure.message, self._failure.details)
            elif how == "stopped":
                self.messages.show_message("info", "Stopped. Cases that were done are kept and listed below.")
        self._enable()

    @staticmethod
    def _name_of(job: Job) -> str:
        if "output" in job.kwargs:
            return Path(job.kwargs["output"]).name
        models = job.kwargs["model"]
        return _name_of_models(models if isinstance(models, tuple) else (models,))

    # Results

    def _list_results(self, *_: object) -> None:
        folder, workspace = self.folder, self.workspace
        ids = () if workspace.dataset is None else {case.id for case in workspace.dataset.cases}
        found = {case_id: paths for case_id, paths in workspace.predictions.items() if case_id in ids}
        self._there = frozenset(case_id for case_id, paths in found.items() if folder in {p.parent for p in paths})
        self.results.show_results(
            [
                # The workspace scores the newest prediction of a case.
                Result(case_id, path, self._maker(path), workspace.scores.get(case_id) if path == paths[0] else None)
                for case_id, paths in found.items()
                for path in paths
            ]
        )
        self._enable()

    def _maker(self, path: Path) -> str:
        """Return the model that made a prediction: as its folder is named, or as the file beside it says."""
        if self.workspace.output is None or path.parent != self.workspace.predictions_folder:
            return path.parent.name
        if path not in self._makers:
            self._makers[path] = model_of_prediction(path)
        return self._makers[path]

    def _show_file(self, result: Result) -> None:
        self._labels.show(result.case_id, result.path, result.by or "prediction")


def _signed_display(volume: Volume) -> Display:
    """Contrast with 0 in its middle, as wide as most of what the network has looked at."""
    size = np.abs(volume.data[::2, ::2, ::2])
    looked_at = size[size < CERTAIN]
    reach = max(1.0, float(np.percentile(looked_at, 99))) if looked_at.size else 1.0
    widest = max(reach, float(size.max(initial=0)))
    return Display(-reach, reach, -widest, widest)


def _name_of_models(paths: Sequence[Path]) -> str:
    """Return a name that no other choice of models has, short enough for a folder."""
    name = " + ".join(path.stem if path.is_file() else path.name for path in paths)
    if len(name) <= _LONGEST_NAME:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{paths[0].name[: _LONGEST_NAME - 30]} + {len(paths) - 1} more ({digest})"
