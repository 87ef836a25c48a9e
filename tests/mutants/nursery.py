"""Build modules and run tests, from a process that has imported all but what is tested.

A script, not a module of the tests: what a mutant changes must not be in memory yet.
Requests come in and answers go out as lines of JSON.
"""

import gc
import json
import os
import shlex
import signal
import subprocess
import sys
import sysconfig
import traceback
from collections.abc import Callable
from importlib.metadata import entry_points

import hypothesis.stateful
import msgspec  # noqa: F401
import numpy as np  # noqa: F401
import picows  # noqa: F401
import pytest
from Cython.Build import cythonize
from setuptools import Extension

for plugin in entry_points(group="pytest11"):
    if not plugin.value.startswith("feedhandler."):
        plugin.load()
# A mutant is found by the same few examples every time, and by any that will do.
hypothesis.settings.register_profile(
    "mutants",
    derandomize=True,
    max_examples=30,
    database=None,
    phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate],
)
hypothesis.settings.load_profile("mutants")
# A fork need not look through all this for garbage.
gc.freeze()

# As setup.py builds a release, but for the C compiler, which is to be quick.
DIRECTIVES = {
    "language_level": 3,
    "binding": True,
    "boundscheck": False,
    "wraparound": False,
    "initializedcheck": False,
    "nonecheck": False,
    "cdivision": True,
    "auto_pickle": False,
    "warn.unreachable": False,
}
COMPILE = [
    *shlex.split(sysconfig.get_config_var("CC") or "cc"),
    *("-shared", "-fPIC", "-O0", "-w", f"-I{sysconfig.get_path('include')}"),
]
# What failed is all that is asked, and not why.
PYTEST = ["-x", "-q", "-p", "no:cacheprovider", "--assert=plain", "--tb=line"]
LONGEST_S = 120
BROKEN = 70


def forked(work: Callable[[], int]) -> int:
    """Do it in a fork, which takes all that it leaves behind with it.

    Return the exit code that it says, BROKEN if it raises, below 0 if a signal ends it.
    """
    pid = os.fork()
    if pid == 0:
        signal.alarm(LONGEST_S)
        code = BROKEN
        try:
            code = work()
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def build(name: str, pyx: str, library: str) -> int:
    """Compile the module *name* from *pyx* to *library*."""
    (module,) = cythonize(
        [Extension(name, [pyx])],
        build_dir="build",
        force=True,
        quiet=True,
        compiler_directives=DIRECTIVES,
    )
    subprocess.run([*COMPILE, *module.sources, "-o", library], check=True)
    return 0


def first_build(*arguments: str) -> int:
    """Compile, and keep what Cython has read for this: the next one takes a third."""
    answers["build"] = lambda *later: forked(lambda: build(*later))
    build(*arguments)
    gc.collect()
    gc.freeze()
    return 0


def test(output: str, *tests: str) -> int:
    """Run tests; return pytest's exit code."""

    def run() -> int:
        file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(file, 1)
        os.dup2(file, 2)
        sys.path[0] = os.environ["PYTHONPATH"] = os.getcwd()
        return int(pytest.main([*PYTEST, *tests]))

    return forked(run)


answers: dict[str, Callable[..., int]] = {"build": first_build, "test": test}


def serve() -> None:
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # What else is printed is no answer.
    for line in sys.stdin:
        folder, what, *arguments = json.loads(line)
        os.chdir(folder)
        try:
            answer = {"result": answers[what](*arguments)}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=out, flush=True)


if __name__ == "__main__":
    serve()
