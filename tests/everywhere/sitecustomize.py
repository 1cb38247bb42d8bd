"""What a test adds to modules in every process that it starts: the first command and all workers.

`EVERYWHERE` names a JSON file, module → code that is run at the module's end. Python imports this
file by itself wherever its folder is on PYTHONPATH.
"""

import importlib.machinery
import json
import os
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from pathlib import Path
from types import ModuleType

ADDED = json.loads(Path(os.environ["EVERYWHERE"]).read_text()) if "EVERYWHERE" in os.environ else {}


class _Longer(importlib.machinery.SourceFileLoader):
    def exec_module(self, module: ModuleType) -> None:
        super().exec_module(module)
        exec(ADDED[module.__name__], module.__dict__)


class _Finder(MetaPathFinder):
    def find_spec(
        self, name: str, path: Sequence[str] | None, _target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name not in ADDED:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        if spec is not None and spec.origin is not None:
            spec.loader = _Longer(name, spec.origin)
        return spec


sys.meta_path.insert(0, _Finder())
