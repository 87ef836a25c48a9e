"""Build modules and run tests, from a process that has imported all but what is tested.

A script, not a module of the tests: what a mutant changes must not be in memory yet.
Requests come in and answers go out as lines of JSON.
"""

import json
import os
import shlex
import signal
import subprocess
import sys
import sysconfig
import traceback
from importlib.metadata import entry_points

import hypothesis.stateful  # noqa: F401
import msgspec  # noqa: F401
import numpy as np  # noqa: F401
import picows  # noqa: F401
import pytest
from Cython.Build import cythonize
from setuptools import Extension

for plugin in entry_points(group="pytest11"):
    if not plugin.value.startswith("feedhandler."):
        plugin.load()

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
}
COMPILE = [
    *shlex.split(sysconfig.get_config_var("CC") or "cc"),
    *("-shared", "-fPIC", "-O0", "-w", f"-I{sysconfig.get_path('include')}"),
]
PYTEST = ["-x", "-q", "-p", "no:cacheprovider"]
# What was imported above has no asserts that matter.
PYTEST += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]
LONGEST_S = 120


def build(name: str, pyx: str, library: str) -> None:
    """Compile the module *name* from *pyx* to *library*."""
    (module,) = cythonize(
        [Extension(name, [pyx])],
        build_dir="build",
        force=True,
        quiet=True,
        compiler_directives=DIRECTIVES,
    )
    subprocess.run([*COMPILE, *module.sources, "-o", library], check=True)


def test(output: str, *tests: str) -> int:
    """Run tests in a fork; return pytest's exit code, below 0 if a signal ended it."""
    pid = os.fork()
    if pid == 0:
        signal.alarm(LONGEST_S)
        code = 70
        try:
            file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            os.dup2(file, 1)
            os.dup2(file, 2)
            sys.path[0] = os.environ["PYTHONPATH"] = os.getcwd()
            code = int(pytest.main([*PYTEST, *tests]))
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def serve() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # What else is printed is no answer.
    for line in sys.stdin:
        folder, what, *arguments = json.loads(line)
        os.chdir(folder)
        try:
            result = {"build": build, "test": test}[what](*arguments)
            answer = {"result": result}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    serve()
