"""One POST to the PBX: the request, its time limit, and its failures.

Exceptions of the HTTP libraries hold the URL with the API key, so none leaves this module.
"""

import dataclasses
import http.client
import re
import ssl
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

import requests
import urllib3
from typing_extensions import override

from tap_noojee.errors import HourError, RequestError, TransientError, TransientHourError
from tap_noojee.redaction import KeyAdapter, safe_excerpt
from tap_noojee.responses import MAX_MESSAGE_BYTES, Response

CONNECT_TIMEOUT = 10
"""Timeout for connecting, in seconds. It does not cover the DNS lookup; `time_limit` does."""

MAX_RESPONSE_BYTES = 64 * 2**20
"""Largest response we read, in bytes: many times a large call centre's busiest hour."""


_CHECK_PROXY = "check HTTPS_PROXY and ALL_PROXY"
_BAD_PROXY = f"the proxy's address is unusable: {_CHECK_PROXY}"
_NO_SOCKS = f"{_BAD_PROXY}; for a SOCKS proxy, install PySocks in the tap's environment"
_NO_CONNECTION = f"no connection to {{host}} within {CONNECT_TIMEOUT} s"
_TIMEOUT = "no complete response from {host} in time: check the PBX, or raise `request_timeout`"
_LOST = "the connection to {host} was lost"
_TRUNCATED = "the response from {host} is truncated"
_BAD_ENCODING = "the response from {host} does not match its Content-Encoding"
_BAD_HTTP = "the response from {host} is not valid HTTP ({detail})"
_BAD_CERTIFICATE = (
    "the certificate of {host} is not valid ({detail}): to trust your own certificate authority, "
    "set REQUESTS_CA_BUNDLE to its certificate file"
)
_TUNNEL = re.compile(r"Tunnel connection failed: (.*)")

_FAILURES: tuple[tuple[type[BaseException], type[RequestError], str], ...] = (
    (ssl.SSLCertVerificationError, RequestError, _BAD_CERTIFICATE),
    # `api_url` has been validated, so the proxy's address must be wrong.
    (requests.exceptions.InvalidURL, RequestError, _BAD_PROXY),
    (requests.exceptions.InvalidSchema, RequestError, _NO_SOCKS),
    (urllib3.exceptions.LocationValueError, RequestError, _BAD_PROXY),
    (requests.ConnectTimeout, TransientError, _NO_CONNECTION),
    (requests.Timeout, TransientError, _TIMEOUT),
    (TimeoutError, TransientError, _TIMEOUT),
    (ConnectionResetError, TransientError, _LOST),
    (ConnectionAbortedError, TransientError, _LOST),
    (BrokenPipeError, TransientError, _LOST),
    (requests.exceptions.ContentDecodingError, TransientError, _BAD_ENCODING),
    (http.client.IncompleteRead, TransientHourError, _TRUNCATED),
    (http.client.HTTPException, TransientError, _BAD_HTTP),
)
"""The first entry that matches any cause of a failure wins."""


@dataclasses.dataclass(frozen=True)
class Transport:
    """Sends requests, each on its own connection."""

    url: str
    """URL of the API, without the endpoint."""
    api_key: str
    user_agent: str
    timeout: int
    """Time limit for a complete response after connecting, in seconds."""
    monotonic: Callable[[], float]
    """Returns the time in seconds on a clock that never jumps."""

    @property
    def time_limit(self) -> float:
        """Time limit for an attempt, in seconds."""
        return CONNECT_TIMEOUT + self.timeout

    def timeout_error(self) -> TransientError:
        """Build the error for an attempt that took too long."""
        return TransientError(_TIMEOUT.format(host=self._host))

    def post(self, path: str) -> Response:
        """Send a request without a body.

        Raises:
            RequestError: No complete response arrived, or the response was too large. A
                TransientError means that retrying may help.
        """
        try:
            return self._post(path, self.monotonic() + self.time_limit)
        except RequestError:
            raise
        except Exception as error:  # noqa: BLE001 - none may leave this module
            failure = self._build_error(error)
        # Inside the handler, Python would attach the original error, which holds the URL.
        raise failure

    def _post(self, path: str, deadline: float) -> Response:
        headers = {
            "User-Agent": self.user_agent,
            "Accept-Encoding": "identity",
            # The server could close an idle connection just as we reuse it a minute later.
            "Connection": "close",
        }
        with _Session() as session:
            session.adapters.clear()
            session.mount("", KeyAdapter(self.api_key))
            # Without this, requests looks for credentials in .netrc.
            session.auth = lambda request: request
            # Bypass proxies for plain http, which only loopback uses: they could read the key.
            session.trust_env = self.url.startswith("https:")
            started = self.monotonic()
            with session.post(
                f"{self.url}/{path}",
                headers=headers,
                timeout=(CONNECT_TIMEOUT, self.timeout),
                stream=True,
            ) as response:
                is_ok = response.status_code == requests.codes.ok
                body = bytearray()
                for chunk in response.iter_content(2**16):
                    body += chunk
                    if not is_ok and len(body) > MAX_MESSAGE_BYTES:
                        break
                    if len(body) > MAX_RESPONSE_BYTES:
                        raise HourError(
                            f"the response is larger than {MAX_RESPONSE_BYTES // 2**20} MiB"
                        )
                    if self.monotonic() > deadline:
                        raise self.timeout_error()
                return Response(response.status_code, response.headers, body, started)

    @property
    def _host(self) -> str:
        """The host and port, for messages."""
        url = urlsplit(self.url)
        return f"{url.hostname}:{url.port or {'https': 443, 'http': 80}[url.scheme]}"

    def _build_error(self, error: Exception) -> RequestError:
        """Map an exception of the HTTP libraries to an error of the tap."""
        causes = list(_causes(error))
        os_reasons = [c.strerror for c in causes if isinstance(c, OSError) and c.strerror]
        if isinstance(error, requests.exceptions.ProxyError):
            refusals = [match[1] for c in causes if (match := _TUNNEL.fullmatch(str(c)))]
            detail = safe_excerpt((refusals + os_reasons + ["no reason given"])[0], self.api_key)
            # A refusal starts with the proxy's status. Retrying won't help after a 4xx.
            error_type = RequestError if detail.startswith("4") else TransientError
            return error_type(
                f"the proxy did not connect to {self._host} ({detail}): {_CHECK_PROXY}"
            )
        for cause_type, error_type, reason in _FAILURES:
            for cause in causes:
                if isinstance(cause, cause_type):
                    detail = getattr(cause, "verify_message", str(cause))
                    detail = safe_excerpt(detail, self.api_key)
                    return error_type(reason.format(host=self._host, detail=detail))
        if os_reasons:
            return TransientError(f"no connection to {self._host}: {os_reasons[0]}")
        if type(error) is OSError:  # requests raises it for a missing CA bundle
            return RequestError("REQUESTS_CA_BUNDLE or CURL_CA_BUNDLE: the file does not exist")
        if isinstance(error, requests.RequestException):
            return TransientError(_LOST.format(host=self._host))
        return TransientError(f"the request to {self._host} failed ({type(error).__name__})")


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Walk an exception's causes, including those that urllib3 passes as arguments."""
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
    """Ignores redirects.

    Even with `allow_redirects=False`, requests would parse the new address, which may be
    malformed, and read the body, which may be endless.
    """

    @override
    def get_redirect_target(self, resp: requests.Response) -> None:
        return None
