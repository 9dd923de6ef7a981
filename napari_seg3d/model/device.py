"""Which device computes, in which precision, and how much memory it has used."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import psutil
import torch

from ..errors import DeviceError

#: What torch's allocator and oneDNN say when they get no memory.
_FULL = ("can't allocate memory", "CUDA out of memory", "could not create a primitive", "could not create a memory")


def available_devices() -> tuple[str, ...]:
    """Return the devices that ``--device`` takes, best first; the CPU is always the last."""
    gpus = tuple(f"cuda:{i}" for i in range(torch.cuda.device_count())) if torch.cuda.is_available() else ()
    return (*gpus, "cpu")


def choose_device(name: str = "auto") -> torch.device:
    """Return the device of that name; "auto" is the first GPU, or else the CPU.

    Raises
    ------
    DeviceError
        If there is no such device here.
    """
    devices = available_devices()
    if name == "auto":
        name = devices[0]
    if name == "cuda":
        name = "cuda:0"
    if name not in devices:
        raise DeviceError(f"Expected one of the devices auto, {', '.join(devices)}; got {name!r}.")
    return torch.device(name)


def device_name(device: torch.device) -> str:
    """Return the device in words for a person, for example its GPU model."""
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    return f"CPU, {torch.get_num_threads()} threads"


def mixed_precision(device: torch.device) -> AbstractContextManager[object]:
    """Return a context in which the network runs in bfloat16 where the GPU computes that natively.

    Never on a CPU: without AVX-512-BF16 or AMX it is some 200 times slower than float32.
    """
    if device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0):
        return torch.autocast("cuda", dtype=torch.bfloat16)
    return nullcontext()


def memory_format(device: torch.device) -> torch.memory_format:
    """Return how a device likes its 3D feature maps in memory: channels last where tensor cores compute in bfloat16.

    On a CPU channels last was measured to be slower (1.1 s instead of 0.9 s a step of a 32-feature U-Net).
    """
    if device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0):
        return torch.channels_last_3d
    return torch.contiguous_format


@contextmanager
def keeping_memory(device: torch.device) -> Iterator[None]:
    """Keep freed memory in this process while a CPU computes; at the end it is given back.

    A training step asks for the same hundreds of megabytes again and again. glibc returns each large piece to the
    system at once, which fills it with zeros when it is asked for anew: steps of a 32-feature U-Net took 1.2 times as
    long. Does nothing with other C libraries, whose allocators keep their memory. Where the process has a limit
    (``ulimit -v``) all large pieces are returned instead: those kept could not become the mapped files and compiled
    kernels that a smaller patch needs after a full memory.
    """
    libc = ctypes.CDLL(None) if sys.platform == "linux" and device.type == "cpu" else None
    if libc is None or not hasattr(libc, "mallopt") or not hasattr(libc, "malloc_trim"):
        yield
        return
    # glibc's numbers of the three settings; at the end they become what they are without us.
    map_above, map_pieces, give_back_above = -3, -4, -1
    if _has_limit():
        libc.mallopt(map_above, 128 * 1024)
    else:
        libc.mallopt(map_pieces, 0)
        libc.mallopt(give_back_above, ctypes.c_int(2**31 - 1))
    try:
        yield
    finally:
        libc.mallopt(map_pieces, 65536)
        libc.mallopt(give_back_above, 128 * 1024)
        give_back_memory(device)


def _has_limit() -> bool:
    import resource  # not on Windows

    limits = (resource.getrlimit(kind)[0] for kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA))
    return any(limit != resource.RLIM_INFINITY for limit in limits)


def give_back_memory(device: torch.device) -> None:
    """Return freed memory to the system, or to other programs on the GPU."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(ctypes.c_size_t(0))


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error means that the device's memory is full; torch has no kind of its own for the CPU's."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _FULL)


def memory_mb(device: torch.device) -> float:
    """Return the memory in use in megabytes: the peak on a GPU, that of this process on the CPU."""
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device)) / 2**20
    return float(psutil.Process().memory_info().rss) / 2**20


def memory_budget_gb(device: torch.device) -> float:
    """Return how much memory a training may plan with: most of a GPU's, or half of the computer's."""
    if device.type == "cuda":
        return 0.9 * float(torch.cuda.get_device_properties(device).total_memory) / 2**30
    return 0.5 * float(psutil.virtual_memory().total) / 2**30
