"""What torchrun tells the processes that it starts. Loads no torch, so that a command can ask at once."""

from __future__ import annotations

import os

from ..errors import TrainingError

_ENVIRONMENT = (("RANK", "0"), ("WORLD_SIZE", "1"), ("LOCAL_RANK", "0"))


def ranks_here() -> tuple[int, int, int]:
    """Return rank, number of ranks, and rank on this computer, as torchrun's environment says; 0, 1, 0 without it."""
    try:
        rank, size, local = (int(os.environ.get(name, default)) for name, default in _ENVIRONMENT)
    except ValueError:
        raise TrainingError("RANK, WORLD_SIZE and LOCAL_RANK must be numbers. Start with torchrun.") from None
    return rank, size, local
