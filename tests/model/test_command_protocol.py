"""The channel's protocol in every interleaving, and that each part of it is needed."""

import pytest

from tests.model.command_model import Channel, check

SHIPPED = {
    "laps": Channel(commands=4),
    "one by one": Channel(batch=1),
    "revoking": Channel(revokes=True),
    "revoking one by one": Channel(revokes=True, batch=1),
    "dying": Channel(dies=True, commands=4),
}

# One part less than what is shipped, and what comes of it.
WEAKENED = {
    "a slot too many": (Channel(full_by_one=1, commands=4), "overwritten"),
    "the word last": (Channel(seq_last=False), "not each command once"),
    "no fence before the look at the sleeper": (
        Channel(publish_fence=False),
        "nobody wakes",
    ),
    "no fence before sleep": (Channel(sleep_fence=False), "nobody wakes"),
    "no look before sleep": (Channel(looks_again=False), "nobody wakes"),
    "no look with a rest": (Channel(looks_again=False, batch=1), "nobody wakes"),
    "no fence in revoke": (
        Channel(revokes=True, revoke_fence=False),
        "expired and carried out",
    ),
    "no fence in take": (
        Channel(revokes=True, take_fence=False),
        "expired and carried out",
    ),
    "carried out before the cursor": (
        Channel(revokes=True, carried_out_last=False),
        "expired and carried out",
    ),
    "the cursor before the copy": (
        Channel(cursor_last=False, commands=4),
        "overwritten",
    ),
}


@pytest.mark.parametrize("name", SHIPPED)
def test_nothing_is_lost_or_done_twice_and_nobody_sleeps_for_ever(name):
    verdict = check(SHIPPED[name])

    assert verdict.problem == ""
    assert verdict.states > 500
    assert verdict.ends > 0 or SHIPPED[name].dies
    assert verdict.full > 0


@pytest.mark.parametrize("name", WEAKENED)
def test_every_part_of_the_channel_is_needed(name):
    channel, problem = WEAKENED[name]

    assert problem in check(channel).problem
