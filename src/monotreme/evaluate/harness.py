"""Any task of lm-evaluation-harness, with today's prompts, through our scorer (extra `eval`).

The harness makes the requests and the metrics; what it asks of a model is answered here.
"""

import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

from monotreme.errors import InputError, RecipeError
from monotreme.evaluate.alone import bare_run
from monotreme.models import beginning
from monotreme.progress import progress
from monotreme.recipe import Evaluate
from monotreme.scoring.scorer import Scorer, load_scorer
from monotreme.scoring.spans import Likelihood, Span, Tokens, encode_pairs
from monotreme.storage import writing

PREFIX = "lm-eval:"  # before the name of a task that is the harness's
NEW_TOKENS = 256  # of an answer where a task says nothing: the harness's own default


def check_harness() -> None:
    """Raise InputError if the harness is not installed."""
    if find_spec("lm_eval") is None:
        raise InputError(
            f"tasks that begin with {PREFIX} need lm-evaluation-harness",
            'pip install "monotreme[eval]"',
        )


def check_alone(num_ranks: int) -> None:
    """Raise RecipeError where several processes are to share the harness's tasks."""
    size = int(os.environ.get("WORLD_SIZE", num_ranks))
    if size > 1:
        raise RecipeError(
            f"{size} processes cannot share tasks that begin with {PREFIX}",
            "Evaluate them in one process, such as each task on a GPU of its own",
        )


def names(tasks: str) -> list[str]:
    """The harness's tasks in a list with commas; none where the benchmarks are ours.

    Raises:
        RecipeError: some are the harness's and some are ours.
    """
    asked = [name.strip() for name in tasks.split(",") if name.strip()]
    theirs = [name.removeprefix(PREFIX) for name in asked if name.startswith(PREFIX)]
    if theirs and len(theirs) < len(asked):
        raise RecipeError(
            f"--tasks {tasks} names tasks of ours and of lm-evaluation-harness",
            "Evaluate them in two commands: their records differ",
        )
    return theirs


def evaluate_model(
    model: str,
    adapter: Path | None,
    tasks: Sequence[str],
    settings: Evaluate,
    out: Path,
    *,
    limit: int | None,
    data: Path | None,
) -> dict[str, Any]:
    """Put tasks of the harness to a model, and leave harness.json and harness.jsonl in `out`.

    Args:
        model: local folder or Hub name.
        settings: precision and batch_tokens.
        data: folder with further task files.

    Raises:
        InputError, RemoteError: the model cannot be read, or the harness has no such task.
    """
    check_harness()
    run = bare_run(model, settings, out)
    ref = run.recipe.train.base
    scorer = load_scorer(
        run.model(ref),
        precision=settings.precision,
        batch_tokens=settings.batch_tokens,
        trust_remote_code=ref.trust_remote_code,
    )
    with scorer.adapted(adapter):
        found = run_tasks(scorer, tasks, limit, data)
    write_results(found, out)
    return found


def run_tasks(
    scorer: Scorer, tasks: Sequence[str], limit: int | None, folder: Path | None
) -> dict[str, Any]:
    """What the harness's `simple_evaluate` says of a model: `results`, `versions`, `samples`, …

    Args:
        tasks: the harness's names, without our prefix.
        limit: only the first so many documents of each.
        folder: with further task files (YAML); None for the harness's own alone.

    Raises:
        InputError: the harness is not installed, or has no such task.
    """
    check_harness()
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_path=None if folder is None else str(folder))
    unknown = [name for name in tasks if name not in manager.all_tasks]
    if unknown:
        raise InputError(
            f"lm-evaluation-harness has no task {unknown[0]!r}",
            "Name one of `lm-eval ls tasks`, or a folder of task files with --data",
        )
    found: dict[str, Any] = simple_evaluate(
        model=_model(scorer),
        tasks=list(tasks),
        limit=limit,
        task_manager=manager,
        log_samples=True,
        bootstrap_iters=0,  # its analytic standard errors; the bootstrap is for corpus metrics
        verbosity=None,
    )
    return found


def write_results(found: Mapping[str, Any], folder: Path) -> None:
    """Leave harness.json (results, versions, settings) and harness.jsonl (every document)."""
    kept = {key: value for key, value in found.items() if key != "samples"}
    with writing(folder / "harness.json") as path:
        path.write_text(json.dumps(kept, indent=2, sort_keys=True, default=str) + "\n", "utf-8")
    rows = ({"task": task, **row} for task, own in found["samples"].items() for row in own)
    with writing(folder / "harness.jsonl") as path, path.open("w", encoding="utf-8") as lines:
        lines.writelines(json.dumps(row, default=str) + "\n" for row in rows)


def lines(found: Mapping[str, Any]) -> Iterator[str]:
    """A line a task and metric, with its standard error where the harness has one."""
    for task, metrics in found["results"].items():
        for key, value in metrics.items():
            name, _, way = key.partition(",")
            if isinstance(value, float) and not name.endswith("_stderr"):
                error = metrics.get(f"{name}_stderr,{way}")
                told = f" ± {error:.4f}" if isinstance(error, float) else ""
                yield f"{task:<30} {name:<16} {value:.4f}{told}"


def _model(scorer: Scorer) -> Any:
    """The harness's model class around a scorer; made here, for the harness is an extra."""
    from lm_eval.api.model import LM

    class ScorerModel(LM):  # type: ignore[misc]
        def loglikelihood(self, requests: Sequence[Any], **_: Any) -> list[tuple[float, bool]]:
            pairs = [request.args for request in requests]
            return likelihoods(scorer, pairs)

        def loglikelihood_rolling(self, requests: Sequence[Any], **_: Any) -> list[float]:
            return rolling(scorer, [request.args[0] for request in requests])

        def generate_until(self, requests: Sequence[Any], **_: Any) -> list[str]:
            with progress("generate", len(requests)) as advance:
                found = []
                for request in requests:
                    found.append(answer(scorer, *request.args))
                    advance(1)
            return found

    return ScorerModel()


def likelihoods(scorer: Scorer, pairs: Sequence[tuple[str, str]]) -> list[tuple[float, bool]]:
    """(log-likelihood, greedy) of each continuation given its context.

    As the harness does today: behind the token that the tokenizer puts before texts, and with an empty
    context behind the beginning-of-text token or, without one, the end-of-text token.
    """
    spans: list[Span | None] = [None] * len(pairs)
    full = [i for i, (context, _) in enumerate(pairs) if context]
    encoded = encode_pairs(scorer.tokenizer, [pairs[i] for i in full], sys.maxsize)
    before = np.array(beginning(scorer.tokenizer), np.int32)
    for i, span in zip(full, encoded, strict=True):
        spans[i] = _cut(np.concatenate([before, span.tokens]), len(before) + span.start, scorer)
    for i, (context, text) in enumerate(pairs):
        if not context:
            spans[i] = _cut(_bare(scorer.tokenizer, text), 1, scorer)
    scored = _scored(scorer, [span for span in spans if span is not None], "continuations")
    return [(each.log_likelihood, each.greedy) for each in scored]


def _scored(scorer: Scorer, spans: Sequence[Span], what: str) -> list[Likelihood]:
    with progress(what, len(spans)) as advance:
        return scorer.spans(spans, what, advance)


def rolling(scorer: Scorer, texts: Sequence[str]) -> list[float]:
    """Log-likelihood of each whole text, in the harness's own windows."""
    from lm_eval import utils

    first, longest = _first(scorer.tokenizer), scorer.max_length
    cut: list[list[Span]] = []
    for text in texts:
        ids = scorer.tokenizer(text)["input_ids"]
        windows = utils.get_rolling_token_windows(ids, first, longest, 1)
        pairs = map(utils.make_disjoint_window, windows)
        cut.append(
            [Span(np.array([*before, *scored], np.int32), len(before)) for before, scored in pairs]
        )
    told = iter(_scored(scorer, [span for spans in cut for span in spans], "texts"))
    return [sum(next(told).log_likelihood for _ in spans) for spans in cut]


def _first(tokenizer: Any) -> int:
    """What the harness puts before a text that nothing precedes."""
    bos = tokenizer.bos_token_id
    return int(tokenizer.eos_token_id if bos is None else bos)


def _bare(tokenizer: Any, text: str) -> Tokens:
    return np.array(
        [_first(tokenizer), *tokenizer(text, add_special_tokens=False)["input_ids"]], np.int32
    )


def _cut(tokens: Tokens, start: int, scorer: Scorer) -> Span:
    """The end of a row that the model can read, its last token only predicted.

    Raises:
        InputError: what is scored is more than the model can read.
    """
    over = max(0, len(tokens) - scorer.max_length - 1)
    if start - over < 1:
        raise InputError(
            f"a task scores {len(tokens) - start:,} tokens at once, the model reads "
            f"{scorer.max_length:,}",
            "Leave this task out, or use a model for longer texts",
        )
    return Span(tokens[over:], start - over, over > 0)


@torch.inference_mode()
def answer(scorer: Scorer, context: str, settings: Mapping[str, Any]) -> str:
    """What the model writes after a context, up to the first of the texts `until`.

    Args:
        settings: the harness's generation_kwargs: until, max_gen_toks, do_sample, temperature, …

    Raises:
        InputError: answer and context do not go into the model together.
    """
    tokenizer, model = scorer.tokenizer, scorer.model
    rest = dict(settings)
    until = rest.pop("until", None) or []
    until = [stop for stop in ([until] if isinstance(until, str) else until) if stop]
    num = int(rest.pop("max_gen_toks", NEW_TOKENS))
    if num >= scorer.max_length:
        raise InputError(
            f"a task asks for answers of {num:,} tokens, the model reads {scorer.max_length:,} in all",
            "Leave this task out, or use a model for longer texts",
        )
    rest.setdefault("do_sample", False)
    if not rest["do_sample"]:
        rest.pop("temperature", None)  # tasks say 0 for greedy, which transformers does not take
    ids = tokenizer(context, return_tensors="pt")["input_ids"]
    ids = ids[:, num - scorer.max_length :].to(model.device)
    stops = {"stop_strings": until, "tokenizer": tokenizer} if until else {}
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    made = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=num,
        pad_token_id=pad,
        **stops,
        **rest,
    )
    text: str = tokenizer.decode(made[0, ids.shape[1] :], skip_special_tokens=True)
    ends = [place for stop in until if (place := text.find(stop)) >= 0]
    return text[: min(ends)] if ends else text
