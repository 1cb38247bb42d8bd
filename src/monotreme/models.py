"""Causal language models, tokenizers and adapters from local folders: safetensors only, whole."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch
from peft import PeftModel
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

from monotreme.errors import InputError

logging.set_verbosity_error()  # its reports take many lines; what matters of them is raised here

REMEDY = "Name a folder with config.json, a tokenizer and whole safetensors weights"
ADAPTER_WEIGHTS = "adapter_model.safetensors"


DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}
Precision = Literal["bf16", "fp32"]


def load_tokenizer(folder: Path, trust_remote_code: bool) -> Any:
    """The tokenizer of a model folder.

    Raises:
        InputError: it cannot be read.
    """
    options = {"trust_remote_code": trust_remote_code, "local_files_only": True}
    return _loaded(AutoTokenizer.from_pretrained, folder, **options)


def beginning(tokenizer: Any) -> list[int]:
    """The beginning-of-text token if the tokenizer puts one before a text, else nothing."""
    bos = tokenizer.bos_token_id
    return [bos] if bos is not None and tokenizer("a")["input_ids"][:1] == [bos] else []


def load_config(folder: Path, trust_remote_code: bool = False) -> Any:
    """The configuration of a model folder.

    Raises:
        InputError: it cannot be read.
    """
    options = {"trust_remote_code": trust_remote_code, "local_files_only": True}
    return _loaded(AutoConfig.from_pretrained, folder, **options)


def load_model(
    folder: Path,
    precision: Precision,
    trust_remote_code: bool,
    attention: str | None = None,
    **options: Any,
) -> Any:
    """A causal language model, on the CPU where the options do not say otherwise, ready to infer, every weight of it read.

    Args:
        attention: name of a function in transformers' AttentionInterface; None is its default.
        options: more of what transformers' `from_pretrained` takes.

    Raises:
        InputError: no safetensors, a damaged file, or a weight that the files do not hold (which
            transformers would fill with random numbers).
    """
    model, loading = _loaded(
        AutoModelForCausalLM.from_pretrained,
        folder,
        dtype=DTYPES[precision],
        attn_implementation=attention,
        use_safetensors=True,
        trust_remote_code=trust_remote_code,
        local_files_only=True,
        output_loading_info=True,
        **options,
    )
    absent = sorted([*loading["missing_keys"], *(key for key, *_ in loading["mismatched_keys"])])
    if absent:
        problem = f"it lacks {len(absent):,} weights, such as {absent[0]}"
        raise InputError(f"{folder} cannot be loaded ({problem})", REMEDY)
    return model.eval()


def put_adapter(model: Any, folder: Path) -> Any:
    """A PEFT model: the adapter of a folder in PEFT's format on a loaded model.

    Raises:
        InputError: no safetensors (PEFT by itself would fall back to a pickle), weights that are
            missing or do not fit the model.
    """
    if not (folder / ADAPTER_WEIGHTS).is_file():
        raise InputError(f"{folder} cannot be loaded ({ADAPTER_WEIGHTS} is missing)", REMEDY)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="Found missing adapter keys")
        # PEFT 0.21 asks for an attribute by the name it had before transformers 5
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing`")
        adapted = _loaded(lambda path: PeftModel.from_pretrained(model, str(path)), folder)
    return adapted.eval()


def _loaded(load: Callable[..., Any], folder: Path, **options: Any) -> Any:
    """Call a library's loader; whatever it finds wrong with the files becomes one line."""
    try:
        return load(folder, **options)
    except (torch.OutOfMemoryError, MemoryError):
        raise
    except Exception as error:  # OSError, ValueError, KeyError, SafetensorError, bare Exception ...
        line = " ".join(str(error).split())[:200]
        raise InputError(f"{folder} cannot be loaded ({line})", REMEDY) from None
