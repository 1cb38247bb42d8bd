"""How time and memory of `curate` and `decontaminate` grow, on each engine, and to what size that leads.

    pip install --requirement bench/requirements.txt
    python bench/scale.py [--quick | --sizes 10000 30000 100000 1000000] [--results FILE]

Both stages run, each time in a fresh process, on generated questions of known structure
(scaling/made.py) whose vectors lie in the cache as if they had been embedded; how fast they are
embedded is measured apart, on real questions. Watched from outside (scaling/watch.py): memory and
processor time of all processes. Every run must drop what was planted, and all engines must leave
the same bytes.

Prints seconds, rows a second, processor seconds and peak of every step; speed-up and cost of the
engines; growth; a cost model (scaling/model.py) fitted to all sizes but the largest, beside what
that one took; what the model gives for far larger sizes on a cluster; and datatrove's MinHash and
semhash on the same rows. On a machine that is shared with other work, read the processor seconds.
With --results what was measured is kept in a file, and what stands there is not measured again.
"""

import argparse
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from scaling import measure, model

LIMIT_GIB = 8.0  # what a million questions may take
FITTED = f"local:{model.WORKERS}"
ENGINES = ["local:1", FITTED, "ray:1", "ray:2"]
SIZES = [3_000, 10_000, 30_000]
PROJECTED = [10**7, 10**8, 10**9]
Results = dict[str, Any]


def collect(results: Results, options: argparse.Namespace) -> None:
    """Measure what is asked for and not there yet; kept after each part where a file is named."""

    def keep() -> None:
        if options.results:
            options.results.write_text(json.dumps(results, indent=1), encoding="utf-8")

    for num in options.sizes:
        there = results.setdefault("sizes", {}).setdefault(str(num), {})
        missing = [engine for engine in options.engines if engine not in there]
        if missing:
            there |= measure.measured(num, missing)
            keep()
    rates = results.setdefault("embedding", {})
    for engine in options.engines if options.texts else ():
        if engine not in rates:
            rates[engine] = measure.embedding(engine, options.texts)
            keep()
    if options.peers and "peers" not in results:
        results["peers"] = {"num": options.peers, **measure.peers(options.peers)}
        keep()


def print_steps(num: int, engine: str, run: dict[str, Any]) -> None:
    steps = run["steps"]
    print(f"\n{num:,} questions, {engine}: peak {run['gib']:.2f} GiB, {run['own_gib']:.2f} of it")
    print(
        f"not pages of files\n{'':<26}{'s':>9}{'rows/s':>11}{'first s':>9}{'others s':>10}{'GiB':>7}"
    )
    for name, step in steps.items():
        rate = f"{num / step['seconds']:>11,.0f}" if step["seconds"] > 0.005 else f"{'-':>11}"
        peak = f"{step['gib']:7.2f}" if step["gib"] else f"{'-':>7}"  # over between two samples
        print(f"{name:<26}{step['seconds']:9.2f}{rate}{step['first']:9.2f}", end="")
        print(f"{step['others']:10.2f}{peak}")
    total = [sum(step[part] for step in steps.values()) for part in ("seconds", "first", "others")]
    print(f"{'all':<26}{total[0]:9.2f}{num / total[0]:11,.0f}{total[1]:9.2f}{total[2]:10.2f}")


def spent(run: dict[str, Any], *parts: str) -> float:
    """Of all steps; without the start of Python, which no size changes."""
    return sum(
        step[part] for name, step in run["steps"].items() if name != "start" for part in parts
    )


def print_engines(sizes: dict[int, dict[str, Any]]) -> None:
    """What an engine costs, and what it gains: measured, and on processors that nobody else uses."""
    print("\nall steps but the start of Python, against local:1: times as fast; as fast on idle")
    print("processors, from what is the workers' part; processor seconds of all processes")
    for num, runs in sorted(sizes.items()):
        if "local:1" not in runs:
            continue
        clock, work = (spent(runs["local:1"], *of) for of in (["seconds"], ["first", "others"]))
        for engine, run in runs.items():
            first, others = spent(run, "first"), spent(run, "others")
            idle = work / (first + others / int(engine.split(":")[1]))
            print(f"{num:>11,} {engine:<9}{clock / spent(run, 'seconds'):7.2f}{idle:7.2f}", end="")
            print(f"{(first + others) / work:7.2f}")


def print_model(runs: dict[int, dict[str, Any]], embedding: float | None) -> None:
    """Fitted to all sizes but the largest, which it foretells; then to all, for what is larger."""
    *small, largest = sorted(runs)
    steps = {num: run["steps"] for num, run in runs.items()}
    print("\ngrowth of processor seconds between the two largest sizes, as a power of n")
    for name, power in model.exponents(steps).items():
        print(f"  {name:<26}{power:5.2f}")
    costs = model.fitted({num: steps[num] for num in small})
    print(f"\n{largest:,} questions foretold from {', '.join(f'{num:,}' for num in small)}:")
    print(f"{'processor s':<26}{'foretold':>10}{'measured':>10}")
    took = {name: step["first"] + step["others"] for name, step in steps[largest].items()}
    for name, cost in costs.items():
        print(f"{name:<26}{cost.processor(largest):10.2f}{took[name]:10.2f}")
    print(f"{'all':<26}{sum(c.processor(largest) for c in costs.values()):10.1f}", end="")
    print(f"{sum(took.values()):10.1f}")
    peaks = memory(runs, small)
    print(f"{'peak GiB':<26}{peaks @ [1, largest]:10.2f}{runs[largest]['gib']:10.2f}")
    if embedding:
        print_projection(model.fitted(steps), embedding, memory(runs, sorted(runs)))


def memory(runs: dict[int, dict[str, Any]], sizes: list[int]) -> np.ndarray:
    """(2,) GiB at the start, and a question."""
    found = np.array([runs[num]["gib"] for num in sizes])
    return np.linalg.lstsq(np.array([[1.0, num] for num in sizes]), found, rcond=None)[0]


def print_projection(costs: dict[str, model.Cost], embedding: float, peaks: np.ndarray) -> None:
    print(
        f"\nprojected hours. cores: {model.CORES} like those measured; lists by their operations."
    )
    print(
        f"gpus: {model.GPUS} H100, {model.GPU_CORES} such cores; embedding and joins from published rates"
    )
    columns = ("embedding", "all pairs", "lists", "other", "of it alone")
    print(f"{'questions':>14} {'on':<6}{''.join(f'{name:>13}' for name in columns)}")
    for num in PROJECTED:
        for machine, hours in model.projected(costs, embedding, num).items():
            print(f"{num:>14,} {machine:<6}{''.join(f'{hours[c]:13.2f}' for c in columns)}")
    print(
        f"peak of {model.WORKERS} workers: {peaks[0]:.2f} GiB + {peaks[1] * 2**30:,.0f} bytes a question"
    )


def print_peers(results: Results) -> None:
    num = results["peers"]["num"]
    print(f"\n{num:,} questions, vectors given: share found of what was planted; others: rows lost")
    for way in measure.PEERS:
        found = results["peers"][way]
        if "missing" in found:
            print(f"  {way:<11} passed over: {found['missing']}")
            continue
        shares = "   ".join(f"{what} {share:g}" for what, share in found["found"].items())
        print(
            f"  {way:<11}{found['processor']:7.1f} processor s, {found['gib']:.2f} GiB   {shares}"
        )
    alone = results["sizes"].get(str(num), {}).get("local:1")
    if alone:
        steps = [step for name, step in alone["steps"].items() if not name.startswith("leaks")]
        total, peak = sum(step["first"] for step in steps), max(step["gib"] for step in steps)
        print(
            f"  {'curate':<11}{total:7.1f} processor s, {peak:.2f} GiB   all found, no other lost"
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="multiples of ten")
    parser.add_argument("--engines", nargs="+", default=ENGINES, metavar="ENGINE:WORKERS")
    parser.add_argument("--texts", type=int, default=4_096, help="real questions to embed; 0: none")
    parser.add_argument("--peers", type=int, default=10_000, help="rows for them; 0: none")
    parser.add_argument("--results", type=Path, help="file to keep what was measured in")
    parser.add_argument("--quick", action="store_true", help="small, one engine, under a minute")
    options = parser.parse_args()
    if options.quick:
        options.sizes, options.engines = [500, 1_000, 2_000], [FITTED]
        options.texts = options.peers = 0
    os.environ["OMP_NUM_THREADS"] = "1"  # a worker is a processor, in whatever engine
    results: Results = {}
    if options.results and options.results.exists():
        results = json.loads(options.results.read_text(encoding="utf-8"))
    collect(results, options)
    sizes = {int(num): runs for num, runs in results["sizes"].items()}
    for num in sorted(sizes):
        for engine, run in sizes[num].items():
            print_steps(num, engine, run)
    print_engines(sizes)
    for engine, rate in results["embedding"].items():
        print(f"{engine}: {1 / rate['seconds']:,.0f} real questions embedded a second, ", end="")
        print(f"{1 / rate['processor']:,.0f} a processor second")
    fitted = {num: runs[FITTED] for num, runs in sizes.items() if FITTED in runs}
    if len(fitted) > 2:
        print_model(fitted, results["embedding"].get(FITTED, {}).get("processor"))
    if "peers" in results:
        print_peers(results)
    peak = max(run["gib"] for run in sizes[max(sizes)].values())
    line = {
        "name": "scale", "ours": peak, "peers": {}, "ratio": None, "target": LIMIT_GIB,
        "met": peak <= LIMIT_GIB, "floor_share": None,
    }  # fmt: skip
    print(json.dumps(line))


if __name__ == "__main__":
    main()
