"""Build the compiled modules: ``ext/NAME.pyx`` becomes ``feedhandler.NAME``."""

import os
import re
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

PACKAGE, EXT = Path("feedhandler"), Path("ext")

# FEEDHANDLER_BUILD selects one of three builds; see CONTRIBUTING.md.
BUILD = os.environ.get("FEEDHANDLER_BUILD", "release")
# coverage.py finds the C of a .pyx only beside it, so a coverage build leaves it there.
GENERATED = Path() if BUILD == "coverage" else Path("build/cython", BUILD)
CFLAGS = {
    "release": ["-O3", "-g1"],
    "debug": ["-O0", "-g3", "-UNDEBUG"],
    "coverage": ["-O0"],
}
MACROS = {
    "coverage": [("CYTHON_TRACE_NOGIL", "1"), ("CYTHON_USE_SYS_MONITORING", "0")],
}
CHECKED = BUILD != "release"
CIMPORT = re.compile(r"^(?:from|cimport) +(feedhandler[.\w]*)", re.MULTILINE)


def extension(pyx: Path) -> Extension:
    """Name ext/venue/matching.pyx feedhandler.venue.matching, and so on."""
    name = ".".join((PACKAGE / pyx.relative_to(EXT)).with_suffix("").parts)
    return Extension(
        name,
        [str(pyx)],
        extra_compile_args=CFLAGS[BUILD],
        define_macros=MACROS.get(BUILD, []),
    )


def interfaces(source: Path, seen: set[Path]) -> set[Path]:
    """Collect our .pxd files that *source* cimports, and those that they cimport."""
    for name in CIMPORT.findall(source.read_text()):
        found = Path(*name.split(".")).with_suffix(".pxd")
        if found not in seen and found.exists():
            seen = interfaces(found, seen | {found})
    return seen


def forget_stale(pyx: Path) -> Path:
    """Drop C that predates an interface that it was made from.

    Cython looks for a .pyx's own .pxd beside it only, so it misses that one, and what
    that one cimports.
    """
    generated = (GENERATED / pyx).with_suffix(".c")
    own = (PACKAGE / pyx.relative_to(EXT)).with_suffix(".pxd")
    used = {own} if own.exists() else set()
    for source in (pyx, *used):
        used = interfaces(source, used)
    if generated.exists() and any(
        generated.stat().st_mtime < interface.stat().st_mtime for interface in used
    ):
        generated.unlink()
    return pyx


setup(
    ext_modules=cythonize(
        [extension(forget_stale(pyx)) for pyx in sorted(EXT.rglob("*.pyx"))],
        build_dir=None if BUILD == "coverage" else str(GENERATED),
        annotate="FEEDHANDLER_ANNOTATE" in os.environ,
        compiler_directives={
            "language_level": 3,
            "binding": True,
            "embedsignature": True,
            "embedsignature.format": "python",
            "boundscheck": CHECKED,
            "wraparound": False,
            "initializedcheck": CHECKED,
            "nonecheck": CHECKED,
            "cdivision": True,
            "auto_pickle": False,
            "autotestdict": False,
            "linetrace": BUILD == "coverage",
        },
    ),
    # Cython finds an editable install's .pxd files only on a plain sys.path entry,
    # which is what "compat" writes: https://github.com/cython/cython/issues/5232
    options={
        "editable_wheel": {"mode": "compat"},
        "build_ext": {"parallel": os.cpu_count() or 1},
    },
)
