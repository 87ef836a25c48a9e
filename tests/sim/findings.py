"""What the judges found wrong in a life."""

from tests.sim.world import SECOND, World

__all__ = ["Findings"]

MOST = 20


class Findings:
    """Notes in the log, and the first of them for the report."""

    def __init__(self, world: World) -> None:
        self.failures: list[str] = []
        self._world = world

    def fail(self, what: str, who: str, why: str) -> None:
        """Note that an invariant does not hold."""
        self._world.note("judge", what, f"{who}: {why}")
        if len(self.failures) < MOST:
            at_s = self._world.now_ns / SECOND
            self.failures.append(f"{what} at {at_s:.6f} s: {who}: {why}")
