/*
 * Print the quotes of a feed as text, from another process:
 *
 *     cc -std=c11 -I"$(python -c 'import feedhandler; print(feedhandler.get_include())')" \
 *         consumer.c -o consumer
 *     ./consumer md 100 [DIRECTORY]
 *
 * Compiles as C11 and as C++17.
 */
#include "feedhandler.h"

#include <inttypes.h>
#include <stdlib.h>

static int usage(void)
{
    fputs("usage: consumer NAME COUNT [DIRECTORY [new|oldest|RECORD [half|latest "
          "[next|poll]]]]\n", stderr);
    return 2;
}

static int fail(const char *what, int error)
{
    fprintf(stderr, "%s: %s\n", what, fh_error_text(error));
    return 1;
}

static void print_quote(const struct fh_quote *quote)
{
    printf("%" PRIu64 " %" PRId64 " %" PRId64 " %u %u %" PRIu32 " %.17g %.17g %.17g %.17g\n",
           quote->seq, quote->venue_ns, quote->recv_ns, quote->instrument, quote->flags,
           quote->sequence, quote->bid_price, quote->bid_size, quote->ask_price,
           quote->ask_size);
}

/* Read what is there, at most *most*; return how many. */
static uint64_t drain(struct fh_ring *ring, uint64_t most, int bulk)
{
    static struct fh_quote quotes[256];
    uint64_t count = 0;
    while (count < most) {
        size_t got;
        if (bulk)
            got = fh_ring_poll(ring, quotes, most - count < 256 ? most - count : 256);
        else
            got = fh_ring_next(ring, quotes) == FH_RECORD;
        if (got == 0)
            break;
        for (size_t i = 0; i < got; i++)
            print_quote(&quotes[i]);
        count += got;
    }
    return count;
}

/* Read *most* quotes, or until the writer is gone; return the last status. */
static int follow(struct fh_ring *ring, uint64_t most, int bulk)
{
    struct timespec nap = {0, 50000};
    int64_t look_ns = 0;
    int status = FH_LIVE;
    while (most > 0) {
        uint64_t count = drain(ring, most, bulk);
        most -= count;
        if (count > 0)
            continue;
        if (status != FH_LIVE && status != FH_STALLED)
            break;
        fflush(stdout);
        if (fh_now_ns() < look_ns) {
            nanosleep(&nap, NULL);
            continue;
        }
        look_ns = fh_now_ns() + 100000000;
        status = fh_segment_status(ring->segment);
    }
    return fh_segment_status(ring->segment);
}

int main(int argc, char **argv)
{
    static struct fh_segment segment;
    struct fh_ring ring;
    if (argc < 3 || argc > 7)
        return usage();
    const char *directory = argc > 3 ? argv[3] : NULL;
    const char *start = argc > 4 ? argv[4] : "new";
    int on_lap = argc > 5 && strcmp(argv[5], "latest") == 0 ? FH_LAP_LATEST : FH_LAP_HALF;
    int bulk = argc > 6 && strcmp(argv[6], "poll") == 0;
    uint64_t most = strtoull(argv[2], NULL, 10);

    int error = fh_attach(&segment, directory, argv[1], "quotes", FH_ONLY_ME);
    if (error)
        return fail(argv[1], error);
    error = fh_ring_bind(&ring, &segment, FH_QUOTES,
                         strcmp(start, "oldest") == 0 ? FH_START_OLDEST : FH_START_NEW,
                         on_lap);
    if (!error && start[0] >= '0' && start[0] <= '9')
        error = fh_ring_seek(&ring, strtoull(start, NULL, 10));
    if (error) {
        fh_detach(&segment);
        return fail(argv[1], error);
    }
    int status = follow(&ring, most, bulk);
    printf("received %" PRIu64 " lost %" PRIu64 " position %" PRIu64 " %s\n",
           fh_ring_received(&ring), ring.lost, ring.cursor, fh_status_text(status));
    fh_detach(&segment);
    return 0;
}
