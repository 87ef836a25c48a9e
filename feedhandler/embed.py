"""Where those who compile against the package find its C header."""

from pathlib import Path

__all__ = ["get_include"]


def get_include() -> str:
    """Return the directory of feedhandler.h, for the compiler's -I."""
    return str(Path(__file__).with_name("include"))
