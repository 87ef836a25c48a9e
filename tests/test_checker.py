"""The checker of logs: it passes what is so, and sees each of the bugs it is shown."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.audit_log import CROSSED, GAP, ID_CUT, LIVE, NO_ASK, SNAPSHOT, STALE
from tests.checker import Loss, Read, main
from tests.logs import (
    BOOK,
    FIRST,
    HEAD,
    SECOND,
    TRADES,
    UPDATES,
    Logs,
    Quote,
    Sides,
    Trade,
    asked,
    changed,
    noted,
    quotes_read,
    told,
    trades_read,
)
from tests.truth import Truth, audit_crc

Change = Callable[[Logs], object]
MARKET_CLOSED = 0x80


def test_logs_of_what_is_so_are_passed():
    violations, counts = Logs().examined()

    assert violations == []
    assert counts == {
        "lines": 13, "trusted lines": 8, "live lines": 8, "losses": 2, "trades": 5,
    }  # fmt: skip


def test_the_truth_is_the_book_at_each_sequence():
    truth = Truth(Logs().journal_text())

    assert truth.wrong == []
    for period, sides in zip(truth.books[BOOK], (FIRST, SECOND), strict=True):
        found = {n: (list(b.bids), list(b.asks)) for n, b in period.books.items()}
        assert found == sides


# ── bugs ──────────────────────────────────────────────────────────────────────────────

BUGS: list[Any] = []


def bug(invariant: str, words: str) -> Callable[[Change], Change]:
    """Have the checker shown logs with a change, in which it must see this alone."""

    def keep(change: Change) -> Change:
        BUGS.append(pytest.param(invariant, words, change, id=change.__name__))
        return change

    return keep


@bug("I-01", "the book at 101 has sum")
def a_size_is_another(logs: Logs) -> None:
    for quote in logs.quotes(2, 101):
        quote.crc ^= 1


@bug("I-01", "the book at 103 has sum")
def a_snapshot_is_merged_into_the_old_book(logs: Logs) -> None:
    bids, asks = FIRST[103]
    logs.quotes(3, 103)[0].be(([bids[0], (149.5, 10.0), bids[1]], asks))


@bug("I-01", "the book at 103 has sum")
def the_sides_are_exchanged(logs: Logs) -> None:
    logs.quotes(3, 103)[0].be(FIRST[103][::-1])


@bug("I-01", "the book at 104 has sum")
def an_update_is_counted_and_not_applied(logs: Logs) -> None:
    for quote in logs.quotes(3, 104):
        quote.be(FIRST[103])


@bug("I-01", "the book at 106 has sum")
def a_level_beyond_the_depth_is_kept(logs: Logs) -> None:
    bids, asks = FIRST[106]
    for quote in logs.quotes(3, 106):
        quote.be(([*bids, (140.0, 1.0)], asks))


@bug("I-01", "told of no book at 107")
def a_sequence_is_invented(logs: Logs) -> None:
    logs.put(logs.quotes(5, 106)[1], Quote(5, 107, LIVE, SECOND[106]))


@bug("I-01", "the book at 105 has sum")
def the_book_of_the_last_life_of_the_venue_is_kept(logs: Logs) -> None:
    logs.quotes(5, 105)[0].be(FIRST[105])


@bug("I-01", "wrong about an empty side")
def the_other_side_is_empty(logs: Logs) -> None:
    logs.quotes(5, 105)[0].flags = LIVE | NO_ASK


@bug("I-01", "CROSSED at 103, where the venue's book is not")
def a_sound_book_is_crossed(logs: Logs) -> None:
    logs.quotes(3, 103)[0].flags = CROSSED | SNAPSHOT


@bug("I-01", "the last LIVE book is 105, the venue's is 106")
def the_last_update_is_not_applied(logs: Logs) -> None:
    for quote in logs.quotes(5, 106):
        logs.audit.remove(quote)


@bug("I-01", "at the end there is no LIVE book")
def no_book_is_ever_live(logs: Logs) -> None:
    logs.audit = [*HEAD[:2]]


def cross(logs: Logs, bid: float) -> None:
    """Let the venue have a best bid at 106 that is not below its best ask, 150.25."""
    logs.told("orderbook_update", 106)["bids"] = [[bid, 1.0]]
    logs.journal = [line for line in logs.journal if line["k"] != "book"]
    for quote in logs.quotes(3, 106):
        quote.be(([(bid, 1.0), (150.1, 1.0), (150.0, 7.0)], FIRST[106][1]))


@bug("I-02", "LIVE at 106, where the venue's book is crossed")
def a_crossed_book_is_live(logs: Logs) -> None:
    cross(logs, 150.75)


@bug("I-02", "LIVE at 106, where the venue's book is crossed")
def a_locked_book_is_live(logs: Logs) -> None:
    cross(logs, 150.25)


@bug("I-02", "LIVE and CROSSED")
def a_book_is_live_and_crossed(logs: Logs) -> None:
    cross(logs, 150.75)
    logs.quotes(3, 106)[0].flags = LIVE | CROSSED


@bug("I-03", "LIVE again at 101 with nothing applied")
def stale_is_cleared_before_the_snapshot(logs: Logs) -> None:
    logs.put(logs.quotes(2, 101)[1], Quote(2, 101, LIVE, FIRST[101]))


@bug("I-03", "update 102 was lost, and epoch 2 ends LIVE")
def a_lost_update_is_not_noticed(logs: Logs) -> None:
    logs.audit.remove(logs.quotes(2, 101)[1])


@bug("I-03", "101 is followed by 103 in one epoch")
def an_update_is_applied_across_a_gap(logs: Logs) -> None:
    stale = logs.quotes(2, 101)[1]
    logs.put(stale, Quote(2, 103, LIVE, FIRST[103]))
    logs.audit.remove(stale)


@bug("I-03", "LIVE in epoch 4, which no snapshot has begun")
def a_connection_makes_a_book_live(logs: Logs) -> None:
    logs.put(logs.quotes(3, 106)[1], Quote(4, 106, LIVE, FIRST[106]))


@bug("I-03", "LIVE and STALE")
def a_book_is_live_and_stale(logs: Logs) -> None:
    logs.quotes(3, 105)[0].flags |= LIVE


@bug("I-03", "GAP and not STALE")
def a_gap_is_live(logs: Logs) -> None:
    logs.quotes(3, 106)[0].flags |= GAP


@bug("I-03", "neither LIVE nor STALE nor CROSSED")
def a_book_is_nothing(logs: Logs) -> None:
    logs.quotes(3, 104)[0].flags = 0


@bug("I-03", "update 105 was lost, and was applied")
def what_was_lost_is_applied(logs: Logs) -> None:
    logs.losses[1] = Loss(BOOK, 105)


@bug("I-03", "no line shows gap")
def a_gap_that_was_told_is_not_flagged(logs: Logs) -> None:
    detail = {"channel": BOOK, "expected": 104, "received": 106}
    logs.events = [("gap", "AAPL", detail)]


@bug("I-04", "a snapshot within epoch 2")
def a_snapshot_begins_no_epoch(logs: Logs) -> None:
    for quote in logs.quotes(3):
        quote.epoch = quote.byte = 2


@bug("I-04", "(2, 104) follows (3, 106)")
def an_epoch_goes_back(logs: Logs) -> None:
    for quote in logs.quotes(5):
        quote.epoch = quote.byte = 2


@bug("I-04", "(3, 104) follows (3, 106)")
def a_sequence_goes_back(logs: Logs) -> None:
    logs.put(logs.quotes(3, 106)[1], Quote(3, 104, STALE, FIRST[104]))


@bug("I-04", "two books are (3, 104)")
def an_update_is_applied_twice(logs: Logs) -> None:
    logs.quotes(3, 104)[1].crc ^= 1


@bug("I-04", "104 is followed by 106 in one epoch")
def what_is_held_is_applied_before_what_is_missing(logs: Logs) -> None:
    logs.audit.remove(logs.quotes(3, 105)[0])
    logs.quotes(3, 106)[0].flags = STALE


@bug("I-04", "epoch 3, and the flags have 2")
def the_flags_are_of_the_epoch_before(logs: Logs) -> None:
    logs.quotes(3, 104)[0].byte = 2


@bug("I-04", "a snapshot within epoch 3")
def what_is_no_snapshot_says_that_it_is_one(logs: Logs) -> None:
    logs.quotes(3, 104)[0].flags |= SNAPSHOT


@bug("I-07", "trade b't-1' is published twice in an epoch")
def a_trade_is_published_twice(logs: Logs) -> None:
    logs.put(logs.trade("t-1"), Trade("t-1", 1))


@bug("I-07", "trade b't-2' is not published")
def a_trade_is_missing(logs: Logs) -> None:
    logs.audit.remove(logs.trade("t-2"))


@bug("I-07", "trade b't-1' is not published")
def the_first_trade_is_missing(logs: Logs) -> None:
    logs.audit.remove(logs.trade("t-1"))


@bug("I-07", "trade b't-2' is not published")
def the_last_trade_is_missing(logs: Logs) -> None:
    logs.audit.remove(logs.trade("t-2", epoch=2))


@bug("I-07", "trade b't-1' is not published, and 1 more")
def no_trade_is_published_at_all(logs: Logs) -> None:
    logs.audit = [line for line in logs.audit if not isinstance(line, Trade)]


@bug("I-07", "trade b't-1' is published out of order")
def trades_change_places(logs: Logs) -> None:
    one, two = logs.trade("t-1"), logs.trade("t-2")
    one.trade_id, two.trade_id = two.trade_id, one.trade_id


@bug("I-07", "trade b't-9' is not the venue's")
def a_trade_is_invented(logs: Logs) -> None:
    logs.put(logs.trade("t-3"), Trade("t-9", 1))


@bug("I-07", "trade b't-3' has another price or size")
def a_trade_has_another_price(logs: Logs) -> None:
    logs.trade("t-3").price = 150.5


@bug("I-07", "the venue told of no trade")
def the_trades_are_somebody_else_s(logs: Logs) -> None:
    logs.journal = [line for line in logs.journal if TRADES not in json.dumps(line)]


@bug("log", "22 lines came before it")
def a_line_of_the_log_is_left_out(logs: Logs) -> None:
    logs.audit.append(Quote(5, 106, STALE, SECOND[106]))
    logs.end = "E 23"


@bug("log", "line 10 'Q 1 2' cannot be")
def a_line_is_too_short(logs: Logs) -> None:
    logs.audit.insert(9, "Q 1 2")


@bug("log", "its kind is unknown")
def a_line_is_of_no_kind(logs: Logs) -> None:
    logs.audit.insert(9, "Z 1")


@bug("log", "the log had ended")
def something_comes_after_the_end(logs: Logs) -> None:
    logs.audit.append("E 21")


@bug("log", "the format is not 1")
def the_format_is_another(logs: Logs) -> None:
    logs.audit[0] = "H 2"
    logs.quiescent = False


@bug("log", "no feed begins")
def there_is_no_feed(logs: Logs) -> None:
    logs.audit, logs.end, logs.quiescent = [], "", False


@bug("log", "instrument 0 has no order book")
def a_book_has_no_name(logs: Logs) -> None:
    logs.audit.remove(HEAD[1])


@bug("log", "instrument 0 has no trades")
def trades_have_no_name(logs: Logs) -> None:
    logs.audit.remove(HEAD[2])


@bug("venue", "a snapshot at 103 is not the book")
def the_venue_tells_two_books(logs: Logs) -> None:
    logs.told("orderbook", 103)["bids"].append([140.0, 1.0])


@bug("venue", "two updates have sequence 106")
def the_venue_tells_two_updates(logs: Logs) -> None:
    again = told(2, "orderbook_update", 106, ([], [(11.0, 2.0)]))
    logs.journal.insert(-1, again)


@bug("venue", "the book told at 104 has another sum than the venue's own")
def the_venue_has_another_book_than_it_tells(logs: Logs) -> None:
    next(line for line in logs.journal if line.get("sequence") == 104)["crc"] ^= 1


@bug("venue", "line 3 is not JSON")
def the_journal_is_torn_in_its_middle(logs: Logs) -> None:
    logs.journal.insert(2, '{"t":1,\n')


@pytest.mark.parametrize(("invariant", "words", "change"), BUGS)
def test_a_bug_is_seen(invariant, words, change):
    violations = changed(change).checked()

    assert {violation.invariant for violation in violations} == {invariant}
    assert any(words in str(violation) for violation in violations), violations


def test_bugs_of_each_kind_are_shown():
    kinds = {param.values[0] for param in BUGS}

    assert kinds == {"I-01", "I-02", "I-03", "I-04", "I-07", "log", "venue"}
    assert len(BUGS) > 45


# ── consumers ─────────────────────────────────────────────────────────────────────────


@pytest.mark.req("I-06")
def test_what_was_read_and_lost_is_all_that_was_published():
    violations, counts = Logs(reads=[quotes_read(), trades_read()]).examined()

    assert violations == []
    assert counts["records"] == 9 + 5


def test_a_reader_that_began_late_has_his_own_first_record():
    late = quotes_read()._replace(start=None, lost=0)

    assert Logs(reads=[late]).checked() == []


def altered(read: Read, name: str, values: dict[int, Any]) -> Read:
    for place, value in values.items():
        read.records[name][place] = value
    return read


def without(read: Read, place: int) -> Read:
    return read._replace(records=np.delete(read.records, place))


@pytest.mark.req("I-06")
@pytest.mark.parametrize(
    ("words", "read"),
    [
        ("8 read and 3 lost of 12 records", without(quotes_read(), 4)),
        ("9 read and 4 lost of 12 records", quotes_read()._replace(lost=4)),
        ("9 read and 0 lost of 12 records", quotes_read()._replace(lost=0)),
        ("record 9 is read after record 9", altered(quotes_read(), "seq", {4: 9})),
        ("8 is read after record 9", altered(quotes_read(), "seq", {4: 9, 5: 8})),
        ("read to record 11, and 12 were published", without(quotes_read(), 8)),
        ("record 13 was never published", altered(quotes_read(), "seq", {8: 13})),
        ("bid_price 150.2, not 150.1", altered(quotes_read(), "bid_price", {3: 150.2})),
        ("bid_price 10.0, not nan", altered(quotes_read(), "bid_price", {6: 10.0})),
        ("record 6 has flags", altered(quotes_read(), "flags", {2: LIVE})),
        ("record 6 has recv_ns", altered(quotes_read(), "recv_ns", {2: 1})),
        ("record 6 has instrument 1", altered(quotes_read(), "instrument", {2: 1})),
        ("record 6 has sequence 7", altered(quotes_read(), "sequence", {2: 7})),
        ("trade_id b't-9', not b't-2'", altered(trades_read(), "trade_id", {1: "t-9"})),
        ("size 3.0, not 2.0", altered(trades_read(), "size", {1: 3.0})),
    ],
)  # fmt: skip
def test_a_reader_that_was_deceived_is_seen(words, read):
    violations = Logs(reads=[read]).checked()

    assert {violation.invariant for violation in violations} == {"I-06"}
    assert any(words in str(violation) for violation in violations), violations


@pytest.mark.req("I-02")
def test_a_record_that_is_live_and_locked_is_seen():
    read = altered(quotes_read(lost=0), "bid_price", {0: 150.5})

    violations = Logs(reads=[read]).checked()
    assert "I-02 quotes line 4: record 1 is LIVE, and crossed or locked" in [
        str(violation) for violation in violations
    ]


# ── what is no fault ──────────────────────────────────────────────────────────────────

FAULTLESS: list[Any] = []


def no_fault(change: Change) -> Change:
    FAULTLESS.append(pytest.param(change, id=change.__name__))
    return change


@no_fault
def the_feed_was_killed(logs: Logs) -> None:
    logs.end = ""


@no_fault
def the_feed_was_killed_within_a_line_and_another_went_on(logs: Logs) -> None:
    first, second = logs.audit[:15], logs.audit[15:]
    torn = Quote(3, 107, LIVE, FIRST[106]).text(5)[:-2]
    logs.audit = [*first, torn, *HEAD, *second]
    logs.end = f"E {len(HEAD) + len(second)}"


@no_fault
def the_market_was_closed(logs: Logs) -> None:
    quote = logs.quotes(3, 104)[0]
    logs.put(quote, Quote(3, 104, LIVE | MARKET_CLOSED, FIRST[104]))


@no_fault
def a_stall_ended(logs: Logs) -> None:
    quote = logs.quotes(2, 100)[0]
    logs.put(quote, Quote(2, 100, LIVE, FIRST[100]))
    logs.put(quote, Quote(2, 100, STALE, FIRST[100]))


@no_fault
def a_gap_was_healed_during_a_stall(logs: Logs) -> None:
    quote = logs.quotes(3, 106)[0]
    quote.flags = STALE | GAP
    logs.put(quote, Quote(3, 106, LIVE, FIRST[106]))


@no_fault
def nothing_told_of_a_loss_before_the_snapshot(logs: Logs) -> None:
    logs.audit.remove(logs.quotes(2, 101)[1])
    logs.losses.insert(1, Loss(BOOK, 103))


@no_fault
def what_was_to_be_late_came_in_time(logs: Logs) -> None:
    logs.audit.remove(logs.quotes(3, 104)[1])
    logs.quotes(3, 105)[0].flags = LIVE


@no_fault
def a_book_was_crossed_and_not_live(logs: Logs) -> None:
    cross(logs, 150.75)
    logs.quotes(3, 106)[0].flags = CROSSED


@no_fault
def what_the_host_was_told_is_there(logs: Logs) -> None:
    logs.events = [
        ("gap", "AAPL", {"channel": BOOK, "expected": 102, "received": 103}),
        ("live", "AAPL", {"channel": BOOK, "sequence": 103, "epoch": 3}),
        ("stale", "AAPL", {"channel": BOOK, "sequence": 106, "gap": False}),
        ("stall", "", {"late_ms": 1000}),
    ]


@no_fault
def trades_were_lost_on_their_way(logs: Logs) -> None:
    logs.audit.remove(logs.trade("t-2"))
    logs.losses.append(Loss(TRADES))


@no_fault
def the_last_connection_was_told_of_no_trade(logs: Logs) -> None:
    logs.audit.remove(logs.trade("t-2", epoch=2))
    logs.journal.append(asked(3, "subscribe", TRADES))


@no_fault
def the_end_was_not_quiet(logs: Logs) -> None:
    logs.quiescent = False
    for line in (*logs.quotes(5, 106), logs.trade("t-2", epoch=2)):
        logs.audit.remove(line)


@no_fault
def the_venue_told_an_update_twice(logs: Logs) -> None:
    logs.journal.insert(8, told(1, "orderbook_update", 101, UPDATES[101]))


@no_fault
def somebody_else_was_told_the_same(logs: Logs) -> None:
    logs.journal.insert(10, told(7, "orderbook", 102, FIRST[102]))


@no_fault
def the_venue_was_killed_within_a_line(logs: Logs) -> None:
    logs.journal.append('{"t":1,"k":"o')


@no_fault
def a_book_changed_while_nobody_was_subscribed(logs: Logs) -> None:
    """The venue goes on counting where it was: one sequence is two books."""
    logs.put(logs.quotes(3, 106)[1], Quote(4, 106, LIVE | SNAPSHOT, SECOND[104]))
    place = logs.journal.index(noted("close", 1))
    logs.journal[place:place] = [
        asked(1, "unsubscribe", BOOK),
        told(1, "orderbook", 106, SECOND[104]),
    ]


@no_fault
def an_id_has_what_ends_fields_and_lines(logs: Logs) -> None:
    logs.told_trade("t-3")["trade_id"] = "a b%\n\N{EURO SIGN}"
    logs.trade("t-3").trade_id = "a%20b%25%0A%E2%82%AC"


@pytest.mark.parametrize("change", FAULTLESS)
def test_what_is_no_fault_is_passed(change):
    assert changed(change).checked() == []


def test_an_audit_log_may_end_within_a_line():
    logs = Logs(end="")
    torn = Quote(5, 107, LIVE, SECOND[106]).text(5)

    logs.audit_text = lambda: [*Logs.audit_text(logs), torn]  # type: ignore[method-assign]
    assert logs.checked() == []


def test_a_book_may_not_change_unseen_while_somebody_is_subscribed():
    logs = Logs()
    place = logs.journal.index(noted("close", 1))
    logs.journal.insert(place, told(1, "orderbook", 106, SECOND[104]))

    (violation,) = logs.checked()
    assert str(violation) == f"venue {BOOK}: a snapshot at 106 is not the book"


CROSSED_SIDES: Sides = ([(150.25, 4.0), (150.0, 7.0)], [(149.0, 2.0)])


@pytest.mark.parametrize("sides", [FIRST[100], CROSSED_SIDES], ids=["old", "crossed"])
def test_what_a_feed_makes_of_a_false_snapshot_is_the_venue_s_fault(sides):
    logs = Logs()
    logs.told("orderbook", 103).update(bids=sides[0], asks=sides[1])
    logs.quotes(3, 103)[0].be(sides)

    assert {violation.invariant for violation in logs.checked()} == {"venue"}
    logs.spoiled = True
    violations, counts = logs.examined()
    assert violations == []
    assert counts["epochs of false snapshots"] == 1


@pytest.mark.parametrize("what", ["one too many", "one too few"])
def test_trades_whose_ids_were_cut_are_counted(what):
    """Two ids may be the same in their first 16 bytes, which are all that is kept."""
    logs = Logs()
    for name in ("t-3", "t-4"):
        logs.told_trade(name)["trade_id"] = f"0123456789abcdef{name}"
    cut = logs.trade("t-3")
    cut.trade_id, cut.flags = "0123456789abcdef", 1 | ID_CUT
    logs.put(cut, replace(cut))

    assert logs.checked() == []
    if what == "one too many":
        logs.put(cut, replace(cut))
    else:
        logs.audit.remove(logs.trade("t-2"))
    assert [violation.invariant for violation in logs.checked()] == ["I-07"]


def test_the_sum_of_a_book_says_which_levels_are_missing():
    level = (150.0, 1.0)
    sums = {
        audit_crc(bids, asks)
        for bids in ((), (level,), (level, level))
        for asks in ((), (level,), (level, level))
    }

    assert len(sums) == 9


# ── as a program ──────────────────────────────────────────────────────────────────────


def nothing_is_wrong(logs: Logs) -> None:
    pass


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        (nothing_is_wrong, 0, "0 violations in 13 lines, 8 trusted lines"),
        (a_size_is_another, 1, f"I-01 {BOOK} line 6: the book at 101"),
        (no_book_is_ever_live, 2, "0 violations in nothing"),
    ],
)
def test_the_exit_code_says_whether_all_is_well(change, code, words, tmp_path, capsys):
    logs = changed(change)
    texts = {
        "journal": "".join(logs.journal_text()),
        "audit": "".join(logs.audit_text()),
        "losses": json.dumps([[BOOK, 102]]),
    }
    arguments = []
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
        arguments += [f"--{name}", str(tmp_path / name)]

    assert main(arguments) == code
    assert words in capsys.readouterr().out


def test_the_program_takes_what_consumers_read(tmp_path, capsys):
    logs = Logs()
    (tmp_path / "journal").write_text("".join(logs.journal_text()))
    (tmp_path / "audit").write_text("".join(logs.audit_text()))
    arguments = ["--journal", str(tmp_path / "journal"), "--quiescent"]
    arguments += ["--audit", str(tmp_path / "audit"), "--spoiled"]
    for read in (quotes_read(), trades_read()):
        np.save(tmp_path / f"{read.stream}.npy", read.records)
        arguments += [f"--{read.stream}", str(tmp_path / f"{read.stream}.npy")]

    assert main(arguments) == 0
    assert "14 records" in capsys.readouterr().out
    assert main([*arguments, "--quotes-lost", "1"]) == 1
    assert "I-06 quotes: 9 read and 1 lost of 9 records" in capsys.readouterr().out
