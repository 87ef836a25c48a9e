"""Custom alerts: told when a last price passes a threshold, once for each crossing."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from fractions import Fraction
from math import ceil, floor
from typing import NamedTuple

from feedhandler.protocol.messages import Alert
from feedhandler.venue.contract import Number, fraction
from feedhandler.venue.listing import Step

__all__ = ["CONDITIONS", "AlertRule", "Alerts"]

ABOVE, BELOW = CONDITIONS = ("price_above", "price_below")


class AlertRule(NamedTuple):
    """One alert of one account; neither condition holds at the threshold itself."""

    alert_id: str
    account_id: str
    name: str
    condition: str
    symbol: str
    threshold: Number


class Watch:
    """A rule in ticks of its symbol, and whether the last price satisfied it."""

    def __init__(self, rule: AlertRule, tick: Fraction) -> None:
        threshold = fraction(rule.threshold)
        self.rule = rule
        self.threshold = float(threshold)
        self._above = rule.condition == ABOVE
        # Between two ticks the threshold counts as the one on the side that is quiet.
        self._ticks = floor(threshold / tick) if self._above else ceil(threshold / tick)
        self._satisfied = False

    def crossed(self, ticks: int) -> bool:
        """Take a last price; tell whether the condition came true with it."""
        before = self._satisfied
        self._satisfied = ticks > self._ticks if self._above else ticks < self._ticks
        return self._satisfied and not before


class Alerts:
    """The alerts of all accounts; *ticks* has the tick of every listed symbol."""

    def __init__(self, rules: Iterable[AlertRule], ticks: Mapping[str, Number]) -> None:
        self._ticks = dict(ticks)
        self._ids: set[str] = set()
        self._watches: defaultdict[str, list[Watch]] = defaultdict(list)
        for rule in rules:
            self.add(rule)

    def add(self, rule: AlertRule) -> None:
        """Watch for one more; the next last price may fire it. ValueError if wrong."""
        if rule.condition not in CONDITIONS:
            raise ValueError(
                f"condition of {rule.alert_id} is {rule.condition!r}, "
                f"not one of {', '.join(CONDITIONS)}"
            )
        if rule.symbol not in self._ticks:
            raise ValueError(f"symbol of {rule.alert_id} is {rule.symbol}, not listed")
        if rule.alert_id in self._ids:
            raise ValueError(f"alert {rule.alert_id} is there twice")
        watch = Watch(rule, fraction(self._ticks[rule.symbol]))
        self._ids.add(rule.alert_id)
        self._watches[rule.symbol].append(watch)

    def on_trade(self, symbol: str, ticks: int, now_ms: int) -> list[tuple[str, Alert]]:
        """Take a last price; return the accounts to tell, in the order of the rules."""
        fired = [
            watch for watch in self._watches.get(symbol, ()) if watch.crossed(ticks)
        ]
        if not fired:
            return []
        price = Step(str(self._ticks[symbol])).number(ticks)
        return [
            (
                watch.rule.account_id,
                Alert(
                    watch.rule.alert_id,
                    watch.rule.name,
                    watch.rule.condition,
                    symbol,
                    watch.threshold,
                    price,
                    now_ms,
                ),
            )
            for watch in fired
        ]
