"""Monotreme: open datasets and a base model in, a clean set, an adapter and honest deltas out."""

import logging
from importlib.metadata import version

__version__ = version("monotreme")

# PEFT imports bitsandbytes where it is installed, and that tells every processor of a kernel it lacks.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
