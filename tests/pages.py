"""Code blocks in the documentation."""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent


def blocks(page: str, language: str) -> list[str]:
    """The blocks of a page in this language."""
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / page).read_text("utf-8"), re.DOTALL)


def block(page: str, containing: str, language: str) -> str:
    """The only block of a page in this language that contains a text."""
    (found,) = (one for one in blocks(page, language) if containing in one)
    return found
