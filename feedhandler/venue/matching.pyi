from enum import IntEnum

class Side(IntEnum):
    BUY = 0
    SELL = 1

class TimeInForce(IntEnum):
    GTC = 0
    IOC = 1

class Fill:
    maker_id: int
    maker_owner: int
    maker_lots: int
    price_ticks: int
    lots: int

class Report:
    order_id: int
    owner: int
    side: int
    filled_lots: int
    resting_lots: int
    canceled_lots: int
    fills: list[Fill]
    changes: list[tuple[int, int, int]]

class Engine:
    def submit(
        self,
        owner: int,
        side: int,
        lots: int,
        price_ticks: int | None = None,
        time_in_force: int = ...,
    ) -> Report: ...
    def cancel(self, order_id: int) -> Report: ...
    def reduce(self, order_id: int, lots: int) -> Report: ...
    def top(self, side: int, count: int) -> list[tuple[int, int]]: ...
    def price_at(self, side: int, rank: int) -> int | None: ...
    def lots_at(self, side: int, price_ticks: int) -> int: ...
    def depth(self, side: int) -> int: ...
    def queue(self, side: int, price_ticks: int) -> list[tuple[int, int, int]]: ...
    def order(self, order_id: int) -> tuple[int, int, int, int] | None: ...
    def __len__(self) -> int: ...
