"""The ABI number: compiled into every embedder, compared when it is imported."""


cdef enum:
    ABI = 5

cdef int loaded_abi() noexcept                  # answered by the installed module


cdef inline int require_abi() except -1:        # compiled into the embedder
    if loaded_abi() != ABI:
        raise ImportError(f"built against feedhandler ABI {ABI}, but {loaded_abi()} is installed")
    return 0
