"""Who we are: timestamps that never come twice, the venue's clock, and its answers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedhandler.authentication import WINDOW_NS, ApiKey, Login, Outcome, shared_key
from feedhandler.errors import ConfigError
from feedhandler.protocol.messages import (
    AuthResponse,
    AuthResponseData,
    Error,
    ErrorData,
)
from feedhandler.protocol.signature import sign
from feedhandler.secret import Secret

NAME, SECRET = "key-of-somebody", "s3cret"
NOW_NS = 1_000_000_000_000
WALL_MS = 1_625_097_600_000


def key(**options: int) -> ApiKey:
    return ApiKey(NAME, Secret(SECRET), **options)


def begun(owner: ApiKey | None = None) -> tuple[Login, str]:
    """A login that has sent its request, and the id of it."""
    login = Login(owner or key())
    login.begin()
    request = login.request(NOW_NS, WALL_MS)
    assert request is not None
    assert request.id is not None
    return login, request.id


def response(
    request_id: str | None,
    status: str | None = None,
    inner: str | None = None,
    code: str | None = None,
    timestamp: int = WALL_MS,
) -> AuthResponse:
    data = AuthResponseData(inner, None, code)
    return AuthResponse(data, status, None, timestamp, request_id)


def error(request_id: str, code: str, timestamp: int = WALL_MS) -> Error:
    return Error(ErrorData(code, "because", request_id), timestamp, request_id)


# ── signing ───────────────────────────────────────────────────────────────────────────


@pytest.mark.req("AU-03", "AU-04")
def test_a_request_is_signed_over_key_and_time():
    login = Login(key())
    login.begin()
    request = login.request(NOW_NS, WALL_MS)

    assert request is not None
    assert request.data.api_key == NAME
    assert request.data.timestamp == WALL_MS
    assert request.data.signature == sign(NAME, SECRET.encode(), WALL_MS)


@pytest.mark.req("A-05")
@given(st.lists(st.integers(WALL_MS - 1000, WALL_MS + 1000), min_size=2, max_size=50))
def test_the_timestamps_of_a_key_only_grow(clock):
    owner = key()
    signed = [owner.sign(wall_ms).timestamp for wall_ms in clock]

    assert signed == sorted(set(signed))
    assert all(told >= wall for told, wall in zip(signed, clock, strict=True))


@pytest.mark.req("F-56", "A-05")
@pytest.mark.parametrize("ahead_ms", [-3_600_000, -10_000, 2_000, 10_000, 3_600_000])
def test_after_a_refused_timestamp_the_next_one_is_right_by_the_venues_clock(ahead_ms):
    owner = key()
    login, first = begun(owner)
    venue_ms = WALL_MS - ahead_ms

    outcome = login.judge(
        response(first, "error", "error", "invalid_parameter", venue_ms),
        NOW_NS,
        WALL_MS,
    )
    again = login.request(NOW_NS, WALL_MS + 20)

    assert outcome is Outcome.AGAIN
    assert again is not None
    assert again.id != first
    assert again.data.timestamp == venue_ms + 20


@pytest.mark.req("A-05")
def test_a_clock_that_is_set_back_repeats_no_timestamp_that_was_accepted():
    owner = key()
    login, first = begun(owner)
    login.judge(response(first, "success"), NOW_NS, WALL_MS)
    owner.learn(WALL_MS, WALL_MS - 5000)

    assert owner.sign(WALL_MS).timestamp == WALL_MS + 1


# ── answers ───────────────────────────────────────────────────────────────────────────


@pytest.mark.req("AU-06", "A-01", "F-33")
@pytest.mark.parametrize(
    ("status", "inner", "code", "outcome"),
    [
        ("success", "success", None, Outcome.ACCEPTED),
        ("success", None, None, Outcome.ACCEPTED),
        (None, "success", None, Outcome.ACCEPTED),
        ("success", "error", None, Outcome.LATER),
        ("error", "success", None, Outcome.LATER),
        (None, None, None, Outcome.LATER),
        ("error", "error", "invalid_credentials", Outcome.REFUSED),
        ("success", "error", "invalid_credentials", Outcome.REFUSED),
        (None, "error", "invalid_credentials", Outcome.REFUSED),
        ("error", "error", "invalid_parameter", Outcome.AGAIN),
        ("error", None, None, Outcome.AGAIN),
        ("failed", None, None, Outcome.AGAIN),
        ("error", "error", "rate_limit_exceeded", Outcome.LATER),
        ("error", "error", "internal_error", Outcome.LATER),
    ],
)
def test_only_a_plain_success_is_one(status, inner, code, outcome):
    login, request_id = begun()

    answer = response(request_id, status, inner, code)
    assert login.is_about(answer)
    assert login.judge(answer, NOW_NS, WALL_MS) is outcome
    assert login.is_accepted == (outcome is Outcome.ACCEPTED)


@pytest.mark.req("AU-08", "A-02", "F-33")
def test_only_the_answer_to_our_request_counts_and_only_once():
    login, request_id = begun()

    assert not login.is_about(response("auth-1", "success"))
    assert not login.is_about(error("sub-1", "invalid_credentials"))
    assert login.is_about(response(None, "success"))
    assert login.is_about(error(request_id, "invalid_credentials"))

    login.judge(response(request_id, "success"), NOW_NS, WALL_MS)

    assert not login.is_about(response(request_id, "error"))
    assert not login.is_about(response(None, "error"))
    assert login.is_accepted


@pytest.mark.req("AU-10", "A-02")
@pytest.mark.parametrize(
    ("code", "outcome"),
    [
        ("invalid_credentials", Outcome.REFUSED),
        ("invalid_parameter", Outcome.AGAIN),
        ("rate_limit_exceeded", Outcome.LATER),
        ("internal_error", Outcome.LATER),
        ("something_new", Outcome.LATER),
    ],
)
def test_an_error_frame_is_an_answer_too(code, outcome):
    login, request_id = begun()

    assert login.judge(error(request_id, code), NOW_NS, WALL_MS) is outcome


@pytest.mark.req("A-05")
@pytest.mark.parametrize(
    ("code", "outcome"), [("invalid_parameter", Outcome.LATER), ("", Outcome.REFUSED)]
)
def test_there_is_one_retry_on_a_connection(code: str, outcome: Outcome):
    login, request_id = begun()
    login.judge(response(request_id, "error", None, code), NOW_NS, WALL_MS)
    again = login.request(NOW_NS, WALL_MS)
    assert again is not None

    last = response(again.id, "error", None, code)
    assert login.judge(last, NOW_NS, WALL_MS) is outcome
    assert login.request(NOW_NS, WALL_MS) is None


@pytest.mark.req("F-60")
def test_an_answer_that_does_not_come_is_overdue_after_ten_seconds():
    login, _ = begun()

    assert not login.is_overdue(NOW_NS + 9_999_999_999)
    assert login.is_overdue(NOW_NS + 10_000_000_000)

    login.end()

    assert not login.is_overdue(NOW_NS + 10_000_000_000)


# ── what connections share ────────────────────────────────────────────────────────────


@pytest.mark.req("AU-15", "LM-03", "A-46")
def test_all_logins_of_a_key_share_its_authentications():
    owner = key(authentications=9)
    logins = [Login(owner) for _ in range(12)]
    for login in logins:
        login.begin()
    sent = [login.request(NOW_NS, WALL_MS) is not None for login in logins]

    assert sum(sent) == 9
    assert owner.wait_ns(NOW_NS) == WINDOW_NS
    assert logins[-1].request(NOW_NS + WINDOW_NS, WALL_MS) is not None


@pytest.mark.req("A-46", "F-61")
def test_connections_that_are_being_made_count_before_they_have_authenticated():
    owner = key(authentications=2)
    first, second = Login(owner), Login(owner)
    first.expect()

    assert owner.wait_ns(NOW_NS) == 0

    second.expect()
    first.begin()
    first.request(NOW_NS, WALL_MS)

    assert owner.wait_ns(NOW_NS) == WINDOW_NS

    second.end()

    assert owner.wait_ns(NOW_NS) == 0


@pytest.mark.req("LM-10")
@pytest.mark.parametrize(("retry_after", "wait_s"), [(7, 7), (0.5, 1), (None, 0)])
def test_a_key_waits_as_long_as_the_venue_says(retry_after, wait_s):
    login, request_id = begun()
    answer = error(request_id, "rate_limit_exceeded")
    if retry_after is not None:
        answer.data.retry_after = retry_after
    login.judge(answer, NOW_NS, WALL_MS)

    assert login.key.wait_ns(NOW_NS) == wait_s * 1_000_000_000


@pytest.mark.req("LM-01", "I-16")
def test_a_sixth_connection_of_a_key_is_refused_with_the_reason():
    owner = key()
    for _ in range(5):
        owner.reserve()

    with pytest.raises(ConfigError, match=r"key-… has 5 connections"):
        owner.reserve()

    owner.release()
    owner.reserve()


@pytest.mark.req("LM-01")
def test_a_process_has_one_key_of_a_name_at_a_venue():
    owner = shared_key("ws://127.0.0.1:1", NAME, Secret(SECRET))

    assert shared_key("ws://127.0.0.1:1", NAME, Secret(SECRET)) is owner
    assert shared_key("ws://127.0.0.1:2", NAME, Secret(SECRET)) is not owner
    with pytest.raises(ConfigError, match="another secret"):
        shared_key("ws://127.0.0.1:1", NAME, Secret("other"))


@pytest.mark.req("SEC-05")
@pytest.mark.parametrize("name", ["k", "key-0001", "key-of-somebody"])
def test_a_key_is_never_shown_whole(name: str):
    owner = ApiKey(name, Secret(SECRET))

    assert name not in repr(owner)
    assert SECRET not in repr(owner)
