"""Answer which ABI is installed; Cython itself checks sizes, not the order of fields or methods."""

cdef int loaded_abi() noexcept:
    return ABI


def number() -> int:
    """Return the ABI number of the installed package."""
    return ABI
