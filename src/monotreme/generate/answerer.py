"""A loaded model that answers: the instruction template, greedily, several questions at once.

Shapes: B questions, L tokens of the longest prompt.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import GenerationConfig

from monotreme.errors import InputError
from monotreme.generate.chosen import Chosen
from monotreme.machine import device
from monotreme.models import Precision, beginning, load_model, load_tokenizer, put_adapter
from monotreme.prompt import prompt
from monotreme.records import Question

Ids = list[int]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model said.

    Attributes:
        num_tokens: of it, the end-of-text token left out.
        finished: whether the model ended it, and not the limit.
    """

    text: str
    num_tokens: int
    finished: bool


class Answerer:
    """A model with its tokenizer; it always takes the likeliest token.

    What the model's own files say of sampling is set aside: a person's chat settings are no
    setting of a check.
    """

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.max_length: int = getattr(
            model.config, "max_position_embeddings", tokenizer.model_max_length
        )
        self.ends = _ends(model, tokenizer)
        model.generation_config = GenerationConfig(
            do_sample=False, eos_token_id=self.ends, pad_token_id=self.ends[0]
        )

    def encode(self, instruction: str, input_: str = "") -> Ids:
        """Tokens of a question in the template, as the training encodes them."""
        question = Question(instruction, input_, "", "", "", False)
        encoded = self.tokenizer(
            prompt(question),
            add_special_tokens=False,
            split_special_tokens=True,  # "</s>" in a question is text
            verbose=False,
        )
        return [*beginning(self.tokenizer), *encoded["input_ids"]]

    @torch.inference_mode()
    def answer(
        self, prompts: Sequence[Ids], max_new_tokens: int, streamer: Any = None
    ) -> list[Answer]:
        """Continue each prompt; the shorter ones are padded on the left, unseen.

        Args:
            streamer: told of the tokens of a single prompt as they come (transformers' class).
        """
        ids_BL, mask_BL = _pad_left(prompts, self.ends[0])
        output = self.model.generate(
            input_ids=torch.from_numpy(ids_BL).to(self.model.device),
            attention_mask=torch.from_numpy(mask_BL).to(self.model.device),
            max_new_tokens=max_new_tokens,
            streamer=streamer,
        )
        return [self._read(row) for row in output[:, ids_BL.shape[1] :].tolist()]

    def _read(self, ids: Ids) -> Answer:
        end = next((place for place, token in enumerate(ids) if token in self.ends), None)
        text = self.tokenizer.decode(ids[:end], skip_special_tokens=True)
        return Answer(str(text), len(ids[:end]), end is not None)


def load_answerer(chosen: Chosen, precision: Precision) -> Answerer:
    """Load a model, and put its adapter on it, on the GPU where there is one.

    Raises:
        InputError: it cannot be read, does not fit, or its tokenizer has no end-of-text token.
    """
    tokenizer = load_tokenizer(chosen.folder, chosen.trust_remote_code)
    if tokenizer.eos_token_id is None:
        raise InputError(
            f"the tokenizer of {chosen.folder} has no end-of-text token",
            "Use a model folder whose tokenizer names its eos_token",
        )
    model = load_model(chosen.folder, precision, chosen.trust_remote_code)
    if chosen.adapter is not None:
        model = put_adapter(model, chosen.adapter).get_base_model()
    try:
        model.to(device())
    except torch.OutOfMemoryError:
        raise InputError(
            f"{chosen.folder} in {precision} does not fit the device's memory",
            "Give --precision bf16, or use a larger device",
        ) from None
    return Answerer(model, tokenizer)


def _ends(model: Any, tokenizer: Any) -> list[int]:
    """Tokens that end an answer: the tokenizer's, which the training sets, and the model's own."""
    own = model.generation_config.eos_token_id
    more = own if isinstance(own, list) else [own]
    return list(dict.fromkeys(t for t in (tokenizer.eos_token_id, *more) if t is not None))


def _pad_left(prompts: Sequence[Ids], padding: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Token ids (B, L) and which of them are to be seen."""
    width = max(map(len, prompts))
    ids_BL = np.full((len(prompts), width), padding, np.int64)
    mask_BL = np.zeros((len(prompts), width), np.int64)
    for row, ids in enumerate(prompts):
        ids_BL[row, width - len(ids) :] = ids
        mask_BL[row, width - len(ids) :] = 1
    return ids_BL, mask_BL
