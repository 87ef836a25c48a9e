"""Build the strategy; the .pxd files need no path, the C header does."""

from Cython.Build import cythonize
from setuptools import Extension, setup

import feedhandler

setup(
    ext_modules=cythonize(
        [
            Extension(
                "strategy", ["strategy.pyx"], include_dirs=[feedhandler.get_include()]
            )
        ],
        compiler_directives={"language_level": 3},
    ),
)
