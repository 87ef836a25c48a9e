"""Mutants on trial: a copy of the package with one change, and tests that run there.

A mutant that no test of its own notices has survived: the tests have a hole.
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
CHANGED = ("feedhandler", "ext")
SUFFIX = sysconfig.get_config_var("EXT_SUFFIX")
PASSED, FAILED = 0, 1
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

    Its files are links: to change one is to replace it. *like* another bench, it has
    what was built there.
    """

    def __init__(self, folder: Path, like: "Bench | None" = None) -> None:
        self.folder = folder
        if like is not None:
            shutil.copytree(like.folder, folder, symlinks=True)
        else:
            for name in CHANGED:
                shutil.copytree(ROOT / name, folder / name, copy_function=os.symlink)
            for entry in [ROOT / "tests", ROOT / "pyproject.toml", *ROOT.glob("*.md")]:
                (folder / entry.name).symlink_to(entry)
        self._nursery = subprocess.Popen(
            [sys.executable, HERE / "nursery.py"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # It forks, and forks have no threads but one.
            env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
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
        self._ask("build", module, pyx, str(library))

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
        """Let its tests find a mutant."""
        began = time.monotonic()
        caught_by = problem = None
        try:
            with self.changed(mutant):
                caught_by = self.test(mutant.tests)
        except Useless as error:
            problem = str(error)
        return Outcome(mutant, caught_by, problem, time.monotonic() - began)


def judge_all(
    mutants: Sequence[Mutant], tell: Callable[[Outcome], object] = lambda _: None
) -> list[Outcome]:
    """Try *mutants*, on all processors; raises Useless for tests that fail anyway."""
    jobs = min(len(mutants), len(os.sched_getaffinity(0)))
    with tempfile.TemporaryDirectory() as top, contextlib.ExitStack() as benches:
        first = benches.enter_context(Bench(Path(top, "0")))
        # What is changed is compiled as its mutants will be, or the difference is none.
        for file in sorted({mutant.file for mutant in mutants if mutant.is_compiled}):
            first.build(file)
        failed = first.test({test: 0 for mutant in mutants for test in mutant.tests})
        if failed:
            raise Useless(f"{failed} fails without a mutant")
        free: SimpleQueue[Bench] = SimpleQueue()
        free.put(first)
        for number in range(1, jobs):
            free.put(benches.enter_context(Bench(Path(top, f"{number}"), like=first)))

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
