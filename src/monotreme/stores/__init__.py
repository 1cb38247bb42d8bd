"""Inputs and runs in a store that fsspec knows, such as s3://bucket/runs or gs://bucket/data.

store (reach it, list, get, put) → inputs (a URL is fetched once and then read as a local file) and
copies (a run is worked on in a local copy, each finished stage of which is sent).
"""

from monotreme.stores.copies import LOCK, mirror, pull, push, send, working_copy
from monotreme.stores.inputs import check, fetched

__all__ = ["LOCK", "check", "fetched", "mirror", "pull", "push", "send", "working_copy"]
