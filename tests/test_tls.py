"""A client trusts a venue that proves who it is, and no other."""

import asyncio
import contextlib
import os
import re
import ssl
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import uvloop

from feedhandler.config import FeedConfig, build
from feedhandler.errors import ConfigError, ConnectionFailed
from feedhandler.handler import FeedHandler
from feedhandler.tls import client_context
from feedhandler.venue import Venue, VenueConfig
from tests import loops
from tests.certificates import (
    Certificate,
    authority,
    issued,
    only_tls_1_1,
    self_signed,
)
from tests.end_to_end.processes import unique
from tests.rawpeer import Peer, Server

SECONDS = 10.0
TIMEOUT_S = 3.0
STALLED_S = 0.2
ATTEMPTS = 3


class Certificates(NamedTuple):
    """Ours, and what else somebody may show."""

    ours: Certificate
    good: Certificate
    expired: Certificate
    elsewhere: Certificate
    strange: Certificate
    itself: Certificate


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    folder = tmp_path_factory.mktemp("certificates")
    ours, theirs = authority(folder, "ours"), authority(folder, "theirs")
    return Certificates(
        ours=ours,
        good=issued(folder, "good", ours),
        expired=issued(folder, "expired", ours, days=-1),
        elsewhere=issued(folder, "elsewhere", ours, "DNS:elsewhere.example"),
        strange=issued(folder, "strange", theirs),
        itself=self_signed(folder),
    )


def config(url: str, ca_file: str = "", timeout_s: float = TIMEOUT_S) -> FeedConfig:
    return build(
        {
            "url": url,
            "ca_file": ca_file,
            "shm": {"name": unique("tls"), "capacity": 64, "instruments": 8},
            "limits": {
                "connect_timeout_s": timeout_s,
                "reconnect_base_s": 0.001,
                "reconnect_attempts": ATTEMPTS - 1,
            },
            "instruments": [{"symbol": "AAPL", "channels": ["orderbook"]}],
        }
    )


async def refused(feed_config: FeedConfig) -> ConnectionFailed:
    """Run a feed until it gives up; return why."""
    async with FeedHandler(feed_config) as feed:
        with pytest.raises(ConnectionFailed) as raised:
            await feed.live(SECONDS)
    return raised.value


def venue_of(certificate: Certificate) -> Venue:
    return Venue(
        VenueConfig(port=0, tls_cert=certificate.cert, tls_key=certificate.key)
    )


# ── whom it trusts ────────────────────────────────────────────────────────────────────


@pytest.mark.req("EP-05", "SEC-01")
@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_a_book_is_live_over_tls_with_an_authority_of_our_own(
    certificates: Certificates, run: Callable[[Coroutine[Any, Any, None]], None]
):
    async def work() -> None:
        async with venue_of(certificates.good) as venue:
            assert venue.url.startswith("wss://")
            async with FeedHandler(config(venue.url, certificates.ours.cert)) as feed:
                await feed.live(SECONDS)
                assert feed.book("AAPL").is_live

    run(work())


@pytest.mark.req("SEC-01")
def test_a_certificate_that_signed_itself_is_trusted_where_it_is_named(
    certificates: Certificates,
):
    async def work() -> None:
        itself = certificates.itself
        async with (
            venue_of(itself) as venue,
            FeedHandler(config(venue.url, itself.cert)) as feed,
        ):
            await feed.live(SECONDS)

    asyncio.run(work())


@pytest.mark.req("SEC-01")
def test_without_a_file_the_system_s_authorities_are_trusted_and_with_one_they_are_not(
    certificates: Certificates, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("SSL_CERT_FILE", certificates.ours.cert)
    ours, pinned = client_context(""), client_context(certificates.itself.cert)

    assert len(ours.get_ca_certs()) == len(pinned.get_ca_certs()) == 1
    assert ours.get_ca_certs() != pinned.get_ca_certs()


@pytest.mark.req("SEC-01")
@pytest.mark.parametrize("named", [False, True])
def test_certificate_and_name_are_verified_and_old_versions_refused(
    certificates: Certificates, named: bool
):
    context = client_context(certificates.ours.cert if named else None)

    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2
    assert not context.verify_flags & ssl.VERIFY_ALLOW_PROXY_CERTS


@pytest.mark.req("SEC-01", "SEC-05")
def test_the_keys_of_a_session_are_written_nowhere(
    certificates: Certificates, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Positive first: the same handshake, of a context of Python's own, is in there."""
    for context, keys in (
        (lambda: ssl.create_default_context(cafile=certificates.ours.cert), True),
        (lambda: client_context(certificates.ours.cert), False),
    ):
        file = tmp_path / f"keys-{keys}"
        monkeypatch.setenv("SSLKEYLOGFILE", str(file))
        assert shake_hands(context(), certificates.good.server_context())

        written = file.read_text() if file.exists() else ""
        assert ("TRAFFIC_SECRET" in written) is keys


def shake_hands(client: ssl.SSLContext, server: ssl.SSLContext) -> str | None:
    """Let two contexts talk in memory; return the version that they agreed on."""
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = [
        client.wrap_bio(down, up, server_hostname="127.0.0.1"),
        server.wrap_bio(up, down, server_side=True),
    ]
    for _ in range(10):
        for side in list(sides):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
            if side.server_side:
                return side.version()
    return None


@pytest.mark.req("SEC-01")
@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda path: path.unlink(), "no such file"),
        (lambda path: (path.unlink(), path.mkdir()), "is a directory"),
        (lambda path: path.write_text(""), "no certificate in PEM"),
        (lambda path: path.write_text("not PEM"), "no certificate in PEM"),
        (
            lambda path: path.write_text(path.read_text()[:200]),
            "no certificate in PEM",
        ),
    ],
    ids=["absent", "directory", "empty", "text", "half"],
)
def test_a_file_without_an_authority_is_one_line_and_no_feed(
    certificates: Certificates, tmp_path: Path, spoil: Any, words: str
):
    path = tmp_path / "ca.pem"
    path.write_text(Path(certificates.ours.cert).read_text())
    spoil(path)

    async def start() -> None:
        await FeedHandler(config("wss://127.0.0.1:1", str(path))).start()

    with pytest.raises(ConfigError, match=words) as raised:
        asyncio.run(start())
    assert raised.value.key == "ca_file"
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_name_that_no_file_can_have_is_one_line():
    with pytest.raises(ConfigError, match=r"ca_file 'a\\x00b'.*null"):
        client_context("a\0b")


# ── whom it refuses ───────────────────────────────────────────────────────────────────


async def say_nothing(peer: Peer) -> None:
    await peer.gone()


async def answer_in_plaintext(peer: Peer) -> None:
    await peer.reader.read(1)
    await peer.send(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
    await peer.gone()


def secured(
    choose: Callable[[Certificates], Certificate],
) -> Callable[[Certificates], Server]:
    return lambda made: Server(say_nothing, tls=choose(made).server_context())


def outdated(made: Certificates) -> Server:
    """One of TLS 1.1, by hand: asyncio's own would not send the alert at its end."""
    context = only_tls_1_1(made.good.server_context())
    old = only_tls_1_1(ssl.create_default_context(cafile=made.ours.cert))
    try:
        # It does speak it, to who wants it: or its refusal would show nothing.
        assert shake_hands(old, context) == "TLSv1.1"
    except ssl.SSLError as error:
        pytest.skip(f"this OpenSSL cannot speak TLS 1.1 at all: {error.reason}")

    async def shake(peer: Peer) -> None:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        side = context.wrap_bio(incoming, outgoing, server_side=True)
        try:
            while True:
                incoming.write(await peer.reader.read(1 << 16))
                with contextlib.suppress(ssl.SSLWantReadError):
                    side.do_handshake()
                    raise AssertionError("somebody speaks TLS 1.1")
                await peer.send(outgoing.read())
        except ssl.SSLError:
            await peer.send(outgoing.read())
        await peer.gone()

    return Server(shake, upgrade=False)


REFUSED: dict[str, tuple[Callable[[Certificates], Server], str, int]] = {
    "self-signed": (secured(lambda c: c.itself), "self.signed certificate", 2),
    "another authority": (
        secured(lambda c: c.strange),
        "unable to get local issuer",
        2,
    ),
    "expired": (secured(lambda c: c.expired), "certificate has expired", 2),
    "wrong host": (secured(lambda c: c.elsewhere), "IP address mismatch", 2),
    "TLS 1.1": (outdated, "(?i)protocol.version", ATTEMPTS),
    "plain HTTP": (
        lambda _: Server(answer_in_plaintext, upgrade=False),
        "(?i)wrong.version.number",
        ATTEMPTS,
    ),
    "silence": (lambda _: Server(say_nothing, upgrade=False), "Timeout", ATTEMPTS),
}


@pytest.mark.req("F-04", "SEC-01", "EP-05")
@pytest.mark.parametrize("case", REFUSED)
def test_who_does_not_prove_to_be_the_venue_is_refused_in_time_and_logged(
    certificates: Certificates, caplog: pytest.LogCaptureFixture, case: str
):
    """A certificate does not mend itself: it is looked at twice, and no more."""
    serve, words, attempts = REFUSED[case]
    timeout_s = STALLED_S if case == "silence" else TIMEOUT_S
    failures: list[ConnectionFailed] = []
    took: list[float] = []

    async def work() -> None:
        async with serve(certificates) as server:
            url = server.base_url.replace("ws://", "wss://")
            begun = time.monotonic()
            settings = config(url, certificates.ours.cert, timeout_s)
            failures.append(await refused(settings))
            took.append(time.monotonic() - begun)
            assert server.connections == (0 if server.base_url == url else attempts)

    loops.run(work)

    failed = failures[0]
    assert failed.attempts == attempts
    assert took[0] < TIMEOUT_S
    lines = [record.getMessage() for record in caplog.records]
    assert any(line.startswith("failed url=wss://127.0.0.1:") for line in lines)
    assert all("\n" not in line for line in lines)
    assert re.search(words, failed.reason), failed.reason


@pytest.mark.req("SEC-01")
def test_plaintext_to_another_machine_is_refused_before_anything_is_sent():
    with pytest.raises(ConfigError, match="plaintext to another machine"):
        config("ws://10.0.0.1")


# ── what it does not follow ───────────────────────────────────────────────────────────


@pytest.mark.req("SEC-25", "F-05", "RC-11")
@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_an_error_and_nobody_is_asked_there(
    certificates: Certificates, status: int
):
    failures: list[ConnectionFailed] = []

    async def work() -> None:
        async with Server(say_nothing, upgrade=False) as other:

            async def redirect(peer: Peer) -> None:
                await peer.reader.readuntil(b"\r\n\r\n")
                head = f"HTTP/1.1 {status} Over there\r\nLocation: {other.url}\r\n"
                await peer.send(f"{head}Content-Length: 0\r\n\r\n".encode())
                await peer.gone()

            tls = certificates.good.server_context()
            async with Server(redirect, upgrade=False, tls=tls) as server:
                settings = config(server.base_url, certificates.ours.cert)
                failures.append(await refused(settings))
                assert (server.connections, other.connections) == (ATTEMPTS, 0)

    loops.run(work)

    assert str(status) in failures[0].reason


PROXIES = ["http_proxy", "https_proxy", "all_proxy", "ws_proxy", "wss_proxy"]


@pytest.mark.req("SEC-25")
@pytest.mark.parametrize("scheme", ["http", "socks5"])
@pytest.mark.parametrize("secure", [False, True], ids=["ws", "wss"])
def test_a_proxy_of_the_environment_sees_no_connection(
    certificates: Certificates,
    monkeypatch: pytest.MonkeyPatch,
    scheme: str,
    secure: bool,
):
    async def work() -> None:
        async with Server(say_nothing, upgrade=False) as proxy:
            address = proxy.base_url.replace("ws", scheme, 1)
            for variable in PROXIES:
                monkeypatch.setenv(variable, address)
                monkeypatch.setenv(variable.upper(), address)
            await lives_without(proxy)

    async def lives_without(proxy: Server) -> None:
        plain = Venue(VenueConfig(port=0))
        async with venue_of(certificates.good) if secure else plain as venue:
            ca_file = certificates.ours.cert if secure else ""
            async with FeedHandler(config(venue.url, ca_file)) as feed:
                await feed.live(SECONDS)
        assert proxy.connections == 0

    for variable in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    asyncio.run(work())
    assert os.environ["HTTPS_PROXY"].startswith(f"{scheme}://127.0.0.1:")
