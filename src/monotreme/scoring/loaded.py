"""The one model in memory: adapters take turns on a base that is loaded once."""

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from monotreme.scoring.scorer import Scorer


class Loaded:
    """Gives scorers of model folders with adapters on them, one at a time.

    Args:
        load: loads a folder, given as keyword whether code that comes with it may run.
    """

    def __init__(self, load: Callable[..., Scorer]) -> None:
        self._load = load
        self._folder: Path | None = None
        self._adapter: Path | None = None
        self._scorer: Scorer | None = None
        self._put_on = ExitStack()

    def scorer(self, folder: Path, adapter: Path | None, trust_remote_code: bool) -> Scorer:
        """The scorer of a folder with an adapter; what was given before is good no longer.

        Raises:
            InputError: the model or the adapter cannot be read.
        """
        if self._scorer is not None and (folder, adapter) == (self._folder, self._adapter):
            return self._scorer
        self._put_on.close()
        self._adapter = None
        if self._scorer is None or folder != self._folder:
            self._scorer = None  # its memory is needed for the next
            self._scorer = self._load(folder, trust_remote_code=trust_remote_code)
            self._folder = folder
        self._put_on.enter_context(self._scorer.adapted(adapter))
        self._adapter = adapter
        return self._scorer
