/*
 * Read a ring at the edge of its lap, under a writer at full speed:
 *
 *     ./stress DIRECTORY NAME next|poll MILLISECONDS
 *
 * Prints what was got, lost and passed, how many records were torn, and how many were
 * when the same memory was read without the checks. Compiles as C11 and as C++17.
 */
#include "feedhandler.h"

#include <inttypes.h>
#include <stdlib.h>

enum { BATCH = 4096, FEW = 8 };

/* Every field of a record tells its number, modulo 60,000. */
static int is_torn(const struct fh_quote *quote)
{
    int64_t number = (int64_t)((quote->seq - 1) % 60000);
    double real = (double)number;
    return quote->venue_ns != number || quote->recv_ns != number
           || quote->instrument != number || quote->flags != number
           || quote->sequence != number || quote->bid_price < real
           || quote->bid_price > real || quote->bid_size < real || quote->bid_size > real
           || quote->ask_price < real || quote->ask_price > real
           || quote->ask_size < real || quote->ask_size > real;
}

static uint64_t count_torn(const struct fh_quote *quotes, size_t count)
{
    uint64_t torn = 0;
    for (size_t i = 0; i < count; i++)
        torn += (uint64_t)is_torn(&quotes[i]);
    return torn;
}

int main(int argc, char **argv)
{
    static struct fh_segment segment;
    static struct fh_quote quotes[BATCH];
    struct fh_ring ring;
    uint64_t total = 0, lost = 0, moved = 0, torn = 0, raw = 0, disorder = 0;
    if (argc != 5) {
        fputs("usage: stress DIRECTORY NAME next|poll MILLISECONDS\n", stderr);
        return 2;
    }
    int bulk = strcmp(argv[3], "poll") == 0;
    int error = fh_attach(&segment, argv[1], argv[2], "quotes", FH_ONLY_ME);
    if (!error)
        error = fh_ring_bind(&ring, &segment, FH_QUOTES, FH_START_OLDEST, FH_LAP_HALF);
    if (error || ring.capacity > BATCH) {
        fprintf(stderr, "%s\n", fh_error_text(error));
        return 1;
    }
    int64_t end_ns = fh_now_ns() + strtoll(argv[4], NULL, 10) * 1000000;
    while (fh_now_ns() < end_ns) {
        size_t got = 0;
        uint64_t head = fh_head(&segment);
        if (head >= ring.capacity)      /* the oldest that may be read: the next to go */
            fh_ring_seek(&ring, head - ring.capacity + 1);
        if (bulk)
            got = fh_ring_poll(&ring, quotes, FEW);
        else
            while (got < FEW && fh_ring_next(&ring, &quotes[got]) == FH_RECORD)
                got++;
        torn += count_torn(quotes, got);
        for (size_t i = 1; i < got; i++)
            disorder += quotes[i].seq <= quotes[i - 1].seq;
        total += got;
        lost += ring.lost;
        moved += ring.cursor - ring.origin;
        ring.origin = ring.cursor;
        ring.lost = 0;
        fh_copy_words(quotes, ring.slots, ring.capacity * sizeof(*quotes));
        raw += count_torn(quotes, ring.capacity);
    }
    printf("got %" PRIu64 " lost %" PRIu64 " moved %" PRIu64 " torn %" PRIu64
           " disorder %" PRIu64 " raw %" PRIu64 "\n",
           total, lost, moved, torn, disorder, raw);
    fh_detach(&segment);
    return 0;
}
