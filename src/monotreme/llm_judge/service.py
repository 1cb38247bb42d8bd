"""One question to the service: bounded in time and bytes, tried again where that may help."""

import asyncio
import ipaddress
import os
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal
from urllib.parse import SplitResult, urlsplit

import httpx2
from pydantic import BaseModel, Field, ValidationError

from monotreme.errors import InputError, RemoteError
from monotreme.recipe import Judge

TRIES = 4  # of a busy service, one out of order, a broken connection
FIRST_PAUSE_SECONDS = 1.0  # before the second try; doubled before each further one
LONGEST_PAUSE_SECONDS = 60.0  # that a service may ask for
MAX_REPLY_BYTES = 65_536  # a verdict and a sentence take under 1,000
MAX_TOKENS = 1_024  # what a talkative model may cost
FATAL = {401: "refuses the key", 403: "refuses the key", 404: "knows no such model or address"}
_SHOWN = 200  # characters of a service's complaint


class UnansweredError(Exception):
    """The service gave no usable answer to one question; its text says why."""


class _Message(BaseModel):
    role: Literal["assistant"]
    content: str
    tool_calls: Annotated[list[Any], Field(max_length=0)] | None = None  # none was offered
    function_call: None = None
    refusal: None = None


class _Choice(BaseModel):
    finish_reason: Literal["stop"]
    message: _Message


class _Completion(BaseModel):
    choices: list[_Choice] = Field(min_length=1, max_length=1)


@dataclass(frozen=True, slots=True)
class Service:
    """Where to ask.

    Attributes:
        key: "" for none; not shown, so that no message can hold it.
        max_pairs: how many pairs it may be asked about.
        timeout: seconds that one reply may take, from the first byte sent to the last one read.
    """

    url: str
    model: str
    max_pairs: int
    timeout: float
    is_local: bool
    key: str = field(repr=False)

    def client(self) -> httpx2.AsyncClient:
        """Follows no redirect: the key and the texts go to the address of the recipe alone."""
        headers = {"Accept-Encoding": "identity"}  # nothing that unfolds to more than was read
        headers |= {"Authorization": f"Bearer {self.key}"} if self.key else {}
        return httpx2.AsyncClient(
            headers=headers,
            timeout=self.timeout,
            follow_redirects=False,
            trust_env=not self.is_local,  # a proxy's address, but not between here and here
        )


def find_service(settings: Judge) -> Service:
    """The service that the recipe names, with the key from the environment; asks nothing yet.

    Raises:
        InputError: not an address that a key may be sent to, or no usable key.
    """
    where = _address(settings.url)
    local = _is_loopback(where.hostname or "")
    shown = f"decontaminate.judge.url {where.scheme}://{where.hostname}"  # without a password
    if "@" in where.netloc:
        raise InputError(f"{shown} holds a password", "Put the key into the environment alone")
    if where.scheme not in (("https", "http") if local else ("https",)) or not where.hostname:
        raise InputError(f"{shown} is not safe", "Use https://, or http:// on this machine only")
    key = os.environ.get(settings.key_env, "").strip()
    if not key and not local:
        raise InputError(f"{settings.key_env} is not set", "Set it to the key of the judge's url")
    if not (key.isascii() and (key.isprintable() or not key)):
        raise InputError(f"{settings.key_env} is no key", "Set it to one line of plain ASCII")
    url = where._replace(path=where.path.rstrip("/") + "/chat/completions", fragment="").geturl()
    return Service(url, settings.model, settings.max_pairs, settings.timeout, local, key)


def _address(url: str) -> SplitResult:
    try:
        httpx2.URL(url)
        where = urlsplit(url)
        _ = where.port  # read, it is checked
    except (ValueError, httpx2.InvalidURL):  # not shown: it may hold a password anywhere
        raise InputError(
            "decontaminate.judge.url is no address", "Use https://host, with a port up to 65,535"
        ) from None
    return where


def _is_loopback(host: str) -> bool:
    with suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


async def complete(client: httpx2.AsyncClient, service: Service, system: str, user: str) -> str:
    """What the model says to one message, at temperature 0.

    Raises:
        UnansweredError: no usable answer, after trying again where that may help.
        RemoteError: the service will answer none of the questions.
    """
    body = {
        "model": service.model,
        "temperature": 0,
        "max_tokens": MAX_TOKENS,
        "messages": [{"role": "system", "content": system}, {"role": "user", "content": user}],
    }
    pause = FIRST_PAUSE_SECONDS
    for further in reversed(range(TRIES)):
        try:
            status, wait, reply = await _post(client, service, body)
        except (httpx2.TransportError, TimeoutError) as error:
            status, wait, reply = 0, 0.0, str(error).encode() or type(error).__name__.encode()
        if status == 200:
            return _content(reply)
        if status in FATAL:
            shown = service.url.partition("?")[0]  # what follows may be a secret
            raise RemoteError(
                f"{shown} {FATAL[status]} ({status}, model {service.model!r})",
                "Correct decontaminate.judge, or the key in the environment",
            )
        if not further or not (status in (0, 408, 429) or status >= 500):
            break
        await asyncio.sleep(max(wait, pause))
        pause *= 2
    raise UnansweredError(f"{status or 'no connection'}: {_printable(reply, service.key)}")


async def _post(
    client: httpx2.AsyncClient, service: Service, body: dict[str, Any]
) -> tuple[int, float, bytes]:
    """Status, seconds that the service asks to wait, and the reply as it was sent."""
    reply = b""
    async with (
        asyncio.timeout(service.timeout),
        client.stream("POST", service.url, json=body) as response,
    ):
        kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
        if response.status_code == 200 and kind != "application/json":
            raise UnansweredError("the reply is not application/json")
        async for part in response.aiter_raw():
            reply += part
            if len(reply) > MAX_REPLY_BYTES:
                raise UnansweredError(f"the reply is over {MAX_REPLY_BYTES:,} bytes")
    return response.status_code, _wait(response.headers.get("retry-after", "")), reply


def _wait(asked: str) -> float:
    """Retry-After in seconds; a date is not looked at."""
    return min(float(asked), LONGEST_PAUSE_SECONDS) if asked.isdecimal() else 0.0


def _content(reply: bytes) -> str:
    try:
        return _Completion.model_validate_json(reply).choices[0].message.content
    except ValidationError as error:
        raise UnansweredError(f"not a completion: {error.errors()[0]['msg']}") from None


def _printable(reply: bytes, key: str) -> str:
    """A service's complaint in one line, without the key that it may repeat."""
    text = reply.decode("utf-8", "replace")
    text = " ".join((text.replace(key, "(the key)") if key else text).split())[:_SHOWN]
    return "".join(c if c.isprintable() else "\ufffd" for c in text)
