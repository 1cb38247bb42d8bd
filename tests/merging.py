"""What the tests of merge share: adapters as PEFT leaves them, weights and their bits."""

import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from monotreme.merge import read_adapter, read_target, write_merged
from monotreme.merge.target import check_fit
from monotreme.merge.write import copy_companions
from monotreme.records import Counts
from monotreme.run import Run

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
MLP = ["gate_proj", "up_proj", "down_proj"]


def load(folder: Path, dtype: Any = "auto") -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)


def write_adapter(folder: Path, base: Path, seed: int = 1, **settings: Any) -> Path:
    """A PEFT adapter all of whose weights are random, as training leaves one."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(seed)
    options = {"r": 16, "lora_alpha": 16, "target_modules": MLP, "task_type": "CAUSAL_LM"}
    model = get_peft_model(load(base), LoraConfig(**{**options, **settings}))
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and "lora_A" not in name:
            parameter.data += 0.02 * torch.randn(parameter.shape)
    model.save_pretrained(folder)
    return folder


def cast(model: Path, folder: Path, dtype: torch.dtype) -> Path:
    """The same model stored in another dtype."""
    shutil.copytree(model, folder)
    load(model, dtype).save_pretrained(folder)
    return folder


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return {
        k: v for path in sorted(folder.glob("*.safetensors")) for k, v in load_file(path).items()
    }


def same_bits(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> bool:
    return ours.keys() == theirs.keys() and all(
        ours[name].dtype == theirs[name].dtype
        and torch.equal(ours[name].view(torch.uint8), theirs[name].view(torch.uint8))
        for name in ours
    )


def merged(target: Path, adapter: Path, folder: Path) -> Path:
    """The adapter merged into its base as the stage does it, without the proof."""
    found, slots = read_target(target), read_adapter(adapter)
    check_fit(found, found, slots, "base")
    folder.mkdir(exist_ok=True)
    copy_companions(target, folder, with_code=False)
    write_merged(found, slots, folder)
    return folder


def merged_by_peft(target: Path, adapter: Path, folder: Path) -> Path:
    """What PEFT leaves of the same merge."""
    from peft import PeftModel

    PeftModel.from_pretrained(load(target), adapter).merge_and_unload().save_pretrained(folder)
    return folder


def leave_adapter(run: Run, adapter: Path) -> None:
    """Leave a run's train stage as if it had trained this adapter."""
    with run.stage("train", {}) as work:
        with work.file("adapter") as folder:
            shutil.copytree(adapter, folder)
        work.counts = Counts()
