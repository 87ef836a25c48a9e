"""Cython that only tests need: what is called in C has no other seam."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parents[1]
MISSING = [
    name for name in ("Cython", "setuptools") if importlib.util.find_spec(name) is None
]


def compiled(pyx: Path, folder: Path) -> ModuleType:
    """Build a copy of *pyx* in *folder* and import it."""
    shutil.copy(pyx, folder)
    path = os.pathsep.join([str(ROOT), *sys.path])
    done = subprocess.run(
        [sys.executable, "-m", "Cython.Build.Cythonize", "-qi3", pyx.name],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": path, "CFLAGS": "-O1"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(done.stdout + done.stderr)
    (library,) = folder.glob(f"{pyx.stem}.*.so")
    return loaded(library)


def loaded(library: Path) -> ModuleType:
    """Import what compiled() has built."""
    spec = importlib.util.spec_from_file_location(library.name.split(".")[0], library)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
