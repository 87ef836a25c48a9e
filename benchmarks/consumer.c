/* A reader of quotes by the header that ships, on a processor that it shares.
 *
 *     ./consumer DIRECTORY NAME COUNT STAMPS CPU NAP_NS SECONDS
 *
 * Prints "ready" when it is attached; then notes of each of the first COUNT quotes when it
 * came. STAMPS gets four int64 of each: CLOCK_MONOTONIC in ns, recv_ns turned back into
 * it, instrument, and the low 32 bits of the venue's sequence. Ends with 0 when there were
 * COUNT of them, and with 1 when some were lost, or the feed ended first.
 *
 * With NAP_NS 0 it spins with SCHED_IDLE, the policy of what runs when nothing else wants
 * to: a sender that wakes up on the same processor has it at once. Otherwise it sleeps for
 * NAP_NS whenever there is nothing.
 */
#define _GNU_SOURCE
#include "feedhandler.h"

#include <sched.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

enum { LOOK_NS = 100000000 };

static void fail(const char *what)
{
    fprintf(stderr, "consumer: %s\n", what);
    exit(2);
}

static void nap(int64_t nap_ns)
{
    struct timespec time = {nap_ns / 1000000000, nap_ns % 1000000000};
    nanosleep(&time, NULL);
}

int main(int argc, char **argv)
{
    static struct fh_segment segment;
    struct fh_ring ring;
    struct fh_quote quote;
    struct sched_param priority = {0};
    if (argc != 8)
        fail("give DIRECTORY NAME COUNT STAMPS CPU NAP_NS SECONDS");
    alarm((unsigned)atoi(argv[7]));
    prctl(PR_SET_TIMERSLACK, 1UL, 0UL, 0UL, 0UL);
    int64_t nap_ns = atoll(argv[6]);
    size_t count = strtoull(argv[3], NULL, 10), taken = 0;
    int64_t(*found)[4] = (int64_t(*)[4])malloc((count + 1) * sizeof *found);
    if (!found)
        fail("memory");
    memset(found, 1, (count + 1) * sizeof *found);
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET((unsigned)atoi(argv[5]), &set);
    if (sched_setaffinity(0, sizeof(set), &set) < 0)
        fail("cannot have this CPU");
    int error = fh_attach(&segment, argv[1], argv[2], "quotes", FH_ONLY_ME);
    if (!error)
        error = fh_ring_bind(&ring, &segment, FH_QUOTES, FH_START_OLDEST, FH_LAP_HALF);
    if (error)
        fail(fh_error_text(error));
    int64_t offset_ns = fh_utc_offset_ns(&segment), look_ns = fh_now_ns();
    puts("ready");
    fflush(stdout);
    if (!nap_ns && sched_setscheduler(0, SCHED_IDLE, &priority) < 0)
        fail("cannot have SCHED_IDLE");
    while (taken < count) {
        if (fh_ring_next(&ring, &quote) == FH_RECORD) {
            int64_t now_ns = fh_now_ns();
            found[taken][0] = now_ns;
            found[taken][1] = quote.recv_ns - offset_ns;
            found[taken][2] = quote.instrument;
            found[taken++][3] = quote.sequence;
            continue;
        }
        fh_relax();
        if (nap_ns)
            nap(nap_ns);
        int64_t now_ns = fh_now_ns();
        if (now_ns - look_ns < LOOK_NS)
            continue;
        look_ns = now_ns;
        int status = fh_segment_status(&segment);
        if (status != FH_LIVE && status != FH_STALLED && ring.cursor == fh_head(&segment))
            break;
    }
    sched_setscheduler(0, SCHED_OTHER, &priority);
    FILE *file = fopen(argv[4], "wb");
    if (!file || fwrite(found, sizeof *found, taken, file) != taken || fclose(file))
        fail("cannot write");
    return taken == count && !ring.lost ? 0 : 1;
}
