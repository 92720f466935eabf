"""The API key: it rides in the URL of each request, and must be seen nowhere else.

It is added below everything that keeps or prints a URL, and text from elsewhere is quoted only if
no part of the key is in it.
"""

from __future__ import annotations

import base64
import binascii
import html
import logging
import re
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote

from requests.adapters import HTTPAdapter
from typing_extensions import override

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import requests

MAX_EXCERPT = 200
"""Characters."""

_PART = 4
"""Characters in a row by which a key can be recognised."""

WITHHELD = "(not shown: a part of the API key is in it)"


class KeyAdapter(HTTPAdapter):
    """Adds the key to the URL as it is sent, so that no request or response ever holds it.

    It must be the only adapter of a session. requests rewrites URLs (`/./`, `|`, IDN hosts), and
    picks an adapter by prefix: one that no longer matched would send the call without the key.
    """

    def __init__(self, key: str) -> None:
        """Take the key."""
        super().__init__()
        self._key = quote(key, safe="")

    @override
    def request_url(
        self, request: requests.PreparedRequest, proxies: Mapping[str, str] | None
    ) -> str:
        url = super().request_url(request, proxies)
        return url.replace("?", f"?apiKey={self._key}&", 1)


def protect_logs() -> None:
    """Keep the key out of what urllib3 logs."""
    # At DEBUG it logs every URL; at WARNING, headers that it cannot parse, with the URL.
    for name in ("urllib3.connectionpool", "urllib3.util.retry"):
        logging.getLogger(name).addFilter(_hide_key)
    # At DEBUG it quotes what it cannot parse.
    logging.getLogger("urllib3.connection").addFilter(_drop)


def _hide_key(record: logging.LogRecord) -> bool:
    record.msg, record.args = re.sub(r"apiKey=[^&\s]*", "apiKey=***", record.getMessage()), ()
    # The cause, too, may quote what came from the server.
    record.exc_info = None
    return True


def _drop(_: logging.LogRecord) -> bool:
    return False


def safe_excerpt(text: str, key: str) -> str:
    """The text in one line, cut to a sensible length, or withheld if it may show the key.

    That is so where any four characters in a row of the key are in it, plain or encoded.
    """
    line = "".join(c if c.isprintable() else " " for c in text[:MAX_EXCERPT])
    if _shows(line, key.casefold()):
        return WITHHELD
    return line if len(text) <= MAX_EXCERPT else f"{line}…"


def _shows(line: str, key: str) -> bool:
    size = min(_PART, len(key))
    parts = {key[i : i + size] for i in range(len(key) - size + 1)} - {""}
    forms = {line, quote(line)}
    for _ in range(2):  # it may be encoded twice
        forms |= {decode(form) for form in forms for decode in _DECODERS}
    return any(part in form.casefold() for part in parts for form in forms)


def _decode_base64(text: str) -> str:
    return " ".join(_base64_parts(text.replace("-", "+").replace("_", "/")))


def _base64_parts(text: str) -> Iterator[str]:
    for run in re.findall(r"[A-Za-z0-9+/]{6,}", text):
        # What stands before the key in the text may shift its code by one to three characters.
        for shift in range(4):
            code = run[shift:]
            code = code[: len(code) - (len(code) % 4 == 1)]
            try:
                yield base64.b64decode(code + "=" * (-len(code) % 4)).decode("latin-1")
            except binascii.Error:  # pragma: no cover - the alphabet and the length are right
                continue


_DECODERS: list[Callable[[str], str]] = [
    html.unescape,
    unquote,
    lambda text: unquote(text, "latin-1"),
    lambda text: re.sub(r"\\(?:u00|x)([0-9A-Fa-f]{2})", lambda m: chr(int(m[1], 16)), text),
    lambda text: text.replace("\\", ""),
    _decode_base64,
]
"""Back from the ways in which text from a server may be encoded."""
