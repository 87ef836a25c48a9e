"""Who may come in: keys, timestamps, connections and limits, in virtual time."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedhandler.protocol.channels import ENDPOINTS, TRADING
from feedhandler.protocol.signature import sign
from feedhandler.secret import Secret
from feedhandler.venue.access import Access, Denied, Key
from feedhandler.venue.config import LimitsConfig
from feedhandler.venue.limits import NS_PER_S, Verdict, admit

NOW_MS = 1_625_097_600_000
NOW_NS = NOW_MS * 1_000_000
ALICE = Key("key-alice", Secret(b"secret of alice"), "acc-alice")
BOB = Key("key-bob", Secret(b"secret of bob"), "acc-bob")
WINDOW_MS = 5000
MINUTE_NS = 60 * NS_PER_S


class Connection:
    """Something that counts as a connection, and may leave heartbeats unanswered."""

    def __init__(self):
        self.overdue = False

    def is_overdue(self, now_ns):
        return self.overdue


def doorkeeper(limits=None, **options):
    return Access([ALICE, BOB], limits or LimitsConfig(), **options)


def enter(access, timestamp_ms=NOW_MS, *, key=ALICE, endpoint=TRADING, now_ms=NOW_MS):
    """Authenticate as the holder of a key would."""
    signature = sign(key.api_key, key.secret.reveal(), timestamp_ms)
    return access.authenticate(key.api_key, signature, timestamp_ms, endpoint, now_ms)


def refusal(act):
    """What a claim is denied with: code, message, and whether it is the end."""
    with pytest.raises(Denied) as caught:
        act()
    return caught.value.code, caught.value.message, caught.value.final


# ── timestamps ────────────────────────────────────────────────────────────────────────


@pytest.mark.req("A-05", "SEC-07", "AU-03")
@pytest.mark.parametrize("age_ms", [5000, 4999, 1, 0, -1, -999])
def test_a_timestamp_within_the_window_is_accepted(age_ms):
    assert enter(doorkeeper(), NOW_MS - age_ms) is ALICE


@pytest.mark.req("A-05", "SEC-07", "A-02")
@pytest.mark.parametrize(
    "age_ms", [5001, 60_000, NOW_MS, -1000, -1001, -60_000, NOW_MS - NOW_MS // 1000]
)
def test_a_timestamp_out_of_the_window_is_refused_and_not_for_good(age_ms):
    code, message, final = refusal(lambda: enter(doorkeeper(), NOW_MS - age_ms))

    assert code == "invalid_parameter"
    assert message == (
        "Invalid parameter: timestamp is not within 5000 ms before and 1000 ms after "
        "our time"
    )
    assert not final


@pytest.mark.req("A-05")
def test_the_window_is_an_option():
    access = doorkeeper(window_ms=200)

    assert enter(access, NOW_MS - 200) is ALICE
    assert refusal(lambda: enter(access, NOW_MS - 201))[0] == "invalid_parameter"


@pytest.mark.req("SEC-07", "A-05", "A-02")
def test_a_timestamp_counts_once_at_an_endpoint():
    access = doorkeeper()
    enter(access)

    assert refusal(lambda: enter(access, now_ms=NOW_MS + 1)) == (
        "invalid_parameter",
        "Invalid parameter: timestamp was used before",
        False,
    )
    assert enter(access, NOW_MS + 1) is ALICE


@pytest.mark.req("SEC-07", "A-05")
def test_the_same_millisecond_at_every_endpoint_and_of_every_key_is_accepted():
    access = doorkeeper()

    came = [enter(access, key=k, endpoint=e) for k in (ALICE, BOB) for e in ENDPOINTS]

    assert came == [ALICE] * 4 + [BOB] * 4


@pytest.mark.req("SEC-07")
@given(
    st.integers(-999, WINDOW_MS), st.lists(st.integers(1, 4000), min_size=1, max_size=6)
)
def test_a_captured_authentication_never_works_again(age_ms, waits_ms):
    access, timestamp_ms, now_ms = doorkeeper(), NOW_MS - age_ms, NOW_MS
    enter(access, timestamp_ms)

    for wait_ms in waits_ms:
        now_ms += wait_ms
        enter(access, now_ms, key=BOB, now_ms=now_ms)
        with pytest.raises(Denied, match="timestamp"):
            enter(access, timestamp_ms, now_ms=now_ms)


@pytest.mark.req("SEC-07")
def test_a_timestamp_that_was_refused_is_not_used_up():
    access = doorkeeper()
    ahead_ms = NOW_MS + 1000
    refusal(lambda: enter(access, ahead_ms))
    refusal(lambda: access.authenticate(ALICE.api_key, "0" * 64, NOW_MS, TRADING, 0))

    assert enter(access, ahead_ms, now_ms=NOW_MS + 1) is ALICE
    assert enter(access, NOW_MS) is ALICE


@pytest.mark.req("SEC-07", "I-17")
def test_the_memory_of_timestamps_is_bounded_by_the_window():
    access, most = doorkeeper(), 0

    for passed_ms in range(100_000):
        enter(access, NOW_MS + passed_ms, now_ms=NOW_MS + passed_ms)
        most = max(most, access.remembered)

    assert WINDOW_MS < most <= WINDOW_MS + 1000 + 1
    enter(access, NOW_MS + 200_000, now_ms=NOW_MS + 200_000)
    assert access.remembered == 1


# ── keys and signatures ───────────────────────────────────────────────────────────────

GOOD = sign(ALICE.api_key, ALICE.secret.reveal(), NOW_MS)
WRONG = {
    "unknown key": ("key-carol", sign("key-carol", b"secret", NOW_MS)),
    "empty key": ("", GOOD),
    "empty key, signed as nobody": ("", sign("", b"nobody", NOW_MS)),
    "another's key": (BOB.api_key, GOOD),
    "key in capitals": (ALICE.api_key.upper(), GOOD),
    "wrong secret": (ALICE.api_key, sign(ALICE.api_key, b"guess", NOW_MS)),
    "another time": (
        ALICE.api_key,
        sign(ALICE.api_key, ALICE.secret.reveal(), NOW_MS - 1),
    ),
    "truncated": (ALICE.api_key, GOOD[:-1]),
    "one digit more": (ALICE.api_key, GOOD + "0"),
    "upper case": (ALICE.api_key, GOOD.upper()),
    "a newline more": (ALICE.api_key, GOOD + "\n"),
    "empty": (ALICE.api_key, ""),
    "not hexadecimal": (ALICE.api_key, "g" * 64),
    "not ASCII": (ALICE.api_key, "é" * 64),
    "digits, but not ASCII": (ALICE.api_key, "\u0663" * 64),
    "a lone surrogate": (ALICE.api_key, "\ud800"),
    "unknown key, not ASCII": ("key-carol", "é" * 64),
    "long": (ALICE.api_key, "0" * 60_000),
}


@pytest.mark.req("AU-10", "SEC-06", "ER-03")
@pytest.mark.parametrize(("api_key", "signature"), WRONG.values(), ids=WRONG.keys())
def test_whatever_is_wrong_with_key_or_signature_is_denied_in_the_same_words(
    api_key, signature
):
    denied = refusal(
        lambda: doorkeeper().authenticate(api_key, signature, NOW_MS, TRADING, NOW_MS)
    )

    assert denied == ("invalid_credentials", "Invalid API key or signature", True)


@pytest.mark.req("SEC-06")
def test_a_bad_signature_is_denied_as_such_at_any_time():
    access = doorkeeper()

    def guess(timestamp_ms):
        access.authenticate(ALICE.api_key, "0" * 64, timestamp_ms, TRADING, NOW_MS)

    words = {refusal(lambda ms=ms: guess(ms)) for ms in (NOW_MS, 0, -1, 10**30)}

    assert words == {("invalid_credentials", "Invalid API key or signature", True)}


@pytest.mark.req("SEC-04")
def test_no_secret_is_shown():
    shown = f"{doorkeeper()!r} {ALICE!r} {ALICE!s} {vars(doorkeeper())}"

    assert "secret of alice" not in shown
    assert GOOD not in shown


# ── connections of a key ──────────────────────────────────────────────────────────────


def full(access):
    """Five connections of Alice."""
    members = [Connection() for _ in range(5)]
    assert [access.join(ALICE, member, NOW_NS) for member in members] == [[]] * 5
    return members


@pytest.mark.req("LM-01", "A-08", "I-16")
def test_a_key_has_five_connections_and_no_sixth():
    access = doorkeeper()
    full(access)

    assert access.join(ALICE, Connection(), NOW_NS) is None
    assert access.connections(ALICE.api_key) == 5
    assert access.join(BOB, Connection(), NOW_NS) == []


@pytest.mark.req("LM-01")
def test_a_connection_that_leaves_makes_room_for_one():
    access = doorkeeper()
    first, *_ = full(access)

    access.leave(ALICE, first)
    access.leave(ALICE, first)

    assert access.join(ALICE, Connection(), NOW_NS) == []
    assert access.join(ALICE, Connection(), NOW_NS) is None


@pytest.mark.req("A-04")
def test_a_connection_that_joins_again_counts_once():
    access = doorkeeper()
    first, *_ = full(access)

    assert access.join(ALICE, first, NOW_NS) == []
    assert access.connections(ALICE.api_key) == 5


@pytest.mark.req("A-08")
def test_overdue_connections_go_when_their_place_is_wanted():
    access = doorkeeper()
    members = full(access)
    members[1].overdue = members[3].overdue = True

    assert access.join(ALICE, members[0], NOW_NS) == []
    assert access.join(ALICE, Connection(), NOW_NS) == [members[1], members[3]]
    assert access.connections(ALICE.api_key) == 4
    access.leave(ALICE, members[1])
    assert access.connections(ALICE.api_key) == 4


@pytest.mark.req("A-08")
def test_overdue_connections_stay_while_there_is_room():
    access = doorkeeper()
    idle = Connection()
    idle.overdue = True
    access.join(ALICE, idle, NOW_NS)

    assert access.join(ALICE, Connection(), NOW_NS) == []
    assert access.connections(ALICE.api_key) == 2


def test_a_stranger_that_leaves_changes_nothing():
    access = doorkeeper()
    full(access)

    access.leave(ALICE, Connection())
    access.leave(BOB, Connection())

    assert access.connections(ALICE.api_key) == 5
    assert access.connections(BOB.api_key) == 0


# ── limits ────────────────────────────────────────────────────────────────────────────


def attempt(access, api_key, address, now_ns=NOW_NS):
    """Judge an authentication by every limiter that it is counted by."""
    limiters = access.authentication_limiters(api_key, address)
    rulings = [limiter.admit(now_ns) for limiter in limiters]
    return all(ruling.verdict is Verdict.ACCEPT for ruling in rulings)


@pytest.mark.req("LM-03", "SEC-14", "F-97")
def test_an_address_has_ten_authentications_a_minute_whatever_the_keys():
    access = doorkeeper()
    names = [ALICE.api_key, BOB.api_key, "guess", ""] * 3

    accepted = [attempt(access, name, "10.0.0.1") for name in names]

    assert accepted == [True] * 10 + [False] * 2
    assert attempt(access, ALICE.api_key, "10.0.0.2")


@pytest.mark.req("LM-03", "SEC-14", "F-97")
def test_a_key_has_ten_authentications_a_minute_wherever_from():
    access = doorkeeper()

    accepted = [attempt(access, ALICE.api_key, f"10.0.0.{n}") for n in range(11)]

    assert accepted == [True] * 10 + [False]
    assert attempt(access, BOB.api_key, "10.0.0.10")


@pytest.mark.req("LM-03", "I-15")
def test_the_limit_is_over_a_minute_later_and_not_before():
    access = doorkeeper()
    for _ in range(10):
        attempt(access, ALICE.api_key, "10.0.0.1")

    (address, key) = access.authentication_limiters(ALICE.api_key, "10.0.0.1")

    assert address.admit(NOW_NS + MINUTE_NS - 1).verdict is Verdict.CLOSE
    assert address.admit(NOW_NS + MINUTE_NS).verdict is Verdict.ACCEPT
    assert key.admit(NOW_NS + MINUTE_NS).verdict is Verdict.ACCEPT


@pytest.mark.req("I-17", "SEC-14")
def test_a_key_that_does_not_exist_has_the_same_limits():
    """Who guesses names learns nothing from the limit."""
    access = doorkeeper()
    now_ns = 0

    def attempts_until_refused(name: str, address: str) -> int:
        for count in range(1, 20):
            limiters = access.authentication_limiters(name, f"{address}.{count}")
            if admit(limiters, now_ns).verdict is not Verdict.ACCEPT:
                return count
        return 0

    assert attempts_until_refused(ALICE.api_key, "10.0.0") == 11
    assert attempts_until_refused("no-such-key", "10.0.1") == 11
    assert attempts_until_refused("x" * 60_000, "10.0.2") == 11


def test_names_that_nobody_used_for_two_minutes_are_forgotten():
    access = doorkeeper()
    for number in range(100):
        admit(access.authentication_limiters(f"k{number}", "10.0.0.1"), 0)
    for minute in range(1, 4):
        access.admit_handshake("10.0.0.2", minute * 60 * NS_PER_S)

    fresh = access.authentication_limiters("k1", "10.0.0.1")
    assert all(limiter.count(180 * NS_PER_S) == 0 for limiter in fresh)
    assert access.remembered_names == 1


@pytest.mark.req("LM-05", "A-14")
def test_the_order_limiter_is_that_of_the_key():
    access = doorkeeper()

    assert access.order_limiter(ALICE) is access.order_limiter(ALICE)
    assert access.order_limiter(ALICE) is not access.order_limiter(BOB)
    assert access.order_limiter(ALICE).limit == 100


@pytest.mark.req("SEC-14", "F-95")
def test_an_address_has_so_many_handshakes_a_minute():
    access = doorkeeper(LimitsConfig(handshakes_per_minute=3))
    admitted = [access.admit_handshake("10.0.0.1", NOW_NS + n) for n in range(5)]

    assert admitted == [True] * 3 + [False] * 2
    assert access.admit_handshake("10.0.0.2", NOW_NS)
    assert not access.admit_handshake("10.0.0.1", NOW_NS + MINUTE_NS - 1)
    assert access.admit_handshake("10.0.0.1", NOW_NS + MINUTE_NS)


@pytest.mark.req("I-17", "F-95", "SEC-15")
def test_addresses_that_are_quiet_for_a_minute_are_forgotten():
    access, most = doorkeeper(), 0

    for n in range(20_000):
        now_ns = NOW_NS + n * NS_PER_S // 100
        access.admit_handshake(f"address {n}", now_ns)
        access.authentication_limiters("guess", f"address {n}")[0].admit(now_ns)
        if n % 100 == 0:
            most = max(most, access.addresses)

    # Those of a minute to two, a hundred new ones a second.
    assert 6_000 <= most <= 12_001


@pytest.mark.req("SEC-14")
def test_an_address_over_its_limit_is_not_forgotten():
    access = doorkeeper(LimitsConfig(handshakes_per_minute=1))
    access.admit_handshake("10.0.0.1", NOW_NS)
    for n in range(100):
        access.admit_handshake(f"10.0.1.{n}", NOW_NS + MINUTE_NS - 1)

    assert not access.admit_handshake("10.0.0.1", NOW_NS + MINUTE_NS - 1)
    assert access.addresses == 101
