"""Tiny real things that the tests share: a Llama of a few thousand weights, a tokenizer, a run."""

import os
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # a test never waits for a network
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line does
os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # Ray listens on loopback alone

if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # as many tests run as there are processors

import pytest
from s3_server import S3Server

from monotreme.recipe import check_recipe
from monotreme.records import Counts, Question, question_table
from monotreme.run import Run

if TYPE_CHECKING:
    from monotreme.curate.reading import Rows

SHARED = Path(__file__).parents[1].parent / "shared" / "data"

TEXTS = (
    "Below is an instruction that describes a task. Write a response that appropriately completes "
    "the request. ### Instruction: ### Response: Question: Answer: The answer is 12. What is two "
    "plus three? 0 1 2 3 4 5 6 7 8 9 Which of these is a metal? iron copper wood glass A. B. C. D."
)


@pytest.fixture(autouse=True)
def _console_is_heard() -> Iterator[None]:
    """A command that is called with --quiet is the last that this process calls; not so here."""
    from monotreme.progress import console

    yield
    console.quiet = False


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real data beside the repository."""
    if not SHARED.is_dir():
        pytest.skip(f"real data are not at {SHARED}")
    return SHARED


def rows_of(questions: Sequence[Question]) -> "Rows":
    """Questions as curate has them when they were read; those of a source side by side."""
    import numpy as np

    from monotreme.curate.reading import describe, table_of
    from monotreme.mapped import MappedQuestions

    sources = list(dict.fromkeys(q.source for q in questions))
    numbers = np.array([sources.index(q.source) for q in questions], np.int16)
    return describe(
        MappedQuestions(table_of(questions, searched=False).to_batches()), sources, numbers
    )


def write_tokenizer(folder: Path) -> None:
    """A byte-level BPE of 384 tokens that puts `<s>` first, as Llama's does."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=384,
        special_tokens=["<unk>", "<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([TEXTS], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", 1)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(folder)


def write_model(folder: Path, seed: int = 0, **shape: Any) -> Path:
    """A random Llama (two layers, width 32 unless said otherwise) with its tokenizer."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        **{
            "vocab_size": 384,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 512,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "tie_word_embeddings": False,
            **shape,
        }
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    write_tokenizer(folder)
    return folder


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    """A store on loopback with an empty bucket named `bucket`, which s3:// URLs reach."""
    pytest.importorskip("s3fs", reason="s3fs is not installed (pip install 'monotreme[s3]')")
    pytest.importorskip(
        "moto.server", reason="moto, flask and flask-cors, the local S3 server, are not installed"
    )
    from s3fs import S3FileSystem

    server = S3Server()
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    S3FileSystem.clear_instance_cache()
    server.empty()
    server.files.mkdir("bucket")
    yield server
    server.stop()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own with 2 MB."""
    folder = tmp_path / "small disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no disk of 2 MB can be mounted here ({done.stderr.strip()})")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Four other things may be running; and tiny products gain nothing from threads."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny random Llama in float32."""
    return write_model(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="session")
def trained(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What train and merge would leave: a random adapter that matters, and it merged."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = tmp_path_factory.mktemp("trained")
    torch.manual_seed(1)
    base = AutoModelForCausalLM.from_pretrained(tiny_model)
    targets = ["gate_proj", "up_proj", "down_proj"]
    config = LoraConfig(
        task_type="CAUSAL_LM", r=4, lora_alpha=16, target_modules=targets, init_lora_weights=False
    )
    model = get_peft_model(base, config)
    model.save_pretrained(folder / "adapter")
    model.merge_and_unload().save_pretrained(folder / "merged")
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(folder / "merged")
    return folder


def sums(num: int) -> list[Question]:
    """Plain sums with their steps: `num` different questions."""
    return [
        Question(
            instruction=f"What is {i} plus {i + 3}?",
            input="",
            output=f"We add {i} and {i + 3}. The answer is {2 * i + 3}.",
            source="sums",
            license="CC0-1.0",
            llm_written=False,
            subject="arithmetic",
        )
        for i in range(num)
    ]


def finish(run: Run, stage: str, questions: list[Question]) -> None:
    """Leave a stage's folder as the stage itself would: questions.parquet and a record."""
    with run.stage(stage, {}) as work:
        work.table("questions.parquet", question_table(questions))
        work.counts = Counts.tally([q.source for q in questions], [])


@pytest.fixture
def make_run(tmp_path: Path, tiny_model: Path) -> Callable[..., Run]:
    """Build a run from a recipe's tables; `train.base` is the tiny model unless given."""

    def make(**tables: Any) -> Run:
        data: dict[str, Any] = {"name": "test", "curate": {"sources": ["sums"]}, **tables}
        data["train"] = {"base": str(tiny_model), "base_precision": "fp32", **data.get("train", {})}
        run = Run(tmp_path / "runs" / "test", check_recipe(data, "test"), tmp_path)
        run.folder.mkdir(parents=True, exist_ok=True)
        return run

    return make


HOSTILE = "<script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\">"


@pytest.fixture
def flagged(make_run: Callable[..., Run], tmp_path: Path) -> Run:
    """A run whose decontamination has flagged three pairs: a copy, a look-alike, a hostile text."""
    import json

    from monotreme import decontaminate

    stems = (
        "How far is it if Tom rides 3 miles to school and 4 miles home?",
        "Which planet of the solar system is the largest?",
    )
    options = (["7", "8", "1", "12"], ["Mars", "Jupiter", "Venus", "Earth"])
    lines = [
        {"question": stem, "choices": {"text": texts, "label": list("ABCD")}, "answerKey": key}
        for stem, texts, key in zip(stems, options, "AB", strict=True)
    ]
    (tmp_path / "bench.jsonl").write_text("\n".join(map(json.dumps, lines)))
    run = make_run(
        curate={
            "sources": [{"id": name, "path": "x", "license": "MIT"} for name in ("mine", "web")]
        },
        decontaminate={"benchmarks": [{"id": "bench", "path": str(tmp_path / "bench.jsonl")}]},
    )
    asked = [
        Question(stems[0], "", "7", "mine", "MIT", False),
        Question(stems[0].replace("3", "5"), "", "9", "web", "MIT", False),
        Question(stems[1], HOSTILE, f"Not Mars. {HOSTILE}", "web", "MIT", True),
        Question("Why does ice float?", "", "It is light.", "mine", "MIT", False),
    ]
    with run.open():
        finish(run, "curate", asked)
        decontaminate.execute(run)
    return run


@pytest.fixture
def finished(make_run: Callable[..., Run], tiny_model: Path) -> Callable[..., Run]:
    """Build a run whose stages up to evaluate are done, ready for release."""
    from functools import partial

    from released import finish_run

    return partial(finish_run, make_run, tiny_model)
