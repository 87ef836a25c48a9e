"""Build the echo; it subclasses what has no seam in Python."""

from Cython.Build import cythonize
from setuptools import Extension, setup

setup(
    ext_modules=cythonize(
        [Extension("echo", ["echo.pyx"], extra_compile_args=["-O1"])],
        compiler_directives={"language_level": 3},
    ),
)
