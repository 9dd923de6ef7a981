"""What can go wrong, in words a user can act on.

Every message is one or two sentences: what was expected, what was found, what to do. A `Seg3dError` is shown as it is,
in the window and on the command line; anything else that escapes is a defect of ours.
"""

from __future__ import annotations


class Seg3dError(Exception):
    """Base of every error that a user can cause and mend."""


class FileError(Seg3dError, OSError):
    """A file is missing, damaged, of another kind than its name says, or cannot be written."""


class GeometryError(Seg3dError, ValueError):
    """An affine is unusable, or two grids that must agree do not."""


class LabelError(Seg3dError, ValueError):
    """Label values are not what a label map or a label scheme allows."""


class DatasetError(Seg3dError, ValueError):
    """A folder holds no cases, or its files do not fit together."""


class CorrectionError(Seg3dError, ValueError):
    """An edit of a label map cannot be made as asked: a length, a place or a choice makes no sense."""


class PlanError(Seg3dError, ValueError):
    """A setting is unknown, out of range, or contradicts another."""


class ModelError(Seg3dError, ValueError):
    """A model file is damaged or does not fit the case."""


class DeviceError(Seg3dError, RuntimeError):
    """The computing device is missing or out of memory."""


class TrainingError(Seg3dError, RuntimeError):
    """Training cannot go on, for example because the loss is no longer a finite number."""
