/* The venue's side of one WebSocket connection, for benchmarks: sends prepared frames.
 *
 *     ./sender [OPTION…] FRAMES STAMPS
 *
 * FRAMES is a file of native uint64s and bytes: how many frames, where each begins and
 * where the last ends, counted from the first frame, then the frames as they go over the
 * wire (wire.py makes it). STAMPS gets an int64 for each write of measured frames,
 * CLOCK_MONOTONIC in ns, taken just before it; of one client after the other.
 *
 * Prints "listening PORT"; for each client "begun" when it may have frames, and
 * "sent FRAMES WRITES NS NS" when it has all, with the first and the last stamp; FRAMES
 * is 0 if it left before. Ends with 0 when every client got every frame.
 *
 *     --gap-ns N       least ns between two writes (default 200000), a little uneven
 *     --burst N        frames in one write (default 1; flat out 1024)
 *     --flat-out       one write after the other
 *     --count N        the first N frames only
 *     --warm N         the first N frames go the same way and are not measured
 *     --after WHAT     what begins it: subscribe (default), upgrade, or any text
 *     --go             then wait for a byte on stdin
 *     --clients N      how many, one after the other (default 1)
 *     --linger-ms N    for a client to read all and close, before we do (default 2000)
 *     --cpu N          the processor
 *     --alarm N        seconds until this process is killed, whatever it does (default 120)
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { TEXT = 1, CLOSE = 8, PING = 9, PONG = 10 };
enum { ROOM = 1 << 17, LOOK_NS = 10000000, CLOSE_MS = 1000 };

static const char GUID[] = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

struct frames {
    const uint64_t *starts;
    const unsigned char *bytes;
    size_t count;
};

struct options {
    int64_t gap_ns;
    size_t burst;
    size_t warm;
    const char *after;
    bool go;
    int linger_ms;
};

struct client {
    int fd;
    bool upgraded;
    bool begun;
    bool gone;
    bool served;
    size_t filled;
    unsigned char in[ROOM];
};

static void fail(const char *what)
{
    fprintf(stderr, "sender: %s: %s\n", what, errno ? strerror(errno) : "refused");
    exit(2);
}

static int64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static void sleep_until(int64_t due_ns)
{
    struct timespec due = {due_ns / 1000000000, due_ns % 1000000000};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &due, NULL) == EINTR)
        ;
}

/* ── the upgrade: SHA-1 and Base64 of a key, RFC 3174 and RFC 4648 ───────────────────── */

static uint32_t rotate(uint32_t word, int bits)
{
    return word << bits | word >> (32 - bits);
}

static void digest_block(uint32_t state[5], const unsigned char *block)
{
    uint32_t w[80], a = state[0], b = state[1], c = state[2], d = state[3], e = state[4];
    for (int t = 0; t < 16; t++)
        w[t] = (uint32_t)block[4 * t] << 24 | (uint32_t)block[4 * t + 1] << 16 |
               (uint32_t)block[4 * t + 2] << 8 | block[4 * t + 3];
    for (int t = 16; t < 80; t++)
        w[t] = rotate(w[t - 3] ^ w[t - 8] ^ w[t - 14] ^ w[t - 16], 1);
    for (int t = 0; t < 80; t++) {
        uint32_t f, k;
        if (t < 20)
            f = (b & c) | (~b & d), k = 0x5A827999;
        else if (t < 40)
            f = b ^ c ^ d, k = 0x6ED9EBA1;
        else if (t < 60)
            f = (b & c) | (b & d) | (c & d), k = 0x8F1BBCDC;
        else
            f = b ^ c ^ d, k = 0xCA62C1D6;
        uint32_t next = rotate(a, 5) + f + e + w[t] + k;
        e = d, d = c, c = rotate(b, 30), b = a, a = next;
    }
    state[0] += a, state[1] += b, state[2] += c, state[3] += d, state[4] += e;
}

/* Of a text of up to 119 bytes: key and GUID are 60. */
static void sha1(const char *text, size_t size, unsigned char out[20])
{
    uint32_t state[5] = {0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476, 0xC3D2E1F0};
    unsigned char padded[128] = {0};
    size_t whole = size + 9 > 64 ? 128 : 64;
    memcpy(padded, text, size);
    padded[size] = 0x80;
    padded[whole - 2] = (unsigned char)(size * 8 >> 8);
    padded[whole - 1] = (unsigned char)(size * 8);
    for (size_t at = 0; at < whole; at += 64)
        digest_block(state, padded + at);
    for (int i = 0; i < 20; i++)
        out[i] = (unsigned char)(state[i / 4] >> (24 - i % 4 * 8));
}

static void base64(const unsigned char digest[20], char out[29])
{
    static const char letters[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    unsigned char padded[21] = {0};
    memcpy(padded, digest, 20);
    for (int i = 0; i < 7; i++) {
        uint32_t bits = (uint32_t)padded[3 * i] << 16 | (uint32_t)padded[3 * i + 1] << 8 |
                        padded[3 * i + 2];
        for (int j = 0; j < 4; j++)
            out[4 * i + j] = letters[bits >> (18 - 6 * j) & 63];
    }
    out[27] = '=';
    out[28] = 0;
}

/* ── what the client says ────────────────────────────────────────────────────────────── */

static bool send_all(struct client *client, const void *bytes, size_t size)
{
    const char *next = bytes;
    while (size) {
        ssize_t sent = send(client->fd, next, size, MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent <= 0) {
            client->gone = true;
            return false;
        }
        next += sent;
        size -= (size_t)sent;
    }
    return true;
}

static void say(struct client *client, int opcode, const void *payload, size_t size)
{
    unsigned char frame[4 + ROOM + 256];
    size_t head = size < 126 ? 2 : 4;
    frame[0] = (unsigned char)(0x80 | opcode);
    frame[1] = (unsigned char)(size < 126 ? size : 126);
    if (head == 4) {
        frame[2] = (unsigned char)(size >> 8);
        frame[3] = (unsigned char)size;
    }
    memcpy(frame + head, payload, size);
    send_all(client, frame, head + size);
}

/* Return the value of *name* in *head*, and its size; NULL where it has none. */
static const char *header(const char *head, const char *name, size_t *size)
{
    for (const char *line = strstr(head, "\r\n"); line; line = strstr(line + 2, "\r\n")) {
        if (strncasecmp(line + 2, name, strlen(name)) || line[2 + strlen(name)] != ':')
            continue;
        const char *value = line + 2 + strlen(name) + 1;
        value += strspn(value, " \t");
        *size = strcspn(value, " \t\r");
        return value;
    }
    return NULL;
}

/* Take the request for an upgrade, when all of it is there; return the bytes used. */
static size_t upgrade(struct client *client)
{
    char answer[256], key[128], accept[29];
    unsigned char digest[20];
    char *end = memmem(client->in, client->filled, "\r\n\r\n", 4);
    if (!end)
        return 0;
    end[2] = 0;
    size_t size = 0;
    const char *value = header((char *)client->in, "Sec-WebSocket-Key", &size);
    if (!value || size != 24) {
        client->gone = true;
        return 0;
    }
    memcpy(key, value, size);
    memcpy(key + size, GUID, sizeof(GUID) - 1);
    sha1(key, size + sizeof(GUID) - 1, digest);
    base64(digest, accept);
    int length = snprintf(answer, sizeof(answer),
                          "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
                          "Connection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n",
                          accept);
    send_all(client, answer, (size_t)length);
    client->upgraded = true;
    return (size_t)(end + 4 - (char *)client->in);
}

/* Find the text from *open* to *close* behind *key*; it has neither of them inside. */
static char *value_of(char *text, const char *key, char open, char close, size_t *size)
{
    char *found = strstr(text, key);
    char *start = found ? strchr(found + strlen(key), open) : NULL;
    char *end = start ? strchr(start + 1, close) : NULL;
    if (!end)
        return NULL;
    *size = (size_t)(end + 1 - start);
    return start;
}

/* Answer a text that asks for channels, or to be without them; tell if it subscribes. */
static bool confirm(struct client *client, char *text)
{
    char answer[ROOM + 256];
    bool subscribes = strstr(text, "\"subscribe\"") != NULL;
    size_t id_size = 0, channels_size = 0;
    const char *id = value_of(text, "\"id\"", '"', '"', &id_size);
    const char *channels = value_of(text, "\"channels\"", '[', ']', &channels_size);
    if (!channels || !(subscribes || strstr(text, "\"unsubscribe\"")))
        return false;
    int length = snprintf(answer, sizeof(answer),
                          "{\"type\":\"subscription_response\",\"data\":{\"status\":"
                          "\"success\",\"channels\":%.*s},\"timestamp\":1%s%.*s}",
                          (int)channels_size, channels, id ? ",\"id\":" : "",
                          (int)id_size, id ? id : "");
    if (length < 0 || length > 65535)
        fail("an answer that is too long");
    say(client, TEXT, answer, (size_t)length);
    return subscribes;
}

static void heard(struct client *client, int opcode, char *payload, size_t size,
                  const char *after)
{
    if (opcode == PING)
        say(client, PONG, payload, size);
    if (opcode == CLOSE) {
        say(client, CLOSE, payload, size < 2 ? 0 : 2);
        client->gone = true;
    }
    if (opcode != TEXT)
        return;
    char last = payload[size];
    payload[size] = 0;
    bool subscribed = confirm(client, payload);
    payload[size] = last;
    client->begun |= subscribed || !strcmp(after, "text");
}

/* Take one masked frame; return the bytes used, 0 where not all of it is there. */
static size_t frame(struct client *client, unsigned char *at, size_t left, const char *after)
{
    if (left < 6)
        return 0;
    size_t size = at[1] & 127, head = 6;
    if (size == 126 && left >= 8) {
        size = (size_t)at[2] << 8 | at[3];
        head = 8;
    } else if (size >= 126) {
        client->gone = size == 127;
        return 0;
    }
    if (!(at[1] & 128) || !(at[0] & 128))
        client->gone = true;
    if (client->gone || left < head + size)
        return 0;
    for (size_t i = 0; i < size; i++)
        at[head + i] ^= at[head - 4 + i % 4];
    heard(client, at[0] & 15, (char *)at + head, size, after);
    return head + size;
}

/* Read what is there, wait *wait_ms* for it at most, and do what it asks for. */
static void listen_to(struct client *client, int wait_ms, const char *after)
{
    struct pollfd look = {client->fd, POLLIN, 0};
    if (client->gone || (wait_ms && poll(&look, 1, wait_ms) <= 0))
        return;
    /* One byte stays free for the zero behind a text. */
    ssize_t got = recv(client->fd, client->in + client->filled,
                       ROOM - 1 - client->filled, MSG_DONTWAIT);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (got <= 0) {
        client->gone = true;
        return;
    }
    client->filled += (size_t)got;
    size_t used = client->upgraded ? 0 : upgrade(client);
    if (client->upgraded) {
        client->begun |= !strcmp(after, "upgrade");
        for (size_t more = 1; more && !client->gone; used += more)
            more = frame(client, client->in + used, client->filled - used, after);
    }
    client->filled -= used;
    memmove(client->in, client->in + used, client->filled);
}

/* ── what we send ────────────────────────────────────────────────────────────────────── */

static struct frames open_frames(const char *path)
{
    struct frames frames;
    struct stat found;
    int fd = open(path, O_RDONLY);
    if (fd < 0 || fstat(fd, &found) < 0)
        fail(path);
    const uint64_t *words =
        mmap(NULL, (size_t)found.st_size, PROT_READ, MAP_PRIVATE | MAP_POPULATE, fd, 0);
    if (words == MAP_FAILED)
        fail(path);
    close(fd);
    frames.count = words[0];
    frames.starts = words + 1;
    frames.bytes = (const unsigned char *)(words + 2 + frames.count);
    uint64_t head = (2 + frames.count) * sizeof(uint64_t);
    if (head + frames.starts[frames.count] != (uint64_t)found.st_size)
        fail(path);
    return frames;
}

/* Send all frames, stamp the writes of measured ones; return how many writes. A client
   that has all of them may be gone before we look again. */
static size_t send_frames(struct client *client, const struct frames *frames,
                          const struct options *options, int64_t *stamps)
{
    size_t writes = 0, turn = 0;
    int64_t due_ns = now_ns(), look_ns = due_ns;
    for (size_t first = 0, end; first < frames->count && !client->gone; first = end) {
        size_t most = first < options->warm ? options->warm : frames->count;
        end = most - first < options->burst ? most : first + options->burst;
        if (options->gap_ns) {
            due_ns += options->gap_ns + (int64_t)(turn++ % 7) * (options->gap_ns / 50);
            sleep_until(due_ns);
        }
        int64_t stamp_ns = now_ns();
        if (!send_all(client, frames->bytes + frames->starts[first],
                      frames->starts[end] - frames->starts[first]))
            break;
        client->served = end == frames->count;
        if (first >= options->warm)
            stamps[writes++] = stamp_ns;
        /* One that came late does not hurry the next ones. */
        if (stamp_ns > due_ns)
            due_ns = stamp_ns;
        if (stamp_ns > look_ns + LOOK_NS) {
            listen_to(client, 0, options->after);
            look_ns = stamp_ns;
        }
    }
    return writes;
}

static void wait_for_go(struct client *client, const char *after)
{
    struct pollfd looks[2] = {{0, POLLIN, 0}, {client->fd, POLLIN, 0}};
    char word;
    while (!client->gone && poll(looks, 2, -1) >= 0) {
        if (looks[1].revents)
            listen_to(client, 0, after);
        if (looks[0].revents && read(0, &word, 1) >= 0)
            return;
    }
}

/* Serve one client; return the writes that were stamped. */
static size_t serve(struct client *client, const struct frames *frames,
                    const struct options *options, int64_t *stamps)
{
    while (!client->begun && !client->gone)
        listen_to(client, -1, options->after);
    puts("begun");
    if (options->go)
        wait_for_go(client, options->after);
    size_t writes = send_frames(client, frames, options, stamps);
    printf("sent %zu %zu %lld %lld\n", client->served ? frames->count : 0, writes,
           (long long)(writes ? stamps[0] : 0),
           (long long)(writes ? stamps[writes - 1] : 0));
    int64_t until_ns = now_ns() + (int64_t)options->linger_ms * 1000000;
    for (int64_t left = until_ns - now_ns(); left > 0 && !client->gone;
         left = until_ns - now_ns())
        listen_to(client, (int)(left / 1000000) + 1, options->after);
    if (!client->gone) {
        say(client, CLOSE, "\x03\xe8", 2);
        for (int64_t end_ns = now_ns() + CLOSE_MS * 1000000LL;
             !client->gone && now_ns() < end_ns;)
            listen_to(client, CLOSE_MS / 10, options->after);
    }
    return writes;
}

static int listen_here(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t size = sizeof(address);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, size) < 0 || listen(fd, 8) < 0 ||
        getsockname(fd, (struct sockaddr *)&address, &size) < 0)
        fail("listen");
    printf("listening %d\n", ntohs(address.sin_port));
    return fd;
}

static void pin(int cpu)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET((unsigned)cpu, &set);
    if (sched_setaffinity(0, sizeof(set), &set) < 0)
        fail("--cpu");
}

int main(int argc, char **argv)
{
    static struct client client;
    struct options options = {200000, 0, 0, "subscribe", false, 2000};
    unsigned alarm_s = 120;
    size_t clients = 1, count = SIZE_MAX, writes = 0, wanted = 0;
    int at = 1, complete = 1;
    setvbuf(stdout, NULL, _IOLBF, 0);
    for (; at < argc && !strncmp(argv[at], "--", 2); at++) {
        const char *name = argv[at] + 2;
        if (!strcmp(name, "flat-out")) {
            options.gap_ns = 0;
        } else if (!strcmp(name, "go")) {
            options.go = true;
        } else if (++at >= argc) {
            fail("an option without its value");
        } else if (!strcmp(name, "after")) {
            options.after = argv[at];
        } else {
            long long value = atoll(argv[at]);
            if (value < 0)
                fail(argv[at - 1]);
            if (!strcmp(name, "gap-ns"))
                options.gap_ns = value;
            else if (!strcmp(name, "burst"))
                options.burst = (size_t)value;
            else if (!strcmp(name, "warm"))
                options.warm = (size_t)value;
            else if (!strcmp(name, "count"))
                count = (size_t)value;
            else if (!strcmp(name, "linger-ms"))
                options.linger_ms = (int)value;
            else if (!strcmp(name, "clients"))
                clients = (size_t)value;
            else if (!strcmp(name, "alarm"))
                alarm_s = (unsigned)value;
            else if (!strcmp(name, "cpu"))
                pin((int)value);
            else
                fail(argv[at - 1]);
        }
    }
    if (argc - at != 2)
        fail("give FRAMES and STAMPS");
    alarm(alarm_s);
    prctl(PR_SET_TIMERSLACK, 1UL, 0UL, 0UL, 0UL);
    if (!options.burst)
        options.burst = options.gap_ns ? 1 : 1024;
    struct frames frames = open_frames(argv[at]);
    if (count < frames.count)
        frames.count = count;
    if (options.warm > frames.count)
        fail("--warm");
    wanted = (frames.count - options.warm + options.burst - 1) / options.burst;
    int64_t *stamps = malloc((clients * wanted + 1) * sizeof(*stamps));
    if (!stamps)
        fail("memory");
    /* No page of it is touched for the first time between a stamp and its write. */
    memset(stamps, 1, (clients * wanted + 1) * sizeof(*stamps));
    int server = listen_here(), yes = 1;
    for (size_t number = 0; number < clients; number++) {
        memset(&client, 0, sizeof(client));
        client.fd = accept4(server, NULL, NULL, SOCK_CLOEXEC);
        if (client.fd < 0)
            fail("accept");
        setsockopt(client.fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof(yes));
        writes += serve(&client, &frames, &options, stamps + writes);
        complete &= client.served;
        close(client.fd);
    }
    FILE *file = fopen(argv[at + 1], "wb");
    if (!file || fwrite(stamps, sizeof(*stamps), writes, file) != writes || fclose(file))
        fail(argv[at + 1]);
    return complete ? 0 : 1;
}
