/*
 * A ring of quotes written by C, for readers in any language:
 *
 *     ./writer DIRECTORY NAME CAPACITY COUNT
 *
 * Publishes COUNT quotes, prints "ready", and says goodbye when its input ends. It is the
 * layout, the lock and the order of stores, and not a writer for use: it beats only once.
 * Compiles as C11 and as C++17.
 */
#include "feedhandler.h"

#include <stdlib.h>

struct writer {
    unsigned char *base;
    struct fh_live_page *live;
    uint64_t capacity;
    uint64_t count;
};

static int fail(const char *what)
{
    perror(what);
    return 1;
}

static void format(unsigned char *base, const char *name, uint64_t capacity,
                   uint64_t size)
{
    struct fh_meta_page *meta = (struct fh_meta_page *)base;
    struct fh_live_page *live = (struct fh_live_page *)(base + FH_LIVE_OFFSET);
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    meta->abi_major = FH_ABI_MAJOR;
    meta->abi_minor = FH_ABI_MINOR;
    meta->byte_order = FH_BYTE_ORDER;
    meta->stream_kind = FH_QUOTES;
    meta->created_realtime_ns = (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
    meta->created_monotonic_ns = fh_now_ns();
    meta->epoch = (uint64_t)meta->created_realtime_ns;
    meta->capacity = capacity;
    meta->slot_size = sizeof(struct fh_quote);
    meta->record_size = sizeof(struct fh_quote);
    meta->slots_offset = FH_DATA_OFFSET;
    meta->file_size = size;
    meta->schema_hash = FH_QUOTE_SCHEMA_HASH;
    meta->schema_len = sizeof(FH_QUOTE_SCHEMA) - 1;
    meta->pid = getpid();
    meta->uid = geteuid();
    snprintf(meta->name, sizeof(meta->name), "%.40s.quotes", name);
    snprintf(meta->version, sizeof(meta->version), "writer.c");
    memcpy(meta->schema, FH_QUOTE_SCHEMA, sizeof(FH_QUOTE_SCHEMA) - 1);
    live->state = FH_WRITER_LIVE;
    live->heartbeat_mono_ns = (uint64_t)fh_now_ns();
    __atomic_store_n(&meta->magic, FH_MAGIC, __ATOMIC_RELEASE);
}

static void publish(struct writer *writer, const struct fh_quote *quote)
{
    uint64_t number = writer->count + 1;
    uint64_t place = writer->count & (writer->capacity - 1);
    fh_cell *slot = (fh_cell *)(writer->base + FH_DATA_OFFSET + place * sizeof(*quote));
    const fh_cell *words = (const fh_cell *)quote;
    __atomic_store_n(slot, FH_BUSY | number, __ATOMIC_RELEASE);             /* W1 */
    __atomic_thread_fence(__ATOMIC_RELEASE);                                /* W2 */
    for (size_t i = 1; i < sizeof(*quote) / sizeof(*words); i++)
        __atomic_store_n(&slot[i], words[i], __ATOMIC_RELAXED);             /* W3 */
    __atomic_store_n(slot, number, __ATOMIC_RELEASE);                       /* W4 */
    __atomic_store_n(&writer->live->head, number, __ATOMIC_RELEASE);        /* W5 */
    writer->count = number;
}

/* Every field tells the record's number. */
static struct fh_quote make_quote(uint64_t number)
{
    struct fh_quote quote;
    uint16_t small = (uint16_t)(number % 60000);
    quote.seq = 0;
    quote.venue_ns = small;
    quote.recv_ns = small;
    quote.instrument = small;
    quote.flags = small;
    quote.sequence = small;
    quote.bid_price = small;
    quote.bid_size = small;
    quote.ask_price = small;
    quote.ask_size = small;
    return quote;
}

int main(int argc, char **argv)
{
    struct writer writer;
    struct flock lock;
    char path[FH_PATH_BYTES], temporary[FH_PATH_BYTES];
    if (argc != 5) {
        fputs("usage: writer DIRECTORY NAME CAPACITY COUNT\n", stderr);
        return 2;
    }
    snprintf(path, sizeof(path), "%s/fh-%s.quotes", argv[1], argv[2]);
    snprintf(temporary, sizeof(temporary), "%s/.fh-%s.quotes.%d.1", argv[1], argv[2],
             (int)getpid());
    writer.capacity = strtoull(argv[3], NULL, 10);
    writer.count = 0;
    uint64_t size = fh_align(FH_DATA_OFFSET + writer.capacity * sizeof(struct fh_quote),
                             FH_PAGE);
    int fd = open(temporary, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return fail(temporary);
    if ((errno = posix_fallocate(fd, 0, (off_t)size)) != 0)
        return fail("posix_fallocate");
    void *base = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, 0);
    if (base == MAP_FAILED)
        return fail("mmap");
    writer.base = (unsigned char *)base;
    writer.live = (struct fh_live_page *)(writer.base + FH_LIVE_OFFSET);
    format(writer.base, argv[2], writer.capacity, size);
    memset(&lock, 0, sizeof(lock));
    lock.l_type = F_WRLCK;
    lock.l_whence = SEEK_SET;
    if (fcntl(fd, F_OFD_SETLK, &lock) != 0)
        return fail("lock");
    if (rename(temporary, path) != 0)
        return fail(path);

    uint64_t count = strtoull(argv[4], NULL, 10);
    for (uint64_t number = 0; number < count; number++) {
        struct fh_quote quote = make_quote(number);
        publish(&writer, &quote);
    }
    puts("ready");
    fflush(stdout);
    while (getchar() != EOF)
        continue;
    __atomic_store_n(&writer.live->state, (uint32_t)FH_WRITER_CLOSED, __ATOMIC_RELEASE);
    unlink(path);
    return 0;
}
