"""One POST to the PBX: what is sent, how long it may take, and which failures may pass.

No exception of the HTTP libraries leaves this module, since theirs hold the URL with the API key.
"""

from __future__ import annotations

import http.client
import ssl
from typing import TYPE_CHECKING, Any, cast

import requests
import urllib3
from typing_extensions import override
from urllib3.connection import HTTPConnection

from tap_noojee.answers import MAX_MESSAGE_BYTES, Response
from tap_noojee.errors import RequestError, TransientError
from tap_noojee.secrecy import KeyAdapter, protect_logs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

CONNECT_TIMEOUT = 10
"""Seconds for the host's name, TCP and TLS."""

MAX_RESPONSE_BYTES = 64 * 2**20
"""Some 200,000 legs."""


class Attempt:
    """One attempt of a request, watched by the one who waits for it."""

    abandoned = False
    """Whether nobody waits for it any more. It is then no longer sent."""
    sent_at: float | None = None
    """When it was sent, on the monotonic clock; None if it was not, or may not have been."""


class Transport:
    """Sends requests, each on a connection of its own."""

    def __init__(
        self,
        url: str,
        *,
        api_key: str,
        user_agent: str,
        timeout: int,
        monotonic: Callable[[], float],
    ) -> None:
        """Take where to send to, how many seconds an answer may take, and a clock."""
        self._url = url
        self._monotonic = monotonic
        self._key = api_key
        self._timeout = timeout
        self._headers = {
            "User-Agent": user_agent,
            "Accept-Encoding": "identity",
            # Kept open for a minute, it would be closed just as the next request is sent.
            "Connection": "close",
        }
        protect_logs()

    @property
    def time_limit(self) -> float:
        """Seconds after which an attempt is to be abandoned, whatever holds it up."""
        return CONNECT_TIMEOUT + self._timeout

    def timed_out(self) -> TransientError:
        """The error of an attempt that took too long."""
        return TransientError(f"no complete response within {self._timeout} s")

    def post(self, path: str, attempt: Attempt) -> Response:
        """Send a request without a body.

        Raises:
            RequestError: no response came; a TransientError if that may pass.
        """
        try:
            return self._post(path, attempt, self._monotonic() + self.time_limit)
        except RequestError:
            raise
        except Exception as error:  # noqa: BLE001 - of any library, and none may get out of here
            failure = self._connection_error(error)
        # Outside the handler: else the error with the URL would be its context.
        raise failure

    def _post(self, path: str, attempt: Attempt, deadline: float) -> Response:
        with _Session() as session:
            session.adapters.clear()
            session.mount("", _Adapter(self._key, attempt, self._monotonic))
            # Without this, a .netrc would be read for credentials.
            session.auth = lambda request: request
            # Plain http is for this machine alone: sent to a proxy, the key would be read there.
            session.trust_env = self._url.startswith("https:")
            with session.post(
                f"{self._url}/{path}",
                headers=self._headers,
                timeout=(CONNECT_TIMEOUT, self._timeout),
                stream=True,
            ) as response:
                is_answer = response.status_code == requests.codes.ok
                body = bytearray()
                for chunk in response.iter_content(2**16):
                    body += chunk
                    if not is_answer and len(body) >= MAX_MESSAGE_BYTES:
                        break
                    if len(body) > MAX_RESPONSE_BYTES:
                        size = f"{MAX_RESPONSE_BYTES // 2**20} MiB"
                        raise RequestError(f"the answer is larger than {size}")
                    if self._monotonic() > deadline:
                        raise self.timed_out()
                return Response(response.status_code, response.headers, body)

    def _connection_error(self, error: Exception) -> RequestError:
        """The error that the failure of a request stands for, in words without the original's."""
        causes = list(_causes(error))
        for kind, failure, reason in _FAILURES:
            for cause in causes:
                if isinstance(cause, kind):
                    return failure(reason.format(cause=cause, timeout=self._timeout))
        for cause in causes:
            if isinstance(cause, OSError) and cause.strerror:
                return TransientError(f"no connection: {cause.strerror}")
        if type(error) is OSError:  # requests has no better one for it
            return RequestError("REQUESTS_CA_BUNDLE or CURL_CA_BUNDLE: the file does not exist")
        if isinstance(error, requests.RequestException):
            return TransientError(_BROKE_OFF)
        return TransientError(f"the request failed ({type(error).__name__})")


_BROKE_OFF = "the connection broke off"
_BAD_PROXY = "the address of the proxy cannot be used: check HTTPS_PROXY and ALL_PROXY"

_FAILURES: tuple[tuple[type[BaseException], type[RequestError], str], ...] = (
    (
        ssl.SSLCertVerificationError,
        RequestError,
        "the server's certificate is not valid ({cause.verify_message})",
    ),
    # The settings have checked `api_url`: what is left to be wrong is the proxy's address.
    (requests.exceptions.InvalidURL, RequestError, _BAD_PROXY),
    (requests.exceptions.InvalidSchema, RequestError, _BAD_PROXY),
    (urllib3.exceptions.ProxySchemeUnknown, RequestError, _BAD_PROXY),
    (urllib3.exceptions.LocationValueError, RequestError, _BAD_PROXY),
    (requests.ConnectTimeout, TransientError, f"no connection within {CONNECT_TIMEOUT} s"),
    (requests.Timeout, TransientError, "no complete response within {timeout} s"),
    (TimeoutError, TransientError, "no complete response within {timeout} s"),
    (requests.exceptions.ProxyError, TransientError, "the proxy does not connect"),
    (ConnectionResetError, TransientError, _BROKE_OFF),
    (ConnectionAbortedError, TransientError, _BROKE_OFF),
    (BrokenPipeError, TransientError, _BROKE_OFF),
)
"""The first that any cause of a failure matches."""


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


class _Session(requests.Session):
    """Follows no redirect.

    Nor looks at one: it would read all of the body, and trip over a bad address.
    """

    @override
    def get_redirect_target(self, resp: requests.Response) -> None:
        return None


class _Adapter(KeyAdapter):
    """Lets the attempt watch its connection."""

    def __init__(self, key: str, attempt: Attempt, monotonic: Callable[[], float]) -> None:
        super().__init__(key)
        self._watch = {"attempt": attempt, "monotonic": staticmethod(monotonic)}

    @override
    def get_connection_with_tls_context(
        self,
        request: requests.PreparedRequest,
        verify: bool | str | None,
        proxies: Mapping[str, str] | None = None,
        cert: tuple[str, str] | str | None = None,
    ) -> urllib3.HTTPConnectionPool:
        pool = super().get_connection_with_tls_context(request, verify, proxies, cert)
        pool = cast("urllib3.HTTPConnectionPool", pool)
        classes = (_Connection, pool.ConnectionCls)
        pool.ConnectionCls = type("Connection", classes, self._watch)
        return pool


class _FinalResponse(http.client.HTTPResponse):
    """Passes over interim responses such as 103 Early Hints, as http.client does over 100."""

    def _read_status(self) -> tuple[str, int, str]:
        version, status, reason = super()._read_status()  # type: ignore[misc]
        is_interim = status in {http.client.PROCESSING, http.client.EARLY_HINTS}
        return version, http.client.CONTINUE if is_interim else status, reason


class _Connection(HTTPConnection):
    """Notes when a request is sent; sends none of an attempt that has been abandoned."""

    response_class = _FinalResponse
    attempt: Attempt
    monotonic: Callable[[], float]

    @override
    def connect(self) -> None:
        super().connect()
        # The name look-up may have taken minutes, and another attempt be under way.
        if self.attempt.abandoned:
            raise TimeoutError

    @override
    def request(self, *args: Any, **kwargs: Any) -> None:
        super().request(*args, **kwargs)
        self.attempt.sent_at = self.monotonic()
