"""What of a text is quoted, and what of a log line is kept, where the API key may be in it."""

from __future__ import annotations

import base64
import logging

import pytest
import requests

from tap_noojee.secrecy import WITHHELD, KeyAdapter, protect_logs, safe_excerpt

KEY = "5f0c7a52-1c1e"


@pytest.mark.parametrize(
    ("text", "excerpt"),
    [
        ("as it came", "as it came"),
        ("one\ntwo\x00three", "one two three"),
        ("x" * 200, "x" * 200),
        ("x" * 201, "x" * 200 + "…"),
        ("x" * 200 + KEY, "x" * 200 + "…"),
        ("", ""),
        ("5f0, 1c1", "5f0, 1c1"),
    ],
)
def test_a_text_is_quoted_in_one_line_of_200_characters(text: str, excerpt: str) -> None:
    """A text without the key is quoted in one line, and an ellipsis tells that there was more."""
    assert safe_excerpt(text, KEY) == excerpt


@pytest.mark.parametrize(
    "text",
    [
        KEY,
        "5f0c",
        "1c1e",
        "7A52",
        "%35%66%30%63",
        "%2535f0c",
        "&#53;f0c",
        "&amp;#53;f0c",
        "\\x35f0c",
        "\\u00355\\u0066\\u0030\\u0063",
        "5\\f0\\c",
        *(base64.b64encode(b"xyz"[:shift] + KEY.encode()).decode() for shift in range(4)),
        base64.urlsafe_b64encode(b"\xfb\xff\xfe" + KEY.encode()).decode(),
    ],
)
def test_four_characters_of_the_key_in_any_form_are_withheld(text: str) -> None:
    """Where any four characters in a row of the key are in a text, all of it is withheld."""
    assert safe_excerpt(f"no: {text}", KEY) == WITHHELD


@pytest.mark.parametrize("key", ["abc", "ABC", "é c", "+/="])
def test_a_short_key_is_withheld_as_a_whole(key: str) -> None:
    """A key of less than four characters is recognised by all of them, a part of it is not."""
    assert safe_excerpt(f"x{key.casefold()}x", key) == WITHHELD
    assert safe_excerpt(f"x{key[:2]}x", key) != WITHHELD


@pytest.mark.parametrize("before", ["", "a", "ab", "abc"])
@pytest.mark.parametrize("behind", ["", "a", "ab", "abc"])
def test_a_key_in_base64_amid_other_letters_is_withheld(before: str, behind: str) -> None:
    """The key's code is found wherever in a run of letters it begins and ends."""
    code = base64.b64encode(KEY.encode()).decode().rstrip("=")
    assert safe_excerpt(f"no {before}{code}{behind}", KEY) == WITHHELD


@pytest.mark.parametrize("key", [">>>>", "????"])
def test_a_key_in_base64_for_urls_is_withheld(key: str) -> None:
    """The two characters in which base64 for URLs differs are read as what they stand for."""
    text = base64.urlsafe_b64encode(key.encode()).decode()
    assert not text.replace("=", "").isalnum()
    assert safe_excerpt(f"key {text}", key) == WITHHELD


def test_a_text_is_quoted_where_there_is_no_key() -> None:
    """Without a key, as in a setting that is empty, there is nothing to withhold."""
    assert safe_excerpt("a text", "") == "a text"


def test_the_key_is_the_first_parameter_of_the_url_that_is_sent() -> None:
    """The key is added before the other parameters, once, and encoded."""
    request = requests.Request("POST", "https://pbx.example.com/api?date=2021/09/14&q=?").prepare()
    url = KeyAdapter("a/b&c?").request_url(request, None)
    assert url == "/api?apiKey=a%2Fb%26c%3F&date=2021/09/14&q=?"
    assert "a%2Fb" not in str(request.url)


@pytest.mark.parametrize("name", ["urllib3.connectionpool", "urllib3.util.retry"])
def test_a_log_line_of_urllib3_is_kept_without_the_key(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A line of urllib3 is logged with the key and the cause taken out."""
    protect_logs()
    with caplog.at_level(logging.DEBUG):
        logger = logging.getLogger(name)
        logger.debug("%s /api?apiKey=%s&hour=3", "POST", KEY, exc_info=ValueError(KEY))
    (record,) = caplog.records
    assert record.getMessage() == "POST /api?apiKey=***&hour=3"
    assert KEY not in caplog.text
