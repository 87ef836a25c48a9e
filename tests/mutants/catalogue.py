"""The mutants: what a tired person might do to the package, and the tests that see it.

*old* occurs once in its file: a few words, so that edits nearby do not concern it.
"""

from typing import NamedTuple

__all__ = ["MUTANTS", "Mutant"]


class Mutant(NamedTuple):
    """One change of one file; *tests* are enough to catch it.

    *read* by its tests rather than run, it is not compiled.
    """

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]
    read: bool = False

    @property
    def is_compiled(self) -> bool:
        return self.file.endswith(".pyx") and not self.read

    def apply(self, text: str) -> str:
        """Return the file's text with the change; ValueError where it cannot be made."""
        found = text.count(self.old)
        if found != 1:
            raise ValueError(f"{self.file} has {self.old!r} {found} times, not once")
        return text.replace(self.old, self.new)


SYNC = "ext/sync.pyx"
BOOK = "ext/book.pyx"
TRACKER = "ext/tracker.pyx"
SESSION = "ext/session.pyx"

SESSIONS = "test_session.py::"
LIFE = "test_session_life.py::"
TRUST = "test_trust.py::"
STREAM = "test_stream_faults.py::"
FAR = f"{STREAM}test_an_update_far_ahead_that_no_snapshot_reaches_is_of_no_stream"
EVERYWHERE = f"{STREAM}test_one_lost_update_at_any_place_of_a_run_is_seen_at_the_next"

MUTANTS = [
    # ── sync ──────────────────────────────────────────────────────────────────────────
    Mutant(
        "the sequence is not checked",
        SYNC,
        "if sequence == self.applied + 1 and",
        "if sequence > self.applied and",
        ("test_sync.py",),
    ),
    Mutant(
        "a book that lost something unknown goes on",
        SYNC,
        " and not self.broken:",
        ":",
        ("test_sync.py", "model/test_sync_model.py"),
    ),
    Mutant(
        "a book is trusted while it is behind",
        SYNC,
        "return not self.broken and self.applied == self.highest",
        "return not self.broken",
        ("test_sync.py",),
    ),
    Mutant(
        "numbers that begin again are repeats for ever",
        SYNC,
        "if self.run < RUN or",
        "if self.run >= 0 or",
        (
            "test_sync.py",
            f"{STREAM}test_numbers_that_begin_again_without_a_snapshot_are_a_loss",
        ),
    ),
    Mutant(
        "held updates do not count as seen",
        SYNC,
        "self.highest = max(self.highest, sequence)\n\n    cdef void reset",
        "pass\n\n    cdef void reset",
        (
            f"{SESSIONS}test_a_snapshot_that_does_not_reach_the_held_updates_is_not_enough",
        ),
    ),
    # ── the tracked book ──────────────────────────────────────────────────────────────
    Mutant(
        "a snapshot is merged into the old book",
        TRACKER,
        "if book.levels.replace(bids",
        "if book.levels.update(bids",
        (f"{SESSIONS}test_levels_of_the_old_book_do_not_survive_a_snapshot",),
    ),
    Mutant(
        "an update is applied before it is checked",
        TRACKER,
        "hold(book, sequence, timestamp_ms, self.now_ns, bids, bid_count, asks, ask_count)",
        "book.levels.update(bids, bid_count, asks, ask_count)",
        (
            EVERYWHERE,
            f"{SESSIONS}test_updates_during_a_resync_are_held_and_applied_after_the_snapshot",
        ),
    ),
    Mutant(
        "a gap is not flagged",
        TRACKER,
        "self.degrade(book, True)\n            self.want_snapshot(book)",
        "self.want_snapshot(book)",
        (EVERYWHERE,),
    ),
    Mutant(
        "a book is LIVE before its snapshot is applied",
        TRACKER,
        "        if book.levels.replace(bids, bid_count, asks, ask_count) < 0:",
        "        book.sync.snapshot(sequence)\n        self.publish(book, self.now_ns, 0)\n"
        "        if book.levels.replace(bids, bid_count, asks, ask_count) < 0:",
        (
            f"{SESSIONS}test_updates_during_a_resync_are_held_and_applied_after_the_snapshot",
        ),
    ),
    Mutant(
        "a wrong symbol is ignored",
        TRACKER,
        "if book is None or not same_text(symbol, book.symbol):",
        "if book is None:",
        (f"{SESSIONS}test_a_wrong_symbol_on_a_book_channel_is_a_lost_update",),
    ),
    Mutant(
        "a snapshot is no new epoch",
        TRACKER,
        "book.epoch += 1\n        book.gap = False",
        "book.gap = False",
        (
            f"{STREAM}test_a_snapshot_with_a_lower_number_replaces_the_book_and_is_a_new_epoch",
        ),
    ),
    Mutant(
        "a lost connection is not told",
        TRACKER,
        "route.book.due_ns = 0\n                self.degrade(route.book, False)",
        "route.book.due_ns = 0",
        (f"{SESSIONS}test_a_lost_connection_makes_every_book_stale_once",),
    ),
    Mutant(
        "a crossed book is LIVE",
        TRACKER,
        "elif not flags & Flags.CROSSED:",
        "else:",
        (f"{SESSIONS}test_a_crossed_or_locked_book_is_neither_live_nor_stale",),
    ),
    Mutant(
        "a crossed book is not audited",
        TRACKER,
        "book.to_verify = True\n",
        "book.to_verify = False\n",
        (
            f"{TRUST}test_a_snapshot_that_is_crossed_or_locked_is_audited_a_second_later",
        ),
    ),
    Mutant(
        "an audit is always right",
        TRACKER,
        "if not book.levels.replaced_by_same():",
        "if False:",
        (
            f"{SESSIONS}test_an_audit_that_differs_is_counted_reported_and_replaces_the_book",
        ),
    ),
    Mutant(
        "a mute line is not noticed",
        TRACKER,
        "                self.fall_silent(book)",
        "                pass",
        (f"{TRUST}test_a_book_of_which_nothing_comes_is_stale_and_asked_for_once",),
    ),
    Mutant(
        "what waited in the socket is LIVE",
        TRACKER,
        "if self.is_late or book.is_silent",
        "if book.is_silent",
        (f"{LIFE}test_what_waited_in_the_socket_is_stale_until_all_of_it_was_read",),
    ),
    Mutant(
        "an update that no snapshot reaches is waited for",
        TRACKER,
        "if book.unreached < UNREACHED:",
        "if True:",
        (FAR,),
    ),
    Mutant(
        "a trade is published twice",
        TRACKER,
        "if length and route.is_repeated(text, length):",
        "if False:",
        (f"{TRUST}test_a_trade_is_published_once_within_a_connection",),
    ),
    # ── the book, and what is decoded ─────────────────────────────────────────────────
    Mutant(
        "ghost levels are kept",
        BOOK,
        "cdef int32_t extra = side.count - depth",
        "cdef int32_t extra = 0",
        ("test_book.py",),
    ),
    Mutant(
        "a negative size is taken",
        "ext/codec.pyx",
        "return value >= 0.0 and value < INFINITY",
        "return value < INFINITY",
        (f"{STREAM}test_a_level_that_cannot_be_is_a_lost_update",),
    ),
    # ── the session ───────────────────────────────────────────────────────────────────
    Mutant(
        "a channel is forgotten on the next connection",
        SESSION,
        "self.to_subscribe[:] = self.routes",
        "self.to_subscribe[:] = list(self.routes)[1:]",
        (f"{SESSIONS}test_a_new_connection_subscribes_to_everything_again",),
    ),
    Mutant(
        "the heartbeat's timer is that of the last connection",
        SESSION,
        "self.heartbeat_ns = now_ns\n        self.missed",
        "self.missed",
        (
            f"{SESSIONS}test_the_time_without_heartbeats_starts_anew_with_each_connection",
        ),
    ),
    Mutant(
        "one pong is enough for two stalls",
        SESSION,
        "if self.is_late and self.pinged_stall == self.stalled:",
        "if self.is_late:",
        (f"{LIFE}test_a_pong_to_a_ping_of_before_the_stall_proves_nothing",),
    ),
    Mutant(
        "the delays start over when a connection opens",
        SESSION,
        "        if useful:",
        "        if was_open:",
        (
            "test_reconnect.py::test_the_delays_start_over_after_a_useful_connection_only",
        ),
    ),
    Mutant(
        "orders go out before the login",
        SESSION,
        "or (self.login and not self.login.is_accepted):\n            raise NotConnected",
        "or False:\n            raise NotConnected",
        (f"{LIFE}test_a_request_without_a_connection_fails_at_once",),
    ),
    Mutant(
        "what was asked is forgotten with the connection",
        SESSION,
        "        self.abandon_requests()",
        "        self.requests.clear()",
        (
            f"{LIFE}test_what_was_asked_when_a_connection_ended_is_unknown_and_never_asked_again",
        ),
    ),
    # ── limits, logins and money ──────────────────────────────────────────────────────
    Mutant(
        "a batch counts as one",
        "feedhandler/throttle.py",
        "extend([now_ns] * units)",
        "append(now_ns)",
        (f"{LIFE}test_a_batch_counts_as_many_as_it_has",),
    ),
    Mutant(
        "cancels have no lane of their own",
        "feedhandler/throttle.py",
        "self.limit - self.reserved",
        "self.limit",
        (
            f"{LIFE}test_a_full_class_says_at_once_how_long_to_wait_and_keeps_some_for_cancels",
        ),
    ),
    Mutant(
        "a login without a status is taken for one",
        "feedhandler/authentication.py",
        'if said == {"success"}:',
        'if "error" not in said:',
        ("test_authentication.py::test_only_a_plain_success_is_one",),
    ),
    Mutant(
        "the venue counts in fixed windows",
        "feedhandler/venue/limits.py",
        "times_ns[0] <= now_ns - WINDOW_NS:",
        "times_ns[0] // WINDOW_NS < now_ns // WINDOW_NS:",
        ("venue/test_limits.py",),
    ),
    Mutant(
        "a login is noted in the venue's journal",
        "feedhandler/venue/journal.py",
        "if action == AUTHENTICATE:",
        "if False:",
        ("venue/test_journal.py::test_credentials_are_never_shown",),
    ),
    Mutant(
        "ticks are cut off and not rounded",
        "feedhandler/venue/listing.py",
        "return round(Fraction(number)",
        "return int(Fraction(number)",
        ("venue/test_listing.py",),
    ),
    # ── the ring ──────────────────────────────────────────────────────────────────────
    Mutant(
        "a reader looks at a slot's number once",
        "ext/ring.pyx",
        "if load_relaxed(slot) == seq:                   # R4",
        "if True:  # R4",
        ("test_ring.py::test_no_record_is_torn_at_the_lap_edge",),
    ),
    Mutant(
        "what a lapped reader lost is not counted",
        "ext/ring.pyx",
        "reader.missed = reader.missed + target - reader.cursor",
        "pass",
        ("test_ring.py::test_received_and_lost_add_up_at_every_return",),
    ),
]
