"""Keep the API key in the URL of each request, and nowhere else.

requests keeps URLs in its objects, so an HTTP adapter adds the key only when it hands the URL to
urllib3. Log filters remove it from urllib3's messages. `safe_excerpt` withholds outside text,
such as a response or a setting, if it contains eight consecutive characters of the key.
"""

import logging
import re
from collections.abc import Mapping
from urllib.parse import quote, unquote

import requests
from requests.adapters import HTTPAdapter
from typing_extensions import override

MAX_EXCERPT = 200
"""Longest text we quote, in characters."""

MIN_FRAGMENT = 8
"""Shortest part of the key that we hide, in characters."""

REDACTED = "(not shown: it contains part of the API key)"


class KeyAdapter(HTTPAdapter):
    """Adds the key when the URL goes to urllib3, so that no URL that requests keeps contains it.

    The URL must have a query. The adapter must be the only one of its session: requests picks an
    adapter by the URL's prefix, so with a second one a request might leave without the key.
    """

    def __init__(self, key: str) -> None:
        super().__init__()
        self._key = quote(key, safe="")

    @override
    def request_url(
        self, request: requests.PreparedRequest, proxies: Mapping[str, str] | None
    ) -> str:
        url = super().request_url(request, proxies)
        return url.replace("?", f"?apiKey={self._key}&", 1)


def _hide_key(record: logging.LogRecord) -> bool:
    record.msg, record.args = re.sub(r"apiKey=[^&\s]*", "apiKey=***", record.getMessage()), ()
    return True


# At DEBUG, these loggers log the URLs of requests and retries.
for _name in ("urllib3.connectionpool", "urllib3.util.retry"):
    logging.getLogger(_name).addFilter(_hide_key)
# This logger's warnings about bad headers quote the URL and the raw data, so drop all it logs.
logging.getLogger("urllib3.connection").addFilter(lambda _: False)


def safe_excerpt(text: str, key: str) -> str:
    """Return the first 200 characters on one line, or REDACTED if they contain part of the key."""
    line = "".join(c if c.isprintable() else " " for c in text[:MAX_EXCERPT])
    if contains_key(line, key):
        return REDACTED
    return line if len(text) <= MAX_EXCERPT else f"{line}…"


def contains_key(text: str, key: str) -> bool:
    """Whether the text contains eight consecutive characters of the key, plain or percent-encoded.

    A shorter key counts as a whole. Case is ignored.
    """
    size = min(MIN_FRAGMENT, len(key))
    forms = [form.casefold() for form in (text, unquote(text), unquote(unquote(text)))]
    fragments = (key[i : i + size].casefold() for i in range(len(key) - size + 1))
    return size > 0 and any(fragment in form for fragment in fragments for form in forms)
