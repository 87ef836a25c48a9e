"""What the benchmarks share: the recordings, the shipping configuration, the loops."""

import gzip
import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

HERE = Path(__file__).parent
ROOT = HERE.parent

SETUP = """
from Cython.Build import cythonize
from setuptools import Extension, setup
setup(
    name="loops",
    ext_modules=cythonize(
        [Extension("loops", ["benchmarks/loops.pyx"], extra_compile_args=["-O3"])],
        build_dir="build/benchmarks",
    ),
    script_args=["-q", "build_ext", "--build-lib", "build/benchmarks"],
    packages=[],
)
"""


def loops() -> ModuleType:
    """Build benchmarks/loops.pyx if it changed, and import it."""
    subprocess.run([sys.executable, "-c", SETUP], cwd=ROOT, check=True, stdout=2)
    (path,) = (ROOT / "build/benchmarks").glob("loops.*.so")
    spec = importlib.util.spec_from_file_location("loops", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def recordings() -> dict[str, Path]:
    """Return the recordings at hand: the real ones, else the small one."""
    folder = Path(os.environ.get("FEEDHANDLER_RECORDINGS", ROOT / "tests/data"))
    return {
        p.name.removesuffix(".jsonl.gz"): p for p in sorted(folder.glob("*.jsonl.gz"))
    }


def frames(path: Path) -> list[bytes]:
    """Return the messages of a recording, one bytes object each."""
    with gzip.open(path) as lines:
        return [line.rstrip(b"\n") for line in lines]
