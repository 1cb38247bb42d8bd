"""Train the tiny base on generated prose: `python -m monotreme.pocket.pretrain`.

Makes the tokenizer and the model in `base/` from nothing but the seed. It takes less
than half an hour on two cores and prints the loss and the rate while it runs. The data files
come out byte for byte; weights differ a little from one processor to another.
"""

import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import typer
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from monotreme.pocket.prose import SPOKEN, WRITTEN
from monotreme.pocket.questions import SEED, corpus

BASE = Path(__file__).parent / "base"
BOS, EOS = "<s>", "</s>"
VOCABULARY = 2048
LENGTH = 256
BATCH = 12
WARM_UP = 50


@dataclass(frozen=True)
class Part:
    """Some steps on one mix of texts, while the learning rate goes straight from first to last."""

    steps: int
    share_of_dialogue: float
    first_rate: float
    last_rate: float
    layouts: tuple[str, ...] = SPOKEN


# Facts and skills come first; how to answer when asked comes once there is something to say, and
# the look of written tasks comes last.
PARTS = (
    Part(900, 0.03, 3e-3, 3e-3),
    Part(600, 0.35, 3e-3, 0.0),
    Part(1200, 0.6, 2.5e-3, 0.0),
    Part(500, 0.6, 2e-3, 0.0, layouts=SPOKEN + WRITTEN),
)

# Read by the tokenizer alone, so that the frame of an instruction costs few tokens.
PREAMBLE = """Below is an instruction that describes a task, paired with an input that provides \
further context. Write a response that appropriately completes the request.

### Instruction:
### Input:
### Response:
Below is an instruction that describes a task. Write a response that appropriately completes \
the request.
Question: Answer:"""


def make_tokenizer(texts: Iterator[str]) -> PreTrainedTokenizerFast:
    """Byte-level BPE with single digits, so that numbers are spelled alike everywhere."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[BOS, EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    bos_id = tokenizer.token_to_id(BOS)
    tokenizer.post_processor = processors.Sequence(
        [
            processors.ByteLevel(trim_offsets=False),
            processors.TemplateProcessing(
                single=f"{BOS} $A", pair=f"{BOS} $A $B", special_tokens=[(BOS, bos_id)]
            ),
        ]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=EOS,
        model_max_length=1024,
        clean_up_tokenization_spaces=False,
    )


def make_model(seed: int = SEED) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=160,
            intermediate_size=432,
            num_hidden_layers=4,
            num_attention_heads=5,
            max_position_embeddings=1024,
            tie_word_embeddings=True,
            bos_token_id=0,
            eos_token_id=1,
            pad_token_id=1,
        )
    )


def batches(tokenizer: PreTrainedTokenizerFast, texts: Iterator[str]) -> Iterator[Tensor]:
    """Passages end to end, cut into (BATCH, LENGTH) token ids."""
    pending: list[int] = []
    size = BATCH * LENGTH
    while True:
        while len(pending) < size:
            some = list(itertools.islice(texts, 512))
            for ids in tokenizer(some)["input_ids"]:
                pending.extend((*ids, tokenizer.eos_token_id))
        yield torch.tensor(pending[:size]).view(BATCH, LENGTH)
        del pending[:size]


def learning_rate(part: Part, step: int) -> float:
    """Every part warms up anew, for its optimizers start without a memory."""
    straight = part.first_rate + (part.last_rate - part.first_rate) * step / part.steps
    return straight * min(1.0, (step + 1) / WARM_UP)


def make_optimizers(model: LlamaForCausalLM) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the layers, AdamW for the embedding and the norms."""
    matrices = [p for p in model.model.layers.parameters() if p.dim() == 2]
    chosen = {id(p) for p in matrices}
    rest = [p for p in model.parameters() if id(p) not in chosen]
    return [
        torch.optim.Muon(matrices, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(rest, weight_decay=0.0, betas=(0.9, 0.95)),
    ]


def train(model: LlamaForCausalLM, rows: Iterator[Tensor], part: Part, bf16: bool) -> None:
    """Plain next-token training."""
    optimizers = make_optimizers(model)
    started = time.monotonic()
    for step in range(part.steps):
        for group in itertools.chain(*(optimizer.param_groups for optimizer in optimizers)):
            group["lr"] = learning_rate(part, step)
        ids = next(rows)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
        model.zero_grad()
        if step % 50 == 0 or step == part.steps - 1:
            rate = (step + 1) * BATCH * LENGTH / (time.monotonic() - started)
            typer.echo(
                f"step {step:5d} of {part.steps}  loss {loss.item():.3f}  {rate:,.0f} tokens/s"
            )


def main(
    bf16: Annotated[
        bool, typer.Option(help="Products in bfloat16, for processors with AMX.")
    ] = True,
    out: Annotated[Path, typer.Option(help="Where to save the base.")] = BASE,
) -> None:
    """Make the tokenizer, train the model, save both."""
    some = itertools.islice(corpus(SEED, PARTS[0].share_of_dialogue), 20_000)
    tokenizer = make_tokenizer(itertools.chain(some, itertools.repeat(PREAMBLE, 500)))
    model = make_model()
    typer.echo(f"{model.num_parameters():,} parameters, {len(tokenizer):,} tokens")
    for part in PARTS:
        typer.echo(f"{part.steps} steps, {part.share_of_dialogue:.0%} dialogue")
        texts = corpus(SEED, part.share_of_dialogue, part.layouts)
        train(model, batches(tokenizer, texts), part, bf16)
    model.to(torch.bfloat16).save_pretrained(out)
    tokenizer.save_pretrained(out)
    typer.echo(f"saved {out}: {sum(f.stat().st_size for f in out.iterdir()):,} bytes")


if __name__ == "__main__":
    typer.run(main)
