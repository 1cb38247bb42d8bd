"""The tables of a recipe and their keys. Defaults are the paper's (arXiv 2308.07317)."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from monotreme.records import Verdict

STAGES = ("curate", "decontaminate", "train", "merge", "evaluate", "release")
POCKET = "pocket:"
NAME = r"^\w[\w.-]*$"  # becomes a folder's name: never `..`


class Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def _named(key: str) -> BeforeValidator:
    """Let a bare string stand for a table with only that key: `math` for `{id: math}`."""
    return BeforeValidator(lambda value: {key: value} if isinstance(value, str) else value)


class SourceRef(Table):
    """A training source: an id of the built-in table, or a file of your own."""

    id: str = Field(pattern=NAME, description="Name in reports; a built-in source or yours.")
    path: str | None = Field(None, description="File, folder or URL to read instead of the Hub.")
    name: str | None = Field(None, description="Hub dataset to read instead of the table's.")
    revision: str | None = Field(None, description="Hub commit; resolved and recorded if absent.")
    split: str | None = Field(None, description="Hub split to read instead of the table's.")
    license: str | None = Field(None, description="SPDX identifier; needed for a source of yours.")
    llm_written: bool | None = Field(
        None, description="Whether a language model wrote the answers."
    )
    columns: dict[str, str] = Field(
        default_factory=dict,
        description="For a file of yours: instruction, input, output, subject → its column.",
    )
    keywords: bool | None = Field(None, description="Keep only rows with a STEM or logic keyword.")
    exclusion: bool = Field(True, description="Take part in the similarity exclusion.")
    optional: bool = Field(False, description="Go on without it when it cannot be read.")
    limit: int | None = Field(
        None, ge=1, description="Read only the first so many rows, for a trial."
    )


class BenchmarkRef(Table):
    """A benchmark: an id of the built-in table, or a file of your own, in ARC's layout or any."""

    id: str = Field(pattern=NAME, description="Built-in benchmark or a name of yours.")
    path: str | None = Field(None, description="File, or folder with a file a split: path or URL.")
    name: str | None = Field(None, description="Hub dataset to read instead of the table's.")
    revision: str | None = Field(None, description="Hub commit; resolved and recorded if absent.")
    license: str | None = Field(None, description="SPDX identifier, for a benchmark of yours.")
    columns: dict[str, str] = Field(
        default_factory=dict,
        description="For a file of yours: stem, options, answer, passage, subject → its column.",
    )
    split: str | None = Field(None, description="Split whose questions are scored and checked.")
    shots: int | None = Field(None, ge=0, le=100, description="Examples in the prompt.")
    shots_split: str | None = Field(None, description="Split that the examples are drawn from.")
    limit: int | None = Field(
        None,
        ge=1,
        description="Score only the first so many questions (of each subject, for MMLU).",
    )


class ModelRef(Table):
    """A model: a Hub name, or the path or URL of a folder."""

    model: str = Field(description="Hub name, local folder, or URL such as s3://bucket/model.")
    revision: str | None = Field(None, description="Hub commit; resolved and recorded if absent.")
    trust_remote_code: bool = Field(False, description="Run code that comes with the model.")


class AdapterRef(Table):
    """An adapter that goes into a merge beside the one that is trained."""

    path: str = Field(description="Folder in PEFT's format: path or URL.")
    weight: float = Field(1, description="What multiplies its delta.")
    questions: str | None = Field(
        None, description="What it was trained on (Parquet or JSON Lines), to tell the overlap."
    )


Method = Literal["sum", "ties", "dare", "dare_ties", "slerp"]


class MixedRef(ModelRef):
    """A whole model that goes into a merge by its difference to the target."""

    weight: float = Field(1, description="What multiplies the difference.")


class IntoRef(ModelRef):
    """A model that the adapter is merged into."""

    id: str = Field(pattern=NAME, description="Name of the merge in the run folder.")
    model: str = Field(
        "base", description="Hub name, folder (path or URL), or `base` for train.base."
    )
    weight: float = Field(
        1, description="What multiplies the delta of the trained adapter; 0 leaves it out."
    )
    adapters: list[AdapterRef] = Field(
        default_factory=list, description="Further adapters of the same base; deltas are added up."
    )
    models: list[Annotated[MixedRef, _named("model")]] = Field(
        default_factory=list, description="Whole models of the same base that go in, too."
    )
    method: Method = Field("sum", description="How the deltas of adapters and models are mixed.")
    density: float = Field(
        0.5, gt=0, le=1, description="Share of a delta's elements that ties and dare keep."
    )
    share: float = Field(
        0.5, ge=0, le=1, description="How far slerp goes from the target to the model."
    )
    accept: list[str] = Field(
        default_factory=list,
        description="Differences to the base, by name, that are no reason to refuse.",
    )

    @model_validator(mode="after")
    def _base_has_its_own_revision(self) -> "IntoRef":
        if self.model == "base" and self.revision is not None:
            raise ValueError(
                "a revision does not go with the model `base`; set train.base.revision"
            )
        return self

    @model_validator(mode="after")
    def _something_is_merged(self) -> "IntoRef":
        others = [*(a.weight for a in self.adapters), *(m.weight for m in self.models)]
        if not any([self.weight, *others]):
            raise ValueError("every weight is 0: nothing would be merged")
        alone = not self.weight and not self.adapters and len(self.models) == 1
        if self.method == "slerp" and not alone:
            raise ValueError("slerp is between two models: weight: 0, no adapters, one of models")
        return self


Sources = list[Annotated[SourceRef, _named("id")]]
Benchmarks = list[Annotated[BenchmarkRef, _named("id")]]
Model = Annotated[ModelRef, _named("model")]
Into = Annotated[IntoRef, _named("id")]
PAPER_BENCHMARKS = ("arc_challenge", "hellaswag", "mmlu", "truthfulqa")


def _paper_benchmarks() -> list[BenchmarkRef]:
    return [BenchmarkRef(id=name) for name in PAPER_BENCHMARKS]


class Curate(Table):
    """Sources → keyword search → exact duplicates → similarity exclusion."""

    sources: Sources = Field(min_length=1, description="What to read, in order of priority.")
    encoder: str = Field(
        "all-MiniLM-L6-v2",
        description="Sentence encoder: the built-in one, a Hub name or a folder.",
    )
    truncate: bool = Field(
        False, description="Compare the first 256 tokens only (paper), not every window of 256."
    )
    threshold: float = Field(
        0.8, gt=0, le=1, description="Similarity (cosine) over which one goes."
    )
    exact: bool = Field(False, description="Compare all pairs above a million questions too.")
    protect: Literal["none", "different_answer", "different_numbers"] = Field(
        "none", description="Look-alikes that stay although they are over the threshold."
    )
    licenses: Literal["any", "commercial"] | list[str] = Field(
        "any", description="Licences that may enter: those for commercial use, or SPDX identifiers."
    )
    llm_written: Literal["keep", "drop"] = Field(
        "keep", description="Whether answers by a language model may enter."
    )
    on_bad_row: Literal["fail", "drop"] = Field(
        "fail", description="A row that cannot be read: stop, or drop it with a record."
    )


class Judge(Table):
    """A language model asked about the pairs that the steps of triage leave undecided."""

    url: str = Field(
        description="Of an OpenAI-compatible service: what precedes /chat/completions."
    )
    model: str = Field(min_length=1, description="The model's name at that service.")
    key_env: str = Field(
        "OPENAI_API_KEY", description="Environment variable with the key; a local service has none."
    )
    timeout: float = Field(60, gt=0, le=3600, description="Seconds that a reply may take.")
    max_pairs: int = Field(1000, ge=1, description="Pairs to ask about, two requests each.")


class Decontaminate(Table):
    """Questions × benchmarks: every pair over the threshold, its verdict, what is dropped."""

    benchmarks: Benchmarks = Field(
        default_factory=_paper_benchmarks, description="What must not leak into the training set."
    )
    threshold: float = Field(
        0.8, gt=0, le=1, description="Similarity (cosine) over which a pair is judged."
    )
    drop: list[Verdict] = Field(
        ["duplicate", "gray_area"], description="Verdicts whose questions are dropped (paper: all)."
    )
    judge: Judge | None = Field(
        None, description="Language model for undecided pairs; none: they stay gray_area."
    )


class Train(Table):
    """LoRA on the base model."""

    base: Model = Field(description="The model to refine.")
    rank: int = Field(16, ge=1, description="Rank of the adapter.")
    alpha: float = Field(16, gt=0, description="Scale of the adapter: alpha / rank.")
    dropout: float = Field(0.05, ge=0, lt=1, description="Dropout on the adapter's input.")
    targets: list[str] = Field(
        ["gate_proj", "up_proj", "down_proj"], min_length=1, description="Linear layers to adapt."
    )
    learning_rate: float = Field(4e-4, gt=0, description="Peak rate of AdamW (70B: 3e-4).")
    warmup_steps: int = Field(100, ge=0, description="Steps of linear warm-up from 0.")
    batch_size: int = Field(16, ge=1, description="Questions a step.")
    epochs: float = Field(1, gt=0, description="Passes over the questions; 0.1 is a tenth of one.")
    max_length: int = Field(4096, ge=8, description="Tokens of a question; none is ever cut.")
    too_long: Literal["drop", "refuse"] = Field(
        "drop", description="What happens to a question over max_length, or over the base's limit."
    )
    weighting: Literal["question", "token"] = Field(
        "question", description="What weighs the same in the loss of a batch."
    )
    rslora: bool = Field(False, description="Scale by alpha / √rank (rank-stabilised LoRA).")
    dora: bool = Field(False, description="Weight-decomposed LoRA: magnitudes are trained too.")
    rank_pattern: dict[str, Annotated[int, Field(ge=1)]] = Field(
        default_factory=dict, description="Another rank for layers whose name ends so."
    )
    alpha_pattern: dict[str, Annotated[float, Field(gt=0)]] = Field(
        default_factory=dict, description="Another alpha for layers whose name ends so."
    )
    base_precision: Literal["bf16", "fp32", "fp8", "nf4"] = Field(
        "bf16",
        description="What the frozen base is kept in; with all but fp32, products are bf16's.",
    )
    shard: Literal["auto", "always"] = Field(
        "auto",
        description="Whether several GPUs share one base: where it does not fit on each, or always.",
    )
    validation: float = Field(
        0, ge=0, le=0.5, description="Share of the questions held out to see overfitting early."
    )
    trackers: list[Literal["tensorboard", "wandb"]] = Field(
        default_factory=list, description="Who is told of every step beside log.jsonl."
    )
    allow_unchecked: bool = Field(
        False, description="Train although the questions are not those that decontaminate recorded."
    )

    @model_validator(mode="after")
    def _kinds_agree(self) -> "Train":
        if self.dora and self.base_precision == "fp8":
            raise ValueError("dora needs the norms of dense weights: base_precision bf16 or nf4")
        return self


class Merge(Table):
    """The adapter into its base, and into other models of the same shape."""

    into: list[Into] = Field(
        default_factory=lambda: [IntoRef(id="base")],
        description="Models to merge the adapter into. With candidates, none by default.",
    )
    candidates: list[Into] = Field(
        default_factory=list, description="Merges of which the best on `select` is made."
    )
    select: list[Annotated[BenchmarkRef, _named("id")]] = Field(
        default_factory=list, description="Benchmarks that choose; never those of `evaluate`."
    )

    @property
    def every(self) -> list[IntoRef]:
        """The merges that are made, and those of which one is."""
        return [*self.into, *self.candidates]

    @model_validator(mode="before")
    @classmethod
    def _candidates_are_instead(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("candidates") and "into" not in data:
            return {**data, "into": []}
        return data

    @model_validator(mode="after")
    def _candidates_are_measured(self) -> "Merge":
        if bool(self.candidates) != bool(self.select):
            raise ValueError("`candidates` and `select`, the benchmarks that choose, go together")
        mixes = [each.id for each in self.candidates if each.method != "sum" or each.models]
        if mixes:
            raise ValueError(
                f"candidate {mixes[0]} is no sum of adapters, and only those are measured without "
                "being written; make it under `into` and evaluate it"
            )
        return self


class Evaluate(Table):
    """Base, adapter and merges on the benchmarks, under the paper's protocol."""

    benchmarks: Benchmarks = Field(
        default_factory=_paper_benchmarks,
        description="What is scored; where absent, what decontaminate checks.",
    )
    texts: str | None = Field(
        None, description="Held-out text (JSON Lines with `text`) to measure perplexity on."
    )
    batch_tokens: int = Field(16_384, ge=256, description="Tokens of a forward pass.")
    precision: Literal["bf16", "fp32"] = Field("bf16", description="Of the models.")


class Release(Table):
    """Cards and folders ready to publish."""

    dataset: str | None = Field(None, description="Hub name of the data set, for --push.")
    adapter: str | None = Field(None, description="Hub name of the adapter, for --push.")
    merged: dict[str, str] = Field(
        default_factory=dict, description="Hub name of each merge to publish, by its id."
    )
    private: bool = Field(True, description="Whether pushed repositories are private.")
    title: str | None = Field(None, description="Title of the cards; default: the recipe's name.")
    language: list[Annotated[str, Field(pattern=r"^([a-z]{2,3}|code|multilingual)$")]] = Field(
        default_factory=list, description="Of the questions, for the cards: ISO 639 codes."
    )
    intended_use: str | None = Field(None, description="For the cards, in your words.")
    limitations: str | None = Field(None, description="For the cards, in your words.")


class Recipe(Table):
    """One run: its name, its seed and a table a stage."""

    name: str = Field(pattern=NAME, description="Name of the run's folder.")
    seed: int = Field(42, ge=0, lt=2**32, description="Of everything that is drawn.")
    curate: Curate
    decontaminate: Decontaminate = Decontaminate()
    train: Train
    merge: Merge = Merge()
    evaluate: Evaluate = Evaluate()
    release: Release = Release()

    @model_validator(mode="before")
    @classmethod
    def _score_what_was_checked(cls, data: Any) -> Any:
        """Without benchmarks of its own, `evaluate` takes those of `decontaminate`."""
        if not isinstance(data, dict):
            return data
        checked, scored = data.get("decontaminate", {}), data.get("evaluate", {})
        if not isinstance(checked, dict) or not isinstance(scored, dict):
            return data  # the tables' own checks say what is wrong
        same = {"benchmarks": checked["benchmarks"]} if "benchmarks" in checked else {}
        return {**data, "evaluate": {**same, **scored}}

    @model_validator(mode="after")
    def _ids_are_unique(self) -> "Recipe":
        lists: dict[str, Sequence[Any]] = {
            "curate.sources": self.curate.sources,
            "decontaminate.benchmarks": self.decontaminate.benchmarks,
            "evaluate.benchmarks": self.evaluate.benchmarks,
            "merge.into and merge.candidates": self.merge.every,
            "merge.select": self.merge.select,
        }
        for where, refs in lists.items():
            ids = [ref.id for ref in refs]
            twice = sorted({name for name in ids if ids.count(name) > 1})
            if twice:
                raise ValueError(f"{where}: id {twice[0]!r} is given twice")
        return self

    @model_validator(mode="after")
    def _what_chooses_is_not_reported(self) -> "Recipe":
        reported = {(ref.id, ref.path, ref.name, ref.split) for ref in self.evaluate.benchmarks}
        for ref in self.merge.select:
            if (ref.id, ref.path, ref.name, ref.split) in reported:
                raise ValueError(
                    f"merge.select: {ref.id} is among evaluate.benchmarks; a merge that was chosen on "
                    "what is reported looks better than it is. Choose on another split"
                )
        return self

    @model_validator(mode="after")
    def _merges_are_of_what_was_trained(self) -> "Recipe":
        precision = self.train.base_precision
        for into in self.merge.every:
            if precision in ("fp8", "nf4") and "base_precision" not in into.accept:
                raise ValueError(
                    f"merge {into.id}: the adapter is trained beside a base in {precision}; merged into "
                    f"dense weights it is another model. Accept that by name, {{id: {into.id}, "
                    "accept: [base_precision]}, or set merge.into: []"
                )
        return self
