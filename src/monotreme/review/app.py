"""What the page asks and is answered: pairs, their texts, verdicts."""

import json
import threading
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from monotreme import verdicts
from monotreme.errors import MonotremeError
from monotreme.records import VERDICTS, Verdict
from monotreme.review.pairs import IN_LIST, Pairs

MAX_BODY_BYTES = 2**20  # of a request: the numbers of 100,000 pairs
PAGE = {
    "/": ("page.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
    "/list.js": ("list.js", "text/javascript"),
    "/pair.js": ("pair.js", "text/javascript"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}


class Book:
    """The verdicts file, read again when someone has written to it."""

    def __init__(self, path: Path, pairs: Pairs) -> None:
        self._path = path
        self._pairs = pairs
        self._lock = threading.Lock()
        self._seen: tuple[int, int] | None = None
        self._lines: list[verdicts.Line] = []

    def lines(self) -> list[verdicts.Line]:
        with self._lock:
            state = self._path.stat() if self._path.exists() else None
            seen = (state.st_size, state.st_mtime_ns) if state else None
            if seen != self._seen:
                self._lines, self._seen = verdicts.read(self._path), seen
            return self._lines

    def since(self, after: int) -> dict[str, Any]:
        """The verdicts on pairs of this page from line `after` on; all of them where it is past the end."""
        lines = self.lines()
        start = after if 0 <= after <= len(lines) else 0
        new = [
            [self._pairs.number[line.pair], line.verdict, line.reviewer, line.at]
            for line in lines[start:]
            if line.pair in self._pairs.number
        ]
        agreed = [one._asdict() for one in verdicts.agreement(lines)] if new else None
        return {"start": start, "next": len(lines), "verdicts": new, "agreement": agreed}

    def add(self, given: Mapping[int, Verdict | None], reviewer: str) -> None:
        at = verdicts.now()
        keys = [(self._pairs.key(number), verdict) for number, verdict in given.items()]
        verdicts.append(
            self._path, [verdicts.Line(*key, verdict, reviewer, at) for key, verdict in keys]
        )


def make_app(run: str, pairs: Pairs, path: Path, reviewer: str) -> Starlette:
    """The page of one reviewer.

    Args:
        run: its name, shown on the page.
        path: the verdicts file.
    """
    book = Book(path, pairs)

    def listed(_: Request) -> Response:
        about = {"run": run, "reviewer": reviewer, "verdicts": VERDICTS, "columns": IN_LIST}
        return JSONResponse({**about, "pairs": pairs.listed()})

    def detail(request: Request) -> Response:
        number = request.path_params["number"]
        if number >= len(pairs.rows):
            raise HTTPException(404, f"There are {len(pairs.rows)} pairs.")
        return JSONResponse(pairs.detail(number))

    def search(request: Request) -> Response:
        return JSONResponse(pairs.search(request.query_params.get("text", "")))

    def news(request: Request) -> Response:
        after = request.query_params.get("after", "0")
        return JSONResponse(book.since(int(after) if after.isdecimal() else 0))

    async def give(request: Request) -> Response:
        given = _given(await _body(request), len(pairs.rows))
        await run_in_threadpool(book.add, given, reviewer)
        return JSONResponse({"given": len(given)})

    def spreadsheet(_: Request) -> Response:
        text = verdicts.to_csv(book.lines(), pairs.for_people())
        shown = {"Content-Disposition": 'attachment; filename="verdicts.csv"'}
        return Response(text, media_type="text/csv", headers=shown)

    return Starlette(
        routes=[
            *(Route(path, _static(*kind)) for path, kind in PAGE.items()),
            Route("/api/pairs", listed),
            Route("/api/pairs/{number:int}", detail),
            Route("/api/search", search),
            Route("/api/verdicts", news, methods=["GET"]),
            Route("/api/verdicts", give, methods=["POST"]),
            Route("/api/verdicts.csv", spreadsheet),
        ],
        exception_handlers={MonotremeError: _failed, HTTPException: _failed},
    )


def _static(name: str, media_type: str) -> Any:
    content = files("monotreme.review").joinpath("page", name).read_bytes()

    def answer(_: Request) -> Response:
        return Response(content, media_type=media_type)

    return answer


async def _body(request: Request) -> Any:
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > MAX_BODY_BYTES:
            raise HTTPException(413, f"A request may have {MAX_BODY_BYTES:,} bytes.")
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise HTTPException(400, "The request is no JSON.") from None


def _given(body: Any, num_pairs: int) -> dict[int, Verdict | None]:
    """Pair number → verdict, from [[number, verdict], …]."""
    if not isinstance(body, list) or not body:
        raise HTTPException(400, "The request is no list of verdicts.")
    for entry in body:
        if not (isinstance(entry, list) and len(entry) == 2):
            raise HTTPException(400, "A verdict is a pair's number and a word.")
        number, verdict = entry
        if type(number) is not int or not 0 <= number < num_pairs:
            raise HTTPException(400, f"There is no such pair among {num_pairs}.")
        if verdict is not None and verdict not in VERDICTS:
            raise HTTPException(400, f"A verdict is one of {', '.join(VERDICTS)}, or null.")
    return dict(body)


async def _failed(_: Request, error: Exception) -> Response:
    """The page shows the message; the server goes on."""
    status = error.status_code if isinstance(error, HTTPException) else 500
    text = error.detail if isinstance(error, HTTPException) else str(error)
    return JSONResponse({"error": text}, status)
