/*
 * Print what the board knows of one symbol, and the counters, of a feed:
 *
 *     ./inspect DIRECTORY NAME SYMBOL COUNTER HISTOGRAM
 *
 * Compiles as C11 and as C++17.
 */
#include "feedhandler.h"

#include <inttypes.h>

static int fail(const char *what, int error)
{
    printf("%s: %s\n", what, fh_error_text(error));
    return 1;
}

static int show_board(const struct fh_segment *segment, const char *symbol)
{
    static struct fh_level bids[FH_LEVELS_MAX], asks[FH_LEVELS_MAX];
    static struct fh_entry entry;
    struct fh_board board;
    int error = fh_board_bind(&board, segment);
    if (error)
        return fail("board", error);
    int number = fh_board_find(&board, symbol);
    if (number < 0)
        return fail(symbol, number);
    error = fh_board_depth(&board, (uint32_t)number, &entry, bids, asks);
    if (error)
        return fail(symbol, error);
    printf("%s %d of %" PRIu32 " status %" PRIu32 " sequence %" PRIu64 " epoch %" PRIu32 "\n",
           symbol, number, fh_board_count(&board), entry.status, entry.sequence,
           entry.session_epoch);
    printf("quote %.17g %.17g %.17g %.17g\n", entry.quote.bid_price, entry.quote.bid_size,
           entry.quote.ask_price, entry.quote.ask_size);
    printf("ticker %.17g candle %.17g\n", entry.ticker.last_price, entry.candles[2].close);
    for (int i = 0; i < entry.bid_count; i++)
        printf("bid %.17g %.17g\n", bids[i].price, bids[i].size);
    for (int i = 0; i < entry.ask_count; i++)
        printf("ask %.17g %.17g\n", asks[i].price, asks[i].size);
    return 0;
}

static int show_counters(const struct fh_segment *segment, const char *name,
                         const char *histogram)
{
    static struct fh_histogram page;
    struct fh_counters counters;
    uint64_t value, total = 0;
    int error = fh_counters_bind(&counters, segment);
    if (error)
        return fail("counters", error);
    error = fh_counters_get(&counters, name, &value);
    if (error)
        return fail(name, error);
    printf("%s %" PRIu64 "\n", name, value);
    error = fh_counters_histogram(&counters, histogram, &page);
    if (error)
        return fail(histogram, error);
    for (int i = 0; i < FH_BUCKETS; i++)
        total += page.buckets[i];
    printf("%s count %" PRIu64 " max %" PRIu64 "\n", histogram, total, page.max_ns);
    return 0;
}

int main(int argc, char **argv)
{
    static struct fh_segment segment;
    if (argc != 6) {
        fputs("usage: inspect DIRECTORY NAME SYMBOL COUNTER HISTOGRAM\n", stderr);
        return 2;
    }
    int error = fh_attach(&segment, argv[1], argv[2], "board", FH_ONLY_ME);
    if (error)
        return fail("board", error);
    printf("%s locked %d gaps %" PRIu64 " offset %" PRId64 "\n",
           fh_status_text(fh_segment_status(&segment)), fh_is_locked(&segment),
           segment.live->session_gap_count, fh_utc_offset_ns(&segment));
    int failed = show_board(&segment, argv[3]);
    fh_detach(&segment);
    if (failed)
        return failed;
    error = fh_attach(&segment, argv[1], argv[2], "counters", FH_ONLY_ME);
    if (error)
        return fail("counters", error);
    failed = show_counters(&segment, argv[4], argv[5]);
    fh_detach(&segment);
    return failed;
}
