/* The least that a client of one WebSocket connection can do: read, and note when.
 *
 *     ./floor PORT CHANNEL block|spin COUNT STAMPS CPU SECONDS
 *
 * Upgrades, subscribes to CHANNEL, then reads by recv() that blocks, or spins on recv()
 * that does not. STAMPS gets an int64 for each frame after the answer to the subscription:
 * CLOCK_MONOTONIC in ns, taken as soon as the recv() returned that brought its end. Prints
 * "read COUNT", closes with 1000 and ends with 0 when there were COUNT of them; is killed
 * after SECONDS, whatever it does. The socket has the options that the handler's has.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

/* What one read takes, as the handler's first buffer does, and room for a frame's rest. */
enum { READ = 1 << 14, ROOM = 1 << 22 };

static const unsigned char MASK[4] = {0x12, 0x34, 0x56, 0x78};

static void fail(const char *what)
{
    fprintf(stderr, "floor: %s: %s\n", what, errno ? strerror(errno) : "refused");
    exit(2);
}

static int64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static void send_frame(int fd, int opcode, const char *payload, size_t size)
{
    unsigned char frame[1024];
    if (size > sizeof(frame) - 8)
        fail("a channel that is too long");
    size_t head = size < 126 ? 2 : 4;
    frame[0] = (unsigned char)(0x80 | opcode);
    frame[1] = (unsigned char)(0x80 | (size < 126 ? size : 126));
    if (head == 4) {
        frame[2] = (unsigned char)(size >> 8);
        frame[3] = (unsigned char)size;
    }
    memcpy(frame + head, MASK, 4);
    for (size_t i = 0; i < size; i++)
        frame[head + 4 + i] = (unsigned char)payload[i] ^ MASK[i % 4];
    if (send(fd, frame, head + 4 + size, MSG_NOSIGNAL) < 0)
        fail("send");
}

/* Return the size of the frame at *at*, 0 where not all of it is there. */
static inline size_t whole(const unsigned char *at, size_t left)
{
    if (left < 2)
        return 0;
    uint64_t size = at[1], head = 2;
    if (size == 126 && left >= 4) {
        size = (uint64_t)at[2] << 8 | at[3];
        head = 4;
    } else if (size == 127 && left >= 10) {
        size = 0;
        for (int i = 2; i < 10; i++)
            size = size << 8 | at[i];
        head = 10;
    } else if (size >= 126) {
        return 0;
    }
    if (head + size > ROOM - READ)
        fail("a frame that is too long");
    return left >= head + size ? head + size : 0;
}

static int connected(int port)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), yes = 1;
    address.sin_port = htons((uint16_t)port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
        fail("connect");
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof(yes));
    setsockopt(fd, IPPROTO_TCP, TCP_QUICKACK, &yes, sizeof(yes));
    return fd;
}

/* Upgrade; nothing comes behind the answer before we have subscribed. */
static void upgrade(int fd)
{
    static const char request[] =
        "GET /ws/market-data HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\n"
        "Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        "Sec-WebSocket-Version: 13\r\n\r\n";
    char answer[4096] = "";
    size_t filled = 0;
    if (send(fd, request, sizeof(request) - 1, MSG_NOSIGNAL) < 0)
        fail("send");
    while (!memmem(answer, filled, "\r\n\r\n", 4)) {
        ssize_t got = recv(fd, answer + filled, sizeof(answer) - filled, 0);
        if (got <= 0)
            fail("upgrade");
        filled += (size_t)got;
    }
    /* The key and its answer are the example of RFC 6455, 1.3. */
    if (!memmem(answer, filled, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", 28))
        fail("the answer to the key");
}

int main(int argc, char **argv)
{
    static unsigned char in[ROOM];
    char text[512];
    if (argc != 8)
        fail("give PORT CHANNEL MODE COUNT STAMPS CPU SECONDS");
    alarm((unsigned)atoi(argv[7]));
    int flags = !strcmp(argv[3], "spin") ? MSG_DONTWAIT : 0;
    size_t count = strtoull(argv[4], NULL, 10), taken = 0, filled = 0;
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET((unsigned)atoi(argv[6]), &set);
    if (sched_setaffinity(0, sizeof(set), &set) < 0)
        fail("CPU");
    int64_t *stamps = malloc((count + 1) * sizeof(*stamps));
    if (!stamps)
        fail("memory");
    /* No page is touched for the first time between a recv() and its stamp. */
    memset(stamps, 1, (count + 1) * sizeof(*stamps));
    memset(in, 1, sizeof(in));
    int fd = connected(atoi(argv[1]));
    upgrade(fd);
    int size = snprintf(text, sizeof(text),
                        "{\"action\":\"subscribe\",\"data\":{\"channels\":[\"%s\"]},"
                        "\"id\":\"floor-1\"}",
                        argv[2]);
    send_frame(fd, 1, text, (size_t)size);
    for (bool confirmed = false; taken < count;) {
        ssize_t got = recv(fd, in + filled, READ, flags);
        int64_t stamp_ns = now_ns();
        if (got < 0 && (errno == EAGAIN || errno == EINTR))
            continue;
        if (got <= 0)
            break;
        filled += (size_t)got;
        size_t used = 0, more;
        while ((more = whole(in + used, filled - used)) != 0) {
            used += more;
            if (!confirmed)
                confirmed = true;
            else if (taken < count)
                stamps[taken++] = stamp_ns;
        }
        filled -= used;
        memmove(in, in + used, filled);
    }
    printf("read %zu\n", taken);
    fflush(stdout);
    send_frame(fd, 8, "\x03\xe8", 2);
    while (recv(fd, in, READ, 0) > 0)
        ;
    FILE *file = fopen(argv[5], "wb");
    if (!file || fwrite(stamps, sizeof(*stamps), taken, file) != taken || fclose(file))
        fail(argv[5]);
    return taken == count ? 0 : 1;
}
