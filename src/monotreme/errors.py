"""Everything that can go wrong for a reason the user can mend.

    MonotremeError
    ├── RecipeError      2   the recipe names an unknown key, a value out of range, ...
    ├── UsageError       2   a word of the command line that is not among the possible ones
    ├── InputError       3   a file, a row, a model folder that cannot be read as what it should be
    ├── MismatchError    4   two things that must belong together do not
    ├── RefusedError     5   something that is possible but not sound, and not asked for by name
    ├── RemoteError      6   the Hub cannot be reached or says no
    ├── StorageError     7   the disk is full, or a file cannot be written
    ├── BusyError        8   another command is working on the same run
    └── EngineError      9   the workers cannot be had, or one needs more memory than it may have

The number is the exit status. An error says in one line what thing has which value against which
limit, and then what to do about it; any other exception is a defect of Monotreme.
"""


class MonotremeError(Exception):
    """A failure with a remedy.

    Args:
        problem: the thing, its value and the limit it breaks, without a full stop.
        remedy: what the user can do, as a sentence without a full stop; a question has its mark.
    """

    exit_code = 1

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(f"{problem}. {remedy}" + "." * (not remedy.endswith("?")))
        self.problem = problem
        self.remedy = remedy

    def __reduce__(self) -> tuple[type["MonotremeError"], tuple[str, str]]:
        """An error of a worker process travels to the first one whole."""
        return type(self), (self.problem, self.remedy)


class RecipeError(MonotremeError):
    exit_code = 2


class UsageError(MonotremeError):
    exit_code = 2


class InputError(MonotremeError):
    exit_code = 3


class MismatchError(MonotremeError):
    exit_code = 4


class RefusedError(MonotremeError):
    exit_code = 5


class RemoteError(MonotremeError):
    exit_code = 6


class StorageError(MonotremeError):
    exit_code = 7


class BusyError(MonotremeError):
    exit_code = 8


class EngineError(MonotremeError):
    exit_code = 9
