"""Simulated failures, and the responses that are not lists of legs."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from http.client import responses
from threading import TIMEOUT_MAX
from typing import Any, Literal, NamedTuple, Self, cast, get_args

# "cut" sends half the body, less than its Content-Length. "cut-json" sends half without a
# Content-Length, which is valid HTTP. "stall" never responds, and "trickle" sends a byte a second.
# "endless" is an array that never ends, "huge" one of `size` bytes. "code" is a status object.
Kind = Literal[
    "status", "cut", "cut-json", "reset", "slow", "stall", "trickle", "endless",
    "html", "code", "null", "empty", "redirect", "rate", "204", "body", "huge",
]  # fmt: skip
KINDS = ", ".join(get_args(Kind))
TOO_SOON = "wait a bit and retry"
FORM = "KIND[=VALUE][@HOUR][*TIMES]"

# The field that a kind's VALUE sets, and how to read it.
_VALUES: dict[str, tuple[str, Callable[[str], Any]]] = {
    "status": ("status", int), "rate": ("status", int), "huge": ("size", int),
    "slow": ("delay", float), "body": ("body", str.encode),
}  # fmt: skip


class Request(NamedTuple):
    """A request; `time` is in monotonic seconds, and `status` is None without a response."""

    time: float
    date: str | None
    hour: int | None
    status: int | None
    failure: Kind | None


@dataclass(frozen=True, slots=True)
class Response:
    """A response from the server."""

    status: int
    body: bytes = b""
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def status_line(self) -> str:
        return f"{self.status} {responses.get(self.status, 'Unknown')}"

    @classmethod
    def message(cls, status: int, text: str) -> Self:
        """Build an error in the form of the vendor's API."""
        return cls(status, json.dumps({"Code": -1, "Message": text}).encode())

    @classmethod
    def page(cls, status: int, extra: str = "", **headers: str) -> Self:
        title = f"HTTP Status {cls(status).status_line}"
        html = f"<!doctype html><title>{title}</title><h1>{title}</h1>{extra}".encode()
        return cls(status, html, "text/html;charset=utf-8", headers)


@dataclass(frozen=True, slots=True)
class Failure:
    """A failure of the next `times` requests, or of all if `times` is None.

    `at` limits it to one hour, for example `("2021-09-14", 15)`. `delay` is in seconds. With
    "status", `echo` adds the URL, including the key, to the body. A "huge" response is an array of
    `size` bytes that repeats `body`, which must end in a comma.
    """

    kind: Kind
    at: tuple[str, int] | None = None
    times: int | None = 1
    status: int | None = None
    retry_after: int | str | None = None
    body: bytes | None = None
    content_type: str = "application/json"
    echo: bool = False
    delay: float = 1
    size: int = 2**28

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `kind[=value][@2021-09-14T15][*times]`; a bare `*` means always."""
        form = r"([a-z0-9-]+)(?:=(.*?))?(?:@(\d{4}-\d\d-\d\dT\d\d?))?(?:\*([1-9]\d*|))?"
        match = re.fullmatch(form, text, re.ASCII | re.DOTALL)
        if not match or match[1] not in get_args(Kind):
            raise ValueError(f"{text!r} does not match {FORM}; the kinds are {KINDS}")
        kind, value, at, times = match.groups()
        fields: dict[str, Any] = {}
        problem = f"{kind} cannot have the value {value!r}"
        try:
            if value is not None:
                name, read = _VALUES[kind]
                fields[name] = read(value)
            if at:
                problem = f"{at} is not an hour"
                hour = datetime.strptime(at, "%Y-%m-%dT%H")  # noqa: DTZ007 - a wall clock's hour
                fields["at"] = f"{hour:%Y-%m-%d}", hour.hour
        except (KeyError, ValueError):
            raise ValueError(f"{text!r}: {problem}") from None
        if not 0 <= fields.get("delay", 0) <= TIMEOUT_MAX:
            raise ValueError(f"{text!r}: the delay is out of range")
        if times is not None:
            fields["times"] = int(times) if times else None
        return cls(cast("Kind", kind), **fields)

    def response(self, url: str, rate_limit_status: int) -> Response | None:
        """Build a replacement for the normal response; None if only its transmission differs."""
        error = Response.page(self.status or 503, f"<p>{url}</p>" if self.echo else "")
        if self.body is not None:
            error = replace(error, body=self.body + (url.encode() if self.echo else b""))
        if self.retry_after is not None:
            error = replace(error, headers={"Retry-After": str(self.retry_after)})
        status = self.status or 200
        return {
            "status": error,
            "html": Response.page(200, "<form action='login'>Please log in</form>"),
            "code": Response.message(200, "the recording service is not available"),
            "null": Response(200, b"null"),
            "empty": Response(200),
            "redirect": Response(302, headers={"Location": f"/login?{url.partition('?')[2]}"}),
            "rate": Response.message(self.status or rate_limit_status, TOO_SOON),
            "204": Response(204),
            "body": Response(status, self.body or b"", self.content_type),
            "huge": Response(status, self.body or b"{},", self.content_type),
        }.get(self.kind)
