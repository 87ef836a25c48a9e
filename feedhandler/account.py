"""What the account has, as the venue last told it: balances and positions.

Sans-I/O. Rows that come replace those of the same name, and the others stay.
"""

from typing import TypeVar

from feedhandler.protocol.messages import AccountUpdateData, Balance, Position

__all__ = ["AccountState"]

# What a venue that tells nonsense can make us remember.
ROWS = 10_000

Row = TypeVar("Row", Balance, Position)


class AccountState:
    """The balances by currency and the positions by symbol of one account.

    *told_ms* is the venue's time of the last update, *recv_ns* ours; 0 before any.
    """

    def __init__(self) -> None:
        self.account_id = ""
        self.balances: dict[str, Balance] = {}
        self.positions: dict[str, Position] = {}
        self.told_ms = 0
        self.recv_ns = 0
        self.discarded = 0
        """Updates of another account, and rows beyond any number that makes sense."""
        self._rows_ms: dict[tuple[type, str], int] = {}
        self._changed: dict[tuple[type, str], Balance | Position] = {}

    def begin(self) -> None:
        """Note that account_updates was subscribed anew: what comes is newer than all.

        Otherwise a row that the venue told earlier never replaces one told later.
        """
        self._rows_ms.clear()

    def updated(self, data: AccountUpdateData, timestamp_ms: int, recv_ns: int) -> None:
        """Take an account_update, with its envelope's timestamp and our own."""
        self.account_id = self.account_id or data.account_id
        if data.account_id != self.account_id:
            self.discarded += 1
            return
        self.told_ms = max(self.told_ms, timestamp_ms)
        self.recv_ns = recv_ns
        for balance in data.balances:
            self._put(self.balances, balance.currency, balance, timestamp_ms)
        for position in data.positions:
            self._put(self.positions, position.symbol, position, timestamp_ms)

    def venue_restarted(self) -> None:
        """Take for nothing what was not told since begin(): it was of a former life."""
        for name in self.balances:
            if (Balance, name) not in self._rows_ms:
                self._put(self.balances, name, Balance(name, 0.0, 0.0, 0.0), 0)
        for name in self.positions:
            if (Position, name) not in self._rows_ms:
                row = Position(name, 0.0, 0.0, 0.0, 0.0)
                self._put(self.positions, name, row, 0)

    def take_changes(self) -> list[Balance | Position]:
        """Return the rows that are not what they were at the last call."""
        changed, self._changed = self._changed, {}
        return list(changed.values())

    def _put(
        self, rows: dict[str, Row], name: str, row: Row, timestamp_ms: int
    ) -> None:
        key = (type(row), name)
        if timestamp_ms < self._rows_ms.get(key, 0):
            return
        if name not in rows and len(rows) >= ROWS:
            self.discarded += 1
            return
        self._rows_ms[key] = timestamp_ms
        if rows.get(name) != row:
            rows[name] = row
            self._changed[key] = row
