"""What can go wrong, and the answers that are not lists of legs."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import TYPE_CHECKING, Literal, NamedTuple, Self, cast, get_args

if TYPE_CHECKING:
    from collections.abc import Mapping

Kind = Literal[
    "status", "cut", "cut-json", "reset", "slow", "stall", "trickle", "endless",
    "html", "code", "null", "empty", "redirect", "rate", "204", "body",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Failure:
    """Something to go wrong, `times` times (None: for ever), at one hour or (None) at any."""

    kind: Kind
    at: tuple[str, int] | None = None
    times: int | None = 1
    status: int | None = None
    retry_after: int | str | None = None
    body: bytes | None = None
    echo: bool = False
    delay: float = 1

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `kind[=value][@2021-09-14T15][*times]`; a bare `*` is for ever."""
        form = r"([a-z0-9-]+)(?:=(.*?))?(?:@(\d{4}-\d\d-\d\d)T(\d\d?))?(?:\*(\d*))?"
        match = re.fullmatch(form, text)
        if not match or match[1] not in get_args(Kind):
            raise ValueError(text)
        kind, value, date, hour, times = match.groups()
        failure = cls(
            cast("Kind", kind),
            at=(date, int(hour)) if date else None,
            times=1 if times is None else int(times) if times else None,
        )
        match kind, value:
            case _, None:
                return failure
            case "status" | "rate", _:
                return replace(failure, status=int(value))
            case "slow", _:
                return replace(failure, delay=float(value))
            case "body", _:
                return replace(failure, body=value.encode())
        raise ValueError(text)


class Request(NamedTuple):
    """One request as it came; `status` is None where no answer was sent."""

    time: float
    date: str | None
    hour: int | None
    status: int | None
    failure: Kind | None


@dataclass(frozen=True, slots=True)
class Answer:
    """What the server sends."""

    status: int
    body: bytes = b""
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)


def message(status: int, text: str) -> Answer:
    """An error as the vendor's API words it."""
    return Answer(status, json.dumps({"Code": -1, "Message": text}).encode())


def phrase(status: int) -> str:
    """The words that go with an HTTP status."""
    with suppress(ValueError):
        return HTTPStatus(status).phrase
    return "Unknown"


def page(status: int, extra: str = "", **headers: str) -> Answer:
    """An error as a web server shows it."""
    title = f"HTTP Status {status} - {phrase(status)}"
    html = f"<!doctype html><title>{title}</title><h1>{title}</h1>{extra}".encode()
    return Answer(status, html, "text/html;charset=utf-8", headers)
