"""Freed memory stays while a CPU trains, and is given back."""

from __future__ import annotations

import os
import sys

import psutil
import pytest
import torch

from napari_seg3d.model.device import keeping_memory


def used_mb():
    return psutil.Process().memory_info().rss / 2**20


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc gives memory back at once")
def test_freed_memory_is_kept_inside_and_given_back_at_the_end():
    before = used_mb()
    with keeping_memory(torch.device("cpu")):
        for _ in range(3):
            pieces = [torch.ones(16 * 2**20 // 4) for _ in range(12)]
            del pieces
        kept = used_mb() - before
    given_back = used_mb() - before
    assert given_back < 60
    if "glibc" in (os.confstr("CS_GNU_LIBC_VERSION") or ""):
        assert kept > 120
