"""Mutants on trial: a copy of the package with one change, and a test that runs there.

A mutant that its test does not notice has survived: the tests have a hole.
"""

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.util import cache_from_source
from pathlib import Path
from queue import SimpleQueue
from types import TracebackType
from typing import Any, NamedTuple, Self

from tests.mutants.catalogue import Mutant

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
COPIED = ("feedhandler", "ext", "tests")
SUFFIX = sysconfig.get_config_var("EXT_SUFFIX")
PASSED, FAILED = 0, 1
# A race may end well, but hardly so often.
CHANCES = 3
FIRST = re.compile(r"^FAILED tests/([^\s\[]+)", re.MULTILINE)


class Useless(Exception):
    """A trial that says nothing about the tests, and why."""


class Outcome(NamedTuple):
    """What became of a mutant: the test that caught it, or why there was no trial."""

    mutant: Mutant
    caught_by: str | None
    problem: str | None
    seconds: float


class Bench:
    """A copy of the tree, and a process that builds and tests there.

    Its files are links: to change one is to replace it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in COPIED:
            shutil.copytree(ROOT / name, folder / name, copy_function=os.symlink)
        for file in (ROOT / "pyproject.toml", *ROOT.glob("*.md")):
            (folder / file.name).symlink_to(file)
        self._nursery = subprocess.Popen(
            [sys.executable, HERE / "nursery.py"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # It forks, and forks have no threads but one; what they compile is kept.
            env=os.environ
            | {"OPENBLAS_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": ""},
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._nursery.communicate()

    def _ask(self, what: str, *arguments: str) -> Any:
        assert self._nursery.stdin is not None
        assert self._nursery.stdout is not None
        request = json.dumps([str(self.folder), what, *arguments])
        self._nursery.stdin.write(f"{request}\n")
        self._nursery.stdin.flush()
        answer = json.loads(self._nursery.stdout.readline() or '{"error": "it died"}')
        if "error" in answer:
            raise Useless(f"{what} {' '.join(arguments)}: {answer['error']}")
        return answer["result"]

    def build(self, pyx: str) -> None:
        """Compile a source of the copy, in the place of what is there."""
        library = self._library(pyx)
        library.unlink(missing_ok=True)
        module = ".".join(("feedhandler", *Path(pyx).with_suffix("").parts[1:]))
        if self._ask("build", module, pyx, str(library)) != 0:
            raise Useless(f"{pyx} does not compile")

    def adopt(self, pyx: str, other: "Bench") -> None:
        """Have what another bench has compiled."""
        library = self._library(pyx)
        library.unlink(missing_ok=True)
        shutil.copy(other._library(pyx), library)

    def _library(self, pyx: str) -> Path:
        place = Path("feedhandler", *Path(pyx).with_suffix("").parts[1:])
        return self.folder / f"{place}{SUFFIX}"

    def test(self, tests: Iterable[str]) -> str | None:
        """Return the first of *tests* that fails; None if they pass."""
        output = self.folder / "output.txt"
        code = self._ask("test", str(output), *(f"tests/{test}" for test in tests))
        said = output.read_text()
        first = FIRST.search(said)
        if code == FAILED and first:
            return first[1]
        if code == PASSED:
            return None
        raise Useless(f"pytest ended with {code}:\n{said}")

    @contextlib.contextmanager
    def changed(self, mutant: Mutant) -> Iterator[None]:
        """Have *mutant* in the copy, compiled where it must be, for as long as this."""
        source = self.folder / mutant.file
        text = mutant.apply(source.read_text())
        files = [source, Path(cache_from_source(str(source)))]
        if mutant.is_compiled:
            files.append(self._library(mutant.file))
        with tempfile.TemporaryDirectory(dir=self.folder) as away:
            kept = [file for file in files if os.path.lexists(file)]
            for file in kept:
                file.rename(Path(away, file.name))
            try:
                source.write_text(text)
                if mutant.is_compiled:
                    self.build(mutant.file)
                yield
            finally:
                for file in files:
                    file.unlink(missing_ok=True)
                for file in kept:
                    Path(away, file.name).rename(file)

    def judge(self, mutant: Mutant) -> Outcome:
        """Let its test find a mutant."""
        began = time.monotonic()
        caught_by = problem = None
        try:
            with self.changed(mutant):
                chances = (self.test([mutant.test]) for _ in range(CHANCES))
                caught_by = next(filter(None, chances), None)
        except Useless as error:
            problem = str(error)
        return Outcome(mutant, caught_by, problem, time.monotonic() - began)


def judge_all(
    mutants: Sequence[Mutant], tell: Callable[[Outcome], object] = lambda _: None
) -> list[Outcome]:
    """Try *mutants*, on all processors; raises Useless for tests that fail anyway."""
    jobs = min(len(mutants), len(os.sched_getaffinity(0)))
    with tempfile.TemporaryDirectory() as top, contextlib.ExitStack() as stack:
        first, *others = [
            stack.enter_context(Bench(Path(top, f"{number}"))) for number in range(jobs)
        ]
        # What is changed is compiled as its mutants will be, or the difference is none.
        for file in sorted({mutant.file for mutant in mutants if mutant.is_compiled}):
            first.build(file)
            for other in others:
                other.adopt(file, first)
        failed = first.test(dict.fromkeys(mutant.test for mutant in mutants))
        if failed:
            raise Useless(f"{failed} fails without a mutant")
        free: SimpleQueue[Bench] = SimpleQueue()
        for bench in (first, *others):
            free.put(bench)

        def judge(mutant: Mutant) -> Outcome:
            bench = free.get()
            try:
                outcome = bench.judge(mutant)
            finally:
                free.put(bench)
            tell(outcome)
            return outcome

        with ThreadPoolExecutor(jobs) as pool:
            return list(pool.map(judge, mutants))
