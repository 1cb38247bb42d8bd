"""A process that gives gradients to a training which another leads (`parallel.leading` starts it)."""

import sys
from pathlib import Path

from monotreme.errors import MonotremeError
from monotreme.ranks import end_with_leader
from monotreme.run import Run, open_run
from monotreme.train import follow


def main() -> None:
    """Arguments: the run's folder, and the end of a pipe to say on that it is ready to meet."""
    folder, told = sys.argv[1:]
    end_with_leader()
    run: Run = open_run(Path(folder))
    try:
        follow(run, int(told))
    except MonotremeError as error:
        sys.exit(str(error))
    except RuntimeError as error:  # of a collective whose leader is gone; it says why itself
        sys.exit(str(error).splitlines()[0])


if __name__ == "__main__":
    main()
