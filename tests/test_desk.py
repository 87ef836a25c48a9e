"""The desk of a feed: who awaits an answer gets one."""

import asyncio

from feedhandler.config import Account, Credentials, FeedConfig, Shm
from feedhandler.desk import Desk as FeedDesk
from feedhandler.segments import Segments
from feedhandler.session import Answer
from feedhandler.trading import CHANNELS
from tests.test_engines import Floor

MEMORY = {"capacity": 64, "board_levels": 1, "instruments": 1}


def test_who_asks_for_an_answer_late_or_twice_does_not_wait_for_ever():
    async def act() -> None:
        account = Account(channels=CHANNELS)
        config = FeedConfig(
            url="ws://127.0.0.1:1", credentials=Credentials(api_key="key-late"),
            shm=Shm(name=""), account=account,
        )  # fmt: skip
        segments = Segments("", **MEMORY)
        place = Floor(ready=True).desk
        host = FeedDesk(config, segments, top=lambda s: None, instrument_of=lambda s: 0)
        host.flow = place.flow
        sent = place.submit("c-1")
        assert place.feed.session.awaits(sent.request_id)
        first, second = host.answer(sent), host.answer(sent)
        place.ack(sent.request_id, "c-1")
        message = place.outcomes[-1][1]
        host.answered(Answer(sent.request_id, "submit_order", message))
        assert await asyncio.wait_for(first, 1) is message
        assert await asyncio.wait_for(second, 1) is message

        late = host.answer(sent, is_awaited=place.feed.session.awaits(sent.request_id))
        assert await asyncio.wait_for(late, 1) is None
        segments.close()

    asyncio.run(act())
