"""The floors of ARCHITECTURE.md: a module imports only what lies below it."""

import ast
import re
from pathlib import Path

import pytest

from tests.diagram import diagram

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "feedhandler"

FLOORS = [
    {
        "errors",
        "collector",
        "abi",
        "atomic",
        "clock",
        "futex",
        "segment",
        "records",
        "printable",
        "secret",
        "settings",
        "embed",
        "protocol",
    },
    {
        "book",
        "sync",
        "sink",
        "ring",
        "board",
        "counters",
        "shm",
        "throttle",
        "backoff",
        "order",
        "client_ids",
        "command",
    },
    {"scan"},
    {
        "codec",
        "publisher",
        "audit",
        "authentication",
        "reconnect",
        "orders",
        "account",
        "guards",
        "private",
        "commands",
    },
    {"tracker"},
    {"session"},
    {"event_loop", "listener", "trading", "venue"},
    {"connection", "config", "credentials", "segments", "tls", "trader", "engines"},
    {"desk", "consumer", "consumer_async"},
    {"handler"},
    {"client", "feed"},
    {
        "cli",
        "demo",
        "lines",
        "live_table",
        "order_commands",
        "shm_table",
        "testing",
        "__main__",
    },
]  # fmt: skip
FLOOR = {name: number for number, names in enumerate(FLOORS) for name in names}

# Within a floor: the words build on each other, and so do the doors.
TOGETHER = (FLOORS[0], FLOORS[-1])

THIRD_PARTY = {
    "numpy": {
        *("records", "ring", "board", "consumer", "consumer_async"),
        *("private", "segments", "lines"),
    },
    "msgspec": {
        "protocol",
        "authentication",
        "settings",
        "codec",
        "config",
        "order_commands",
        "shm",
        "trading",
        "venue",
    },
    "picows": {"listener", "connection", "venue.server"},
    "uvloop": {"cli"},
    "rich": {"live_table", "order_commands", "shm_table"},
    "pytest": {"testing"},
    "typing_extensions": {"segment", "ring", "board", "counters", "command"},
}
DOORS = {"cli", "demo", "order_commands", "__main__"}

IMPORT = re.compile(
    r"^[ \t]*"
    r"(?:from[ \t]+([\w.]+)[ \t]+c?import[ \t]+([^\n#]+)|c?import[ \t]+([\w.]+))",
    re.MULTILINE,
)


def sources() -> list[Path]:
    found = [*PACKAGE.rglob("*.py"), *PACKAGE.rglob("*.pxd"), *PACKAGE.rglob("*.pyi")]
    return sorted([*found, *(ROOT / "ext").rglob("*.pyx")])


def module_of(path: Path) -> str:
    base = ROOT / "ext" if path.suffix == ".pyx" else PACKAGE
    return ".".join(path.relative_to(base).with_suffix("").parts)


def imports(path: Path) -> list[str]:
    """Every module that *path* imports or cimports, ours with their package."""
    text = re.sub(r'"""(?:.|\n)*?"""', "", path.read_text())
    found = []
    for source, names, plain in IMPORT.findall(text):
        if source == "feedhandler":
            found += [
                f"feedhandler.{n.strip().split(' ')[0]}" for n in names.split(",")
            ]
        else:
            found.append(source or plain)
    return found


def part(name: str) -> str:
    """The entry of FLOORS that a module belongs to."""
    return name.partition(".")[0]


def ours() -> list[tuple[Path, str, str]]:
    return [
        (path, module_of(path), target.removeprefix("feedhandler."))
        for path in sources()
        if part(module_of(path)) != "__init__"
        for target in imports(path)
        if target.startswith("feedhandler.")
    ]


def test_every_module_has_a_floor():
    names = {part(module_of(path)) for path in sources()} - {"__init__"}

    assert names == set(FLOOR)


def test_the_imports_are_found():
    found = {(name, target) for _, name, target in ours()}

    assert ("session", "codec") in found
    assert ("listener", "session") in found
    assert ("venue.server", "venue.gateway") in found
    assert len(found) > 80


@pytest.mark.parametrize(("path", "name", "target"), ours(), ids=lambda v: str(v)[-30:])
def test_a_module_imports_only_floors_below_its_own(path: Path, name: str, target: str):
    here, there = part(name), part(target)
    allowed = (
        here == there
        or FLOOR[there] < FLOOR[here]
        or any(here in group and there in group for group in TOGETHER)
    )

    assert allowed, f"{path.name}: {here} imports {there}"


def test_the_venue_knows_only_the_words_and_itself():
    known = {part(target) for _, name, target in ours() if part(name) == "venue"}

    assert known <= FLOORS[0] | {"venue"}


def test_only_doors_know_the_handler():
    knowing = {part(name) for _, name, target in ours() if part(target) == "handler"}

    assert knowing - {"handler"} <= DOORS | {"client", "feed"}


def test_a_third_party_package_is_imported_where_its_job_is():
    wrong = []
    for path in sources():
        name = module_of(path)
        if name == "__init__":
            continue
        for target in imports(path):
            package = target.split(".")[0]
            homes = THIRD_PARTY.get(package)
            if homes is not None and not any(
                name == home or name.startswith(f"{home}.") for home in homes
            ):
                wrong.append(f"{path.name} imports {package}")
    assert wrong == []


@pytest.mark.req("SEC-31")
def test_no_module_but_the_shells_reads_a_clock():
    clocks = re.compile(r"time\.(time|monotonic)|monotonic_ns\(\)|realtime_ns\(\)")
    shells = {
        "clock", "shm", "ring", "listener", "connection", "handler", "consumer", "demo",
        "live_table", "shm_table", "venue.server", "venue.connection", "testing.proxy",
        "client", "desk", "event_loop", "feed", "trader",
    }  # fmt: skip
    reading = {
        module_of(path)
        for path in sources()
        if clocks.search(re.sub(r'"""(?:.|\n)*?"""', "", path.read_text()))
    }

    assert reading <= shells


@pytest.mark.req("SEC-01", "SEC-06")
def test_nothing_weakens_tls_or_compares_secrets_by_equality():
    text = "\n".join(path.read_text() for path in sources())

    assert not re.search("CERT_(NONE|OPTIONAL)|verify_mode|_unverified_", text)
    assert not re.search(
        r"check_hostname\s*=|load_default_certs|keylog.*=\s*[^N ]", text
    )
    assert not re.search(r"signature.*[=!]=|[=!]=.*signature", text)


TELLING = {
    *("cli", "demo", "live_table", "order_commands", "shm_table"),
    *("desk", "handler", "connection", "shm", "commands"),
    *("venue.server", "venue.connection", "venue.journal"),
    *("testing.proxy", "testing.connection"),
}
TELL = re.compile(r"\blogging\b|(?<![\w.])print\(|\bsys\.std(?:out|err)\b")
LOG = re.compile(r"log(?:ging)?(?:\.getLogger\(.*\))?\.\w+")
WIRE = {
    *("frame", "frames", "message", "messages", "payload", "raw", "data", "text"),
    *("outbox", "request", "requests", "signature", "secret", "reveal"),
}


def named_in(call: ast.Call) -> set[str]:
    """Every name in the arguments of a call."""
    parts = [part for argument in call.args for part in ast.walk(argument)]
    return {getattr(part, "id", getattr(part, "attr", "")) for part in parts}


@pytest.mark.req("I-18", "SEC-05")
def test_what_is_on_the_wire_is_never_logged():
    telling = [
        path
        for path in sources()
        if TELL.search(re.sub(r'"""(?:.|\n)*?"""', "", path.read_text()))
    ]
    assert {module_of(path) for path in telling} <= TELLING

    for path in telling:
        for call in ast.walk(ast.parse(path.read_text())):
            if isinstance(call, ast.Call) and LOG.fullmatch(ast.unparse(call.func)):
                assert not named_in(call) & WIRE, f"{path.name}:{call.lineno}"


SANS_IO = {
    *("throttle", "backoff", "reconnect", "authentication", "tracker", "session"),
    *("sync", "book", "codec", "publisher", "order", "orders", "account", "guards"),
    *("private", "trading"),
}
OUTSIDE = re.compile(
    r"\b(?:import|cimport) (?:time|asyncio|socket|select|threading)\b"
    r"|\bmonotonic_ns\b|\bdatetime\b|\brandom\.(?!Random\b)|\bsleep\("
)


@pytest.mark.req("F-55", "I-24")
def test_what_decides_has_no_clock_no_socket_and_no_chance_of_its_own():
    for path in sources():
        if module_of(path) in SANS_IO:
            assert OUTSIDE.findall(path.read_text()) == [], path


def test_the_states_of_a_session_are_drawn_from_its_table():
    """After a change of the table: python -m tests.diagram"""
    assert diagram() in (ROOT / "ARCHITECTURE.md").read_text()


@pytest.mark.req("SEC-01")
def test_contexts_of_tls_are_made_in_one_place_for_each_side():
    making = {
        module_of(path)
        for path in sources()
        if re.search(r"create_default_context\(|SSLContext\(", path.read_text())
    }

    assert making == {"tls", "venue.server"}


@pytest.mark.req("SEC-03", "SEC-25")
def test_the_environment_is_read_by_programs_alone():
    reading = {
        module_of(path)
        for path in sources()
        if re.search(r"os\.environ|getenv|getproxies|trust_env", path.read_text())
    }

    assert reading == {"cli", "venue.server"}
