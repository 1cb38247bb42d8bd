"""A process that gives gradients to a training which another leads (`parallel.leading` starts it)."""

import sys
from pathlib import Path

from monotreme.errors import MonotremeError
from monotreme.run import Run, open_run
from monotreme.train import follow


def main() -> None:
    """Arguments: the run's folder and the address where the leader waits."""
    folder, address = sys.argv[1:]
    run: Run = open_run(Path(folder))
    try:
        follow(run, address)
    except MonotremeError as error:
        sys.exit(f"a process of the training: {error}")
    except RuntimeError as error:  # of a collective whose leader is gone; it says why itself
        sys.exit(f"a process of the training ended: {str(error).splitlines()[0]}")


if __name__ == "__main__":
    main()
