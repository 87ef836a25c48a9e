/* A writer at full speed, a slot reader and a bulk reader, each a process of its own.
 *
 * usage: torn shipped|no-busy-mark|off-by-one CAPACITY SECONDS FILE
 *
 * The steps are those of the ring, by the same primitives: atomic.h is the C of atomic.pxd.
 * Readers go back, time and again, to the records that are overwritten next, so that they
 * can lose less than nothing. Every word of record n is made from n.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "atomic.h"

#define FH_BUSY (1ULL << 63)
#ifndef FH_WORDS
#define FH_WORDS 16    /* of two cache lines: one is torn too rarely to show a mutant */
#endif
#define FH_SLOTS_OFFSET 128
#define FH_BATCH_MAX 256

struct fh_counts {
    uint64_t published, accepted[2], torn[2], lost[2], wrong[2];
};

static uint64_t *fh_head;
static uint64_t *fh_slots;
static struct fh_counts *fh_counts;
static uint64_t fh_capacity, fh_mask;
static int fh_busy_mark = 1;
static uint64_t fh_bound;
static volatile uint64_t *fh_stop;

static uint64_t *fh_slot(uint64_t n)
{
    return fh_slots + (n & fh_mask) * FH_WORDS;
}

static uint64_t fh_word_of(uint64_t n, int i)
{
    return (n + 1) * 0x9E3779B97F4A7C15ULL + (uint64_t)i;
}

static int fh_is_torn(const uint64_t *record, uint64_t n)
{
    for (int i = 1; i < FH_WORDS; i++)
        if (record[i] != fh_word_of(n, i))
            return 1;
    return record[0] != n + 1;
}

static uint64_t fh_next(uint64_t random)
{
    random ^= random << 13, random ^= random >> 7;
    return random ^ random << 17;
}

/* A record near the oldest of those that a reader can hope for. */
static uint64_t fh_edge(uint64_t head, uint64_t reach, uint64_t random)
{
    return head < reach ? 0 : head - reach + (random >> 40) % 3 % fh_capacity;
}

static void fh_pin(int cpu)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cpu % (int)sysconf(_SC_NPROCESSORS_ONLN), &set);
    sched_setaffinity(0, sizeof set, &set);
}

static void fh_write(void)
{
    uint64_t n = 0, random = 88172645463325252ULL;
    while (!*fh_stop) {
        /* Mostly short bursts, now and then two laps: a reader sees all phases. */
        random = fh_next(random);
        uint64_t most = random >> 60 ? fh_capacity / 4 + 1 : 2 * fh_capacity;
        uint64_t burst = 1 + (random >> 32) % most, pauses = (random >> 20) % 8;
        for (; burst; burst--, n++) {
            uint64_t own[FH_WORDS], *slot = fh_slot(n);
            for (int i = 1; i < FH_WORDS; i++)
                own[i] = fh_word_of(n, i);
            if (fh_busy_mark) {
                fh_store_release(slot, FH_BUSY | (n + 1));
                fh_fence_release();
            }
            fh_store_words(slot + 1, own + 1, FH_WORDS - 1);
            fh_store_release(slot, n + 1);
            fh_store_release(fh_head, n + 1);
        }
        for (; pauses; pauses--)
            fh_pause();
    }
    fh_counts->published = n;
}

static void fh_read_slots(void)
{
    uint64_t c = 0, lost = 0, accepted = 0, torn = 0, wrong = 0, record[FH_WORDS];
    uint64_t random = 88172645463325252ULL;
    while (!*fh_stop) {
        const uint64_t *slot = fh_slot(c);
        uint64_t seq = fh_load_acquire(slot);
        if (seq == c + 1) {
            fh_load_words(record + 1, slot + 1, FH_WORDS - 1);
            fh_fence_acquire();
            if (fh_load_relaxed(slot) != seq)
                continue;
            record[0] = seq;
            torn += (uint64_t)fh_is_torn(record, c);
            accepted++, c++;
            random = fh_next(random);
            if (random & 1)
                continue;
        }
        uint64_t head = fh_load_acquire(fh_head);
        /* The lapped-reader lemma: who sees a later record sees that head, too. */
        if (seq != c && (seq & ~FH_BUSY) > c + 1 && head - c < fh_capacity)
            wrong += (uint64_t)fh_busy_mark;
        random = fh_next(random);
        uint64_t edge = fh_edge(head, fh_capacity, random);
        lost += edge - c;
        c = edge;
    }
    wrong += accepted + lost != c;
    fh_counts->accepted[0] = accepted, fh_counts->torn[0] = torn;
    fh_counts->lost[0] = lost, fh_counts->wrong[0] = wrong;
}

static void fh_read_bulk(void)
{
    static uint64_t batch[FH_BATCH_MAX * FH_WORDS];
    uint64_t c = 0, lost = 0, accepted = 0, torn = 0, edge = fh_capacity + fh_bound;
    uint64_t random = 88172645463325252ULL;
    while (!*fh_stop) {
        uint64_t head = fh_load_acquire(fh_head), count, first, whole, bad = 0;
        random = fh_next(random);
        first = fh_edge(head, edge - 1, random);
        lost += first - c;
        c = first;
        count = 1 + (random >> 32) % (random & 15 ? 4 : FH_BATCH_MAX);
        count = head - c < count ? head - c : count;
        first = c & fh_mask;
        whole = count < fh_capacity - first ? count : fh_capacity - first;
        memcpy(batch, fh_slot(c), whole * FH_WORDS * 8);
        memcpy(batch + whole * FH_WORDS, fh_slots, (count - whole) * FH_WORDS * 8);
        fh_fence_acquire();
        head = fh_load_relaxed(fh_head);
        if (head - c >= edge) {
            bad = head - edge + 1 - c;
            bad = bad < count ? bad : count;
        }
        for (uint64_t i = bad; i < count; i++)
            torn += (uint64_t)fh_is_torn(batch + i * FH_WORDS, c + i);
        accepted += count - bad, lost += bad, c += count;
    }
    fh_counts->accepted[1] = accepted, fh_counts->torn[1] = torn;
    fh_counts->lost[1] = lost, fh_counts->wrong[1] = accepted + lost != c;
}

int main(int argc, char **argv)
{
    void (*roles[])(void) = {fh_write, fh_read_slots, fh_read_bulk};
    int failed = 0;
    if (argc != 5)
        return 2;
    fh_busy_mark = strcmp(argv[1], "no-busy-mark") != 0;
    fh_bound = strcmp(argv[1], "off-by-one") == 0;
    fh_capacity = strtoull(argv[2], NULL, 10);
    fh_mask = fh_capacity - 1;
    size_t size = FH_SLOTS_OFFSET + fh_capacity * FH_WORDS * 8;
    int fd = open(argv[4], O_RDWR | O_CREAT | O_TRUNC, 0600);
    if (fd < 0 || ftruncate(fd, (off_t)size))
        return 2;
    char *base = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    char *ends = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (base == MAP_FAILED || ends == MAP_FAILED)
        return 2;
    fh_head = (uint64_t *)base;
    fh_slots = (uint64_t *)(base + FH_SLOTS_OFFSET);
    fh_stop = (uint64_t *)ends;
    fh_counts = (struct fh_counts *)(ends + 128);
    for (int i = 0; i < 3; i++)
        if (fork() == 0) {
            /* The writer has a processor to itself; readers share the next. */
            fh_pin(i > 0);
            if (i > 0)
                mprotect(base, size, PROT_READ);
            roles[i]();
            _exit(0);
        }
    double seconds = atof(argv[3]);
    struct timespec nap = {(time_t)seconds, (long)((seconds - (time_t)seconds) * 1e9)};
    nanosleep(&nap, NULL);
    *fh_stop = 1;
    for (int i = 0, status; i < 3; i++)
        failed |= wait(&status) < 0 || status;
    printf("%llu", (unsigned long long)fh_counts->published);
    for (int i = 0; i < 2; i++)
        printf(" %llu %llu %lld %llu", (unsigned long long)fh_counts->accepted[i],
               (unsigned long long)fh_counts->torn[i],
               (long long)fh_counts->lost[i],
               (unsigned long long)fh_counts->wrong[i]);
    printf("\n");
    return failed;
}
