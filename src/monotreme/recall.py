"""How well a run's leak check was found to find leaks: what `decontaminate --self-test` left."""

import json
from typing import Any

from monotreme.errors import InputError
from monotreme.run import Run

FILE = "self_test.json"


def self_tested(run: Run) -> list[dict[str, Any]]:
    """The figures of the planted copies; none where the test was not of this very check.

    Raises:
        InputError: decontaminate has not finished, or the file is not readable.
    """
    path, record = run.folder / FILE, run.record("decontaminate")
    if not path.exists():
        return []
    try:
        test = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path} cannot be read ({error})", "Run `monotreme decontaminate --self-test` again"
        ) from None
    same = all(test[key] == record[key] for key in ("settings", "versions"))
    same = same and test["inputs"].items() <= record["inputs"].items()
    return list(test["found"]) if same else []
