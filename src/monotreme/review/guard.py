"""Who may ask: only the browser that opened the printed address, and only from the page itself.

The texts are strangers' and the machine may have other users and other open pages, so: one-time
token → session cookie; Host against DNS rebinding; Origin against requests of other pages; a content
security policy under which a text that became markup could do nothing.
"""

import hmac
import secrets
from collections.abc import Callable

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Guard:
    """ASGI middleware around the page.

    Args:
        port: where the server listens.
        announce: told the address with the next token; each opens one session.
    """

    def __init__(self, app: ASGIApp, port: int, announce: Callable[[str], None]) -> None:
        self._app = app
        self._hosts = {f"127.0.0.1:{port}", f"localhost:{port}"}
        self._cookie = f"monotreme-{port}"  # cookies know no ports
        self._session = secrets.token_urlsafe(32)
        self._token = ""
        self._address = f"http://127.0.0.1:{port}/?token="
        self._announce = announce
        self.renew()

    def renew(self) -> None:
        """Make the next one-time token."""
        self._token = secrets.token_urlsafe(32)
        self._announce(self._address + self._token)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return

        async def send_safely(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        request = Request(scope, receive)
        answer = self._refusal(request)
        await (answer or self._app)(scope, receive, send_safely)

    def _refusal(self, request: Request) -> Response | None:
        """What is said instead of passing the request on; None for one that may pass."""
        if request.headers.get("host") not in self._hosts:
            return PlainTextResponse("This server answers on 127.0.0.1 only.", 421)
        if request.method not in ("GET", "HEAD") and not self._is_the_pages(request.headers):
            return PlainTextResponse("This request is not from the review page.", 403)
        if _same(request.cookies.get(self._cookie, ""), self._session):
            return RedirectResponse("/", 303) if "token" in request.query_params else None
        if request.url.path == "/" and _same(request.query_params.get("token", ""), self._token):
            return self._opened()
        return PlainTextResponse(
            "Open the newest address that the terminal shows: each opens the page once.", 403
        )

    def _is_the_pages(self, headers: Headers) -> bool:
        own = {f"http://{host}" for host in self._hosts}
        return headers.get("origin") in own and headers.get("content-type") == "application/json"

    def _opened(self) -> Response:
        answer = RedirectResponse("/", 303)  # so that no history and no screen keeps the token
        answer.set_cookie(self._cookie, self._session, httponly=True, samesite="strict")
        self.renew()
        return answer


def _same(given: str, right: str) -> bool:
    return hmac.compare_digest(given.encode(), right.encode())
