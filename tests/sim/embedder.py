"""Who uses the client: wants channels and gives them up, asks for orders, floods."""

from random import Random
from typing import Any

from feedhandler.errors import NotConnected, Throttled
from feedhandler.protocol.channels import CUSTOM, MARKET_DATA, NOTIFICATIONS, TRADING
from feedhandler.protocol.messages import (
    BatchCancel,
    BatchOrders,
    BatchOrdersData,
    BatchSubmit,
    CancelOrder,
    CancelOrderData,
    ModifyOrder,
    ModifyOrderData,
    OrderData,
    SubmitOrder,
)
from tests.sim.client_side import Client, Host
from tests.sim.world import MS, SECOND, World

__all__ = ["POOLS", "Embedder"]

POOLS: dict[str, tuple[tuple[str, ...], ...]] = {
    MARKET_DATA: (
        ("orderbook:AAPL:10", "trades:AAPL", "ticker:AAPL", "orderbook:AAPL:5"),
        ("orderbook:BTC-USD:5", "orderbook:BTC-USD:8", "trades:BTC-USD"),
    ),
    TRADING: (("user_orders", "user_trades", "account_updates"),),
    NOTIFICATIONS: (("system_notifications", "user_notifications"),),
    CUSTOM: (
        (
            "orderbook:AAPL:5", "orderbook:BTC-USD:8", "trades:BTC-USD",
            "ticker:BTC-USD", "candles:AAPL:1m", "user_orders", "user_trades",
            "account_updates", "system_notifications", "user_notifications",
            "custom_alerts",
        ),
    ),
}  # fmt: skip
"""What may be wanted on the connections of an endpoint."""
NOWHERE = ("trades:NONE", "orderbook:NONE:5", "ticker:NONE", "candles:NONE:1m")
URGENT = ("cancel_order",)


class Embedder:
    """Does something every few seconds, until it is told to rest."""

    def __init__(self, world: World, client: Client) -> None:
        self.resting = False
        self.asked = 0
        self.throttled = 0
        self._world = world
        self._client = client
        self._random = world.random("embedder")
        self._orders = 0
        self._pools = self._wish()

    def _wish(self) -> dict[Host, tuple[str, ...]]:
        """Want the first of each pool, and most of the others, from the start."""
        pools = {}
        places: dict[str, int] = {}
        for host in self._client.hosts:
            place = places.get(host.endpoint, 0)
            places[host.endpoint] = place + 1
            pools[host] = POOLS[host.endpoint][place]
            for number, channel in enumerate(pools[host]):
                if number == 0 or self._random.random() < 0.7:
                    host.subscribe(channel)
        return pools

    def start(self, pause_ns: int) -> None:
        """Act again and again, about every *pause_ns*."""
        self._pause_ns = pause_ns
        self._world.after(self._pause(), self._act)

    def _pause(self) -> int:
        return int(self._random.expovariate(1) * self._pause_ns) + MS

    def _act(self) -> None:
        if self.resting:
            return
        self._world.after(self._pause(), self._act)
        if any(host.stuck for host in self._client.hosts):
            return
        random = self._random
        host = random.choice(self._client.hosts)
        if host.endpoint == TRADING and random.random() < 0.7:
            self._ask(host, self._order())
        elif random.random() < 0.04:
            for channel in list(host.wanted):
                host.unsubscribe(channel)
        else:
            self._turn(host, random.choice(self._pools[host]))

    def _turn(self, host: Host, channel: str) -> None:
        if channel in host.wanted:
            host.unsubscribe(channel)
        else:
            host.subscribe(channel)

    # ── orders ────────────────────────────────────────────────────────────────────

    def _ask(self, host: Host, request: tuple[Any, int]) -> None:
        message, units = request
        urgent = message.__struct_config__.tag in URGENT
        try:
            host.ask(message, units, urgent)
            self.asked += 1
        except NotConnected:
            pass
        except Throttled:
            self.throttled += 1

    def _order(self) -> tuple[Any, int]:
        random = self._random
        kind = random.random()
        if kind < 0.6 or not self._orders:
            return SubmitOrder(OrderData(**self._terms(random))), 1
        client_id = f"c-{random.randint(1, self._orders)}"
        if kind < 0.75:
            return CancelOrder(CancelOrderData(client_order_id=client_id)), 1
        if kind < 0.85:
            data = ModifyOrderData(client_order_id=client_id, quantity=5)
            return ModifyOrder(data), 1
        operations: list[Any] = [
            BatchSubmit(**self._terms(random)) for _ in range(random.randint(1, 3))
        ]
        operations.append(BatchCancel(client_order_id=client_id))
        return BatchOrders(BatchOrdersData(operations)), len(operations)

    def _terms(self, random: Random) -> dict[str, Any]:
        """Describe an order near the market, which trades or rests."""
        self._orders += 1
        return {
            "symbol": "AAPL",
            "side": random.choice(("buy", "sell")),
            "type": "limit",
            "quantity": random.randint(1, 50),
            "price": round(150 + random.gauss(0, 0.05), 2),
            "client_order_id": f"c-{self._orders}",
        }

    # ── excesses ──────────────────────────────────────────────────────────────────

    def flood(self) -> None:
        """Ask for far more than the limits allow, for a while."""
        self._flood(20)

    def _flood(self, rounds: int) -> None:
        if not rounds or self.resting:
            return
        self._world.after(SECOND // 2, self._flood, rounds - 1)
        if any(host.stuck for host in self._client.hosts):
            return
        for host in self._client.hosts:
            if host.endpoint == TRADING:
                for _ in range(8):
                    self._ask(host, self._order())
            else:
                channel = self._random.choice(self._pools[host])
                for _ in range(4):
                    self._turn(host, channel)

    def mistake(self, host: Host) -> None:
        """Want channels that the venue does not have, one after the other."""
        for number, channel in enumerate(NOWHERE):
            self._world.after(number * 3 * SECOND, self._want, host, channel)

    def _want(self, host: Host, channel: str) -> None:
        if not self.resting and not host.stuck and channel not in host.wanted:
            host.subscribe(channel)
