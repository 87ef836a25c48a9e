/* The protocol of the ring between two threads, for a race detector.
 *
 * With FH_MEMCPY the payload is copied by memcpy instead: then there is a race, benign on
 * the processors that we know and none of the language's business, and it must be reported.
 */
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "atomic.h"

#define FH_BUSY (1ULL << 63)

enum { WORDS = 8, CAPACITY = 8, RECORDS = 200000 };

static uint64_t fh_slots[CAPACITY][WORDS], fh_head;

static void fh_copy(uint64_t *to, const uint64_t *from, int into_shared)
{
#ifdef FH_MEMCPY
    (void)into_shared;
    memcpy(to, from, (WORDS - 1) * sizeof *to);
#else
    if (into_shared)
        fh_store_words(to, from, WORDS - 1);
    else
        fh_load_words(to, from, WORDS - 1);
#endif
}

static void *fh_write(void *unused)
{
    for (uint64_t n = 0; n < RECORDS; n++) {
        uint64_t own[WORDS], *slot = fh_slots[n % CAPACITY];
        for (int i = 1; i < WORDS; i++)
            own[i] = n;
        fh_store_release(slot, FH_BUSY | (n + 1));
        fh_fence_release();
        fh_copy(slot + 1, own + 1, 1);
        fh_store_release(slot, n + 1);
        fh_store_release(&fh_head, n + 1);
    }
    return unused;
}

int main(void)
{
    pthread_t writer;
    uint64_t accepted = 0, torn = 0, record[WORDS];
    if (pthread_create(&writer, NULL, fh_write, NULL))
        return 2;
    for (uint64_t head = 0; head < RECORDS;) {
        head = fh_load_acquire(&fh_head);
        if (head == 0)
            continue;
        const uint64_t *slot = fh_slots[(head - 1) % CAPACITY];
        if (fh_load_acquire(slot) != head)
            continue;
        fh_copy(record + 1, slot + 1, 0);
        fh_fence_acquire();
        if (fh_load_relaxed(slot) != head)
            continue;
        accepted++;
        for (int i = 1; i < WORDS; i++)
            torn += record[i] != head - 1;
    }
    pthread_join(writer, NULL);
    printf("%llu %llu\n", (unsigned long long)accepted, (unsigned long long)torn);
    return 0;
}
