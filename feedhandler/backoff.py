"""Attempt number to delay: the reference's powers of two, with jitter."""

import random

__all__ = ["Backoff"]


class Backoff:
    """base * 2**(attempt - 1) seconds, give or take *jitter*, at most *attempts* times.

    *seed* makes the jitter repeatable; jitter 0 gives exactly the reference's delays.
    """

    def __init__(
        self,
        base_ns: int = 1_000_000_000,
        attempts: int = 10,
        jitter: float = 0.2,
        seed: int | None = None,
    ) -> None:
        if base_ns < 0 or attempts < 0 or not 0 <= jitter < 1:
            raise ValueError(
                f"no backoff: base {base_ns} ns, {attempts} attempts, jitter {jitter}"
            )
        self.base_ns = base_ns
        self.attempts = attempts
        self.jitter = jitter
        self.attempt = 0
        self._random = random.Random(seed)

    def next_ns(self, factor: int = 1) -> int | None:
        """Count an attempt and return its delay; None when there are none left."""
        if self.attempt >= self.attempts:
            return None
        self.attempt += 1
        delay = self.base_ns * factor << (self.attempt - 1)
        if self.jitter:
            delay = int(delay * self._random.uniform(1 - self.jitter, 1 + self.jitter))
        return delay

    def soon_ns(self, within_ns: int) -> int:
        """Return a delay of at most *within_ns* that counts for no attempt.

        Random, so that all clients of a venue do not come back in the same millisecond;
        0 without jitter.
        """
        return self._random.randrange(within_ns) if self.jitter else 0

    def reset(self) -> None:
        """Start over: the connection was useful."""
        self.attempt = 0
