"""Do the tests notice when the code is changed? Changes it bit by bit and runs them each time.

    uv run --extra simulator --group test python tests/mutants.py hours dates
    uv run --extra simulator --group test python tests/mutants.py client --sample 30 --resume

Each mutant is written into a copy of the repository, so that the processes that tests start see
it, too. Its tests run in a fork of a process that has imported all but the tap: a start takes half
a second, not five. Where they need far longer than without a mutant, it is timed out. Unix only.

Survivors are printed as diffs; what is known of them is in CONTRIBUTING.md.

Why not a known tool: mutmut leaves out decorated functions, and what stands outside of functions
(zone names, patterns, limits); cosmic-ray changes the working copy, has one list of tests for all
modules, and starts Python anew for each mutant.
"""

from __future__ import annotations

import argparse
import contextlib
import difflib
import hashlib
import importlib
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
from importlib.metadata import entry_points
from multiprocessing import get_context
from pathlib import Path

import hypothesis
import pytest
from mutations import mutants

ROOT = Path(__file__).parent.parent

TESTS = {
    "answers": "answers client hostile secrecy",
    "client": "client hostile streams command_line",
    "coverage": "coverage properties sequences",
    "dates": "dates zone_names settings properties",
    "hours": "hours coverage properties",
    "legs": "legs streams client hostile secrecy",
    "progress": "progress streams",
    "secrecy": "excerpt secrecy client",
    "settings": "settings hub client command_line secrecy",
    "streams": "streams sdk client sequences command_line",
    "transport": "transport client hostile secrecy",
    "waiting": "waiting client command_line",
    "writer": "writer",
    "zone_names": "zone_names dates",
}
"""The test files that concern a module, the fastest first."""

MAX_MEMORY = 8 * 2**30
"""Bytes of address space: a loop that gathers without end shall not take all there is."""

RESULTS = ROOT / ".mutants.jsonl"

PRELOADED = ("tap_noojee.tap", "tap_noojee.simulator", "hypothesis.stateful")


def main() -> None:
    """Test the mutants of some modules."""
    parser = argparse.ArgumentParser(
        prog="tests/mutants.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("modules", nargs="*", default=TESTS, help="all, if none is given")
    parser.add_argument("--sample", type=int, help="so many mutants of each module, at random")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    parser.add_argument("--resume", action="store_true", help="keep the kills of earlier runs")
    options = parser.parse_args()
    if unknown := set(options.modules) - TESTS.keys():
        parser.error(f"not in TESTS: {', '.join(unknown)}")
    # So that the tests that are under way are ended, too, and the copy is removed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    known: dict[str, str] = {}
    if options.resume and RESULTS.exists():
        known = dict(map(json.loads, RESULTS.read_text("utf-8").splitlines()))
    rows = ["| module | mutants | killed | timed out | survived |", f"|{' --- |' * 5}"]
    with tempfile.TemporaryDirectory() as folder, RESULTS.open("a") as results:
        runner = Runner(Path(folder))
        for module in options.modules:
            source = (ROOT / "tap_noojee" / f"{module}.py").read_text("utf-8")
            chosen = every = mutants(source)
            if options.sample and options.sample < len(every):
                places = random.Random(options.seed).sample(range(len(every)), options.sample)  # noqa: S311 - no secret
                chosen = [every[place] for place in sorted(places)]
            counts = {"killed": 0, "timed out": 0, "survived": 0}
            for place, mutant in enumerate(chosen, 1):
                key = f"{module} {hashlib.sha256(mutant.encode()).hexdigest()}"
                verdict = known.get(key, "survived")
                if verdict == "survived":  # there may be a new test
                    verdict = runner.verdict(module, mutant)
                    print(json.dumps([key, verdict]), file=results, flush=True)
                counts[verdict] += 1
                change = diff(module, source, mutant)
                line = change.split("@@")[1].split()[0]
                print(f"{module}{line} ({place}/{len(chosen)}): {verdict}", file=sys.stderr)  # noqa: T201
                if verdict != "killed":
                    print(f"{verdict}:\n{change}", flush=True)  # noqa: T201
            figure = f"{len(chosen)} of {len(every)}" if chosen is not every else f"{len(every)}"
            rows.append(f"| {module} | {figure} | {' | '.join(map(str, counts.values()))} |")
    print(*rows, sep="\n")  # noqa: T201


def diff(module: str, source: str, mutant: str) -> str:
    """The change in the usual form."""
    name = f"tap_noojee/{module}.py"
    before, after = source.splitlines(keepends=True), mutant.splitlines(keepends=True)
    return "".join(difflib.unified_diff(before, after, name, name, n=0))


class Runner:
    """Runs tests on mutants in a copy of the repository."""

    def __init__(self, folder: Path) -> None:
        """Make the copy, and import what all tests need."""
        self._root = folder / "copy"
        self._log = folder / "log"
        self._limits: dict[str, float] = {}
        self._written = 0
        unwanted = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info")
        shutil.copytree(ROOT, self._root, ignore=unwanted)
        # Found as a subfolder, since nothing is installed from here.
        (self._root / "tap_noojee" / "schemas").symlink_to(self._root / "schemas")
        os.chdir(self._root)
        os.environ["PYTHONPATH"] = str(self._root)
        sys.path[0] = str(self._root)
        for name in PRELOADED:
            importlib.import_module(name)
        for plugin in entry_points(group="pytest11"):
            plugin.load()
        for name in [name for name in sys.modules if name.split(".")[0] == "tap_noojee"]:
            del sys.modules[name]
        # The first example that fails is enough; the shortest would take much longer.
        phases = [hypothesis.Phase.explicit, hypothesis.Phase.generate]
        hypothesis.settings.register_profile(
            "mutants", derandomize=True, database=None, phases=phases
        )
        hypothesis.settings.load_profile("mutants")

    def verdict(self, module: str, mutant: str) -> str:
        """Run the tests of a module on a mutant of it."""
        path = self._root / "tap_noojee" / f"{module}.py"
        files = TESTS[module].split()
        for name in files:
            if name not in self._limits:
                began = time.monotonic()
                if self._run(name, 600) != 0:
                    raise SystemExit(f"{name} fails without a mutant:\n{self._log.read_text()}")
                self._limits[name] = 10 + 4 * (time.monotonic() - began)
        original = path.read_text("utf-8")
        try:
            self._write(path, mutant)
            for name in files:
                code = self._run(name, self._limits[name])
                if code is None:
                    return "timed out"
                if code != 0:
                    return "killed"
        finally:
            self._write(path, original)
        return "survived"

    def _write(self, path: Path, text: str) -> None:
        path.write_text(text, "utf-8")
        # Python tells stale bytecode by size and time in seconds: each version gets its own.
        self._written += 1
        os.utime(path, (self._written, self._written))

    def _run(self, name: str, limit: float) -> int | None:
        """The exit code of pytest, None if it takes too long."""
        process = get_context("fork").Process(target=self._test, args=(name,))
        process.start()
        try:
            process.join(limit)
            return process.exitcode
        finally:
            # With all that it started.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.ident or 0, signal.SIGKILL)
            process.join()

    def _test(self, name: str) -> None:
        os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        log = os.open(self._log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(log, 1)
        os.dup2(log, 2)
        resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY, MAX_MEMORY))
        words = ["-x", "-q", "-p", "no:cacheprovider", "-m", "not slow", "--tb=short"]
        os._exit(pytest.main([*words, f"tests/test_{name}.py"]))


if __name__ == "__main__":
    main()
