"""What the pages say: their blocks, and their commands run as they stand."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parent.parent


def block(page: str, containing: str, language: str) -> str:
    """The one block of a page in a language that contains a text."""
    blocks = re.findall(rf"```{language}\n(.*?)```", (ROOT / page).read_text("utf-8"), re.DOTALL)
    (found,) = (one for one in blocks if containing in one)
    return str(found)


def shell(text: str, cwd: Path, environment: dict[str, str], answer: str = "") -> str:
    """Run the text of a page in a shell that finds the Meltano of the tests."""
    path = f"{cwd.parent / 'venv' / 'bin'}{os.pathsep}{environment['PATH']}"
    process = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", text],
        cwd=cwd,
        env=environment | {"PATH": path},
        input=answer,
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.returncode == 0, process.stdout
    return process.stdout
