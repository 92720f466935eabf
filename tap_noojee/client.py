"""The HTTP side: one paced call for one hour, tried again where that helps, and what came of it.

The API key rides in the URL. It is added below everything that keeps or prints a URL, no exception
of the HTTP libraries gets out of here, and text from the server is quoted only if no part of the
key is in it.
"""

from __future__ import annotations

import dataclasses
import email.utils
import errno
import html
import ipaddress
import json
import logging
import queue
import re
import ssl
import threading
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Generic, TypeVar
from urllib.parse import quote, unquote, urlsplit

import msgspec
import requests
from requests.adapters import HTTPAdapter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from tap_noojee.hours import Hour

T = TypeVar("T")

API_PATH = "/njadmin/rest/RecordingAPI"

CONNECT_TIMEOUT = 10
"""Seconds for the host's name, TCP and TLS."""

ATTEMPTS = 5

LONGEST_WAIT = 3600
"""Seconds of a server's `Retry-After` that are heeded."""

LARGEST_ANSWER = 128 * 2**20
"""Bytes: some 350,000 legs, where a large call centre has a few thousand an hour."""


class NoojeeError(Exception):
    """What ends a run and its user can act on: told in one line, without a traceback."""


class Stopped(Exception):  # noqa: N818 - no error, but the user's wish
    """The run was asked to end."""


class Clock:
    """The time, and waiting that a signal ends at once.

    All waiting is on a queue. A signal handler may put into it, so that no exception is ever
    raised from within somebody else's code.
    """

    def __init__(self) -> None:
        """Start with nobody waiting."""
        self.stop_signal: int | None = None
        self._inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def now(self) -> datetime:
        """The present instant, in UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Seconds that no change of the clock moves."""
        return time.monotonic()

    def stop(self, signum: int, _frame: object = None) -> None:
        """Ask the run to end; a signal handler."""
        self.stop_signal = signum
        self._inbox.put(None)

    def check(self) -> None:
        """Raise Stopped if the run was asked to end."""
        if self.stop_signal is not None:
            raise Stopped

    def sleep(self, seconds: float) -> None:
        """Wait, or raise Stopped at once."""
        self._inbox = queue.SimpleQueue()
        self.check()
        try:
            self._inbox.get(timeout=max(0, seconds))
        except queue.Empty:
            return
        raise Stopped

    def run(self, task: Callable[[], T], timeout: float) -> T:
        """Run a task that blocks, or raise Stopped at once.

        The task gets a thread of its own, for some of what it does (looking up a host's name) can
        be interrupted in no other way. Given up, it goes on until it ends or the process does.

        Raises:
            TimeoutError: there is no result within so many seconds.
        """
        inbox = self._inbox = queue.SimpleQueue()
        self.check()
        threading.Thread(target=lambda: inbox.put((task(),)), daemon=True).start()
        try:
            item: tuple[T] | None = inbox.get(timeout=timeout)
        except queue.Empty:
            raise TimeoutError from None
        if item is None:
            raise Stopped
        return item[0]


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    """What the server sent."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclasses.dataclass(frozen=True, slots=True)
class Fault:
    """Why a call brought no list of legs."""

    reason: str
    retry: bool = True
    wait: float = 0
    """Seconds that the server asks to wait."""


class Client(Generic[T]):
    """Calls `retrieveMetaDataByHour`, never sooner than an interval after the last call ended."""

    def __init__(
        self,
        config: Mapping[str, Any],
        decode: Callable[[bytes], T],
        clock: Clock,
        logger: logging.Logger,
    ) -> None:
        """Take the tap's settings, and what makes legs of an array in JSON."""
        self._url = api_url(config["api_url"])
        self._key: str = config["api_key"]
        self._interval: int = config["request_interval"]
        self._timeout: int = config["request_timeout"]
        self._user_agent: str = config["user_agent"]
        self._decode = decode
        self._clock = clock
        self._logger = logger
        self._next_call = clock.monotonic()
        self._warned_of_clock = False
        # At DEBUG the one logs every URL as it is sent, the other quotes headers it cannot read.
        logging.getLogger("urllib3.connectionpool").addFilter(_hide_key)
        logging.getLogger("urllib3.connection").addFilter(_keep_silent)

    def fetch(self, hour: Hour) -> T:
        """The legs that ended in this hour.

        Raises:
            NoojeeError: there is no answer to be had, or none that can be read.
            Stopped: the run was asked to end before there was one.
        """
        attempt = 1
        while True:
            self.keep_pace()
            outcome = self._call(hour)
            now = self._clock.monotonic()
            self._next_call = now + self._interval
            if not isinstance(outcome, Fault):
                return outcome
            if not outcome.retry or attempt == ATTEMPTS:
                break
            attempt += 1
            wait = max(self._interval, outcome.wait)
            self._next_call = now + wait
            self._logger.warning(
                "%s: %s; asking again in %d s (attempt %d of %d)",
                *(hour, outcome.reason, wait, attempt, ATTEMPTS),
            )
        after = f" ({attempt} attempts)" if attempt > 1 else ""
        raise NoojeeError(f"{hour}: {outcome.reason}{after}")

    def keep_pace(self) -> None:
        """Wait until the next call may be made, or raise Stopped."""
        self._clock.sleep(self._next_call - self._clock.monotonic())

    def _call(self, hour: Hour) -> T | Fault:
        limit = CONNECT_TIMEOUT + self._timeout
        deadline = self._clock.monotonic() + limit
        try:
            answer = self._clock.run(lambda: self._post(hour, deadline), limit)
        except TimeoutError:
            return self._too_slow()
        if isinstance(answer, Fault):
            return answer
        self._compare_clocks(hour, answer)
        return self._read(answer)

    def _compare_clocks(self, hour: Hour, answer: Answer) -> None:
        """Warn, once, if by the server's clock the hour was asked for before it was over."""
        server = _date(answer.headers.get("Date", ""))
        if server and server < hour.end and not self._warned_of_clock:
            self._warned_of_clock = True
            ahead = (self._clock.now() - server).total_seconds() / 60
            self._logger.warning(
                "%s: the clock of this machine is %d minutes ahead of the PBX's, where this hour "
                "is not over: legs may be missed. Set the clock, or raise settle_minutes",
                *(hour, ahead),
            )

    def _post(self, hour: Hour, deadline: float) -> Answer | Fault:
        """Send one request. Raises nothing, for the exceptions hold the URL."""
        try:
            with _Session() as session:
                session.mount(self._url, _KeyAdapter(self._key))
                # Without this, a .netrc would be read for credentials.
                session.auth = lambda request: request
                with session.post(
                    f"{self._url}/retrieveMetaDataByHour"
                    f"?date={hour.wall:%Y/%m/%d}&hour={hour.wall.hour}",
                    headers={
                        "User-Agent": self._user_agent,
                        "Accept-Encoding": "identity",
                        # Kept open for a minute, it would be closed just as the next call is sent.
                        "Connection": "close",
                    },
                    timeout=(CONNECT_TIMEOUT, self._timeout),
                    allow_redirects=False,
                    stream=True,
                ) as response:
                    body = bytearray()
                    for chunk in response.iter_content(2**16):
                        body += chunk
                        if len(body) > LARGEST_ANSWER:
                            size = f"{LARGEST_ANSWER // 2**20} MiB"
                            return Fault(f"the answer is larger than {size}", retry=False)
                        if self._clock.monotonic() > deadline:
                            return self._too_slow()
                    return Answer(response.status_code, response.headers, bytes(body))
        except Exception as error:  # noqa: BLE001 - each is told apart below
            return self._broken(error)

    def _too_slow(self) -> Fault:
        return Fault(f"no whole answer within {self._timeout} s")

    def _broken(self, error: Exception) -> Fault:  # noqa: PLR0911 - a line for each cause
        """Say why a request failed, in words without the exception's own."""
        causes = list(_causes(error))
        for cause in causes:
            if isinstance(cause, ssl.SSLCertVerificationError):
                reason = f"the server's certificate is not valid ({cause.verify_message})"
                return Fault(reason, retry=False)
        if isinstance(error, requests.ConnectTimeout):
            return Fault(f"no connection within {CONNECT_TIMEOUT} s")
        if any(isinstance(cause, (requests.Timeout, TimeoutError)) for cause in causes):
            return self._too_slow()
        if isinstance(error, requests.exceptions.ProxyError):
            return Fault("the proxy makes no connection")
        for cause in causes:
            if isinstance(cause, OSError) and cause.strerror and cause.errno not in _BROKEN_OFF:
                return Fault(f"no connection: {cause.strerror}")
        if isinstance(error, requests.RequestException):
            return Fault("the connection broke off")
        return Fault(f"the request failed ({type(error).__name__})")

    def _read(self, answer: Answer) -> T | Fault:
        """Tell what an answer means.

        As the vendor documents it: 200 and an array, else "an appropriate http error code"; and an
        object with Code and Message is a status, whatever it comes with.
        """
        body = answer.body.removeprefix(b"\xef\xbb\xbf").strip()
        if answer.status == requests.codes.no_content:
            body = b"[]"
        elif answer.status != requests.codes.ok or not body.startswith(b"["):
            return self._refusal(answer, body)
        try:
            return self._decode(body)
        except msgspec.ValidationError as error:
            return Fault(self._odd_value(str(error), body), retry=False)
        except _NO_JSON:
            return Fault("the answer is cut short or garbled")

    def _odd_value(self, error: str, body: bytes) -> str:
        """Put msgspec's "… - at `$[6].Duration`" in the words of the tap's other errors."""
        match = re.search(r"`\$\[([0-9]+)\](?:\.(\w+))?`$", error)
        if not match:  # pragma: no cover - there is nothing else that can be odd
            return "the answer is no list of recordings"
        place, field = int(match[1]), match[2]
        if not field:
            return f"record {place + 1}: is not an object"
        try:
            # Unlike msgspec, it takes numbers of any size.
            value = self.quote(json.dumps(json.loads(body)[place][field]))
        except (ValueError, RecursionError):
            value = "the value"
        return f"record {place + 1}: {field}: {value} is not a text"

    def _refusal(self, answer: Answer, body: bytes) -> Fault:
        try:
            content = msgspec.json.decode(body)
        except _NO_JSON:
            content = msgspec.UNSET
        said = f"status {answer.status}"
        if isinstance(content, dict):
            said += ", " + self.quote(f"Code {content.get('Code')}: {content.get('Message')}")
        overloaded = _RATE_LIMIT.search(body[:4096].decode(errors="replace"))
        if overloaded or answer.status == requests.codes.too_many_requests:
            return Fault(f"the PBX takes no more calls for now ({said})", wait=self._wait(answer))
        if answer.status >= requests.codes.internal_server_error:
            return Fault(f"the PBX failed ({said})", wait=self._wait(answer))
        if answer.status != requests.codes.ok:
            return Fault(f"{self._advice(answer)} ({said})", retry=False)
        if isinstance(content, dict):
            return Fault(
                f"the answer is no list of recordings but a message ({said})", retry=False
            )
        if content is msgspec.UNSET and (not body or body.startswith(b"{")):
            return Fault("the answer is cut short or garbled")
        kind = "a web page" if body.startswith(b"<") else "something else"
        return Fault(
            f"the answer is no list of recordings but {kind}: check `api_url`", retry=False
        )

    def _advice(self, answer: Answer) -> str:
        if answer.status in {requests.codes.unauthorized, requests.codes.forbidden}:
            return (
                "the PBX refuses access: check `api_key`, and that Noojee support has put this "
                "machine's IP address on the PBX's whitelist"
            )
        if answer.status == requests.codes.not_found:
            return (
                "the PBX has no such API: check `api_url` (older servers have the API under "
                "/servicemanager/rest/RecordingAPI)"
            )
        if location := answer.headers.get("Location"):
            host = self.quote(_host(location)) or "another page"
            return f"the server redirects to {host}, which is not followed: check `api_url`"
        return "the PBX refuses the call"

    def _wait(self, answer: Answer) -> float:
        """The seconds that `Retry-After` asks for: a number, or a date."""
        text = answer.headers.get("Retry-After", "").strip()
        if text.isdecimal():
            return min(int(text[:9]), LONGEST_WAIT)
        until = _date(text)
        seconds = (until - self._clock.now()).total_seconds() if until else 0
        return min(max(seconds, 0), LONGEST_WAIT)

    def quote(self, text: str) -> str:
        """Text from the server, in one line and cut to a sensible length.

        It is withheld where four characters in a row of the API key are in it, plain or encoded.
        """
        line = "".join(c if c.isprintable() else " " for c in text[:_LONGEST_QUOTE])
        key = self._key.casefold()
        size = min(4, len(key))
        parts = {key[i : i + size] for i in range(len(key) - size + 1)}
        forms = {line, quote(line)}
        for _ in range(2):  # it may be encoded twice
            forms |= {decode(form) for form in forms for decode in _DECODERS}
        if any(part in form.casefold() for part in parts for form in forms):
            return "(not shown: a part of the API key is in it)"
        return line if len(text) <= _LONGEST_QUOTE else f"{line}…"


_LONGEST_QUOTE = 200

_DECODERS: list[Callable[[str], str]] = [
    html.unescape,
    unquote,
    lambda text: unquote(text, "latin-1"),
    lambda text: text.encode("latin-1", "backslashreplace").decode("unicode_escape", "replace"),
]
"""Back from the ways in which text from a server may be encoded."""

_BROKEN_OFF = {errno.ECONNRESET, errno.EPIPE, errno.ECONNABORTED}

_NO_JSON = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

_RATE_LIMIT = re.compile(
    r"rate.?limit|too (many (calls|requests)|soon|often|frequent)|throttl|slow down"
    r"|wait a bit|wait.{1,40}(retry|again)|(once|calls?|requests?) (a|per|every|each) minute",
    re.IGNORECASE,
)
"""How an overload is told in words. The vendor's lead API says "wait a bit and retry" with a 400;
how this one says it is not documented."""


class _Session(requests.Session):
    """Looks at no redirect: it would read all of its body, and stumble over its address."""

    def get_redirect_target(self, resp: requests.Response) -> None:  # noqa: ARG002
        return None


class _KeyAdapter(HTTPAdapter):
    """Adds the key to the URL as it is sent, so that no request or response ever holds it."""

    def __init__(self, key: str) -> None:
        super().__init__()
        self._key = quote(key, safe="")

    def request_url(
        self, request: requests.PreparedRequest, proxies: Mapping[str, str] | None
    ) -> str:
        url = super().request_url(request, proxies)
        return url.replace("?", f"?apiKey={self._key}&", 1)


def _hide_key(record: logging.LogRecord) -> bool:
    """Mend a log record that holds a URL with the key; a logging filter."""
    if isinstance(record.args, tuple):
        record.args = tuple(
            re.sub(r"apiKey=[^&\s]*", "apiKey=***", arg) if isinstance(arg, str) else arg
            for arg in record.args
        )
    return True


def _keep_silent(_: logging.LogRecord) -> bool:
    """Drop a log record; a logging filter."""
    return False


def _date(text: str) -> datetime | None:
    """The instant of a header's date."""
    try:
        date = email.utils.parsedate_to_datetime(text)
        return date.astimezone(UTC) if date.tzinfo else date.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        return None


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The exception and all that it stems from, as arguments too: so urllib3 passes them on."""
    todo: list[object] = [error]
    seen: set[int] = set()
    while todo:
        cause = todo.pop(0)
        if isinstance(cause, BaseException) and id(cause) not in seen:
            seen.add(id(cause))
            yield cause
            todo += [*cause.args, getattr(cause, "reason", None), cause.__cause__]
            todo.append(cause.__context__)


def api_url(text: str) -> str:
    """The URL of the recordings API that a user's `api_url` means.

    Raises:
        ValueError: it cannot be used; says what is wrong, without the text.
    """
    right = "give the address of the PBX, such as https://pbx.example.com"
    try:
        url = urlsplit(text)
        host, port = url.hostname, url.port
    except ValueError:
        raise ValueError(f"is not a URL: {right}") from None
    if not host or port == 0 or not text.isprintable() or " " in text:
        raise ValueError(f"is not a URL: {right}")
    if url.scheme != "https" and not (url.scheme == "http" and _is_loopback(host)):
        raise ValueError(
            f"does not begin with https:// (the API key is in every request): {right}"
        )
    if "@" in url.netloc or "?" in text or "#" in text:
        raise ValueError(f"has a user, a query or a fragment: {right}")
    return f"{url.scheme}://{url.netloc}{url.path.rstrip('/') or API_PATH}"


def _host(text: str) -> str:
    """The host in a URL, if it is one."""
    try:
        return urlsplit(text).netloc
    except ValueError:
        return ""


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
