"""What can go wrong, and the answers that are not lists of legs."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import TYPE_CHECKING, Literal, NamedTuple, Self, cast, get_args

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

Kind = Literal[
    "status", "cut", "cut-json", "reset", "slow", "stall", "trickle", "endless",
    "html", "code", "null", "empty", "redirect", "rate", "204", "body",
    "early-hints", "huge",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Failure:
    """Something that goes wrong, `times` times (None: always), for one hour or (None) for any.

    The body of a "huge" answer is an array of `size` bytes that repeats `body`.
    """

    kind: Kind
    at: tuple[str, int] | None = None
    times: int | None = 1
    status: int | None = None
    retry_after: int | str | None = None
    body: bytes | None = None
    echo: bool = False
    delay: float = 1
    size: int = 2**28

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `kind[=value][@2021-09-14T15][*times]`; a bare `*` means always."""
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
            case "huge", _:
                return replace(failure, size=int(value))
            case "slow", _:
                return replace(failure, delay=float(value))
            case "body", _:
                return replace(failure, body=value.encode())
        raise ValueError(text)

    def answer(self, base: str, target: str, *, too_soon: Answer) -> Answer | None:
        """The wrong answer to a request, or None where the right one goes wrong on its way."""
        url = f"{base}{target}"
        error = page(self.status or 503, f"<p>{url}</p>" if self.echo else "")
        if self.body is not None:
            error = replace(error, body=self.body + (url.encode() if self.echo else b""))
        if self.retry_after is not None:
            error = replace(error, headers={"Retry-After": str(self.retry_after)})
        login = f"{base}/login?{target.partition('?')[2]}"
        return {
            "status": error,
            "html": page(200, "<form action='login'>Please log in</form>"),
            "code": message(200, "the recording service is not available"),
            "null": Answer(200, b"null"),
            "empty": Answer(200),
            "redirect": Answer(302, headers={"Location": login}),
            "rate": replace(too_soon, headers=error.headers),
            "204": Answer(204),
            "body": Answer(200, self.body or b""),
            "huge": Answer(self.status or 200, self.body or b"{},"),
        }.get(self.kind)


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


def repeat_in_array(unit: bytes, size: int) -> Iterator[bytes]:
    """A JSON array of `size` bytes that repeats `unit`, in pieces, so that it takes no memory."""
    count, rest = divmod(size - len(b"[]"), len(unit))
    a_piece = 2**16 // len(unit) + 1
    yield b"["
    while count > a_piece:
        yield unit * a_piece
        count -= a_piece
    # The last comma would not be JSON, and spaces make up for what does not fill another unit.
    last = (unit * count).removesuffix(b",")
    yield last + b" " * (len(unit) * count - len(last) + rest) + b"]"
