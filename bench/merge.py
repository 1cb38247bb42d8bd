"""Merging an adapter: ours beside PEFT, mergekit and a plain copy, each as a whole process.

    python bench/merge.py [--mergekit PATH] [--layers N] [--repeats N] [--quick]

A random Llama of width 2,048 and an adapter of rank 16 on its MLPs, made in a temporary folder; ten
layers are 645 million weights, 1.3 GB in bf16. For bf16 and fp32, in turn, each contestant from its
start to its end, imports included, the model's files in the page cache:

    monotreme    reads, merges, writes, with a thread a core (four at most); SHA-256 of each file and
                 fsync are part of it
    PEFT         from_pretrained, merge_and_unload, save_pretrained
    mergekit     `mergekit-yaml`, where PATH names it
    cp, cp+sync  the files copied, and then synced to the disk as ours are

Wall seconds are medians, memory is the peak resident size over that of an idle Python with torch. The
bits of ours are compared with PEFT's. A second, half as deep model shows that memory does not grow.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

WIDTH, INNER, VOCABULARY, SHARDS = 2048, 5632, 32_000, 5
MLP = {"gate_proj": (INNER, WIDTH), "up_proj": (INNER, WIDTH), "down_proj": (WIDTH, INNER)}
LIMIT_MB = 150
DTYPES = ("bf16", "fp32")


def make(folder: Path, layers: int, dtype: str) -> None:
    """The model's files, shard by shard, and the adapter's beside them."""
    import torch
    from peft import LoraConfig
    from safetensors.torch import save_file
    from transformers import LlamaConfig

    torch.manual_seed(0)
    kind = {"bf16": torch.bfloat16, "fp32": torch.float32}[dtype]
    config = LlamaConfig(
        hidden_size=WIDTH, intermediate_size=INNER, num_hidden_layers=layers, vocab_size=VOCABULARY,
        num_attention_heads=16, tie_word_embeddings=False, architectures=["LlamaForCausalLM"],
    )  # fmt: skip
    config.dtype = kind
    config.save_pretrained(folder / "model")
    names = list(shapes(layers))
    index: dict[str, str] = {}
    for number in range(SHARDS):
        file = f"model-{number + 1:05}-of-{SHARDS:05}.safetensors"
        part = names[number * len(names) // SHARDS : (number + 1) * len(names) // SHARDS]
        tensors = {name: (0.02 * torch.randn(shapes(layers)[name])).to(kind) for name in part}
        save_file(tensors, folder / "model" / file, metadata={"format": "pt"})
        index |= dict.fromkeys(part, file)
    size = sum(path.stat().st_size for path in (folder / "model").glob("*.safetensors"))
    text = json.dumps({"metadata": {"total_size": size}, "weight_map": index})
    (folder / "model" / "model.safetensors.index.json").write_text(text)
    lora = LoraConfig(r=16, lora_alpha=16, target_modules=list(MLP), task_type="CAUSAL_LM")
    lora.base_model_name_or_path = str(folder / "model")
    lora.save_pretrained(folder / "adapter")
    factors = {}
    for layer in range(layers):
        for module, (outputs, inputs) in MLP.items():
            name = f"base_model.model.model.layers.{layer}.mlp.{module}"
            factors[f"{name}.lora_A.weight"] = 0.02 * torch.randn(16, inputs)
            factors[f"{name}.lora_B.weight"] = 0.02 * torch.randn(outputs, 16)
    save_file(factors, folder / "adapter" / "adapter_model.safetensors", metadata={"format": "pt"})


def shapes(layers: int) -> dict[str, tuple[int, ...]]:
    found: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (VOCABULARY, WIDTH)}
    for layer in range(layers):
        inside = {f"self_attn.{side}_proj": (WIDTH, WIDTH) for side in "qkvo"}
        inside |= {f"mlp.{name}": shape for name, shape in MLP.items()}
        norms = {f"{name}_layernorm": (WIDTH,) for name in ("input", "post_attention")}
        for name, shape in {**inside, **norms}.items():
            found[f"model.layers.{layer}.{name}.weight"] = shape
    return {**found, "model.norm.weight": (WIDTH,), "lm_head.weight": (VOCABULARY, WIDTH)}


def ours(model: Path, adapter: Path, out: Path) -> None:
    from monotreme.merge import read_adapter, read_target, write_merged
    from monotreme.merge.target import check_fit
    from monotreme.merge.write import copy_companions

    target, slots = read_target(model), read_adapter(adapter)
    check_fit(target, target, slots, "base")
    out.mkdir()
    copy_companions(model, out, with_code=False)
    write_merged(target, slots, out)


def peft(model: Path, adapter: Path, out: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(model, dtype="auto")
    merged = PeftModel.from_pretrained(base, adapter).merge_and_unload()
    size = sum(path.stat().st_size for path in model.glob("*.safetensors"))
    merged.save_pretrained(out, max_shard_size=size // (SHARDS - 1))


def idle(*_: Path) -> None:
    import torch

    torch.zeros(1)


STEPS = {"monotreme": ours, "PEFT": peft, "idle": idle}
# A process counts what its parent held when it was forked: the one that measures stays small.


def command(name: str, model: Path, adapter: Path, out: Path, mergekit: str | None) -> list[str]:
    if name == "mergekit":
        config = out.with_name("mergekit.yaml")
        dtype = {"bf16": "bfloat16", "fp32": "float32"}[model.parent.name]
        config.write_text(
            f"merge_method: passthrough\ndtype: {dtype}\nmodels:\n  - model: {model}+{adapter}\n"
        )
        cache = out.with_name("mergekit-cache")
        return [str(mergekit), str(config), str(out), "--lora-merge-cache", str(cache)]
    if name.startswith("cp"):
        sync = f" && sync {out}/*" if name == "cp+sync" else ""
        return ["sh", "-c", f"cp -r {model} {out}{sync}"]
    return [sys.executable, __file__, "--step", name, str(model), str(adapter), str(out)]


def measured(line: list[str]) -> tuple[float, float, float]:
    """Wall seconds, processor seconds and peak MB of a process and those that it waits for."""
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    started = time.perf_counter()
    process: Any = subprocess.Popen(line, **quiet)  # type: ignore[call-overload]
    errors = process.stderr.read()
    _, status, used = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    if status:
        sys.exit(f"{' '.join(line)} failed:\n{errors.decode()[-2000:]}")
    return seconds, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


def emptied(folder: Path) -> Path:
    subprocess.run(["rm", "-rf", str(folder)], check=True)
    subprocess.run(["sync"], check=True)  # what one contestant wrote is not another's burden
    return folder


def same_bits(ours: Path, theirs: Path) -> bool:
    import torch
    from safetensors import safe_open

    def tensors(folder: Path) -> dict[str, Path]:
        files = sorted(folder.glob("*.safetensors"))
        return {name: path for path in files for name in safe_open(path, "pt").keys()}  # noqa: SIM118

    left, right = tensors(ours), tensors(theirs)
    if left.keys() != right.keys():
        return False

    def bits(path: Path, name: str) -> Any:
        return safe_open(path, "pt").get_tensor(name).view(torch.uint8)

    return all(torch.equal(bits(left[name], name), bits(right[name], name)) for name in left)


def compare(folder: Path, asked: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Every contestant on the model of a folder: medians, and whether the bits are PEFT's."""
    model, adapter = folder / "model", folder / "adapter"
    names = ["cp", "cp+sync", "monotreme", "PEFT", *(["mergekit"] if asked.mergekit else [])]
    runs: dict[str, list[tuple[float, float, float]]] = {name: [] for name in names}
    subprocess.run(f"cat {model}/* > /dev/null", shell=True, check=True)  # into the page cache
    for _ in range(asked.repeats):
        for name in names:
            emptied(folder / "mergekit-cache")
            out = emptied(folder / f"out-{name}")
            runs[name].append(measured(command(name, model, adapter, out, asked.mergekit)))
    for name in names[3:]:
        line = [
            sys.executable,
            __file__,
            "--step",
            "same",
            *map(str, (folder / "out-monotreme", folder / f"out-{name}")),
        ]
        agree = subprocess.run(line, check=False).returncode == 0
        print(f"{folder.name}: ours and {name}'s tensors bit for bit the same: {agree}")
    columns = ("seconds", "processor", "mb")
    return {
        name: {
            column: statistics.median(run[i] for run in found) for i, column in enumerate(columns)
        }
        for name, found in runs.items()
    }


def memory_of(root: Path, layers: int, dtype: str) -> float:
    """Peak MB of our merge of another size."""
    folder = root / f"{layers}-layers" / dtype
    made(folder, layers)
    return measured(command("monotreme", folder / "model", folder / "adapter", folder / "o", None))[
        2
    ]


def made(folder: Path, layers: int) -> Path:
    """Made in a process of its own: memory of the preparation is nobody's."""
    folder.mkdir(parents=True)
    line = [sys.executable, __file__, "--step", "make", str(folder), str(layers), folder.name]
    subprocess.run(line, check=True)
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--mergekit", help="the mergekit-yaml of an environment of its own")
    parser.add_argument("--layers", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="two layers, once")
    parser.add_argument("--step", nargs="+", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.step and asked.step[0] == "make":
        return make(Path(asked.step[1]), int(asked.step[2]), asked.step[3])
    if asked.step and asked.step[0] == "same":
        sys.exit(not same_bits(Path(asked.step[1]), Path(asked.step[2])))
    if asked.step:
        return STEPS[asked.step[0]](*map(Path, asked.step[1:]))
    if asked.quick:
        asked.layers, asked.repeats = 2, 1
    with tempfile.TemporaryDirectory() as temporary:
        report(Path(temporary), asked)
    return None


def report(root: Path, asked: argparse.Namespace) -> None:
    rest = measured([sys.executable, __file__, "--step", "idle"])[2]
    print(f"idle Python with torch: {rest:.0f} MB; mergekit: {asked.mergekit or 'not given'}")
    found = {}
    for dtype in DTYPES:
        folder = made(root / dtype, asked.layers)
        found[dtype] = compare(folder, asked)
        for name, row in found[dtype].items():
            over = max(0.0, row["mb"] - rest)
            print(
                f"{dtype} {name:<10} {row['seconds']:7.2f} s  {row['processor']:7.2f} processor s"
                f"  {over:6.0f} MB over idle",
                flush=True,
            )
        emptied(folder)
    half = {dtype: memory_of(root, asked.layers // 2, dtype) - rest for dtype in DTYPES}
    print(f"half as deep: {half['bf16']:.0f} MB (bf16), {half['fp32']:.0f} MB (fp32) over idle")
    ratio = found["fp32"]["monotreme"]["seconds"] / found["fp32"]["cp"]["seconds"]
    over = max(found[dtype]["monotreme"]["mb"] for dtype in DTYPES) - rest
    peers = {
        f"{name} {dtype}": rows[name]["seconds"]
        for dtype, rows in found.items()
        for name in rows
        if name != "monotreme"
    }
    met = (
        ratio <= 1.3
        and found["bf16"]["monotreme"]["seconds"] <= found["bf16"]["PEFT"]["seconds"]
        and max(over, *half.values()) <= LIMIT_MB
        and all(8 * (rows["monotreme"]["mb"] - rest) <= rows["PEFT"]["mb"] - rest for rows in found.values())
    )  # fmt: skip
    line = {
        "name": "merge", "ours": found["fp32"]["monotreme"]["seconds"], "peers": peers, "ratio": ratio,
        "target": 1.3, "met": met, "floor_share": 1 / ratio,
    }  # fmt: skip
    print(json.dumps(line))


if __name__ == "__main__":
    main()
