"""The page's server, on this machine alone, until Ctrl-C."""

import socket
import webbrowser
from collections.abc import Callable
from contextlib import closing, suppress

import uvicorn

from monotreme.errors import InputError
from monotreme.review.app import make_app
from monotreme.review.guard import Guard
from monotreme.review.pairs import read_pairs
from monotreme.run import Run
from monotreme.verdicts import FILE

LOOPBACK = "127.0.0.1"


def serve(
    run: Run, reviewer: str, port: int, announce: Callable[[str], None], browser: bool
) -> None:
    """Show the run's pairs and write verdicts down as they are given.

    Args:
        port: 0 takes a free one.
        announce: told each address that opens the page once; the next when one was used.
        browser: also open the first in a browser.

    Raises:
        InputError: nothing to judge, or the port is taken.
    """
    pairs = read_pairs(run)
    addresses: list[str] = []

    def tell(address: str) -> None:
        addresses.append(address)
        announce(address)

    with closing(_listen(port)) as listener, suppress(KeyboardInterrupt):  # the way to end it
        app = make_app(run.recipe.name, pairs, run.folder / FILE, reviewer)
        guarded = Guard(app, listener.getsockname()[1], tell)
        config = uvicorn.Config(guarded, log_level="error", access_log=False, server_header=False)
        if browser:
            webbrowser.open(addresses[0])
        uvicorn.Server(config).run(sockets=[listener])


def _listen(port: int) -> socket.socket:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((LOOPBACK, port))
        listener.listen()
    except (OSError, OverflowError) as error:
        listener.close()
        raise InputError(
            f"cannot listen on {LOOPBACK}:{port} ({error})", "Give another --port"
        ) from None
    return listener
