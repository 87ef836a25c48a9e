"""The mutants: what a tired person might do to the package, and which test sees it.

The old text occurs once in its file, and is short: edits nearby do not concern it.
"""

from typing import NamedTuple

__all__ = ["MUTANTS", "SYNC", "Mutant"]

READING = "test_architecture.py"


class Mutant(NamedTuple):
    """One change of one file; *test* is enough to catch it."""

    name: str
    file: str
    old: str
    new: str
    test: str

    @property
    def is_compiled(self) -> bool:
        """Whether it must be compiled: not if its test just reads it."""
        return self.file.endswith(".pyx") and not self.test.startswith(READING)

    def apply(self, text: str) -> str:
        """Return the file's text with the change; ValueError where it cannot be made."""
        found = text.count(self.old)
        if found != 1:
            raise ValueError(f"{self.file} has {self.old!r} {found} times, not once")
        return text.replace(self.old, self.new)


def of(file: str, *changes: tuple[str, str, str, str]) -> list[Mutant]:
    return [Mutant(name, file, old, new, test) for name, old, new, test in changes]


# ── numbers in, a verdict out ─────────────────────────────────────────────────────────

VERDICTS = "test_sync.py::test_verdicts_after_a_snapshot_at_10"

SYNC = of(
    "ext/sync.pyx",
    (
        "the sequence is not checked",
        "if sequence == self.applied + 1 and",
        "if sequence > self.applied and",
        VERDICTS,
    ),
    (
        "a book that lost something unknown goes on",
        "== self.applied + 1 and not self.broken:",
        "== self.applied + 1:",
        VERDICTS,
    ),
    (
        "a book that lost something unknown is trusted",
        "return not self.broken and self.applied",
        "return self.applied",
        VERDICTS,
    ),
    (
        "a book is trusted while it is behind",
        "self.highest = max(self.highest, sequence)\n        return Verdict.RESYNC",
        "return Verdict.RESYNC",
        VERDICTS,
    ),
    (
        "nothing is asked for after a gap",
        "return Verdict.RESYNC if complete else Verdict.HOLD",
        "return Verdict.HOLD",
        VERDICTS,
    ),
    (
        "numbers that begin again are repeats for ever",
        "if self.run < RUN or self.broken:",
        "if True:",
        VERDICTS,
    ),
    (
        "a snapshot with a lower number is never enough",
        "        self.highest = sequence\n",
        "        self.highest = max(self.highest, sequence)\n",
        "test_sync.py::test_a_snapshot_starts_anew_even_at_a_lower_number",
    ),
    (
        "held updates do not count as seen",
        'applied."""\n        self.highest = max(self.highest, sequence)',
        'applied."""',
        "test_session.py::test_a_snapshot_that_does_not_reach_the_held_updates_is_not_enough",
    ),
)

# ── levels ────────────────────────────────────────────────────────────────────────────

DEPTH = "test_book.py::test_only_the_best_levels_stay"
ILLEGAL = "test_book.py::test_an_illegal_level_leaves_the_book_as_it_was"
TOP = "test_publisher.py::test_the_board_is_the_top_of_the_book_after_every_message"
SMALLEST = "test_session.py::test_an_audit_finds_the_smallest_difference"

BOOK = of(
    "ext/book.pyx",
    ("ghost levels are kept", "prune(&self.bids, self.depth)", "pass", DEPTH),
    (
        "ghost levels of an unsorted snapshot are kept",
        "free(sorted_levels)\n    prune(side, depth)",
        "free(sorted_levels)",
        DEPTH,
    ),
    (
        "a quantity is added and not set",
        "sizes[0] = size\n            return behind - 1",
        "sizes[0] += size\n            return behind - 1",
        "test_book.py::test_a_known_price_gets_the_new_quantity",
    ),
    (
        "a snapshot is taken to be sorted",
        "if not worse(is_bid, levels[i].price, levels[i - 1].price):\n            return f",
        "if False:\n            return f",
        "test_book.py::test_a_shuffled_snapshot_gives_the_same_book",
    ),
    (
        "a snapshot replaces one side",
        "swap(&self.asks, &self.next_asks)",
        "pass",
        "test_book.py::test_levels_come_out_best_first",
    ),
    (
        "a price of NaN is taken",
        "isfinite(level.price) and level.price > 0.0",
        "not level.price <= 0.0",
        ILLEGAL,
    ),
    (
        "a size without end is taken",
        "isfinite(level.size) and level.size >= 0.0",
        "level.size >= 0.0",
        ILLEGAL,
    ),
    (
        "an audit looks at one side",
        "return same(&self.bids, &self.next_bids) and same",
        "return same",
        SMALLEST,
    ),
    (
        "an audit looks at prices alone",
        " and memcmp(a.sizes, b.sizes, size) == 0",
        "",
        SMALLEST,
    ),
    (
        "the board is not told of a level that went",
        "side.count -= 1\n        return behind - 1",
        "side.count -= 1\n        return INT32_MAX",
        TOP,
    ),
    (
        "the board is told the wrong rank of a level",
        "rank = side.count - index\n",
        "rank = side.count - index + 1\n",
        TOP,
    ),
)

# ── what the wire may say ─────────────────────────────────────────────────────────────

SEEN = "test_scan.py::test_two_sessions_see_the_same_in_a_recording_with_faults"

CODEC = of(
    "ext/codec.pyx",
    (
        "a price of zero is taken",
        "return value > 0.0 and value < INFINITY",
        "return value >= 0.0 and value < INFINITY",
        "test_codec.py::test_an_illegal_level_is_a_lost_update_and_nothing_of_it_is_applied",
    ),
    (
        "a negative size is taken",
        "return value >= 0.0 and value < INFINITY",
        "return value < INFINITY",
        "test_stream_faults.py::test_a_level_that_cannot_be_is_a_lost_update",
    ),
    (
        "negative zero is passed on",
        "ticker.volume = or_nan(data.volume) + 0.0",
        "ticker.volume = or_nan(data.volume)",
        "test_codec.py::test_what_the_sink_gets_has_no_negative_zero",
    ),
    (
        "a number beyond 2^53 is taken",
        "SEQUENCE_LIMIT)",
        "1 << 62)",
        "test_codec.py::test_an_illegal_sequence_is_a_lost_update",
    ),
    (
        "a bad update is passed over",
        "inbox.on_bad_book(",
        "(",
        "test_codec.py::test_an_illegal_sequence_is_a_lost_update",
    ),
    (
        "what is not UTF-8 is taken",
        "if not is_ascii(payload, size) and not is_utf8(payload, size):",
        "if False:",
        "test_codec.py::"
        "test_a_payload_that_is_not_utf8_costs_every_book_its_trust_and_is_refused",
    ),
    # What was scanned.
    (
        "a scanned trade is of the other side",
        "read.price, read.size, read.buy,",
        "read.price, read.size, not read.buy,",
        "test_codec.py::test_a_trade_arrives_as_it_was_sent",
    ),
    (
        "a scanned snapshot is an update",
        "hot == HOT_SNAPSHOT, read.sequence",
        "False, read.sequence",
        SEEN,
    ),
    (
        "what is not scanned is no message",
        "return MsgspecCodec.decode(self, payload, size, inbox)",
        "return Decoded.MALFORMED",
        "test_codec.py::test_every_message_of_the_table_is_taken_as_it_is",
    ),
    (
        "nothing is scanned",
        "if hot == NOT_HOT:",
        "if True:",
        "test_scan.py::test_what_venues_send_is_scanned",
    ),
)

PRICE = "test_scan.py::test_a_price_is_scanned_if_its_digits_fit_a_double"
DIFFERS = "test_scan.py::test_what_differs_by_a_byte_is_left_to_msgspec"
BESIDE = "test_scan.py::test_no_byte_before_or_behind_a_payload_is_read"
DOUBLE = "test_scan.py::test_a_scanned_number_is_the_double_that_python_reads"
VALUE = "test_codec.py::test_an_illegal_value_is_dropped_and_counted_and_costs_no_book_its_trust"

SCAN = of(
    "ext/scan.pyx",
    # Numbers.
    (
        "a price with a leading zero is scanned",
        'or at[0] == c"0" and point - at > 1:',
        ":",
        PRICE,
    ),
    (
        "a time with a leading zero is scanned",
        'or at[0] == c"0" and end - at > 1:',
        ":",
        DIFFERS,
    ),
    (
        "a point may begin a number",
        "if point == at or point - at",
        "if point - at",
        PRICE,
    ),
    (
        "a point may end a number",
        "if end == point + 1 or end - at",
        "if end - at",
        PRICE,
    ),
    (
        "digits that a double has no room for are scanned",
        "> MOST_DIGITS + 1 or value > EXACT:",
        "> MOST_DIGITS + 1:",
        PRICE,
    ),
    (
        "more digits are scanned than there are divisors",
        "> MOST_DIGITS + 1 or",
        "> MOST_DIGITS + 2 or",
        PRICE,
    ),
    (
        "a fraction is rounded twice",
        "value / DIVISORS[end - point - 1]",
        "value * (1.0 / DIVISORS[end - point - 1])",
        DOUBLE,
    ),
    ("a divisor is another", "1e9, 1e10, 1e11", "1e9, 1e10, 1e10", DOUBLE),
    (
        "a colon is a digit, if it is the second",
        "if two > 9:",
        "if two > 10:",
        "test_scan.py::test_every_byte_in_every_place_means_the_same_to_both",
    ),
    # What no venue may send.
    ("a scanned level costs nothing", "or not price > 0.0:", ":", PRICE),
    ("a scanned trade is of nothing", " and out.size > 0.0)", ")", VALUE),
    ("a scanned trade is of any time", "and out.trade_ms < TIME_LIMIT_MS ", "", VALUE),
    (
        "a scanned book is of any time",
        ' == c"}" and out.timestamp_ms < TIME_LIMIT_MS',
        ' == c"}"',
        "test_codec.py::test_an_illegal_time_of_a_book_message_is_a_lost_update",
    ),
    (
        "a scanned sequence is of any size",
        "and <uint64_t> out.sequence < EXACT ",
        "",
        "test_codec.py::test_an_illegal_sequence_is_a_lost_update",
    ),
    # Texts, levels, and what is around them.
    ("an escape is a text", "others |= slashes", "pass", DIFFERS),
    ("a control is a text", "((word - ONES * 0x20) & ~word | word)", "word", DIFFERS),
    (
        "what is not ASCII is a text",
        "& ~word | word) & HIGHS",
        "& ~word) & HIGHS",
        DIFFERS,
    ),
    (
        "what is odd is looked for behind a quote",
        "zeros_below(others) < zeros_below(quotes)",
        "zeros_below(others) > zeros_below(quotes)",
        DIFFERS,
    ),
    ("levels of the message before are kept", "    out.count = 0\n", "", SEEN),
    (
        "what follows a message is ignored",
        "return at == end - 1 and at[0]",
        "return at != NULL and at[0]",
        DIFFERS,
    ),
    # Memory.
    ("a payload is as long as a type", "size < SHORTEST or ", "", BESIDE),
    ("a number may end a payload", ' or payload[size - 1] != c"}":', ":", BESIDE),
    (
        "a text is read beyond the end",
        "while end - at >= WORD:",
        "while at < end:",
        BESIDE,
    ),
    (
        "a channel is looked for beyond the end",
        "if end - at < ROOM or not starts(at, b'},",
        "if not starts(at, b'},",
        BESIDE,
    ),
)

# ── how far a book can be trusted ─────────────────────────────────────────────────────

HELD = (
    "test_session.py::"
    "test_updates_during_a_resync_are_held_and_applied_after_the_snapshot"
)
TIMES = (
    "test_session.py::test_a_held_update_keeps_the_times_of_when_it_was_sent_and_read"
)
CLOSED = "test_session.py::test_a_lost_connection_makes_every_book_stale_once"
QUIET = "test_trust.py::test_a_book_of_which_nothing_comes_is_stale_and_asked_for_once"
DOUBLES = (
    "test_trust.py::"
    "test_an_equal_snapshot_says_that_the_market_is_quiet_and_the_patience_doubles"
)
MORE_TIME = (
    "test_session.py::test_a_venue_that_gives_no_snapshots_is_given_more_and_more_time"
)
SYMBOL = "test_session.py::test_a_wrong_symbol_on_a_book_channel_is_a_lost_update"
STALLED = (
    "test_session_life.py::"
    "test_what_waited_in_the_socket_is_stale_until_all_of_it_was_read"
)
IN_READ = "test_session.py::test_with_last_in_read"

TRACKER = of(
    "ext/tracker.pyx",
    (
        "a snapshot is merged into the old book",
        "if book.levels.replace(bids",
        "if book.levels.update(bids",
        "test_session.py::test_levels_of_the_old_book_do_not_survive_a_snapshot",
    ),
    (
        "an update is applied before it is checked",
        "verdict = book.sync.delta(sequence)",
        "book.levels.update(bids, bid_count, asks, ask_count)\n"
        "        verdict = book.sync.delta(sequence)",
        "test_session.py::"
        "test_after_a_gap_a_stale_quote_with_the_last_good_prices_comes_at_once",
    ),
    (
        "a gap is not flagged",
        "self.degrade(book, True)\n            self.want_snapshot(book)",
        "self.want_snapshot(book)",
        "test_session.py::"
        "test_after_a_gap_a_stale_quote_with_the_last_good_prices_comes_at_once",
    ),
    (
        "a book is LIVE before its snapshot is applied",
        "if book.levels.replace(bids",
        "book.sync.snapshot(sequence)\n"
        "        self.publish(book, self.now_ns, 0)\n"
        "        if book.levels.replace(bids",
        HELD,
    ),
    (
        "a book is LIVE when its snapshot is asked for",
        "book.due_ns = now_ns + book.patience_ns",
        "book.due_ns = now_ns + book.patience_ns\n"
        "                book.sync.snapshot(book.sync.highest)",
        "test_session.py::"
        "test_a_snapshot_that_does_not_come_is_asked_for_more_and_more_firmly",
    ),
    (
        "a wrong symbol is ignored",
        "if book is None or not same_text(symbol, &route.symbol_text):",
        "if book is None:",
        SYMBOL,
    ),
    (
        "a wrong symbol of a trade is ignored",
        "if route.kind != kind or not same_text(symbol, &route.symbol_text):",
        "if route.kind != kind:",
        "test_codec.py::test_nul_in_a_symbol_is_another_symbol",
    ),
    (
        "a wrong symbol costs no trust",
        "self.counters.add(Count.MISMATCHES, 1)\n"
        "            return self.on_bad_book(channel)",
        "self.counters.add(Count.MISMATCHES, 1)\n            return 0",
        SYMBOL,
    ),
    # One quote of a book for a read.
    (
        "a book that is not LIVE waits for the end of the read",
        "if self.last_in_read and book.quote.flags & Flags.LIVE:",
        "if self.last_in_read:",
        f"{IN_READ}_what_is_not_live_waits_for_no_end",
    ),
    (
        "a book is put in line twice",
        "if book.next_put_off is not None or book is self.last_put_off:",
        "if False:",
        f"{IN_READ}_a_book_told_of_in_between_hides_no_other",
    ),
    (
        "a sink that raises ends the read for all books",
        "while not is_done:",
        "if not is_done:",
        f"{IN_READ}_a_sink_that_raises_keeps_no_book_from_the_others",
    ),
    (
        "a quote is of when the read ended",
        "self.publish(book, book.last_ns, 0)",
        "self.publish(book, self.now_ns, 0)",
        f"{IN_READ}_a_quote_is_of_when_its_message_came",
    ),
    (
        "what a snapshot overtakes is published after it",
        "if book.is_put_off:\n                        take_up(book)",
        "if True:\n                        take_up(book)",
        f"{IN_READ}_a_snapshot_overtakes_what_was_put_off",
    ),
    (
        "the levels of all but the last message of a read are kept from the board",
        "book.levels.bid_changed = min(book.levels.bid_changed, book.bid_changed)",
        "pass",
        "test_sink.py::test_all_levels_of_messages_with_one_quote_reach_the_board",
    ),
    # What is held behind a gap.
    (
        "held updates are kept for the next connection",
        "route.book.sync.lost()\n                route.book.held.clear()",
        "route.book.sync.lost()",
        "test_session.py::test_updates_held_on_one_connection_are_not_applied_on_the_next",
    ),
    (
        "any number of updates is held",
        "len(book.held) >= HELD_UPDATES or",
        "",
        "test_session.py::test_held_updates_are_bounded_and_a_full_hold_starts_over",
    ),
    (
        "any number of bytes is held",
        " or book.held_bytes + size > HELD_BYTES:",
        ":",
        "test_session.py::test_held_updates_are_bounded_in_bytes_too",
    ),
    (
        "a snapshot is enough whatever is held",
        "book.sync.seen(update[0])",
        "pass",
        "test_session.py::test_a_snapshot_that_does_not_reach_the_held_updates_is_not_enough",
    ),
    (
        "held updates are applied over a gap",
        "if sequence > book.sync.applied + 1 or book.sync.broken:",
        "if book.sync.broken:",
        "test_session.py::test_a_snapshot_that_does_not_reach_the_held_updates_is_not_enough",
    ),
    (
        "held updates are applied as they came",
        "book.held.sort()",
        "pass",
        "test_session.py::test_a_missing_update_that_still_comes_heals_the_book",
    ),
    (
        "an update that is held twice is applied twice",
        "            if sequence <= book.sync.applied:\n                continue\n",
        "",
        "test_session.py::test_an_update_that_is_held_twice_is_applied_once",
    ),
    (
        "only the last of the held updates is published",
        "if unpublished:\n                self.publish(book, recv_ns, 0)\n            book",
        "book",
        HELD,
    ),
    (
        "held updates have the time of the snapshot",
        "            recv_ns = read_ns\n",
        "",
        TIMES,
    ),
    (
        "held updates are not applied when they fit",
        "if book.held:\n                return self.heal(book)",
        "if False:\n                return self.heal(book)",
        "test_session.py::test_a_missing_update_that_still_comes_heals_the_book",
    ),
    # GAP, STALE and LIVE.
    (
        "the first gap that heals ends the second",
        "self.drain(book, True, self.now_ns)\n        self.publish",
        "self.drain(book, True, self.now_ns)\n        book.gap = False\n        self.publish",
        "test_session.py::"
        "test_a_book_with_a_second_gap_is_not_healed_by_the_end_of_the_first",
    ),
    (
        "a book that heals in part is off the ladder",
        "if book.sync.in_sync():\n            book.rung = 0",
        "if True:\n            book.rung = 0",
        "test_session.py::test_a_book_that_healed_in_part_stays_where_it_is_on_the_ladder",
    ),
    (
        "a gap is told of after its snapshot",
        "book.epoch += 1\n        book.gap = False",
        "book.epoch += 1",
        "test_session.py::test_a_gap_that_a_crossed_snapshot_ended_is_not_told_of_again",
    ),
    (
        "a gap behind a snapshot is none",
        "book.gap = not book.sync.in_sync()",
        "book.gap = False",
        "test_stream_faults.py::"
        "test_a_second_gap_while_a_snapshot_is_on_its_way_is_found_by_it",
    ),
    (
        "a lost connection is not told",
        "route.book.due_ns = 0\n                self.degrade(route.book, False)",
        "route.book.due_ns = 0",
        CLOSED,
    ),
    (
        "a book without a connection is trusted",
        "route.book.sync.lost()\n                route.book.held",
        "route.book.held",
        CLOSED,
    ),
    (
        "a new connection counts on from the old one",
        "route.book.sync.reset()",
        "pass",
        "test_session.py::"
        "test_the_first_updates_of_a_venue_that_started_anew_wait_for_its_snapshot",
    ),
    (
        "a channel that was refused is trusted",
        "route.book.sync.lost()\n            self.degrade(route.book, False)",
        "pass",
        "test_session.py::test_a_book_whose_channel_is_refused_is_flagged_stale_for_good",
    ),
    (
        "a sink that raises keeps STALE from the others",
        "except Exception as error:\n            # The next book",
        "except ZeroDivisionError as error:\n            # The next book",
        "test_session.py::"
        "test_a_sink_that_raises_does_not_keep_a_lost_connection_from_any_book",
    ),
    (
        "a bad update costs no trust",
        "self.lose(route.book)",
        "pass",
        "test_session.py::test_gap_is_flagged_from_the_loss_to_the_next_snapshot",
    ),
    (
        "a malformed frame costs no trust",
        'self.note("malformed", "", {"reason": why})\n'
        "        for book in self.books():\n            self.lose(book)",
        'self.note("malformed", "", {"reason": why})',
        "test_session.py::test_a_malformed_frame_makes_every_book_stale_until_it_is_resynced",
    ),
    (
        "a fault of ours costs no trust",
        'self.note("fault", "", {"error": error})\n'
        "        for book in self.books():\n            self.lose(book)",
        'self.note("fault", "", {"error": error})',
        "test_session.py::test_a_sink_that_raises_costs_trust_and_nothing_else",
    ),
    (
        "an update of any length is applied",
        "if bid_count + ask_count > 2 * book.levels.depth + SLACK or book.levels",
        "if book.levels",
        "test_session.py::"
        "test_an_update_of_more_levels_than_a_book_can_need_is_a_lost_one",
    ),
    (
        "a crossed book is LIVE",
        "elif not flags & Flags.CROSSED:",
        "else:",
        "test_session.py::test_a_crossed_or_locked_book_is_neither_live_nor_stale",
    ),
    (
        "a locked book is LIVE",
        "if bid_price >= ask_price:",
        "if bid_price > ask_price:",
        "test_session.py::test_a_crossed_or_locked_book_is_neither_live_nor_stale",
    ),
    (
        "a snapshot is no new epoch",
        "        book.epoch += 1\n        book.gap = False",
        "        book.gap = False",
        "test_session.py::test_a_snapshot_at_a_lower_sequence_replaces_the_book",
    ),
    (
        "a connection is no new epoch",
        "route.book.epoch += 1",
        "pass",
        "test_session.py::test_a_new_connection_is_a_new_epoch_and_waits_for_its_snapshot",
    ),
    (
        "the flags say nothing of the epoch",
        "flags |= (book.epoch & 0xFF) << EPOCH_SHIFT",
        "pass",
        "test_session.py::test_the_flags_of_a_quote_have_the_low_byte_of_its_epoch",
    ),
    (
        "the flags say nothing of a closed market",
        "if book.market_closed:\n            flags",
        "if False:\n            flags",
        "test_session.py::test_the_quotes_of_a_closed_market_say_so_until_it_opens",
    ),
    (
        "a change of trust is no change",
        "            and (quote.flags & ~<int> Flags.SNAPSHOT) == flags\n",
        "",
        "test_session.py::test_with_changes_only_every_change_of_trust_is_a_quote",
    ),
    # Quiet or mute, right or wrong, late or not.
    ("a mute line is not noticed", "self.fall_silent(book)", "pass", QUIET),
    (
        "a mute line is LIVE until it is asked",
        "self.degrade(book, False)\n        book.wanted = True",
        "book.wanted = True",
        QUIET,
    ),
    (
        "a quiet market is asked as often as ever",
        "min(2 * book.quiet_ns, MOST_QUIET_NS)",
        "book.quiet_ns",
        DOUBLES,
    ),
    (
        "a quiet market stays STALE",
        "book.is_silent = False\n            book.quiet_ns",
        "book.quiet_ns",
        DOUBLES,
    ),
    (
        "an audit is always right",
        "if not book.levels.replaced_by_same():",
        "if False:",
        SMALLEST,
    ),
    (
        "a snapshot that is further is an audit",
        "book.sync.in_sync() and sequence == book.sync.applied",
        "book.sync.in_sync()",
        "test_trust.py::"
        "test_the_patience_is_an_hour_at_most_and_normal_again_after_a_replacement",
    ),
    (
        "a crossed book is not audited",
        "book.to_verify = True\n",
        "book.to_verify = False\n",
        "test_trust.py::"
        "test_a_snapshot_that_is_crossed_or_locked_is_audited_a_second_later",
    ),
    (
        "a crossed book is audited all the time",
        "if self.now_ns - book.checked_ns >= VERIFIED_NS and self",
        "if self",
        "test_trust.py::test_a_book_that_flickers_is_audited_at_most_once_a_second",
    ),
    (
        "what waited in the socket is LIVE",
        "if self.is_late or book.is_silent",
        "if book.is_silent",
        STALLED,
    ),
    (
        "a stall is told with the next update",
        "for book in self.books():\n            self.degrade(book, False)\n\n    def catch_up",
        "\n    def catch_up",
        STALLED,
    ),
    # What is asked for, and how often.
    (
        "a snapshot is asked for while one is on its way",
        "if book.wanted or book.due_ns:",
        "if book.wanted:",
        "test_session.py::"
        "test_one_request_is_outstanding_for_a_book_whatever_is_lost_meanwhile",
    ),
    (
        "a snapshot that does not reach is the last",
        "if book.unreached < UNREACHED:\n            self.want_snapshot(book)\n            return",
        "if book.unreached < UNREACHED:\n            return",
        "test_session.py::test_a_snapshot_that_does_not_reach_the_held_updates_is_not_enough",
    ),
    (
        "an update that no snapshot reaches is waited for",
        "if book.unreached < UNREACHED:",
        "if True:",
        "test_stream_faults.py::"
        "test_an_update_far_ahead_that_no_snapshot_reaches_is_of_no_stream",
    ),
    (
        "a snapshot is asked for in one way only",
        "book.rung = 1",
        "pass",
        "test_session.py::"
        "test_a_snapshot_that_does_not_come_is_asked_for_more_and_more_firmly",
    ),
    (
        "the ladder begins where it ended",
        "book.due_ns = 0\n        book.rung = 0\n        book.patience",
        "book.due_ns = 0\n        book.patience",
        "test_session.py::test_a_snapshot_on_any_rung_ends_the_ladder",
    ),
    (
        "patience does not grow",
        "book.patience_ns = min(2 * book.patience_ns, MOST_PATIENCE_NS)",
        "pass",
        MORE_TIME,
    ),
    (
        "patience grows without end",
        "min(2 * book.patience_ns, MOST_PATIENCE_NS)",
        "2 * book.patience_ns",
        MORE_TIME,
    ),
    (
        "patience is never what it was",
        "book.patience_ns = PATIENCE_NS\n        if book.held",
        "if book.held",
        MORE_TIME,
    ),
    (
        "a connection begins half-way up the ladder",
        "route.book.rung = 0",
        "pass",
        MORE_TIME,
    ),
    (
        "events are kept for ever",
        "if len(self.events) >= MOST_EVENTS:",
        "if False:",
        "test_session.py::test_events_that_nobody_takes_are_bounded_and_the_newest_stay",
    ),
    # Trades.
    (
        "a trade is published twice",
        "if self.seen[hashed % SEEN] == hashed:",
        "if False:",
        "test_trust.py::test_a_trade_is_published_once_within_a_connection",
    ),
    (
        "trades are remembered for the next connection",
        "            route.forget_trades()\n",
        "",
        "test_trust.py::"
        "test_what_was_lost_between_two_connections_is_unknown_and_not_zero",
    ),
    (
        "an id is cut in silence",
        "trade.flags |= TradeFlags.ID_CUT",
        "pass",
        "test_codec.py::test_a_trade_id_longer_than_its_field_is_cut_and_flagged",
    ),
)

# ── the life of a connection ──────────────────────────────────────────────────────────

LIVES_90_S = (
    "test_session.py::test_a_connection_without_heartbeats_lives_for_90_seconds"
)
LOGS = f"{READING}::test_what_is_on_the_wire_is_never_logged"

SESSION = of(
    "ext/session.pyx",
    (
        "the delays start over when a connection opens",
        "if useful:",
        "if was_open:",
        "test_reconnect.py::test_the_delays_start_over_after_a_useful_connection_only",
    ),
    (
        "a channel is forgotten on the next connection",
        "self.to_subscribe[:] = self.routes",
        "self.to_subscribe[:] = list(self.routes)[1:]",
        "test_session.py::test_a_new_connection_subscribes_to_everything_again",
    ),
    (
        "the heartbeat's timer is that of the last connection",
        "self.heartbeat_ns = now_ns",
        "pass",
        "test_session.py::test_the_time_without_heartbeats_starts_anew_with_each_connection",
    ),
    (
        "no heartbeats are missed",
        "if now_ns - self.heartbeat_ns >= HEARTBEAT_TIMEOUT_NS:",
        "if False:",
        LIVES_90_S,
    ),
    (
        "any message is a heartbeat",
        "if now_ns - self.heartbeat_ns >= HEARTBEAT_TIMEOUT_NS:",
        "if now_ns - max(self.heartbeat_ns, self.heard_ns) >= HEARTBEAT_TIMEOUT_NS:",
        "test_session.py::test_only_heartbeats_count_as_heartbeats",
    ),
    (
        "a stall is over without a pong",
        "if self.answers_overdue():",
        "if self.is_late:\n            self.catch_up()\n        if self.answers_overdue():",
        STALLED,
    ),
    (
        "one pong is enough for two stalls",
        "if self.is_late and self.pinged_stall == self.stalled:",
        "if self.is_late:",
        "test_session_life.py::test_a_pong_to_a_ping_of_before_the_stall_proves_nothing",
    ),
    (
        "a book is LIVE while its connection is closed",
        'self.move("closing")\n            self.distrust()',
        'self.move("closing")',
        "test_session.py::test_from_the_begin_of_a_close_on_nothing_is_live",
    ),
    (
        "a session goes on after its end",
        "if self.is_ended:\n            return\n        if useful",
        "if useful",
        "test_reconnect.py::test_nothing_follows_the_end_of_a_session_that_was_to_end",
    ),
    (
        "channels are asked for before the login",
        "if self.login is not None and not self.login.is_accepted:\n            request",
        "if False:\n            request",
        "test_session_life.py::"
        "test_nothing_but_authenticate_is_sent_before_the_venue_said_yes",
    ),
    (
        "orders go out before the login",
        "or (self.login and not self.login.is_accepted):\n            raise NotConnected",
        "or False:\n            raise NotConnected",
        "test_session_life.py::test_a_request_without_a_connection_fails_at_once",
    ),
    (
        "wrong credentials are tried again",
        "self.verdict = CloseAction.STOP",
        "pass",
        "test_session_life.py::test_wrong_credentials_are_the_end",
    ),
    (
        "what was asked is forgotten with the connection",
        "        self.abandon_requests()",
        "        self.requests.clear()",
        "test_session_life.py::"
        "test_what_was_asked_when_a_connection_ended_is_unknown_and_never_asked_again",
    ),
    (
        "an order is sent again when no answer came",
        "self.answer(request_id, request.action, None)\n        return False",
        "self.send(messages.SubmitOrder(\n"
        '                messages.OrderData("A", "buy", "market", 1), request_id))\n'
        "            self.answer(request_id, request.action, None)\n        return False",
        "test_session_life.py::test_a_request_without_an_answer_is_unknown_after_ten_seconds",
    ),
    (
        "snapshots are asked for without a limit",
        "self.subscribe_throttle.take(now_ns, 2 if again else 1)",
        "True",
        "test_session.py::test_a_rate_limited_request_waits_as_long_as_the_venue_says",
    ),
    (
        "heartbeats are answered without a limit",
        "if self.other_throttle.take(self.now_ns):\n            self.send",
        "if True:\n            self.send",
        "test_session.py::test_a_flood_of_heartbeats_is_not_answered_with_a_flood",
    ),
    (
        "trades that were lost are passed over",
        "if route.kind == Kind.TRADE and route.epoch > 1 and not route.confirmed:",
        "if False:",
        "test_trust.py::"
        "test_what_was_lost_between_two_connections_is_unknown_and_not_zero",
    ),
    (
        "what is sent is logged",
        "self.outbox.append(self.codec.encode(message))",
        "self.outbox.append(self.codec.encode(message))\n"
        '        logging.getLogger("feedhandler").debug("sent %s", self.outbox[-1])',
        LOGS,
    ),
)

# ── shared memory ─────────────────────────────────────────────────────────────────────

OVERWRITTEN = (
    "test_ring.py::test_what_is_overwritten_while_it_is_copied_is_not_returned_but_lost"
)

RING = of(
    "ext/ring.pyx",
    (
        "a slot is not marked while it is written",
        "store_release(slot, BUSY | number)",
        "pass",
        "test_ring.py::test_no_batch_is_torn_under_a_writer_at_full_speed",
    ),
    (
        "a reader looks at a slot's number once",
        "if load_relaxed(slot) == seq:",
        "if True:",
        "test_ring.py::test_no_record_is_torn_at_the_lap_edge",
    ),
    (
        "a reader looks at the head once",
        "if lapped(head, reader.cursor, reader.capacity):\n        bad",
        "if False:\n        bad",
        OVERWRITTEN,
    ),
    (
        "what a lapped reader lost is not counted",
        "reader.missed = reader.missed + target - reader.cursor",
        "pass",
        "test_ring_steps.py::test_the_record_being_overwritten_is_never_returned",
    ),
    (
        "what was overwritten meanwhile is not counted",
        "reader.missed = reader.missed + bad",
        "pass",
        OVERWRITTEN,
    ),
    (
        "the record that is overwritten is read",
        ">= <int64_t> capacity",
        "> <int64_t> capacity",
        "test_ring_steps.py::test_the_record_being_overwritten_is_never_returned",
    ),
)

# ── credentials, limits, orders ───────────────────────────────────────────────────────

SUCCESS = "test_authentication.py::test_only_a_plain_success_is_one"
DIGEST = 'hmac.compare_digest(expected, signature.encode("utf-8", "replace"))'
EQUALITY = f"{READING}::test_nothing_weakens_tls_or_compares_secrets_by_equality"
WINDOW = "test_throttle.py::test_no_window_ever_holds_more_than_the_limit"

PYTHON = [
    *of(
        "feedhandler/authentication.py",
        (
            "a login without a status is taken for one",
            'if said == {"success"}:',
            'if said <= {"success"}:',
            SUCCESS,
        ),
        (
            "a login of yes and no is taken for one",
            'if said == {"success"}:',
            'if "success" in said:',
            SUCCESS,
        ),
    ),
    *of(
        "feedhandler/venue/access.py",
        (
            "signatures are compared by equality",
            DIGEST,
            'signature.encode("utf-8", "replace") == expected',
            EQUALITY,
        ),
        (
            "a timestamp is good for two logins",
            "self._used.add(use)",
            "pass",
            "venue/test_access.py::test_a_timestamp_counts_once_at_an_endpoint",
        ),
    ),
    *of(
        "feedhandler/venue/connection.py",
        (
            "what a client sends is logged",
            "if self._closing and frame.opcode != Opcode.CLOSE:",
            'log.debug("received %r", frame)\n'
            "        if self._closing and frame.opcode != Opcode.CLOSE:",
            LOGS,
        ),
    ),
    *of(
        "feedhandler/venue/journal.py",
        (
            "a login is noted in the venue's journal",
            "if action == AUTHENTICATE:",
            "if False:",
            "venue/test_journal.py::test_credentials_are_never_shown",
        ),
    ),
    *of(
        "feedhandler/throttle.py",
        (
            "a batch counts as one",
            "extend([now_ns] * units)",
            "append(now_ns)",
            "test_session_life.py::test_a_batch_counts_as_many_as_it_has",
        ),
        (
            "cancels have no lane of their own",
            "self.limit - self.reserved",
            "self.limit",
            "test_session_life.py::"
            "test_a_full_class_says_at_once_how_long_to_wait_and_keeps_some_for_cancels",
        ),
        (
            "the client counts in fixed windows",
            "self._sent[0] <= now_ns - self.window_ns:",
            "self._sent[0] // self.window_ns < now_ns // self.window_ns:",
            WINDOW,
        ),
    ),
    *of(
        "feedhandler/venue/gateway.py",
        (
            "a batch counts as one at the venue",
            "cost = self._batch_cost(data)",
            "cost = 1",
            "venue/test_gateway.py::"
            "test_a_batch_costs_its_operations_and_runs_whole_or_not_at_all",
        ),
    ),
    *of(
        "feedhandler/venue/limits.py",
        (
            "the venue counts in fixed windows",
            "times_ns[0] <= now_ns - WINDOW_NS:",
            "times_ns[0] // WINDOW_NS < now_ns // WINDOW_NS:",
            "venue/test_limits.py::test_a_minute_is_any_minute_and_not_one_of_a_clock",
        ),
    ),
    *of(
        "feedhandler/venue/requests.py",
        (
            "a price is cut to ticks and not rounded",
            "nearest = round(count)",
            "nearest = int(count)",
            "venue/test_gateway.py::test_every_multiple_of_the_tick_is_a_price",
        ),
    ),
    *of(
        "feedhandler/venue/listing.py",
        (
            "ticks are cut off and not rounded",
            "return round(Fraction(number)",
            "return int(Fraction(number)",
            "venue/test_listing.py::test_a_close_off_the_ticks_is_the_nearest_one_and_never_none",
        ),
    ),
    *of(
        "feedhandler/orders.py",
        (
            "an internal error is a rejection",
            "frozenset(ErrorCode) - {ErrorCode.INTERNAL_ERROR}",
            "frozenset(ErrorCode)",
            "test_orders.py::test_any_other_error_leaves_it_unknown",
        ),
    ),
    *of(
        "feedhandler/order.py",
        (
            "a trade with oneself fills one order",
            "self._trade_ids: set[str] = set()",
            'self._trade_ids: set[str] = globals().setdefault("TRADE_IDS", set())',
            "test_orders.py::test_a_trade_with_oneself_counts_for_both_orders",
        ),
    ),
    *of(
        "feedhandler/private.py",
        (
            "a cut id is not flagged",
            "if kept != text:",
            "if text is None:",
            "test_private.py::"
            "test_a_text_that_fits_is_whole_and_a_longer_one_is_cut_and_flagged",
        ),
        (
            "a text is cut within a character",
            'decode(errors="ignore")',
            'decode(errors="replace")',
            "test_private.py::test_a_text_is_cut_between_two_characters",
        ),
        (
            "a reader in C takes the beginning of an id for all of it",
            '.partition("\\0")[0]',
            "",
            "test_private.py::"
            "test_a_text_that_no_reader_would_see_whole_is_flagged_too",
        ),
        (
            "what is told again is news",
            "is_replay and cause in TOLD",
            "False",
            "test_private.py::test_what_is_told_again_is_flagged",
        ),
        (
            "what a lost connection leaves unknown was told before",
            "is_replay and cause in TOLD",
            "is_replay",
            "test_private.py::"
            "test_an_order_that_a_lost_connection_leaves_unknown_says_so",
        ),
        (
            "an order that was never sent is pending",
            "OrderStatus.REJECTED if is_unsent else STATUSES",
            "STATUSES",
            "test_private.py::"
            "test_what_was_not_sent_is_rejected_if_it_was_the_order_itself",
        ),
        (
            "a time beyond all others raises",
            "min(max(time_ms, 0) * NS_PER_MS, INT64_MAX)",
            "max(time_ms, 0) * NS_PER_MS",
            "test_private.py::test_a_time_that_cannot_be_is_the_first_or_the_last",
        ),
        (
            "what was in a record is in the next",
            "values = self._blank | fields",
            "values = self._blank = self._blank | fields",
            "test_private.py::test_nothing_of_a_record_is_left_in_the_next",
        ),
    ),
    *of(
        "feedhandler/segments.py",
        (
            "the group may read the account",
            "private_capacity, mode=0o600)",
            "private_capacity)",
            "test_segments.py::"
            "test_nobody_else_reads_the_account_whoever_may_read_the_market",
        ),
        (
            "the account of a feed that was killed is taken for ours",
            "self._remove(stream)",
            "pass",
            "test_segments.py::"
            "test_a_feed_without_a_key_removes_the_account_of_one_that_was_killed",
        ),
    ),
    *of(
        "feedhandler/backoff.py",
        (
            "the delays do not grow",
            "self.attempt += 1",
            "pass",
            "test_backoff.py::"
            "test_the_delays_are_the_references_and_there_are_ten_of_them",
        ),
    ),
    *of(
        "feedhandler/protocol/codes.py",
        (
            "a failed login is no reason to stop",
            "4000: CloseAction.STOP",
            "4000: CloseAction.BACKOFF",
            "test_close_codes.py::test_a_close_is_followed_by_what_is_prescribed",
        ),
    ),
]

# ── commands ──────────────────────────────────────────────────────────────────────────

COMMANDS = [
    *of(
        "ext/command.pyx",
        (
            "a full channel takes one more",
            "if self.count - cursor >= self.capacity:",
            "if self.count - cursor > self.capacity:",
            "test_command.py::test_full_is_exact_and_loses_nothing",
        ),
        (
            "an engine believes any cursor",
            "return BROKEN",
            "pass",
            "test_command.py::test_a_cursor_that_cannot_be_is_not_believed",
        ),
        (
            "a handler that stands still gets commands",
            "return age_ns + <uint64_t> GONE_NS <= 2 * <uint64_t> GONE_NS",
            "return True",
            "test_command.py::test_a_handler_that_does_not_beat_gets_no_command",
        ),
        (
            "what was taken back is carried out",
            "    if is_revoked:",
            "    if is_revoked and is_dead:",
            "test_command.py::test_what_was_not_taken_can_be_taken_back",
        ),
        (
            "a command for another handler is carried out",
            "elif record.writer_epoch != reader.epoch:",
            "elif record.writer_epoch == 0:",
            "test_command.py::test_a_late_command_is_expired_and_says_all_it_said",
        ),
        (
            "a command past its deadline is carried out",
            "elif late_ns >= 0:",
            "elif late_ns > GONE_NS * 1000:",
            "test_command.py::test_a_late_command_is_expired_and_says_all_it_said",
        ),
        (
            "a half-written command is taken",
            "        if seq != reader.position + 1:",
            "        if (seq & ~BUSY) != reader.position + 1:",
            "test_command.py::test_a_half_written_command_is_never_taken",
        ),
        (
            "a sleeping handler is not woken",
            "return SENT if self.seen in (0, self.woken) else SENT_ASLEEP",
            "return SENT",
            "test_command.py::test_a_sleeper_is_to_be_woken_once_a_turn",
        ),
        (
            "a count that goes back is believed",
            "if head < self.head or not",
            "if not",
            "test_command.py::test_a_count_that_goes_back_ends_the_channel",
        ),
    ),
    *of(
        "feedhandler/commands.py",
        (
            "a dead engine's commands are carried out",
            "channel.rest(now_ns, is_dead=is_dead)",
            "channel.rest(now_ns, is_dead=False)",
            "test_commands.py::test_nothing_of_a_dead_engine_is_carried_out",
        ),
        (
            "a handler sleeps with commands before it",
            "channel.reader.has_next() for channel in channels",
            "channel.reader.broken for channel in channels",
            "test_commands.py::test_a_handler_that_left_something_wakes_itself",
        ),
        (
            "the first engine is always the first",
            "channels[self._turn :] + channels[: self._turn]",
            "channels",
            "test_commands.py::test_another_engine_is_first_each_time",
        ),
        (
            "a channel for another handler is served",
            "if reader.writer_epoch != self._epoch:",
            "if reader.writer_epoch == 0:",
            "test_commands.py::test_a_channel_for_another_handler_is_left_to_its_engine",
        ),
        (
            "anybody may wake the handler",
            "os.fchmod(bound.fileno(), 0o600)",
            "os.fchmod(bound.fileno(), 0o666)",
            "test_commands.py::test_what_a_channel_is_made_of_is_for_its_owner_alone",
        ),
    ),
    *of(
        "feedhandler/trader.py",
        (
            "what a handler left behind is forgotten",
            "self._expired += channel.writer.revoke(",
            "channel.writer.revoke(",
            "test_trader.py::"
            "test_a_handler_that_stands_still_is_gone_and_takes_nothing_later",
        ),
    ),
]

# ── orders out, and what became of them ───────────────────────────────────────────────

TOLD = (
    "test_trading.py::"
    "test_after_a_cut_no_order_goes_out_before_the_venue_told_what_there_is"
)
GUARDED = (
    "test_trading.py::"
    "test_guards_are_asked_of_submits_modifies_and_batches_but_not_of_cancels"
)

TRADING = [
    *of(
        "feedhandler/trading.py",
        (
            "new orders go out before the venue told what there is",
            "if not self._is_ready:\n            raise",
            "if False:\n            raise",
            TOLD,
        ),
        (
            "orders go out while nobody listens",
            "return all(map(self._is_confirmed, CHANNELS))",
            "return True",
            "test_trading.py::"
            "test_no_order_goes_out_while_nobody_listens_to_what_becomes_of_orders",
        ),
        (
            "orders wait in a socket that takes no more",
            "if self._backlog():",
            "if False:",
            "test_trading.py::test_where_bytes_wait_for_the_connection_only_cancels_go_out",
        ),
        (
            "deadlines are not looked at",
            "if deadline_ns is not None and now_ns >= deadline_ns:",
            "if False:",
            "test_trading.py::test_what_is_past_its_deadline_is_not_sent",
        ),
        (
            "guards are not asked of a batch",
            "self.orders.check_id(data)\n            self._check(data)",
            "self.orders.check_id(data)",
            GUARDED,
        ),
        (
            "modifications under way are nothing to guards",
            "request_id, now_ns, change)\n        if asked:",
            "request_id, now_ns)\n        if asked:",
            "test_trading.py::test_two_modifications_under_way_are_judged_together",
        ),
        (
            "guards are not asked what a modification makes of an order",
            "self._check_all(order.changed(change))",
            "pass",
            GUARDED,
        ),
        (
            "a fill is heard as often as it is told",
            "if self.orders.filled(message.data):",
            "if self.orders.filled(message.data) or True:",
            "test_trading.py::test_a_fill_is_heard_once_however_often_it_is_told",
        ),
        (
            "the venue's new name alone ends its orders",
            "self._asked_ns > (self._restarted_ns or 0) and self._settled_ns",
            "self._settled_ns",
            "test_trading.py::"
            "test_a_name_that_comes_after_the_subscription_wants_another_one",
        ),
        (
            "nobody waits for the pong",
            "return not self._is_replay and all(",
            "return all(",
            "test_trading.py::"
            "test_nothing_is_ready_while_the_venue_does_not_answer_the_ping",
        ),
        (
            "the kill switch forgets who turns up",
            "if self.guards.killed:",
            "if False:",
            "test_trading.py::"
            "test_the_kill_switch_cancels_what_is_open_and_what_turns_up",
        ),
        (
            "the venue is never asked again",
            "self._refresh(now_ns)\n",
            "pass\n",
            "test_trading.py::"
            "test_what_stays_unknown_is_settled_by_another_subscription",
        ),
        (
            "what is not told again is not looked for",
            "self._cancel(probes, now_ns)",
            "pass",
            "test_trading.py::"
            "test_an_order_that_is_not_told_again_is_canceled_to_find_out",
        ),
    ),
    *of(
        "feedhandler/engines.py",
        (
            "a command is sent however late",
            "_order_of(command), now_ns, command.deadline_ns",
            "_order_of(command), now_ns",
            "test_engines.py::test_what_is_past_its_deadline_is_not_sent_but_answered",
        ),
        (
            "a command that makes no sense is carried out",
            "if command.problem or command.kind is None:",
            "if command.kind is None:",
            "test_engines.py::test_what_must_not_be_carried_out_is_answered",
        ),
        (
            "what was not sent is not answered",
            "self._answer(command, cause, None)\n\n    # ──",
            "pass\n\n    # ──",
            "test_engines.py::test_the_guards_hold_here_too",
        ),
    ),
    *of(
        "feedhandler/client.py",
        (
            "an answer that is an error is a result",
            "if isinstance(answer, Error):",
            "if False:",
            "end_to_end/test_client.py::test_a_refusal_is_raised_as_what_it_is",
        ),
    ),
    *of(
        "ext/session.pyx",
        (
            "an answer that comes late is dropped",
            "request = self.late.pop(message.id, None)\n",
            "request = None\n",
            "test_session_life.py::"
            "test_a_request_without_an_answer_is_unknown_after_ten_seconds",
        ),
    ),
]

LISTENER = of(
    "ext/listener.pyx",
    (
        "a read ends at the next tick",
        "actions |= self.session.end_read()",
        "pass",
        "test_listener.py::test_with_last_in_read_every_read_ends_with_its_quotes",
    ),
)

MUTANTS = [
    *TRADING,
    *SYNC,
    *BOOK,
    *CODEC,
    *SCAN,
    *TRACKER,
    *SESSION,
    *LISTENER,
    *RING,
    *PYTHON,
    *COMMANDS,
]
