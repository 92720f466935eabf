"""The API key: it is part of each request's URL, and appears nowhere else.

An adapter adds it below everything that keeps or prints a URL. Text from elsewhere is quoted only
if it contains no part of the key.
"""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote

from requests.adapters import HTTPAdapter
from typing_extensions import override

if TYPE_CHECKING:
    from collections.abc import Mapping

    import requests

MAX_EXCERPT = 200
"""Characters of a quoted text."""

MIN_FRAGMENT = 8
"""Characters in a row that give a key away."""

REDACTED = "(not shown: it contains a part of the API key)"


class KeyAdapter(HTTPAdapter):
    """Adds the key to the URL on its way out, so that no request or response object holds it.

    It must be the only adapter of its session: requests rewrites URLs and picks an adapter by
    prefix, so with a second one a request might leave without the key.
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
    record.exc_info = None
    return True


# urllib3's log lines hold URLs: each request's at DEBUG, and at WARNING the one whose response has
# unreadable headers.
for _name in ("urllib3.connectionpool", "urllib3.util.retry"):
    logging.getLogger(_name).addFilter(_hide_key)
# At DEBUG, this one quotes whatever it cannot parse.
logging.getLogger("urllib3.connection").addFilter(lambda _: False)


def safe_excerpt(text: str, key: str) -> str:
    """The text's first 200 characters in one line, or REDACTED if they contain the key."""
    line = "".join(c if c.isprintable() else " " for c in text[:MAX_EXCERPT])
    if contains_key(line, key):
        return REDACTED
    return line if len(text) <= MAX_EXCERPT else f"{line}…"


def contains_key(text: str, key: str) -> bool:
    """Whether the text contains eight characters in a row of the key, plain or percent-encoded.

    A shorter key counts as a whole. Upper and lower case are the same.
    """
    size = min(MIN_FRAGMENT, len(key))
    forms = [form.casefold() for form in (text, unquote(text), unquote(unquote(text)))]
    fragments = (key[i : i + size].casefold() for i in range(len(key) - size + 1))
    return size > 0 and any(fragment in form for fragment in fragments for form in forms)
