"""The compilers that the header is for, and what they make of a source."""

import shutil
import subprocess
from pathlib import Path

import pytest

import feedhandler

WARNINGS = ["-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Wshadow", "-Werror"]
COMPILERS = {
    "c11": ["gcc", "-std=c11"],
    "c++17": ["g++", "-std=c++17", "-x", "c++"],
}


@pytest.fixture(scope="session", params=COMPILERS)
def compiler(request) -> list[str]:
    command = COMPILERS[request.param]
    if shutil.which(command[0]) is None:
        pytest.skip(f"no {command[0]} here to compile the header with")
    return command


@pytest.fixture(scope="session")
def build(compiler, tmp_path_factory):
    """Return a function that compiles a source once and returns the program."""
    folder = tmp_path_factory.mktemp("embed")

    def compiled(source: Path) -> Path:
        program = folder / source.stem
        if not program.exists():
            include = f"-I{feedhandler.get_include()}"
            command = [*compiler, "-O2", *WARNINGS, include, source, "-o", program]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
            assert done.stderr == ""
        return program

    return compiled
