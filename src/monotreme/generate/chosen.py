"""Which model is meant: one of a run, or a folder or Hub name with an adapter or without."""

from dataclasses import dataclass
from pathlib import Path

from monotreme import hub
from monotreme.errors import InputError, UsageError
from monotreme.records import digest
from monotreme.run import Run, open_run
from monotreme.storage import sha256

BASE, ADAPTER, MERGED = "base", "adapter", "merged-"


@dataclass(frozen=True, slots=True)
class Chosen:
    """A model to load.

    Attributes:
        adapter: folder of the adapter to put on it.
    """

    folder: Path
    adapter: Path | None = None
    trust_remote_code: bool = False

    @property
    def identity(self) -> str:
        """Changes when, and only when, the weights do; every file is read for it."""
        return digest(sha256(self.folder), sha256(self.adapter) if self.adapter else "")


def choose(asked: str, adapter: Path | None) -> Chosen:
    """The model that a name means.

    Args:
        asked: run folder (its adapter on its base), run folder and `:base` or `:merged-<id>`, model
            folder, or Hub name.
        adapter: to put on a model; a run has its own.

    Raises:
        InputError: nothing of that name.
        UsageError: an adapter for a run.
        RemoteError: the Hub does not have it or cannot be reached.
    """
    where, model = asked, ""
    if not Path(asked).exists() and _is_run(Path(asked.rpartition(":")[0])):
        where, _, model = asked.rpartition(":")
    if _is_run(Path(where)):
        if adapter is not None:
            raise UsageError(
                f"--adapter {adapter} does not go with the run {where}", "Name a model instead"
            )
        return _of_run(open_run(Path(where)), model or ADAPTER)
    if Path(where).is_dir():
        return Chosen(Path(where), adapter)
    if where.startswith((".", "/", "~")):
        raise InputError(f"model folder {where} does not exist", "Correct the path")
    return Chosen(hub.download_model(where, hub.resolve("model", where, None)), adapter)


def _is_run(folder: Path) -> bool:
    return (folder / "run.json").is_file() and (folder / "recipe.yaml").is_file()


def _of_run(run: Run, model: str) -> Chosen:
    base = run.recipe.train.base
    intos = {f"{MERGED}{into.id}": into for into in run.merges().values()}
    if model in intos:
        into = intos[model]
        trust = (base if into.model == BASE else into).trust_remote_code
        return Chosen(run.output("merge", into.id), None, trust)
    if model not in (BASE, ADAPTER):
        known = ", ".join((BASE, ADAPTER, *intos))
        raise InputError(f"{run.folder} has no model {model!r}", f"Name one of {known}")
    adapter = run.output("train", "adapter") if model == ADAPTER else None
    return Chosen(run.model(base), adapter, base.trust_remote_code)
