"""One question after the other from a person at a terminal; answers appear as they come.

Every question stands alone, as in the training: the model does not see what was said before.
"""

from collections.abc import Callable

from transformers import TextStreamer

from monotreme.generate.answerer import Answerer
from monotreme.printable import printable

MAX_NEW_TOKENS = 1024


class _Speaker(TextStreamer):  # type: ignore[misc]  # transformers is not typed
    """Hands on each piece of an answer as soon as its words are whole, without control characters."""

    def __init__(self, answerer: Answerer, say: Callable[[str], None]) -> None:
        super().__init__(answerer.tokenizer, skip_prompt=True, skip_special_tokens=True)
        self.say = say

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        self.say(printable(text) + ("\n" if stream_end else ""))


def chat(answerer: Answerer, ask: Callable[[], str], say: Callable[[str], None]) -> None:
    """Answer until there are no more questions.

    Args:
        ask: the person's next line; EOFError (Ctrl-D) ends the chat, KeyboardInterrupt (Ctrl-C)
            takes back what was typed.
        say: prints a piece of an answer; KeyboardInterrupt meanwhile ends that answer.
    """
    while True:
        try:
            line = ask().strip()
        except EOFError:
            say("\n")
            return
        except KeyboardInterrupt:
            say("\n")
            continue
        if line:
            _answer(answerer, line, say)


def _answer(answerer: Answerer, line: str, say: Callable[[str], None]) -> None:
    ids = answerer.encode(line)
    room = min(MAX_NEW_TOKENS, answerer.max_length - len(ids))
    if room < 1:
        say(f"({len(ids):,} tokens, the model takes {answerer.max_length:,}: please be shorter)\n")
        return
    try:
        answerer.answer([ids], room, _Speaker(answerer, say))
    except KeyboardInterrupt:
        say(" (stopped)\n")
