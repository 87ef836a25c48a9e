"""When Python's garbage collector runs: not while the market is read."""

import gc

__all__ = ["Collector", "settle"]

SECOND = 10  # beats
MINUTE = 60 * SECOND


def settle() -> None:
    """Collect what there is, and have the collector never look at the rest again.

    For a program of our own, once it has started: what the collector then walks is what
    came since, which is little.
    """
    gc.collect()
    gc.freeze()


class Collector:
    """Collects when it is told to, and never by itself, as long as it is open.

    For the whole process, which has one collector: of several that are open the first
    finds how it was, and the last leaves it so. What somebody else has frozen stays
    frozen, and then nothing of ours is.
    """

    _open = 0
    _was_enabled = True
    _freezes = True

    def __init__(self) -> None:
        self._beats = 0
        if not Collector._open:
            Collector._was_enabled = gc.isenabled()
            # Python thaws all or nothing.
            Collector._freezes = not gc.get_freeze_count()
        gc.disable()
        if Collector._freezes:
            settle()
        Collector._open += 1

    def beat(self) -> None:
        """Collect what is young; now and then what is older. Ten times a second."""
        self._beats += 1
        if self._beats % MINUTE == 0:
            gc.collect()
        else:
            gc.collect(1 if self._beats % SECOND == 0 else 0)

    def close(self) -> None:
        """Leave it to Python again; once."""
        Collector._open -= 1
        if Collector._open:
            return
        if Collector._freezes:
            gc.unfreeze()
        if Collector._was_enabled:
            gc.enable()
