"""A process that scores pieces for another, which leads (`team.leading` starts it, or torchrun)."""

import sys
from pathlib import Path

from monotreme.errors import MonotremeError
from monotreme.ranks import end_with_leader
from monotreme.scoring.pieces import Order, score
from monotreme.scoring.team import following


def follow() -> None:
    """Take a share of what the leader has to score; nothing, if that is nothing.

    Raises:
        InputError, RecipeError: a model cannot be read, gives no numbers or does not fit.
    """
    with following() as team:
        order = team.await_order()
        if order is not None:
            score(Order.read(Path(order)), team)


def main() -> None:
    end_with_leader()
    try:
        follow()
    except MonotremeError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
