from enum import IntEnum

class Side(IntEnum):
    BUY = 0
    SELL = 1

class TimeInForce(IntEnum):
    GTC = 0
    IOC = 1
    FOK = 2
    DAY = 3

class StopReached(ValueError):
    stop_ticks: int
    last_ticks: int

    def __init__(self, stop_ticks: int, last_ticks: int) -> None: ...

class Fill:
    @property
    def maker_id(self) -> int: ...
    @property
    def maker_owner(self) -> int: ...
    @property
    def maker_lots(self) -> int: ...
    @property
    def price_ticks(self) -> int: ...
    @property
    def lots(self) -> int: ...

class Report:
    order_id: int
    owner: int
    side: int
    filled_lots: int
    resting_lots: int
    waiting_lots: int
    canceled_lots: int
    self_trade_prevented: bool

    @property
    def fills(self) -> list[Fill]: ...
    @property
    def changes(self) -> list[tuple[int, int, int]]: ...

class Engine:
    def submit(
        self,
        owner: int,
        side: int,
        lots: int,
        price_ticks: int | None = None,
        time_in_force: int = ...,
        stop_ticks: int | None = None,
        self_trade: bool = ...,
    ) -> Report: ...
    def activate(self, order_id: int) -> Report: ...
    def cancel(self, order_id: int) -> Report: ...
    def reduce(self, order_id: int, lots: int) -> Report: ...
    def modify(
        self,
        order_id: int,
        lots: int,
        price_ticks: int | None = None,
        stop_ticks: int | None = None,
    ) -> Report: ...
    def next_due(self) -> int: ...
    @property
    def last_ticks(self) -> int | None: ...
    def top(self, side: int, count: int) -> list[tuple[int, int]]: ...
    def price_at(self, side: int, rank: int) -> int | None: ...
    def lots_at(self, side: int, price_ticks: int) -> int: ...
    def walk(self, side: int, lots: int) -> tuple[int, int]: ...
    def depth(self, side: int) -> int: ...
    def queue(self, side: int, price_ticks: int) -> list[tuple[int, int, int]]: ...
    def order(self, order_id: int) -> tuple[int, int, int, int] | None: ...
    def stop(
        self, order_id: int
    ) -> tuple[int, int, int, int | None, int, bool] | None: ...
    def __len__(self) -> int: ...
