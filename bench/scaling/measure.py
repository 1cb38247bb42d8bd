"""One size on one engine: the stages in a fresh process, and what each of their steps took."""

import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from scaling import made
from scaling.watch import Watched, watch

HERE = Path(__file__).parent
GIB = 2**30
PEERS = ("datatrove", "semhash")


def measured(num: int, engines: list[str]) -> dict[str, dict[str, Any]]:
    """Engine as "local:2" → its steps and peaks; all must drop what was planted, to the same bytes."""
    found: dict[str, dict[str, Any]] = {}
    digests: set[str] = set()
    with tempfile.TemporaryDirectory() as name:
        made.write(num, Path(name))
        for engine in engines:
            for old in ("scale", ".cache/embeddings/pairs"):  # the vectors stay
                shutil.rmtree(Path(name, "runs", old), ignore_errors=True)
            watched = watch([*_script("stages"), name, *engine.split(":")])
            dropped = watched.said["dropped"]
            if dropped != made.going(num):
                sys.exit(f"{num:,} on {engine}: {dropped} went where {made.going(num)} should")
            digests.add(json.dumps(watched.said["digests"]))
            found[engine] = _of_steps(watched)
    if len(digests) > 1:
        sys.exit(f"{num:,}: the engines {', '.join(engines)} leave different bytes")
    return found


def embedding(engine: str, num: int) -> dict[str, float]:
    """Of one real question: seconds, and processor seconds of all processes."""
    watched = watch([*_script("embedding"), *engine.split(":"), str(num)])
    step = _of_steps(watched)["steps"]["embedding"]
    return {"seconds": step["seconds"] / num, "processor": (step["first"] + step["others"]) / num}


def peers(num: int) -> dict[str, dict[str, Any]]:
    """What others find on the same rows, with their seconds and peak."""
    found: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as name:
        made.write(num, Path(name))
        for way in PEERS:
            watched = watch([*_script("peers"), way, name, str(num)])
            found[way] = {
                **watched.said,
                "seconds": float(watched.at[-1] - watched.at[0]),
                "gib": float(watched.memory.max()) / GIB,
            }
    return found


def _script(name: str) -> list[str]:
    return [sys.executable, str(HERE / f"{name}.py")]


def _of_steps(watched: Watched) -> dict[str, Any]:
    """Seconds, processor seconds of the first process and of the others, and peak, by step."""
    steps: dict[str, dict[str, float]] = {}
    for name, (start, used), (end, used_then) in watched.said["slices"]:
        step = steps.setdefault(name, dict.fromkeys(("seconds", "first", "others", "gib"), 0.0))
        step["seconds"] += end - start
        step["first"] += used_then - used
        step["others"] += float(np.diff(np.interp([start, end], watched.at, watched.others))[0])
        inside = watched.memory[(watched.at >= start) & (watched.at <= end)]
        step["gib"] = max(step["gib"], float(inside.max(initial=0)) / GIB)
    return {
        "steps": steps,
        "gib": float(watched.memory.max()) / GIB,
        "own_gib": float(watched.own.max()) / GIB,
    }
