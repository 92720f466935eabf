"""The code blocks and tables of the repository's pages, and a copy of its source."""

import itertools
import re
import shutil
from pathlib import Path

ROOT = Path(__file__).parent.parent


def blocks(page: str, language: str) -> list[str]:
    """Return a page's code blocks in this language."""
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / page).read_text("utf-8"), re.DOTALL)


def block(page: str, containing: str, language: str) -> str:
    """Return a page's only code block in this language that contains the text."""
    (found,) = (one for one in blocks(page, language) if containing in one)
    return found


def table(page: str, *header: str) -> dict[str, list[str]]:
    """Return the rows of the table with this header, keyed by their first cell."""
    lines = (ROOT / page).read_text("utf-8").splitlines()
    rows = [[cell.strip(" `") for cell in line.strip("|").split("|")] for line in lines]
    body = rows[rows.index([*header]) + 2 :]
    return {first: rest for first, *rest in itertools.takewhile(lambda row: len(row) > 1, body)}


def copy_source(folder: Path) -> None:
    """Copy the repository without hidden files and build output."""
    unwanted = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "build", "dist", "output")
    shutil.copytree(ROOT, folder, ignore=unwanted)
