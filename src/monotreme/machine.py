"""What this machine has: the device to use, whether bf16 is a gain on it, and its memory."""

import os
from contextlib import suppress
from pathlib import Path

import torch


def device() -> str:
    """`cuda` where a GPU is there, else `cpu`."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def has_amx() -> bool:
    """Whether work stays on a processor whose matrix units make bf16 several times faster.

    AMX alone counts: on one the built-in encoder measured 3.6 times float32's rate, with
    AVX512-BF16 and without AMX 0.7 times, without either 0.3–0.5 times. On a GPU float32 is quick
    enough for both the encoder and the join.
    """
    return device() == "cpu" and bool(torch.cpu.get_capabilities().get("amx_bf16", False))


def memory_bytes() -> int:
    """The machine's memory, or the container's where that is less."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with suppress(OSError, ValueError):  # no such file, or "max"
        memory = min(memory, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return memory
