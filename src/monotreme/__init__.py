"""Monotreme: open datasets and a base model in, a clean set, an adapter and honest deltas out."""

from importlib.metadata import version

__version__ = version("monotreme")
