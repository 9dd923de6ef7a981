"""See the pipeline: the next training patch after all transforms, as layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from napari.layers import Labels, Layer
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QPushButton, QVBoxLayout, QWidget

from ..events import Event, Failed, Finished, Progress
from .layers import KEY, image_layer, labels_arguments, voxel_on_screen
from .session import session_for
from .widgets import listen, quiet_label
from .work import Job

if TYPE_CHECKING:
    from napari import Viewer

    from ..cases.case import CaseFiles
    from ..model.plan import Plan
    from ..training.preview import Patch
    from .workspace import Workspace

#: The patch takes this part of the window, so that its surroundings are seen too.
_SHARE = 0.6
#: Names of the layers begin with this.
PREFIX = "patch · "


@dataclass(frozen=True, eq=False)
class Wanted:
    """Of which training patches are wanted."""

    plan: Plan
    cases: Sequence[CaseFiles]
    older: Sequence[CaseFiles] = ()


class PatchPreview(QWidget):
    """A button that shows the first training patch, then the next one, and a line on what was done to it.

    Parameters
    ----------
    workspace : Workspace
    viewer : napari.Viewer
    """

    def __init__(self, workspace: Workspace, viewer: Viewer, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._workspace, self._viewer = workspace, viewer
        self._wanted: Wanted | None = None
        self._job: Job | None = None
        #: What is shown now, and what comes after it without more work.
        self._of: Wanted | None = None
        self._waiting: list[Patch] = []
        self._step = 0
        self._hidden: set[Layer] = set()
        self.button = QPushButton()
        self.words = quiet_label()
        self.words.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.button)
        layout.addWidget(self.words)
        self.button.clicked.connect(lambda _=False: self.show_next())
        listen(self, workspace.job_event, self._take_event)
        listen(self, workspace.job_ended, self._job_ended)
        listen(self, workspace.case_changed, self._show_state)
        self._show_state()

    def propose(self, wanted: Wanted | None) -> None:
        """Take the training that is proposed; begin again with its first patch if plan or cases have changed."""
        self._wanted = wanted
        if not _same(wanted, self._of):
            self._of, self._waiting, self._step = None, [], 0
            self.words.setText("")
            if self._job is not None:
                self._workspace.quick.drop(self._job)
                self._job = None
        self._show_state()

    def _show_state(self) -> None:
        wanted = self._wanted
        self.button.setEnabled(wanted is not None and self._job is None)
        again = self._of is not None
        self.button.setText("Preparing …" if self._job else "See the next patch" if again else "See a training patch")
        self.button.setToolTip(
            "Add a patch as the network will see it, after normalisation and augmentation, with its labels, as layers"
            if wanted is not None
            else "First a plan must be there"
        )
        self.words.setVisible(bool(self.words.text()))

    def show_next(self) -> None:
        """Show the next patch of the training, from the first step on."""
        wanted = self._wanted
        if wanted is None or self._job is not None:
            return
        if self._waiting:
            self._show(self._waiting.pop(0))
            return
        self._of = wanted
        kwargs: dict[str, Any] = {
            "plan": wanted.plan, "cases": wanted.cases, "step": self._step, "older": wanted.older
        }  # fmt: skip
        function = "napari_seg3d.training.preview:preview"
        self._job = Job("Preparing a training patch", function, kwargs, "process", "preview", quick=True)
        self._workspace.start(self._job)
        self._show_state()

    def _take_event(self, job: Job, event: Event) -> None:
        if job is not self._job:
            return
        if isinstance(event, Progress):
            self.words.setText(f"{event.what} …")
        elif isinstance(event, Failed):
            self.words.setText("")  # the page tells what went wrong
        elif isinstance(event, Finished):
            self._step += 1
            self._waiting = list(event.result)
            self._show(self._waiting.pop(0))
        self.words.setVisible(bool(self.words.text()))

    def _job_ended(self, job: Job, _how: str) -> None:
        if job is self._job:
            self._job = None
            self._show_state()

    def _show(self, patch: Patch) -> None:
        layers = self._viewer.layers
        had_focus = layers.selection.active
        for layer in [layer for layer in layers if layer.name.startswith(PREFIX)]:
            layers.remove(layer)
        if patch.case_id == self._workspace.case_id:
            for layer in self._hidden & set(layers):
                layer.visible = True
            self._hidden.clear()
        else:
            # On another patient's head the patch would look like a fault.
            self._hidden |= {layer for layer in layers if layer.visible}
            for layer in self._hidden:
                layer.visible = False
        for layer in _layers_of(patch):
            self._viewer.add_layer(layer)
        self._go_to(patch)
        layers.selection.active = had_focus if had_focus in layers else layers[-1]
        self.words.setText(patch.in_words())
        self._show_state()

    def _go_to(self, patch: Patch) -> None:
        """Go to the slices with most of its labels, near enough to see its voxels and what lies around it."""
        session_for(self._viewer).view.show_plane("axial")
        layer = next(layer for layer in self._viewer.layers if layer.name == f"{PREFIX}target")
        data = layer.data != 0
        place = [int(data.sum((1, 2)).argmax()), int(data.sum((0, 2)).argmax()), int(data.sum((0, 1)).argmax())]
        if not data.any():
            size = patch.target.geometry.shape
            place = [round(x) for x in voxel_on_screen([n // 2 for n in size], patch.target.geometry)]
        point = layer.data_to_world(place)
        dims = self._viewer.dims
        dims.set_point(tuple(range(dims.ndim - 3, dims.ndim)), tuple(float(x) for x in point))
        low, high = layer.extent.world
        camera, canvas = self._viewer.scene.camera, self._viewer.canvas.size
        camera.center = tuple(((low + high) / 2).tolist())
        camera.zoom = min(size / mm for size, mm in zip(canvas, (high - low)[-2:], strict=True)) * _SHARE


def _layers_of(patch: Patch) -> list[Layer]:
    """Images below, the labels above, the regions hidden on top; all begin with `PREFIX`."""
    layers: list[Layer] = []
    for place, (name, volume) in enumerate(patch.images.items()):
        layer = image_layer(volume, name=f"{PREFIX}{name}", case_id=patch.case_id, visible=place == 0)
        # What lies beneath must not shine through where the patch is dark.
        layer.blending = "opaque"
        # It is no image of the case: nobody shall paint on its grid.
        layer.metadata[KEY] = replace(layer.metadata[KEY], role="patch")
        layers.append(layer)
    for name, label_map in (("target", patch.target), *patch.regions.items()):
        data, arguments = labels_arguments(label_map, role="patch", name=f"{PREFIX}{name}", case_id=patch.case_id)
        layers.append(Labels(data, **arguments, visible=name == "target"))
    return layers


def _same(wanted: Wanted | None, shown: Wanted | None) -> bool:
    if shown is None or wanted is None:
        return shown is None
    return wanted.plan == shown.plan and [c.id for c in wanted.cases] == [c.id for c in shown.cases]
