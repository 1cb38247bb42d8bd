"""The sources of Open-Platypus as one literal table.

Hub names, licences and rows: arXiv 2308.07317, table 1 and section 2.1; the cards of the datasets
and the authors' later audit of them. Where audit and card differ, the stricter of the two is here
and the note says so. docs/sources.md says the same in prose.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from monotreme.sources import readers
from monotreme.sources.readers import Fields


@dataclass(frozen=True, slots=True)
class Source:
    """Where questions come from and how a row becomes one.

    Attributes:
        name: today's Hub name; "" where the Hub never had it.
        license: SPDX expression, `LicenseRef-…`, or "unknown".
        llm_written: whether a language model wrote the answers.
        data_source: the source's word in the released set's column of that name.
        reader: raw row → fields; takes `takes` as a keyword besides the row.
        configs, splits: Hub configurations × splits to read, in this order.
        data_files: files to read, in a local folder or of the Hub repository, instead of splits.
        revision: Hub commit; None is resolved at the first read and recorded in the run.
        keywords: whether only rows with a keyword are kept, unless the recipe says otherwise.
        replaces: source whose solution of the same problem yields to this one's.
        obtain: how to get it, where the Hub does not serve it: a `path` is needed then.
    """

    id: str
    name: str
    license: str
    llm_written: bool
    data_source: str
    reader: Callable[..., Fields]
    configs: tuple[str | None, ...] = (None,)
    splits: tuple[str, ...] = ("train",)
    data_files: tuple[str, ...] = ()
    revision: str | None = None
    keywords: bool = False
    replaces: str = ""
    takes: Literal["", "seed", "theorems"] = ""
    obtain: str = ""
    note: str = ""


_TABLE = (
    Source(
        id="prm800k",
        name="",
        license="MIT",
        llm_written=True,
        data_source="MATH/PRM-800K",
        reader=readers.read_prm800k,
        takes="seed",
        data_files=("phase*.jsonl",),
        replaces="math",
        obtain="Clone https://github.com/openai/prm800k with Git LFS and give its folder "
        "prm800k/data as `path`",
        note="Steps written by GPT-4 and rated by people; stands in for MATH's own solutions.",
    ),
    Source(
        id="math",
        name="EleutherAI/hendrycks_math",
        license="MIT",
        llm_written=False,
        data_source="MATH/PRM-800K",
        reader=readers.read_math,
        configs=(
            "algebra",
            "counting_and_probability",
            "geometry",
            "intermediate_algebra",
            "number_theory",
            "prealgebra",
            "precalculus",
        ),
        splits=("train", "test"),
        note="Was hendrycks/competition_math. 155 of its problems are MMLU test questions.",
    ),
    Source(
        id="scienceqa",
        name="tasksource/ScienceQA_text_only",
        license="CC-BY-NC-SA-4.0",
        llm_written=False,
        data_source="scienceqa",
        reader=readers.read_scienceqa,
        note="Was metaeval/ScienceQA_text_only.",
    ),
    Source(
        id="scibench",
        name="xw27/scibench",
        license="unknown",
        llm_written=False,
        data_source="scibench",
        reader=readers.read_scibench,
        data_files=("*.json",),
        note="MIT on the card; the audit found textbook problems without a stated licence.",
    ),
    Source(
        id="reclor",
        name="tasksource/reclor",
        license="LicenseRef-ReClor-non-commercial",
        llm_written=False,
        data_source="reclor",
        reader=readers.read_reclor,
        data_files=("train.json",),
        note="Was metaeval/reclor. Research only. The release kept rows without a keyword too.",
    ),
    Source(
        id="theoremqa",
        name="TIGER-Lab/TheoremQA",
        license="MIT",
        llm_written=False,
        data_source="theoremqa",
        reader=readers.read_theoremqa,
        takes="theorems",
        splits=("test",),
        data_files=("theoremqa_test.json", "test.csv"),
        obtain="The Hub's copy no longer names the theorems: clone "
        "https://github.com/wenhuchen/TheoremQA and give its folder as `path`",
        note="Was wenhu/TheoremQA. Needs all_theorems.json beside the rows.",
    ),
    Source(
        id="leetcode",
        name="nuprl/leetcode-solutions-python-testgen-gpt4",
        license="unknown",
        llm_written=True,
        data_source="leetcode_ne",
        reader=readers.read_leetcode,
        obtain="It has vanished from the Hub: give a copy of your own (columns prompt and "
        "full_code) as `path`, or leave it out of the recipe",
        note="Solutions written by GPT-4.",
    ),
    Source(
        id="airoboros",
        name="jondurbin/airoboros-gpt4-1.4.1",
        license="CC-BY-NC-4.0",
        llm_written=True,
        data_source="airoboros",
        reader=readers.read_airoboros,
        data_files=("instructions.jsonl",),
        keywords=True,
        note='Written by GPT-4. The card says "other", the audit CC-BY-NC-4.0.',
    ),
    Source(
        id="tigerbot",
        name="TigerResearch/tigerbot-kaggle-leetcodesolutions-en-2k",
        license="Apache-2.0 AND GPL-3.0-only",
        llm_written=False,
        data_source="tigerbot-kaggle",
        reader=readers.read_tigerbot,
        note="Apache-2.0 on the card; the audit adds GPL-3.0 for part of the solutions.",
    ),
    Source(
        id="arb",
        name="",
        license="CC-BY-4.0",
        llm_written=False,
        data_source="ARB",
        reader=readers.read_arb,
        obtain="Save what its REST service gives (address and code: "
        "https://github.com/TheDuckAI/arb) as .json files and give their folder as `path`",
        note="Law, mathematics, MCAT and physics problems.",
    ),
    Source(
        id="guanaco",
        name="timdettmers/openassistant-guanaco",
        license="Apache-2.0",
        llm_written=False,
        data_source="guanaco",
        reader=readers.read_guanaco,
        splits=("train", "test"),
        keywords=True,
        note="Conversations of people with people who play the assistant, in many languages.",
    ),
    Source(
        id="openbookqa",
        name="allenai/openbookqa",
        license="Apache-2.0",
        llm_written=False,
        data_source="openbookqa",
        reader=readers.read_openbookqa,
        configs=("additional",),
        note="In an early release only; 6 of its questions were leaks.",
    ),
)

SOURCES = {source.id: source for source in _TABLE}
