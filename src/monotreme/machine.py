"""What this machine multiplies fast: the device to use, and whether bf16 is a gain on it."""

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
