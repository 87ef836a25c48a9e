/*
 * Read a feed handler's shared memory from C11 or C++17, and give it commands. Linux,
 * 64-bit, little-endian; GCC or Clang; nothing but libc. Include it first, or define
 * _GNU_SOURCE.
 *
 *     struct fh_segment segment;
 *     struct fh_ring ring;
 *     struct fh_quote quote;
 *     int error = fh_attach(&segment, NULL, "md", "quotes", FH_ONLY_ME);
 *     if (!error)
 *         error = fh_ring_bind(&ring, &segment, FH_QUOTES, FH_START_NEW, FH_LAP_HALF);
 *     while (!error && fh_ring_next(&ring, &quote) == FH_RECORD)
 *         ...
 *
 * Functions return 0 or a negative fh_error unless they say otherwise. A reader maps
 * read-only: it cannot slow, block or damage the writer. When fh_segment_status() says
 * FH_SUPERSEDED, read what is left, detach, and attach again: positions, losses and
 * instrument numbers start anew. What is attached is not for two threads.
 *
 *   0x0000         0x1000     0x1080              0x1100     0x1180     0x2000 or more
 *   +--------------+----------+-------------------+----------+----------+----------------
 *   | meta page    | head     | state, heartbeat  | wake_seq | reserved | [names] slots ...
 *   +--------------+----------+-------------------+----------+----------+----------------
 *     written once   one writer; each word on its own 128 bytes           slots_offset
 */
#ifndef FEEDHANDLER_H
#define FEEDHANDLER_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#ifndef F_OFD_GETLK
#error "include feedhandler.h before any other header, or define _GNU_SOURCE"
#endif

#ifdef __cplusplus
extern "C" {
#endif

static_assert(sizeof(void *) == 8, "feedhandler.h is for 64-bit machines");
static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "and little-endian ones");

#define FH_MAGIC 0x0100474E49524846ULL      /* FHRING\0\1 */
#define FH_BYTE_ORDER 0x01020304U
#define FH_ABI_MAJOR 1
#define FH_ABI_MINOR 0
#define FH_MUST_UNDERSTAND 0xFFFF0000U      /* flags that a reader must know */
#define FH_BUSY (1ULL << 63)                /* of a slot's first word: it is being written */
#define FH_DIRECTORY "/dev/shm"
#define FH_ONLY_ME (-1L)                    /* trust no other user's segments */
#define FH_STALLED_NS 300000000LL           /* three heartbeats */
#define FH_BEAT_NS 100000000LL
#define FH_GONE_NS 1000000000LL             /* without a heartbeat: nobody takes commands */
#define FH_NOT_GIVEN (__builtin_nan(""))    /* a price or quantity that a command lacks */

enum {
    FH_PAGE = 4096,
    FH_LINE = 64,
    FH_LIVE_OFFSET = 0x1000,
    FH_DATA_OFFSET = 0x2000,
    FH_NAME_BYTES = 64,
    FH_SCHEMA_BYTES = 3584,
    FH_CAPACITY_MIN = 64,
    FH_CAPACITY_MAX = 1 << 28,
    FH_SLOT_MAX = 4096,
    FH_PATH_BYTES = 256,
    FH_SYMBOL_BYTES = 32,
    FH_INSTRUMENTS_MAX = 65536,
    FH_LEVELS_MAX = 100,
    FH_INTERVALS = 7,
    FH_BUCKETS = 1152,
    FH_NAMES_MAX = 4096,
    FH_ID_BYTES = 32,
    FH_CHANNEL_SLOTS = 0x3000,  /* where those of a command channel begin */
    FH_CHANNEL_MAX = 4096,      /* commands that it holds */
    FH_NO_INSTRUMENT = 0xFFFF   /* of private records: the directory does not have it */
};

enum fh_kind {
    FH_ANY = 0,                 /* for fh_ring_bind(): see meta.schema for what it is */
    FH_QUOTES = 1,
    FH_TRADES = 2,
    FH_GENERIC = 3,
    /* Only for fh_ring_bind(): segments of these are FH_GENERIC, told by their schema. */
    FH_ORDER_EVENTS = 16,
    FH_FILLS = 17,
    FH_ACCOUNTS = 18,
    FH_NOTICES = 19
};

enum fh_writer_state {
    FH_WRITER_LIVE = 1,
    FH_WRITER_CLOSED = 2
};

enum fh_quote_flag {
    FH_QUOTE_LIVE = 0x01,       /* in sequence with the venue, and sound */
    FH_QUOTE_STALE = 0x02,      /* may not be what the venue has now */
    FH_QUOTE_GAP = 0x04,        /* updates were lost; stays until the next snapshot */
    FH_QUOTE_CROSSED = 0x08,    /* bid >= ask: what the venue says, but not LIVE */
    FH_QUOTE_NO_BID = 0x10,
    FH_QUOTE_NO_ASK = 0x20,
    FH_QUOTE_SNAPSHOT = 0x40,   /* this record came from a snapshot */
    FH_QUOTE_MARKET_CLOSED = 0x80
};

enum fh_trade_flag {
    FH_TRADE_BUY = 0x01,        /* the aggressor bought */
    FH_TRADE_SELL = 0x02,       /* the aggressor sold */
    FH_TRADE_ID_CUT = 0x04      /* the venue's id is longer than 16 bytes */
};

enum fh_private_flag {          /* of order events, fills, account rows and notices */
    FH_ORDER_ID_CUT = 0x01,     /* a cut id names nothing at the venue */
    FH_CLIENT_ID_CUT = 0x02,
    FH_OWN_ID_CUT = 0x04,       /* of the fill or the notice itself */
    FH_TEXT_CUT = 0x08,         /* some other text */
    FH_REPLAYED = 0x10,         /* told again after a subscription: not news */
    FH_UNTRIGGERED = 0x20       /* a stop order that still waits for its price */
};

enum fh_order_side {
    FH_SIDE_UNKNOWN = 0,        /* this and other zeros: a word that the API does not list */
    FH_SIDE_BUY = 1,
    FH_SIDE_SELL = 2
};

enum fh_order_type {
    FH_TYPE_UNKNOWN = 0,
    FH_MARKET = 1,
    FH_LIMIT = 2,
    FH_STOP = 3,
    FH_STOP_LIMIT = 4
};

enum fh_time_in_force {
    FH_TIF_UNKNOWN = 0,
    FH_GTC = 1,
    FH_IOC = 2,
    FH_FOK = 3,
    FH_DAY = 4
};

enum fh_order_status {          /* ours: the venue has no word for the first two */
    FH_STATUS_UNKNOWN = 0,      /* it may be in the market or not */
    FH_PENDING = 1,             /* sent, or about to be, and not answered */
    FH_ACCEPTED = 2,            /* in the market */
    FH_PARTIALLY_FILLED = 3,
    FH_FILLED = 4,              /* this and higher: nothing more will happen to the order */
    FH_CANCELED = 5,
    FH_EXPIRED = 6,
    FH_REJECTED = 7             /* by the venue, or before it was sent: see fh_event_cause */
};

enum fh_order_operation {
    FH_OPERATION_NONE = 0,
    FH_OPERATION_SUBMIT = 1,
    FH_OPERATION_CANCEL = 2,
    FH_OPERATION_MODIFY = 3
};

enum fh_pending_flag {          /* operations without an outcome */
    FH_SUBMIT_PENDING = 0x01,
    FH_CANCEL_PENDING = 0x02,
    FH_MODIFY_PENDING = 0x04,
    FH_SUBMIT_UNKNOWN = 0x08,   /* beside its PENDING: no answer need come any more */
    FH_CANCEL_UNKNOWN = 0x10,
    FH_MODIFY_UNKNOWN = 0x20
};

enum fh_event_cause {           /* of the last four nothing was sent */
    FH_CAUSE_UNKNOWN = 0,
    FH_CAUSE_SENT = 1,
    FH_CAUSE_ACK = 2,
    FH_CAUSE_UPDATE = 3,
    FH_CAUSE_FILL = 4,
    FH_CAUSE_REFUSED = 5,       /* an operation was; unless the submit, the order goes on */
    FH_CAUSE_LOST = 6,          /* what became of something is unknown now */
    FH_CAUSE_ADOPTED = 7,       /* somebody else's, or of an earlier process of ours */
    FH_CAUSE_SETTLED = 8,       /* ended on better knowledge than the venue's word */
    FH_CAUSE_EXPIRED = 9,       /* a command past its deadline, or of another epoch */
    FH_CAUSE_GUARDED = 10,      /* our own limits */
    FH_CAUSE_THROTTLED = 11,    /* the venue's limits */
    FH_CAUSE_NOT_CONNECTED = 12
};

enum fh_event_reason {          /* from 2 on the codes of the venue's error frames */
    FH_REASON_NONE = 0,
    FH_REASON_OTHER = 1,
    FH_REASON_AUTHENTICATION_REQUIRED = 2,
    FH_REASON_INVALID_CREDENTIALS = 3,
    FH_REASON_INVALID_PARAMETER = 4,
    FH_REASON_INVALID_ACTION = 5,
    FH_REASON_RATE_LIMIT_EXCEEDED = 6,
    FH_REASON_INSUFFICIENT_FUNDS = 7,
    FH_REASON_ORDER_NOT_FOUND = 8,
    FH_REASON_DUPLICATE_CLIENT_ORDER_ID = 9,
    FH_REASON_MARKET_CLOSED = 10,
    FH_REASON_INTERNAL_ERROR = 11
};

enum fh_account_kind {
    FH_BALANCE = 1,
    FH_POSITION = 2
};

enum fh_notice_kind {
    FH_SYSTEM = 1,
    FH_USER = 2,
    FH_ALERT = 3
};

enum fh_command_kind {
    FH_SUBMIT = 1,
    FH_MODIFY = 2,
    FH_CANCEL = 3,
    FH_CANCEL_ALL = 4,
    FH_RESOLVE = 5              /* tell again what the order is by now */
};

enum fh_entry_status {
    FH_ENTRY_LISTED = 1,
    FH_ENTRY_REMOVED = 2
};

enum fh_start {
    FH_START_NEW = 0,           /* what comes from now on */
    FH_START_OLDEST = 1         /* what is still there */
};

enum fh_on_lap {
    FH_LAP_HALF = 0,            /* a lapped reader goes on half a ring behind the writer */
    FH_LAP_LATEST = 1           /* or at the newest record */
};

enum fh_found {
    FH_EMPTY = 0,
    FH_RECORD = 1
};

enum fh_status {
    FH_LIVE = 1,
    FH_STALLED = 2,             /* it holds its lock, but its loop does not beat */
    FH_CLOSED = 3,              /* it said goodbye */
    FH_DEAD = 4,                /* it did not, and its lock is gone */
    FH_SUPERSEDED = 5           /* the name belongs to another segment now, or to none */
};

enum fh_error {
    FH_OK = 0,
    FH_E_NAME = -1,
    FH_E_ABSENT = -2,
    FH_E_SYSTEM = -3,           /* errno says what */
    FH_E_FILE = -4,
    FH_E_OWNER = -5,
    FH_E_MODE = -6,
    FH_E_LINKS = -7,
    FH_E_SIZE = -8,
    FH_E_REPLACED = -9,
    FH_E_MAGIC = -10,
    FH_E_BYTE_ORDER = -11,
    FH_E_ABI = -12,
    FH_E_FLAGS = -13,
    FH_E_KIND = -14,
    FH_E_EPOCH = -15,
    FH_E_CAPACITY = -16,
    FH_E_SLOT_SIZE = -17,
    FH_E_RECORD_SIZE = -18,
    FH_E_FILE_SIZE = -19,
    FH_E_OFFSET = -20,
    FH_E_SCHEMA = -21,
    FH_E_START = -22,
    FH_E_SYMBOL = -23,
    FH_E_HALF_WRITTEN = -24,
    FH_E_COUNTER = -25,
    FH_E_BUSY = -26,
    FH_E_FULL = -27,
    FH_E_GONE = -28,
    FH_E_COMMAND = -29,
    FH_E_FORKED = -30
};

/* The layouts. `seq` belongs to the ring: n + 1 when record n is complete. Every `_ns`
   is UTC: CLOCK_MONOTONIC plus fh_utc_offset_ns(). */

struct fh_meta_page {           /* written before publication, never after */
    uint64_t magic;
    uint16_t abi_major;
    uint16_t abi_minor;
    uint32_t byte_order;
    uint32_t flags;
    uint32_t stream_kind;
    uint64_t epoch;             /* random, not zero: one per life of a writer */
    uint64_t capacity;          /* slots, a power of two */
    uint32_t slot_size;
    uint32_t record_size;
    uint64_t slots_offset;
    uint64_t file_size;
    uint64_t schema_hash;       /* first 8 bytes of the BLAKE2b of the schema's text */
    uint32_t schema_len;
    uint32_t reserved;
    int64_t created_realtime_ns;
    int64_t created_monotonic_ns;
    int32_t pid;                /* diagnostics only: it lies across containers */
    uint32_t uid;
    uint64_t start_time;
    uint8_t boot_id[16];
    char name[64];
    char version[64];
    uint8_t unused[256];
    char schema[3584];          /* JSON, not terminated */
};

struct fh_live_page {           /* only the writer writes */
    uint64_t head;              /* records published: the index of the next */
    uint8_t pad_head[120];
    uint32_t state;             /* fh_writer_state */
    uint32_t pad_state;
    uint64_t heartbeat_mono_ns; /* CLOCK_MONOTONIC, from the writer's own loop */
    uint64_t heartbeat_count;
    uint64_t session_gap_count;
    uint8_t pad_heartbeat[96];
    uint32_t wake_seq;
    uint8_t pad_wake[124];
    uint8_t unused[3712];
};

struct fh_quote {
    uint64_t seq;
    int64_t venue_ns;           /* the venue's clock; 0 if it sends none */
    int64_t recv_ns;            /* our clock, when the bytes were read */
    uint16_t instrument;        /* index into the board's directory */
    uint16_t flags;             /* fh_quote_flag; session epoch mod 256 in bits 8-15 */
    uint32_t sequence;          /* low 32 bits of the venue's sequence */
    double bid_price;           /* NaN beside NO_BID */
    double bid_size;
    double ask_price;
    double ask_size;
};

struct fh_trade {
    uint64_t seq;
    int64_t venue_ns;
    int64_t recv_ns;
    uint16_t instrument;
    uint16_t flags;             /* fh_trade_flag; session epoch mod 256 in bits 8-15 */
    char trade_id[16];          /* not terminated when all 16 are used */
    uint32_t reserved;
    double price;
    double size;
};

struct fh_ticker {              /* NaN where the venue does not know */
    uint64_t seq;
    int64_t venue_ns;
    int64_t recv_ns;
    uint16_t instrument;
    uint16_t flags;
    uint32_t reserved;
    double last_price;
    double last_size;
    double bid;
    double ask;
    double volume;
    double daily_change;
    double daily_change_percent;
    double high;
    double low;
    double open;
    uint64_t pad[2];
};

struct fh_candle {
    int64_t start_ns;           /* of the bucket, inclusive; 0 before the first candle */
    int64_t end_ns;             /* exclusive */
    int64_t recv_ns;
    double open;
    double high;
    double low;
    double close;
    double volume;
};

/* Private records. Numbers are NaN where the venue does not say, and never infinite;
   texts are not terminated when all their bytes are used: see fh_copy_text(). */

struct fh_order_event {         /* 192 bytes; one order as it is after a change */
    uint64_t seq;
    int64_t venue_ns;           /* the message's timestamp; 0: nothing came from the venue */
    int64_t recv_ns;
    int64_t created_ns;         /* 0 if the venue sends none */
    int64_t updated_ns;
    uint16_t instrument;        /* FH_NO_INSTRUMENT: not in the directory */
    uint16_t flags;             /* fh_private_flag, session epoch in bits 8-15 */
    uint8_t side;               /* fh_order_side */
    uint8_t type;               /* fh_order_type */
    uint8_t status;             /* fh_order_status */
    uint8_t tif;                /* fh_time_in_force */
    char order_id[32];
    char client_id[32];
    char symbol[32];
    double quantity;
    double filled;
    double remaining;
    double price;
    double stop_price;
    uint8_t pending;            /* fh_pending_flag */
    uint8_t cause;              /* fh_event_cause */
    uint16_t reason;            /* fh_event_reason: of the answer, or of the order's end */
    uint8_t operation;          /* fh_order_operation that the event answers */
    uint8_t pad[3];
};

struct fh_fill {                /* 192 bytes */
    uint64_t seq;
    int64_t venue_ns;           /* the venue's trade_time */
    int64_t recv_ns;
    uint16_t instrument;
    uint16_t flags;
    uint8_t side;               /* of our order */
    uint8_t pad[3];
    char trade_id[32];          /* together with order_id the key of a fill */
    char order_id[32];
    char client_id[32];         /* empty while it is not known whose it is */
    char symbol[32];
    double price;
    double quantity;
    double fee;
    char fee_currency[8];
};

struct fh_account {             /* 128 bytes; one row of an account update */
    uint64_t seq;
    int64_t venue_ns;
    int64_t recv_ns;
    uint16_t instrument;        /* of a position */
    uint16_t flags;
    uint8_t kind;               /* fh_account_kind */
    uint8_t pad;
    uint16_t rows_left;         /* of the same update, after this one */
    char name[32];              /* a balance's currency, a position's symbol */
    double available;           /* these three of a balance */
    double reserved;
    double total;
    double quantity;            /* these four of a position; short is negative */
    double average_price;
    double unrealized_pnl;
    double realized_pnl;
    uint64_t pad_account;
};

struct fh_notice {              /* 1024 bytes */
    uint64_t seq;
    int64_t venue_ns;
    int64_t recv_ns;
    int64_t triggered_ns;       /* an alert's triggered_at, otherwise 0 */
    uint16_t instrument;        /* of an alert */
    uint16_t flags;
    uint8_t kind;               /* fh_notice_kind */
    uint8_t pad[3];
    double threshold;           /* these two of an alert */
    double current_value;
    char id[32];
    char level[16];             /* as the venue says it: it may have others than it lists */
    char symbol[32];
    char condition[32];
    char title[128];            /* an alert's name */
    char link[216];
    char message[512];          /* UTF-8, never cut within a character */
};

struct fh_command {             /* 192 bytes; what a kind does not use is 0, or NaN */
    uint64_t seq;
    uint64_t writer_epoch;      /* of the handler that is asked: that of its board */
    int64_t deadline_ns;        /* by the clock of that board's records */
    int64_t sent_ns;
    uint8_t kind;               /* fh_command_kind */
    uint8_t side;               /* fh_order_side; this and the two next of FH_SUBMIT */
    uint8_t type;               /* fh_order_type */
    uint8_t tif;                /* fh_time_in_force; 0 leaves it to the venue */
    uint32_t reserved;
    char client_id[32];
    char order_id[32];
    char symbol[32];
    double quantity;
    double price;
    double stop_price;
    uint64_t pad_command[4];
};

struct fh_channel_page {        /* at FH_DATA_OFFSET of an engine's channel */
    uint64_t writer_epoch;
    uint8_t pad_epoch[120];
    uint64_t revoked;           /* not 0: what is not taken yet must not be */
    uint8_t pad_revoked[3960];
};

struct fh_cursor_page {         /* at FH_DATA_OFFSET of the handler's answer to it */
    uint64_t channel_epoch;
    uint8_t pad_epoch[120];
    uint64_t turn;              /* a new number before each sleep; 0: it never sleeps */
    uint8_t pad_turn[3960];
};

struct fh_level {
    double price;               /* NaN below the last level */
    double size;
};

struct fh_entry {               /* in the board, bids[levels] and asks[levels] follow */
    uint64_t seq;               /* times written; with BUSY while it is written again */
    uint32_t status;            /* fh_entry_status */
    uint32_t reserved;
    uint64_t sequence;          /* the venue's, all of it */
    uint32_t session_epoch;
    int32_t bid_count;          /* levels kept; the book may have more */
    int32_t ask_count;
    uint32_t pad[7];
    struct fh_quote quote;      /* seq of quote and ticker is not used */
    struct fh_ticker ticker;
    struct fh_candle candles[7];    /* 1m 5m 15m 1h 4h 1d 1w */
};

struct fh_histogram {           /* 32 buckets per power of two of nanoseconds */
    uint64_t max_ns;
    uint64_t pad[7];
    uint64_t buckets[1152];
};

#define FH_FIELD(type, field, offset) \
    static_assert(offsetof(struct type, field) == (offset), #type "." #field " moved")
#define FH_SIZE(type, size) \
    static_assert(sizeof(struct type) == (size), #type " has another size")

FH_FIELD(fh_meta_page, magic, 0x000);
FH_FIELD(fh_meta_page, abi_major, 0x008);
FH_FIELD(fh_meta_page, abi_minor, 0x00A);
FH_FIELD(fh_meta_page, byte_order, 0x00C);
FH_FIELD(fh_meta_page, flags, 0x010);
FH_FIELD(fh_meta_page, stream_kind, 0x014);
FH_FIELD(fh_meta_page, epoch, 0x018);
FH_FIELD(fh_meta_page, capacity, 0x020);
FH_FIELD(fh_meta_page, slot_size, 0x028);
FH_FIELD(fh_meta_page, record_size, 0x02C);
FH_FIELD(fh_meta_page, slots_offset, 0x030);
FH_FIELD(fh_meta_page, file_size, 0x038);
FH_FIELD(fh_meta_page, schema_hash, 0x040);
FH_FIELD(fh_meta_page, schema_len, 0x048);
FH_FIELD(fh_meta_page, reserved, 0x04C);
FH_FIELD(fh_meta_page, created_realtime_ns, 0x050);
FH_FIELD(fh_meta_page, created_monotonic_ns, 0x058);
FH_FIELD(fh_meta_page, pid, 0x060);
FH_FIELD(fh_meta_page, uid, 0x064);
FH_FIELD(fh_meta_page, start_time, 0x068);
FH_FIELD(fh_meta_page, boot_id, 0x070);
FH_FIELD(fh_meta_page, name, 0x080);
FH_FIELD(fh_meta_page, version, 0x0C0);
FH_FIELD(fh_meta_page, unused, 0x100);
FH_FIELD(fh_meta_page, schema, 0x200);
FH_SIZE(fh_meta_page, 4096);

FH_FIELD(fh_live_page, head, 0x000);
FH_FIELD(fh_live_page, pad_head, 0x008);
FH_FIELD(fh_live_page, state, 0x080);
FH_FIELD(fh_live_page, pad_state, 0x084);
FH_FIELD(fh_live_page, heartbeat_mono_ns, 0x088);
FH_FIELD(fh_live_page, heartbeat_count, 0x090);
FH_FIELD(fh_live_page, session_gap_count, 0x098);
FH_FIELD(fh_live_page, pad_heartbeat, 0x0A0);
FH_FIELD(fh_live_page, wake_seq, 0x100);
FH_FIELD(fh_live_page, pad_wake, 0x104);
FH_FIELD(fh_live_page, unused, 0x180);
FH_SIZE(fh_live_page, 4096);

FH_FIELD(fh_quote, seq, 0);
FH_FIELD(fh_quote, venue_ns, 8);
FH_FIELD(fh_quote, recv_ns, 16);
FH_FIELD(fh_quote, instrument, 24);
FH_FIELD(fh_quote, flags, 26);
FH_FIELD(fh_quote, sequence, 28);
FH_FIELD(fh_quote, bid_price, 32);
FH_FIELD(fh_quote, bid_size, 40);
FH_FIELD(fh_quote, ask_price, 48);
FH_FIELD(fh_quote, ask_size, 56);
FH_SIZE(fh_quote, 64);

FH_FIELD(fh_trade, seq, 0);
FH_FIELD(fh_trade, venue_ns, 8);
FH_FIELD(fh_trade, recv_ns, 16);
FH_FIELD(fh_trade, instrument, 24);
FH_FIELD(fh_trade, flags, 26);
FH_FIELD(fh_trade, trade_id, 28);
FH_FIELD(fh_trade, reserved, 44);
FH_FIELD(fh_trade, price, 48);
FH_FIELD(fh_trade, size, 56);
FH_SIZE(fh_trade, 64);

FH_FIELD(fh_ticker, seq, 0);
FH_FIELD(fh_ticker, venue_ns, 8);
FH_FIELD(fh_ticker, recv_ns, 16);
FH_FIELD(fh_ticker, instrument, 24);
FH_FIELD(fh_ticker, flags, 26);
FH_FIELD(fh_ticker, reserved, 28);
FH_FIELD(fh_ticker, last_price, 32);
FH_FIELD(fh_ticker, last_size, 40);
FH_FIELD(fh_ticker, bid, 48);
FH_FIELD(fh_ticker, ask, 56);
FH_FIELD(fh_ticker, volume, 64);
FH_FIELD(fh_ticker, daily_change, 72);
FH_FIELD(fh_ticker, daily_change_percent, 80);
FH_FIELD(fh_ticker, high, 88);
FH_FIELD(fh_ticker, low, 96);
FH_FIELD(fh_ticker, open, 104);
FH_FIELD(fh_ticker, pad, 112);
FH_SIZE(fh_ticker, 128);

FH_FIELD(fh_candle, start_ns, 0);
FH_FIELD(fh_candle, end_ns, 8);
FH_FIELD(fh_candle, recv_ns, 16);
FH_FIELD(fh_candle, open, 24);
FH_FIELD(fh_candle, high, 32);
FH_FIELD(fh_candle, low, 40);
FH_FIELD(fh_candle, close, 48);
FH_FIELD(fh_candle, volume, 56);
FH_SIZE(fh_candle, 64);

FH_FIELD(fh_order_event, seq, 0);
FH_FIELD(fh_order_event, venue_ns, 8);
FH_FIELD(fh_order_event, recv_ns, 16);
FH_FIELD(fh_order_event, created_ns, 24);
FH_FIELD(fh_order_event, updated_ns, 32);
FH_FIELD(fh_order_event, instrument, 40);
FH_FIELD(fh_order_event, flags, 42);
FH_FIELD(fh_order_event, side, 44);
FH_FIELD(fh_order_event, type, 45);
FH_FIELD(fh_order_event, status, 46);
FH_FIELD(fh_order_event, tif, 47);
FH_FIELD(fh_order_event, order_id, 48);
FH_FIELD(fh_order_event, client_id, 80);
FH_FIELD(fh_order_event, symbol, 112);
FH_FIELD(fh_order_event, quantity, 144);
FH_FIELD(fh_order_event, filled, 152);
FH_FIELD(fh_order_event, remaining, 160);
FH_FIELD(fh_order_event, price, 168);
FH_FIELD(fh_order_event, stop_price, 176);
FH_FIELD(fh_order_event, pending, 184);
FH_FIELD(fh_order_event, cause, 185);
FH_FIELD(fh_order_event, reason, 186);
FH_FIELD(fh_order_event, operation, 188);
FH_SIZE(fh_order_event, 192);

FH_FIELD(fh_fill, seq, 0);
FH_FIELD(fh_fill, venue_ns, 8);
FH_FIELD(fh_fill, recv_ns, 16);
FH_FIELD(fh_fill, instrument, 24);
FH_FIELD(fh_fill, flags, 26);
FH_FIELD(fh_fill, side, 28);
FH_FIELD(fh_fill, trade_id, 32);
FH_FIELD(fh_fill, order_id, 64);
FH_FIELD(fh_fill, client_id, 96);
FH_FIELD(fh_fill, symbol, 128);
FH_FIELD(fh_fill, price, 160);
FH_FIELD(fh_fill, quantity, 168);
FH_FIELD(fh_fill, fee, 176);
FH_FIELD(fh_fill, fee_currency, 184);
FH_SIZE(fh_fill, 192);

FH_FIELD(fh_account, seq, 0);
FH_FIELD(fh_account, venue_ns, 8);
FH_FIELD(fh_account, recv_ns, 16);
FH_FIELD(fh_account, instrument, 24);
FH_FIELD(fh_account, flags, 26);
FH_FIELD(fh_account, kind, 28);
FH_FIELD(fh_account, rows_left, 30);
FH_FIELD(fh_account, name, 32);
FH_FIELD(fh_account, available, 64);
FH_FIELD(fh_account, reserved, 72);
FH_FIELD(fh_account, total, 80);
FH_FIELD(fh_account, quantity, 88);
FH_FIELD(fh_account, average_price, 96);
FH_FIELD(fh_account, unrealized_pnl, 104);
FH_FIELD(fh_account, realized_pnl, 112);
FH_SIZE(fh_account, 128);

FH_FIELD(fh_notice, seq, 0);
FH_FIELD(fh_notice, venue_ns, 8);
FH_FIELD(fh_notice, recv_ns, 16);
FH_FIELD(fh_notice, triggered_ns, 24);
FH_FIELD(fh_notice, instrument, 32);
FH_FIELD(fh_notice, flags, 34);
FH_FIELD(fh_notice, kind, 36);
FH_FIELD(fh_notice, threshold, 40);
FH_FIELD(fh_notice, current_value, 48);
FH_FIELD(fh_notice, id, 56);
FH_FIELD(fh_notice, level, 88);
FH_FIELD(fh_notice, symbol, 104);
FH_FIELD(fh_notice, condition, 136);
FH_FIELD(fh_notice, title, 168);
FH_FIELD(fh_notice, link, 296);
FH_FIELD(fh_notice, message, 512);
FH_SIZE(fh_notice, 1024);

FH_FIELD(fh_command, seq, 0);
FH_FIELD(fh_command, writer_epoch, 8);
FH_FIELD(fh_command, deadline_ns, 16);
FH_FIELD(fh_command, sent_ns, 24);
FH_FIELD(fh_command, kind, 32);
FH_FIELD(fh_command, side, 33);
FH_FIELD(fh_command, type, 34);
FH_FIELD(fh_command, tif, 35);
FH_FIELD(fh_command, reserved, 36);
FH_FIELD(fh_command, client_id, 40);
FH_FIELD(fh_command, order_id, 72);
FH_FIELD(fh_command, symbol, 104);
FH_FIELD(fh_command, quantity, 136);
FH_FIELD(fh_command, price, 144);
FH_FIELD(fh_command, stop_price, 152);
FH_FIELD(fh_command, pad_command, 160);
FH_SIZE(fh_command, 192);

FH_FIELD(fh_channel_page, writer_epoch, 0);
FH_FIELD(fh_channel_page, revoked, 128);
FH_SIZE(fh_channel_page, 4096);

FH_FIELD(fh_cursor_page, channel_epoch, 0);
FH_FIELD(fh_cursor_page, turn, 128);
FH_SIZE(fh_cursor_page, 4096);

FH_FIELD(fh_level, price, 0);
FH_FIELD(fh_level, size, 8);
FH_SIZE(fh_level, 16);

FH_FIELD(fh_entry, seq, 0);
FH_FIELD(fh_entry, status, 8);
FH_FIELD(fh_entry, reserved, 12);
FH_FIELD(fh_entry, sequence, 16);
FH_FIELD(fh_entry, session_epoch, 24);
FH_FIELD(fh_entry, bid_count, 28);
FH_FIELD(fh_entry, ask_count, 32);
FH_FIELD(fh_entry, pad, 36);
FH_FIELD(fh_entry, quote, 64);
FH_FIELD(fh_entry, ticker, 128);
FH_FIELD(fh_entry, candles, 256);
FH_SIZE(fh_entry, 704);

FH_FIELD(fh_histogram, max_ns, 0);
FH_FIELD(fh_histogram, pad, 8);
FH_FIELD(fh_histogram, buckets, 64);
FH_SIZE(fh_histogram, 9280);

#undef FH_FIELD
#undef FH_SIZE

/* The schemas: a segment is taken for what it says only if its text is exactly this. */

#define FH_QUOTE_SCHEMA \
    "[[\"seq\",\"<u8\",0],[\"venue_ns\",\"<i8\",8],[\"recv_ns\",\"<i8\",16]," \
    "[\"instrument\",\"<u2\",24],[\"flags\",\"<u2\",26],[\"sequence\",\"<u4\",28]," \
    "[\"bid_price\",\"<f8\",32],[\"bid_size\",\"<f8\",40]," \
    "[\"ask_price\",\"<f8\",48],[\"ask_size\",\"<f8\",56]]"
#define FH_QUOTE_SCHEMA_HASH 0xC4D28E17FBF5267EULL

#define FH_TRADE_SCHEMA \
    "[[\"seq\",\"<u8\",0],[\"venue_ns\",\"<i8\",8],[\"recv_ns\",\"<i8\",16]," \
    "[\"instrument\",\"<u2\",24],[\"flags\",\"<u2\",26],[\"trade_id\",\"|S16\",28]," \
    "[\"price\",\"<f8\",48],[\"size\",\"<f8\",56]]"
#define FH_TRADE_SCHEMA_HASH 0x8BC12F170ED248E6ULL

#define FH_ORDER_EVENT_SCHEMA \
    "[[\"seq\",\"<u8\",0],[\"venue_ns\",\"<i8\",8],[\"recv_ns\",\"<i8\",16]," \
    "[\"created_ns\",\"<i8\",24],[\"updated_ns\",\"<i8\",32]," \
    "[\"instrument\",\"<u2\",40],[\"flags\",\"<u2\",42],[\"side\",\"|u1\",44]," \
    "[\"type\",\"|u1\",45],[\"status\",\"|u1\",46],[\"tif\",\"|u1\",47]," \
    "[\"order_id\",\"|S32\",48],[\"client_id\",\"|S32\",80]," \
    "[\"symbol\",\"|S32\",112],[\"quantity\",\"<f8\",144],[\"filled\",\"<f8\",152]," \
    "[\"remaining\",\"<f8\",160],[\"price\",\"<f8\",168]," \
    "[\"stop_price\",\"<f8\",176],[\"pending\",\"|u1\",184]," \
    "[\"cause\",\"|u1\",185],[\"reason\",\"<u2\",186]," \
    "[\"operation\",\"|u1\",188]]"
#define FH_ORDER_EVENT_SCHEMA_HASH 0x0E5CF3EE2D80DF16ULL

#define FH_FILL_SCHEMA \
    "[[\"seq\",\"<u8\",0],[\"venue_ns\",\"<i8\",8],[\"recv_ns\",\"<i8\",16]," \
    "[\"instrument\",\"<u2\",24],[\"flags\",\"<u2\",26],[\"side\",\"|u1\",28]," \
    "[\"trade_id\",\"|S32\",32],[\"order_id\",\"|S32\",64]," \
    "[\"client_id\",\"|S32\",96],[\"symbol\",\"|S32\",128],[\"price\",\"<f8\",160]," \
    "[\"quantity\",\"<f8\",168],[\"fee\",\"<f8\",176]," \
    "[\"fee_currency\",\"|S8\",184]]"
#define FH_FILL_SCHEMA_HASH 0x3364C8D3C8E6D636ULL

#define FH_ACCOUNT_SCHEMA \
    "[[\"seq\",\"<u8\",0],[\"venue_ns\",\"<i8\",8],[\"recv_ns\",\"<i8\",16]," \
    "[\"instrument\",\"<u2\",24],[\"flags\",\"<u2\",26],[\"kind\",\"|u1\",28]," \
    "[\"rows_left\",\"<u2\",30],[\"name\",\"|S32\",32],[\"available\",\"<f8\",64]," \
    "[\"reserved\",\"<f8\",72],[\"total\",\"<f8\",80],[\"quantity\",\"<f8\",88]," \
    "[\"average_price\",\"<f8\",96],[\"unrealized_pnl\",\"<f8\",104]," \
    "[\"realized_pnl\",\"<f8\",112]]"
#define FH_ACCOUNT_SCHEMA_HASH 0xB7344CD09A826A42ULL

#define FH_NOTICE_SCHEMA \
    "[[\"seq\",\"<u8\",0],[\"venue_ns\",\"<i8\",8],[\"recv_ns\",\"<i8\",16]," \
    "[\"triggered_ns\",\"<i8\",24],[\"instrument\",\"<u2\",32]," \
    "[\"flags\",\"<u2\",34],[\"kind\",\"|u1\",36],[\"threshold\",\"<f8\",40]," \
    "[\"current_value\",\"<f8\",48],[\"id\",\"|S32\",56],[\"level\",\"|S16\",88]," \
    "[\"symbol\",\"|S32\",104],[\"condition\",\"|S32\",136]," \
    "[\"title\",\"|S128\",168],[\"link\",\"|S216\",296]," \
    "[\"message\",\"|S512\",512]]"
#define FH_NOTICE_SCHEMA_HASH 0x880A7B4DABF8EA20ULL

#define FH_COMMAND_SCHEMA \
    "[[\"seq\",\"<u8\",0],[\"writer_epoch\",\"<u8\",8]," \
    "[\"deadline_ns\",\"<i8\",16],[\"sent_ns\",\"<i8\",24]," \
    "[\"kind\",\"|u1\",32],[\"side\",\"|u1\",33],[\"type\",\"|u1\",34]," \
    "[\"tif\",\"|u1\",35],[\"client_id\",\"|S32\",40]," \
    "[\"order_id\",\"|S32\",72],[\"symbol\",\"|S32\",104]," \
    "[\"quantity\",\"<f8\",136],[\"price\",\"<f8\",144]," \
    "[\"stop_price\",\"<f8\",152]]"
#define FH_COMMAND_SCHEMA_HASH 0xD93157ED500154ECULL

#define FH_CURSOR_SCHEMA "{\"cursor\":1,\"channel_epoch\":8192,\"turn\":8320}"

/* A board's, with its levels, entry_size and the offset of the asks. */
#define FH_BOARD_SCHEMA \
    "{\"board\":1,\"levels\":%d,\"entry_size\":%d," \
    "\"directory\":{\"offset\":8192,\"size\":32,\"count\":4096}," \
    "\"entry\":{\"seq\":0,\"status\":8,\"sequence\":16,\"session_epoch\":24," \
    "\"bid_count\":28,\"ask_count\":32,\"quote\":64,\"ticker\":128,\"candles\":256," \
    "\"bids\":704,\"asks\":%d}," \
    "\"quote\":" FH_QUOTE_SCHEMA "," \
    "\"ticker\":[[\"seq\",\"<u8\",0],[\"venue_ns\",\"<i8\",8],[\"recv_ns\",\"<i8\",16]," \
    "[\"instrument\",\"<u2\",24],[\"flags\",\"<u2\",26]," \
    "[\"last_price\",\"<f8\",32],[\"last_size\",\"<f8\",40]," \
    "[\"bid\",\"<f8\",48],[\"ask\",\"<f8\",56],[\"volume\",\"<f8\",64]," \
    "[\"daily_change\",\"<f8\",72],[\"daily_change_percent\",\"<f8\",80]," \
    "[\"high\",\"<f8\",88],[\"low\",\"<f8\",96],[\"open\",\"<f8\",104]]," \
    "\"candle\":[[\"start_ns\",\"<i8\",0],[\"end_ns\",\"<i8\",8],[\"recv_ns\",\"<i8\",16]," \
    "[\"open\",\"<f8\",24],[\"high\",\"<f8\",32],[\"low\",\"<f8\",40]," \
    "[\"close\",\"<f8\",48],[\"volume\",\"<f8\",56]]," \
    "\"intervals\":[\"1m\",\"5m\",\"15m\",\"1h\",\"4h\",\"1d\",\"1w\"]}"

/* That of counters: how many, how many histograms, where the histograms start. */
#define FH_COUNTERS_SCHEMA \
    "{\"counters\":%d,\"histograms\":%d,\"names\":{\"offset\":8192,\"size\":64}," \
    "\"histogram\":{\"offset\":%d,\"size\":9280,\"max\":0,\"buckets\":64," \
    "\"sub_bits\":5,\"top_bits\":40}}"

static inline const char *fh_error_text(int error)
{
    switch (error) {
    case FH_OK: return "no error";
    case FH_E_NAME: return "name is not one of a segment, or the path is too long";
    case FH_E_ABSENT: return "no such segment; is its feed handler running?";
    case FH_E_SYSTEM: return "the system refused; see errno";
    case FH_E_FILE: return "not a regular file";
    case FH_E_OWNER: return "file belongs to a user who is not trusted";
    case FH_E_MODE: return "others than its owner can write the file";
    case FH_E_LINKS: return "file has more than one link";
    case FH_E_SIZE: return "file is too short or too long for a segment";
    case FH_E_REPLACED: return "file was replaced again and again";
    case FH_E_MAGIC: return "magic is not that of a segment";
    case FH_E_BYTE_ORDER: return "byte order is not ours";
    case FH_E_ABI: return "layout version is not 1";
    case FH_E_FLAGS: return "flags are set that a reader must understand";
    case FH_E_KIND: return "stream kind is not the one wanted";
    case FH_E_EPOCH: return "epoch is 0, not a random number";
    case FH_E_CAPACITY: return "capacity is not a power of two of 64 to 2^28";
    case FH_E_SLOT_SIZE: return "slots are not a multiple of 64 bytes up to 4096";
    case FH_E_RECORD_SIZE: return "records do not fit their slots";
    case FH_E_FILE_SIZE: return "file does not have the size that its header says";
    case FH_E_OFFSET: return "slots are not at a page inside the file";
    case FH_E_SCHEMA: return "schema is not the one wanted";
    case FH_E_START: return "no such record yet";
    case FH_E_SYMBOL: return "unknown instrument";
    case FH_E_HALF_WRITTEN: return "entry stays half-written: its writer died or hangs";
    case FH_E_COUNTER: return "unknown counter";
    case FH_E_BUSY: return "this process has a trader of that feed already";
    case FH_E_FULL: return "commands wait for the handler, no room for more";
    case FH_E_GONE: return "no handler takes commands";
    case FH_E_COMMAND: return "an id or a symbol is too long, or the patience negative";
    case FH_E_FORKED: return "the trader belongs to the parent process";
    default: return "unknown error";
    }
}

/* The words of private records. What a newer writer may have is "unknown". */

static inline const char *fh_side_text(int side)
{
    switch (side) {
    case FH_SIDE_BUY: return "buy";
    case FH_SIDE_SELL: return "sell";
    default: return "unknown";
    }
}

static inline const char *fh_order_type_text(int type)
{
    switch (type) {
    case FH_MARKET: return "market";
    case FH_LIMIT: return "limit";
    case FH_STOP: return "stop";
    case FH_STOP_LIMIT: return "stop_limit";
    default: return "unknown";
    }
}

static inline const char *fh_time_in_force_text(int tif)
{
    switch (tif) {
    case FH_GTC: return "gtc";
    case FH_IOC: return "ioc";
    case FH_FOK: return "fok";
    case FH_DAY: return "day";
    default: return "unknown";
    }
}

static inline const char *fh_order_status_text(int status)
{
    switch (status) {
    case FH_PENDING: return "pending";
    case FH_ACCEPTED: return "accepted";
    case FH_PARTIALLY_FILLED: return "partially_filled";
    case FH_FILLED: return "filled";
    case FH_CANCELED: return "canceled";
    case FH_EXPIRED: return "expired";
    case FH_REJECTED: return "rejected";
    default: return "unknown";
    }
}

/* Say whether nothing more will happen to an order, but for fills that are told late. */
static inline int fh_order_is_over(int status)
{
    return status >= FH_FILLED;
}

static inline const char *fh_order_operation_text(int operation)
{
    switch (operation) {
    case FH_OPERATION_NONE: return "none";
    case FH_OPERATION_SUBMIT: return "submit";
    case FH_OPERATION_CANCEL: return "cancel";
    case FH_OPERATION_MODIFY: return "modify";
    default: return "unknown";
    }
}

static inline const char *fh_event_cause_text(int cause)
{
    switch (cause) {
    case FH_CAUSE_SENT: return "sent";
    case FH_CAUSE_ACK: return "ack";
    case FH_CAUSE_UPDATE: return "update";
    case FH_CAUSE_FILL: return "fill";
    case FH_CAUSE_REFUSED: return "refused";
    case FH_CAUSE_LOST: return "lost";
    case FH_CAUSE_ADOPTED: return "adopted";
    case FH_CAUSE_SETTLED: return "settled";
    case FH_CAUSE_EXPIRED: return "expired";
    case FH_CAUSE_GUARDED: return "guarded";
    case FH_CAUSE_THROTTLED: return "throttled";
    case FH_CAUSE_NOT_CONNECTED: return "not_connected";
    default: return "unknown";
    }
}

static inline const char *fh_event_reason_text(int reason)
{
    switch (reason) {
    case FH_REASON_NONE: return "none";
    case FH_REASON_OTHER: return "other";
    case FH_REASON_AUTHENTICATION_REQUIRED: return "authentication_required";
    case FH_REASON_INVALID_CREDENTIALS: return "invalid_credentials";
    case FH_REASON_INVALID_PARAMETER: return "invalid_parameter";
    case FH_REASON_INVALID_ACTION: return "invalid_action";
    case FH_REASON_RATE_LIMIT_EXCEEDED: return "rate_limit_exceeded";
    case FH_REASON_INSUFFICIENT_FUNDS: return "insufficient_funds";
    case FH_REASON_ORDER_NOT_FOUND: return "order_not_found";
    case FH_REASON_DUPLICATE_CLIENT_ORDER_ID: return "duplicate_client_order_id";
    case FH_REASON_MARKET_CLOSED: return "market_closed";
    case FH_REASON_INTERNAL_ERROR: return "internal_error";
    default: return "unknown";
    }
}

static inline const char *fh_account_kind_text(int kind)
{
    switch (kind) {
    case FH_BALANCE: return "balance";
    case FH_POSITION: return "position";
    default: return "unknown";
    }
}

static inline const char *fh_notice_kind_text(int kind)
{
    switch (kind) {
    case FH_SYSTEM: return "system";
    case FH_USER: return "user";
    case FH_ALERT: return "alert";
    default: return "unknown";
    }
}

/* Name one bit of a private record's flags, or of OrderEvent.pending. */
static inline const char *fh_private_flag_text(int flag)
{
    switch (flag) {
    case FH_ORDER_ID_CUT: return "order_id_cut";
    case FH_CLIENT_ID_CUT: return "client_id_cut";
    case FH_OWN_ID_CUT: return "own_id_cut";
    case FH_TEXT_CUT: return "text_cut";
    case FH_REPLAYED: return "replayed";
    case FH_UNTRIGGERED: return "untriggered";
    default: return "unknown";
    }
}

static inline const char *fh_pending_flag_text(int flag)
{
    switch (flag) {
    case FH_SUBMIT_PENDING: return "submit_pending";
    case FH_CANCEL_PENDING: return "cancel_pending";
    case FH_MODIFY_PENDING: return "modify_pending";
    case FH_SUBMIT_UNKNOWN: return "submit_unknown";
    case FH_CANCEL_UNKNOWN: return "cancel_unknown";
    case FH_MODIFY_UNKNOWN: return "modify_unknown";
    default: return "unknown";
    }
}

/* Copy a record's text *field* of *size* bytes to *out*, of one more, and end it. It is
   as the venue sent it, UTF-8, and may do anything to a terminal. */
static inline const char *fh_copy_text(char *out, const char *field, size_t size)
{
    memcpy(out, field, size);
    out[size] = '\0';
    return out;
}

/* Words that are shared. The builtins, because C++17 has no <stdatomic.h>. */

typedef uint64_t __attribute__((may_alias)) fh_cell;

/* Spin politely. */
static inline void fh_relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ __volatile__("yield");
#endif
}

/* Copy *size* bytes, a multiple of 8, each word once; *out* needs no alignment. */
static inline void fh_copy_words(void *out, const void *shared, size_t size)
{
    const fh_cell *from = (const fh_cell *)shared;
    char *to = (char *)out;
    for (size_t i = 0; i < size / sizeof(uint64_t); i++) {
        uint64_t word = __atomic_load_n(&from[i], __ATOMIC_RELAXED);
        memcpy(to + i * sizeof(word), &word, sizeof(word));
    }
}

static inline uint64_t fh_align(uint64_t size, uint64_t boundary)
{
    return (size + boundary - 1) / boundary * boundary;
}

static inline int64_t fh_now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* A segment: attached, checked, watched. */

struct fh_segment {
    const unsigned char *base;          /* NULL when detached */
    const struct fh_live_page *live;
    size_t size;
    int fd;                             /* kept open to ask for the writer's lock */
    dev_t device;
    ino_t inode;
    struct fh_meta_page meta;           /* our copy, checked; nothing else is believed */
    char path[FH_PATH_BYTES];
};

/* Say whether *text* is 1 to *most* letters, digits, _ or -; with *strict*, none of the
   two last comes first. */
static inline int fh_is_name(const char *text, size_t most, int strict)
{
    size_t length = strlen(text);
    if (length == 0 || length > most)
        return 0;
    if (strict && (text[0] == '_' || text[0] == '-'))
        return 0;
    for (size_t i = 0; i < length; i++) {
        char c = text[i];
        if (!((c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9')
              || c == '_' || c == '-'))
            return 0;
    }
    return 1;
}

/* Check a private copy of a meta page, of a file of *size* bytes. The hash of the schema
   is not computed here: those who bind compare the text itself. */
static inline int fh_check_meta(const struct fh_meta_page *meta, uint64_t size)
{
    if (meta->magic != FH_MAGIC)
        return FH_E_MAGIC;
    if (meta->byte_order != FH_BYTE_ORDER)
        return FH_E_BYTE_ORDER;
    if (meta->abi_major != FH_ABI_MAJOR)
        return FH_E_ABI;
    if (meta->flags & FH_MUST_UNDERSTAND)
        return FH_E_FLAGS;
    if (meta->stream_kind < FH_QUOTES || meta->stream_kind > FH_GENERIC)
        return FH_E_KIND;
    if (meta->epoch == 0)
        return FH_E_EPOCH;
    if (meta->capacity < FH_CAPACITY_MIN || meta->capacity > FH_CAPACITY_MAX
        || (meta->capacity & (meta->capacity - 1)))
        return FH_E_CAPACITY;
    if (meta->slot_size < FH_LINE || meta->slot_size > FH_SLOT_MAX
        || meta->slot_size % FH_LINE)
        return FH_E_SLOT_SIZE;
    if (meta->record_size < sizeof(uint64_t) || meta->record_size > meta->slot_size)
        return FH_E_RECORD_SIZE;
    if (meta->file_size != size)
        return FH_E_FILE_SIZE;
    if (meta->slots_offset % FH_PAGE || meta->slots_offset < FH_DATA_OFFSET
        || meta->slots_offset > size)
        return FH_E_OFFSET;
    /* At most 2^28 slots of 2^12 bytes: the product cannot overflow. */
    if (meta->capacity * meta->slot_size > size - meta->slots_offset)
        return FH_E_FILE_SIZE;
    if (meta->schema_len > FH_SCHEMA_BYTES)
        return FH_E_SCHEMA;
    return FH_OK;
}

/* Say what is wrong with a file's attributes: whoever could write or truncate it could
   feed us prices, or a SIGBUS. */
static inline int fh_distrust(const struct stat *found, long owner)
{
    if (!S_ISREG(found->st_mode))
        return FH_E_FILE;
    if (found->st_uid != geteuid() && (owner < 0 || found->st_uid != (uid_t)owner))
        return FH_E_OWNER;
    if (found->st_mode & (S_IWGRP | S_IWOTH))
        return FH_E_MODE;
    if (found->st_nlink != 1)
        return FH_E_LINKS;
    if (found->st_size < FH_DATA_OFFSET || found->st_size > (off_t)1 << 40)
        return FH_E_SIZE;
    return FH_OK;
}

/* Open segment->path, if it can be trusted; return a descriptor or an error. */
static inline int fh_open_checked(struct fh_segment *segment, long owner)
{
    for (int attempt = 0; attempt < 10; attempt++) {
        struct stat found;
        int fd = open(segment->path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
        if (fd < 0) {
            if (errno == ENOENT)
                return FH_E_ABSENT;
            return errno == ELOOP || errno == ENXIO ? FH_E_FILE : FH_E_SYSTEM;
        }
        if (fstat(fd, &found) != 0) {
            close(fd);
            return FH_E_SYSTEM;
        }
        if (S_ISREG(found.st_mode) && found.st_nlink == 0) {
            close(fd);                  /* replaced since we opened it: look again */
            continue;
        }
        int error = fh_distrust(&found, owner);
        if (error) {
            close(fd);
            return error;
        }
        segment->device = found.st_dev;
        segment->inode = found.st_ino;
        segment->size = (size_t)found.st_size;
        return fd;
    }
    return FH_E_REPLACED;
}

/* Let go of *segment*; rings, boards and counters bound to it are of no more use. */
static inline void fh_detach(struct fh_segment *segment)
{
    if (segment->base == NULL)
        return;
    munmap((void *)(uintptr_t)segment->base, segment->size);
    close(segment->fd);
    segment->base = NULL;
    segment->live = NULL;
    segment->fd = -1;
}

/* Attach to the segment *stream* ("quotes", "trades", "board", "counters") of the feed
   *name* in *directory* (NULL: /dev/shm). *owner* is a uid whose segments are trusted
   besides our own, or FH_ONLY_ME. On an error there is nothing to detach. */
static inline int fh_attach(struct fh_segment *segment, const char *directory,
                            const char *name, const char *stream, long owner)
{
    memset(segment, 0, sizeof(*segment));
    segment->fd = -1;
    if (directory == NULL)
        directory = FH_DIRECTORY;
    if (!fh_is_name(name, 48, 1) || !fh_is_name(stream, 16, 0))
        return FH_E_NAME;
    int length = snprintf(segment->path, sizeof(segment->path), "%s/fh-%s.%s", directory,
                          name, stream);
    if (length < 0 || (size_t)length >= sizeof(segment->path))
        return FH_E_NAME;
    int fd = fh_open_checked(segment, owner);
    if (fd < 0)
        return fd;
    void *base = mmap(NULL, segment->size, PROT_READ, MAP_SHARED | MAP_POPULATE, fd, 0);
    if (base == MAP_FAILED) {
        int why = errno;
        close(fd);
        errno = why;
        return FH_E_SYSTEM;
    }
    segment->fd = fd;
    segment->base = (const unsigned char *)base;
    segment->live = (const struct fh_live_page *)(segment->base + FH_LIVE_OFFSET);
    uint64_t magic = __atomic_load_n((const fh_cell *)base, __ATOMIC_ACQUIRE);
    fh_copy_words(&segment->meta, base, sizeof(segment->meta));
    int error = magic == FH_MAGIC ? fh_check_meta(&segment->meta, segment->size)
                                  : FH_E_MAGIC;
    if (error)
        fh_detach(segment);
    return error;
}

/* Say whether the segment's schema is exactly *text*. */
static inline int fh_schema_is(const struct fh_segment *segment, const char *text)
{
    size_t length = strlen(text);
    return segment->meta.schema_len == length
           && memcmp(segment->meta.schema, text, length) == 0;
}

/* What to subtract from a record's time to get CLOCK_MONOTONIC. */
static inline int64_t fh_utc_offset_ns(const struct fh_segment *segment)
{
    return (int64_t)((uint64_t)segment->meta.created_realtime_ns
                     - (uint64_t)segment->meta.created_monotonic_ns);
}

static inline uint64_t fh_head(const struct fh_segment *segment)
{
    return __atomic_load_n(&segment->live->head, __ATOMIC_ACQUIRE);
}

static inline uint32_t fh_writer_state_of(const struct fh_segment *segment)
{
    return __atomic_load_n(&segment->live->state, __ATOMIC_ACQUIRE);
}

/* How long ago the writer's loop last beat; it does every 100 ms. */
static inline int64_t fh_heartbeat_age_ns(const struct fh_segment *segment)
{
    uint64_t beat = __atomic_load_n(&segment->live->heartbeat_mono_ns, __ATOMIC_ACQUIRE);
    return (int64_t)((uint64_t)fh_now_ns() - beat);
}

/* 1 while the writer holds its lock, 0 when it is gone. Takes no lock. The kernel drops
   the lock of a process that dies, however it dies. */
static inline int fh_is_locked(const struct fh_segment *segment)
{
    struct flock lock;
    memset(&lock, 0, sizeof(lock));
    lock.l_type = F_RDLCK;
    lock.l_whence = SEEK_SET;
    if (fcntl(segment->fd, F_OFD_GETLK, &lock) != 0)
        return FH_E_SYSTEM;
    return lock.l_type != F_UNLCK;
}

/* Return an fh_status, or a negative error. Some microseconds: ask when there is nothing
   to read, not more than every 100 ms. */
static inline int fh_segment_status(const struct fh_segment *segment)
{
    struct stat found;
    int linked = lstat(segment->path, &found) == 0;
    if (!linked && errno != ENOENT)
        return FH_E_SYSTEM;
    if (linked && (found.st_ino != segment->inode || found.st_dev != segment->device))
        return FH_SUPERSEDED;
    if (fh_writer_state_of(segment) == FH_WRITER_CLOSED)
        return FH_CLOSED;
    int locked = fh_is_locked(segment);
    if (locked < 0)
        return locked;
    if (!locked)                /* it may have closed between the two looks */
        return fh_writer_state_of(segment) == FH_WRITER_CLOSED ? FH_CLOSED : FH_DEAD;
    if (!linked)
        return FH_SUPERSEDED;
    return fh_heartbeat_age_ns(segment) > FH_STALLED_NS ? FH_STALLED : FH_LIVE;
}

static inline const char *fh_status_text(int status)
{
    switch (status) {
    case FH_LIVE: return "LIVE";
    case FH_STALLED: return "STALLED";
    case FH_CLOSED: return "CLOSED";
    case FH_DEAD: return "DEAD";
    case FH_SUPERSEDED: return "SUPERSEDED";
    default: return fh_error_text(status);
    }
}

/* A ring: slot n & (capacity - 1) holds record n. Its first word is 0 before the first
   lap, n + 1 when record n is complete, FH_BUSY | n + 1 while it is written. The letters
   and numbers are the steps whose order is proven: do not reorder. */

struct fh_ring {
    const struct fh_segment *segment;   /* outlives the ring */
    const unsigned char *slots;
    uint64_t capacity;
    uint64_t cursor;                    /* the record wanted next */
    uint64_t origin;                    /* the cursor at the start */
    uint64_t lost;                      /* received + lost == cursor - origin, always */
    uint32_t slot_size;
    int on_lap;                         /* fh_on_lap */
};

/* Check that *segment* has records of *kind*, which are *size* bytes, and no others. */
static inline int fh_records_are(const struct fh_segment *segment, uint32_t kind,
                                 const char *schema, uint64_t hash, size_t size)
{
    const struct fh_meta_page *meta = &segment->meta;
    if (meta->stream_kind != kind)
        return FH_E_KIND;
    if (!fh_schema_is(segment, schema) || meta->schema_hash != hash)
        return FH_E_SCHEMA;
    if (meta->slot_size != size)
        return FH_E_SLOT_SIZE;
    return meta->record_size == size ? FH_OK : FH_E_RECORD_SIZE;
}

static inline int fh_check_kind(const struct fh_segment *segment, int kind)
{
    const struct fh_meta_page *meta = &segment->meta;
    switch (kind) {
    case FH_QUOTES:
        return fh_records_are(segment, FH_QUOTES, FH_QUOTE_SCHEMA, FH_QUOTE_SCHEMA_HASH,
                              sizeof(struct fh_quote));
    case FH_TRADES:
        return fh_records_are(segment, FH_TRADES, FH_TRADE_SCHEMA, FH_TRADE_SCHEMA_HASH,
                              sizeof(struct fh_trade));
    case FH_ORDER_EVENTS:
        return fh_records_are(segment, FH_GENERIC, FH_ORDER_EVENT_SCHEMA,
                              FH_ORDER_EVENT_SCHEMA_HASH, sizeof(struct fh_order_event));
    case FH_FILLS:
        return fh_records_are(segment, FH_GENERIC, FH_FILL_SCHEMA, FH_FILL_SCHEMA_HASH,
                              sizeof(struct fh_fill));
    case FH_ACCOUNTS:
        return fh_records_are(segment, FH_GENERIC, FH_ACCOUNT_SCHEMA,
                              FH_ACCOUNT_SCHEMA_HASH, sizeof(struct fh_account));
    case FH_NOTICES:
        return fh_records_are(segment, FH_GENERIC, FH_NOTICE_SCHEMA, FH_NOTICE_SCHEMA_HASH,
                              sizeof(struct fh_notice));
    case FH_ANY:        /* but a board, or counters */
        return meta->schema_len && meta->schema[0] == '[' ? FH_OK : FH_E_SCHEMA;
    default:
        return FH_E_KIND;
    }
}

/* Read *segment* as a ring of *kind*: FH_QUOTES (struct fh_quote), FH_TRADES (fh_trade),
   FH_ORDER_EVENTS, FH_FILLS, FH_ACCOUNTS, FH_NOTICES, or FH_ANY for records of
   segment->meta.slot_size bytes. */
static inline int fh_ring_bind(struct fh_ring *ring, const struct fh_segment *segment,
                               int kind, int start, int on_lap)
{
    const struct fh_meta_page *meta = &segment->meta;
    int error = fh_check_kind(segment, kind);
    if (error)
        return error;
    uint64_t head = fh_head(segment);
    ring->segment = segment;
    ring->slots = segment->base + meta->slots_offset;
    ring->capacity = meta->capacity;
    ring->slot_size = meta->slot_size;
    ring->on_lap = on_lap;
    ring->cursor = head;
    if (start == FH_START_OLDEST)       /* the oldest of all may be being overwritten */
        ring->cursor -= head < meta->capacity ? head : meta->capacity - 1;
    ring->origin = ring->cursor;
    ring->lost = 0;
    return FH_OK;
}

/* Go on at record *number*; the loss is counted anew. */
static inline int fh_ring_seek(struct fh_ring *ring, uint64_t number)
{
    if (number > fh_head(ring->segment) + 1)    /* a slot reader can be one ahead */
        return FH_E_START;
    ring->cursor = number;
    ring->origin = number;
    ring->lost = 0;
    return FH_OK;
}

static inline uint64_t fh_ring_received(const struct fh_ring *ring)
{
    return ring->cursor - ring->origin - ring->lost;
}

static inline int fh_is_lapped(const struct fh_ring *ring, uint64_t head)
{
    return (int64_t)(head - ring->cursor) >= (int64_t)ring->capacity;
}

static inline void fh_skip(struct fh_ring *ring, uint64_t head)
{
    uint64_t target = head - (ring->on_lap == FH_LAP_LATEST ? 1 : ring->capacity / 2);
    ring->lost += target - ring->cursor;
    ring->cursor = target;
}

/* Copy the next record to *out*, of slot_size bytes; return FH_RECORD or FH_EMPTY. One
   cache line carries signal and data: the quickest way to see a record. */
static inline int fh_ring_next(struct fh_ring *ring, void *out)
{
    /* A writer that laps us 64 times in here leaves us time to breathe. */
    for (int lap = 0; lap < 64; lap++) {
        uint64_t place = ring->cursor & (ring->capacity - 1);
        const fh_cell *slot = (const fh_cell *)(ring->slots + place * ring->slot_size);
        uint64_t seq = __atomic_load_n(slot, __ATOMIC_ACQUIRE);             /* R1 */
        if (seq == ring->cursor + 1) {
            memcpy(out, &seq, sizeof(seq));
            fh_copy_words((char *)out + sizeof(seq), slot + 1,
                          ring->slot_size - sizeof(seq));                   /* R2 */
            __atomic_thread_fence(__ATOMIC_ACQUIRE);                        /* R3 */
            if (__atomic_load_n(slot, __ATOMIC_RELAXED) == seq) {           /* R4 */
                ring->cursor++;
                return FH_RECORD;
            }
            continue;           /* never act on R4's word: it was not acquired */
        }
        if ((seq & ~FH_BUSY) <= ring->cursor + 1)
            return FH_EMPTY;    /* of an older lap, or being written now */
        uint64_t head = fh_head(ring->segment);                             /* R5 */
        if (!fh_is_lapped(ring, head))
            return FH_EMPTY;    /* no writer of ours: head is a lap ahead of us */
        fh_skip(ring, head);
    }
    return FH_EMPTY;
}

/* Copy up to *max* records to *out*, of max * slot_size bytes; return how many. After
   FH_DEAD ask fh_ring_next() too: the last record may be complete, but not counted. */
static inline size_t fh_ring_poll(struct fh_ring *ring, void *out, size_t max)
{
    size_t size = ring->slot_size;
    uint64_t head = fh_head(ring->segment);                                 /* B1 */
    if ((int64_t)(head - ring->cursor) <= 0 || max == 0)
        return 0;
    if (fh_is_lapped(ring, head))
        fh_skip(ring, head);
    uint64_t count = head - ring->cursor;
    if (count > max)
        count = max;
    uint64_t first = ring->cursor & (ring->capacity - 1);
    uint64_t whole = ring->capacity - first;
    if (whole > count)
        whole = count;
    fh_copy_words(out, ring->slots + first * size, whole * size);           /* B2 */
    fh_copy_words((char *)out + whole * size, ring->slots, (count - whole) * size);
    __atomic_thread_fence(__ATOMIC_ACQUIRE);                                /* B3 */
    head = __atomic_load_n(&ring->segment->live->head, __ATOMIC_RELAXED);
    uint64_t bad = 0;
    /* Record n is whole if head - n < capacity: strictly, for the next is being written. */
    if (fh_is_lapped(ring, head)) {
        bad = head - ring->capacity + 1 - ring->cursor;
        if (bad > count)
            bad = count;
        memmove(out, (char *)out + bad * size, (count - bad) * size);
    }
    ring->lost += bad;
    ring->cursor += count;
    return (size_t)(count - bad);
}

/* The board: the latest of everything, per instrument. */

struct fh_board {
    const struct fh_segment *segment;   /* outlives the board */
    const unsigned char *entries;
    uint32_t capacity;
    uint32_t entry_size;
    int levels;                         /* price levels per side */
};

static inline int fh_board_bind(struct fh_board *board, const struct fh_segment *segment)
{
    const struct fh_meta_page *meta = &segment->meta;
    char text[FH_SCHEMA_BYTES + 1];
    int levels;
    if (meta->stream_kind != FH_GENERIC)
        return FH_E_KIND;
    memcpy(text, meta->schema, meta->schema_len);
    text[meta->schema_len] = '\0';
    if (sscanf(text, "{\"board\":1,\"levels\":%4d,", &levels) != 1 || levels < 1
        || levels > FH_LEVELS_MAX)
        return FH_E_SCHEMA;
    int side = levels * (int)sizeof(struct fh_level);
    int fixed = (int)sizeof(struct fh_entry);
    int entry_size = (int)fh_align((uint64_t)(fixed + 2 * side), FH_LINE);
    snprintf(text, sizeof(text), FH_BOARD_SCHEMA, levels, entry_size, fixed + side);
    if (!fh_schema_is(segment, text))
        return FH_E_SCHEMA;
    if (meta->capacity > FH_INSTRUMENTS_MAX)
        return FH_E_CAPACITY;
    if (meta->slot_size != (uint32_t)entry_size)
        return FH_E_SLOT_SIZE;
    if (meta->slots_offset
        != fh_align(FH_DATA_OFFSET + meta->capacity * FH_SYMBOL_BYTES, FH_PAGE))
        return FH_E_OFFSET;
    board->segment = segment;
    board->entries = segment->base + meta->slots_offset;
    board->capacity = (uint32_t)meta->capacity;
    board->entry_size = meta->slot_size;
    board->levels = levels;
    return FH_OK;
}

/* How many instruments the board has; it can only grow. */
static inline uint32_t fh_board_count(const struct fh_board *board)
{
    uint64_t count = fh_head(board->segment);
    return count < board->capacity ? (uint32_t)count : board->capacity;
}

/* Copy the symbol of *instrument* to *out*, of FH_SYMBOL_BYTES + 1 bytes. */
static inline int fh_board_symbol(const struct fh_board *board, uint32_t instrument,
                                  char *out)
{
    if (instrument >= fh_board_count(board))
        return FH_E_SYMBOL;
    fh_copy_words(out, board->segment->base + FH_DATA_OFFSET
                           + (size_t)instrument * FH_SYMBOL_BYTES, FH_SYMBOL_BYTES);
    out[FH_SYMBOL_BYTES] = '\0';
    return FH_OK;
}

/* Return the number of *symbol*, or FH_E_SYMBOL. Looks at all of them: keep the number. */
static inline int fh_board_find(const struct fh_board *board, const char *symbol)
{
    char found[FH_SYMBOL_BYTES + 1];
    uint32_t count = fh_board_count(board);
    for (uint32_t number = 0; number < count; number++)
        if (fh_board_symbol(board, number, found) == FH_OK && strcmp(found, symbol) == 0)
            return (int)number;
    return FH_E_SYMBOL;
}

/* Copy the first *size* bytes (a multiple of 8) of an entry as they were at one moment:
   128 are head and quote, sizeof(struct fh_entry) all but the levels. */
static inline int fh_board_read(const struct fh_board *board, uint32_t instrument,
                                void *out, size_t size)
{
    if (instrument >= fh_board_count(board))
        return FH_E_SYMBOL;
    if (size > board->entry_size)
        size = board->entry_size;
    const fh_cell *entry =
        (const fh_cell *)(board->entries + (size_t)instrument * board->entry_size);
    struct timespec nap = {0, 50000};
    for (int attempt = 0; attempt < 2400; attempt++) {
        uint64_t seq = __atomic_load_n(entry, __ATOMIC_ACQUIRE);
        if (!(seq & FH_BUSY)) {
            fh_copy_words(out, entry, size);
            __atomic_thread_fence(__ATOMIC_ACQUIRE);
            if (__atomic_load_n(entry, __ATOMIC_RELAXED) == seq)
                return seq == 0 ? FH_E_HALF_WRITTEN : FH_OK;
        }
        if (attempt < 2000)
            fh_relax();
        else
            nanosleep(&nap, NULL);      /* a writer can lose its core in the middle */
    }
    return FH_E_HALF_WRITTEN;
}

/* Copy an entry and its levels, best first; *bids* and *asks* have board->levels each, of
   which entry->bid_count and entry->ask_count are valid. */
static inline int fh_board_depth(const struct fh_board *board, uint32_t instrument,
                                 struct fh_entry *entry, struct fh_level *bids,
                                 struct fh_level *asks)
{
    unsigned char raw[FH_SLOT_MAX];
    size_t side = (size_t)board->levels * sizeof(struct fh_level);
    int error = fh_board_read(board, instrument, raw, board->entry_size);
    if (error)
        return error;
    memcpy(entry, raw, sizeof(*entry));
    memcpy(bids, raw + sizeof(*entry), side);
    memcpy(asks, raw + sizeof(*entry) + side, side);
    if (entry->bid_count < 0 || entry->bid_count > board->levels)
        entry->bid_count = entry->bid_count < 0 ? 0 : board->levels;
    if (entry->ask_count < 0 || entry->ask_count > board->levels)
        entry->ask_count = entry->ask_count < 0 ? 0 : board->levels;
    return FH_OK;
}

/* Counters and histograms, by name. */

struct fh_counters {
    const struct fh_segment *segment;   /* outlives the counters */
    const unsigned char *values;
    const unsigned char *histograms;
    int counter_count;
    int histogram_count;
};

static inline int fh_counters_bind(struct fh_counters *counters,
                                   const struct fh_segment *segment)
{
    const struct fh_meta_page *meta = &segment->meta;
    char text[FH_SCHEMA_BYTES + 1];
    int count, histograms;
    if (meta->stream_kind != FH_GENERIC)
        return FH_E_KIND;
    memcpy(text, meta->schema, meta->schema_len);
    text[meta->schema_len] = '\0';
    if (sscanf(text, "{\"counters\":%5d,\"histograms\":%5d,", &count, &histograms) != 2
        || count < 0 || count > FH_NAMES_MAX || histograms < 0
        || histograms > FH_NAMES_MAX)
        return FH_E_SCHEMA;
    uint64_t pages = fh_align((uint64_t)count * sizeof(uint64_t), FH_LINE);
    snprintf(text, sizeof(text), FH_COUNTERS_SCHEMA, count, histograms, (int)pages);
    if (!fh_schema_is(segment, text))
        return FH_E_SCHEMA;
    uint64_t names = (uint64_t)(count + histograms) * FH_NAME_BYTES;
    if (meta->slots_offset != fh_align(FH_DATA_OFFSET + names, FH_PAGE))
        return FH_E_OFFSET;
    if (meta->slot_size != FH_LINE)
        return FH_E_SLOT_SIZE;
    if (pages + (uint64_t)histograms * sizeof(struct fh_histogram)
        > meta->capacity * FH_LINE)
        return FH_E_CAPACITY;
    counters->segment = segment;
    counters->values = segment->base + meta->slots_offset;
    counters->histograms = counters->values + pages;
    counters->counter_count = count;
    counters->histogram_count = histograms;
    return FH_OK;
}

/* Copy the name with *index* (counters first, then histograms) to *out*, of
   FH_NAME_BYTES + 1 bytes. */
static inline int fh_counters_name(const struct fh_counters *counters, int index,
                                   char *out)
{
    if (index < 0 || index >= counters->counter_count + counters->histogram_count)
        return FH_E_COUNTER;
    fh_copy_words(out, counters->segment->base + FH_DATA_OFFSET
                           + (size_t)index * FH_NAME_BYTES, FH_NAME_BYTES);
    out[FH_NAME_BYTES] = '\0';
    return FH_OK;
}

/* Return the index of *name* from *first* to *end* - 1, or FH_E_COUNTER. */
static inline int fh_counters_find(const struct fh_counters *counters, const char *name,
                                   int first, int end)
{
    char found[FH_NAME_BYTES + 1];
    for (int index = first; index < end; index++)
        if (fh_counters_name(counters, index, found) == FH_OK && strcmp(found, name) == 0)
            return index;
    return FH_E_COUNTER;
}

/* Read the counter *name*. */
static inline int fh_counters_get(const struct fh_counters *counters, const char *name,
                                  uint64_t *value)
{
    int index = fh_counters_find(counters, name, 0, counters->counter_count);
    if (index < 0)
        return index;
    fh_copy_words(value, counters->values + (size_t)index * sizeof(*value),
                  sizeof(*value));
    return FH_OK;
}

/* Copy the histogram *name*. */
static inline int fh_counters_histogram(const struct fh_counters *counters,
                                        const char *name, struct fh_histogram *out)
{
    int first = counters->counter_count;
    int index =
        fh_counters_find(counters, name, first, first + counters->histogram_count);
    if (index < 0)
        return index;
    const unsigned char *page = counters->histograms + (size_t)(index - first)
                                                           * sizeof(struct fh_histogram);
    fh_copy_words(out, page, sizeof(*out));
    /* A value is in max_ns before it is in a bucket: read them the other way round. */
    __atomic_thread_fence(__ATOMIC_ACQUIRE);
    fh_copy_words(&out->max_ns, page, sizeof(out->max_ns));
    return FH_OK;
}

/* A trader: commands from this process to the handler, without a socket of its own.
 *
 *     struct fh_trader trader;
 *     char id[FH_ID_BYTES + 1];
 *     int error = fh_trader_open(&trader, NULL, "md", 1024, 1000);
 *     if (!error)
 *         error = fh_trader_submit(&trader, "AAPL", FH_SIDE_BUY, FH_LIMIT, FH_GTC, 1.0,
 *                                  150.25, FH_NOT_GIVEN, 1000000000, id);
 *
 * An answer is an fh_order_event with that id, in the stream "orders". After FH_E_GONE
 * call fh_trader_expired() until it returns 0, then close, and open again. One trader per
 * process and feed, not for two threads; W1 to W5 are those of a ring. */

struct fh_trader {
    unsigned char *base;                /* of our channel; NULL when closed */
    struct fh_live_page *live;
    struct fh_channel_page *page;
    size_t size;
    uint64_t capacity;
    uint64_t count;                     /* commands published */
    uint64_t known;                     /* the last cursor that was seen */
    uint64_t epoch;                     /* of our channel */
    uint64_t writer_epoch;              /* of the handler */
    int64_t utc_offset_ns;
    struct fh_segment cursor;           /* the handler's page */
    const struct fh_cursor_page *cursor_page;
    uint64_t woken;                     /* the turn in which the handler was woken */
    int64_t watch_ns;                   /* when to look for its process again */
    uint64_t expired;                   /* the next command for fh_trader_expired() */
    int is_gone;
    int lock;
    int fd;
    int bell;                           /* wakes the handler; -1 if that is not needed */
    pid_t pid;
    uint64_t prefix;                    /* of client order ids */
    uint64_t ids;
    char path[FH_PATH_BYTES];
};

/* Take the write lock of *fd*'s open file; the kernel drops it with the process. */
static inline int fh_lock(int fd)
{
    struct flock lock;
    memset(&lock, 0, sizeof(lock));
    lock.l_type = F_WRLCK;
    lock.l_whence = SEEK_SET;
    if (fcntl(fd, F_OFD_SETLK, &lock) == 0)
        return FH_OK;
    return errno == EAGAIN || errno == EACCES ? FH_E_BUSY : FH_E_SYSTEM;
}

/* Lock the file at *path*, made if need be; return a descriptor or an error. */
static inline int fh_take_lock(const char *path)
{
    for (int attempt = 0; attempt < 100; attempt++) {
        struct stat ours, found;
        int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
        if (fd < 0)
            return FH_E_SYSTEM;
        int error = fstat(fd, &ours) != 0 ? FH_E_SYSTEM : FH_OK;
        if (!error && (!S_ISREG(ours.st_mode) || ours.st_uid != geteuid()))
            error = FH_E_OWNER;
        if (!error)
            error = fh_lock(fd);
        /* Who had it before us unlinks it, locked: then ours is an orphan. */
        if (!error && lstat(path, &found) == 0 && found.st_ino == ours.st_ino)
            return fd;
        close(fd);
        if (error)
            return error;
    }
    return FH_E_BUSY;
}

static inline void fh_format_channel(struct fh_trader *trader, const char *name)
{
    struct fh_meta_page *meta = (struct fh_meta_page *)trader->base;
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    meta->abi_major = FH_ABI_MAJOR;
    meta->abi_minor = FH_ABI_MINOR;
    meta->byte_order = FH_BYTE_ORDER;
    meta->stream_kind = FH_GENERIC;
    meta->epoch = trader->epoch;
    meta->capacity = trader->capacity;
    meta->slot_size = sizeof(struct fh_command);
    meta->record_size = sizeof(struct fh_command);
    meta->slots_offset = FH_CHANNEL_SLOTS;
    meta->file_size = trader->size;
    meta->schema_hash = FH_COMMAND_SCHEMA_HASH;
    meta->schema_len = sizeof(FH_COMMAND_SCHEMA) - 1;
    meta->created_realtime_ns = (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
    meta->created_monotonic_ns = fh_now_ns();
    meta->pid = trader->pid;
    meta->uid = geteuid();
    snprintf(meta->name, sizeof(meta->name), "%.45s.commands-%d", name, (int)trader->pid);
    memcpy(meta->schema, FH_COMMAND_SCHEMA, sizeof(FH_COMMAND_SCHEMA) - 1);
    trader->page->writer_epoch = trader->writer_epoch;
    trader->live->state = FH_WRITER_LIVE;
    trader->live->heartbeat_mono_ns = (uint64_t)fh_now_ns();
    __atomic_store_n((fh_cell *)trader->base, FH_MAGIC, __ATOMIC_RELEASE);
}

/* Make the channel under a temporary name, and give it its own when it is whole. */
static inline int fh_make_channel(struct fh_trader *trader, const char *directory,
                                  const char *name)
{
    char temporary[FH_PATH_BYTES];
    int length = snprintf(temporary, sizeof(temporary), "%s/.fh-%s.commands-%d.%d.%llx",
                          directory, name, (int)trader->pid, (int)trader->pid,
                          (unsigned long long)trader->epoch);
    if (length < 0 || (size_t)length >= sizeof(temporary))
        return FH_E_NAME;
    trader->fd = open(temporary, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (trader->fd < 0)
        return FH_E_SYSTEM;
    void *base = MAP_FAILED;
    int error = fchmod(trader->fd, 0600) != 0 ? FH_E_SYSTEM : FH_OK;
    if (!error && (errno = posix_fallocate(trader->fd, 0, (off_t)trader->size)) != 0)
        error = FH_E_SYSTEM;
    if (!error) {
        base = mmap(NULL, trader->size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE,
                    trader->fd, 0);
        error = base == MAP_FAILED ? FH_E_SYSTEM : FH_OK;
    }
    if (!error) {
        madvise(base, trader->size, MADV_DONTFORK);
        trader->base = (unsigned char *)base;
        trader->live = (struct fh_live_page *)(trader->base + FH_LIVE_OFFSET);
        trader->page = (struct fh_channel_page *)(trader->base + FH_DATA_OFFSET);
        fh_format_channel(trader, name);
        error = fh_lock(trader->fd);
    }
    if (!error && rename(temporary, trader->path) != 0)
        error = FH_E_SYSTEM;
    if (error) {
        int why = errno;
        unlink(temporary);
        errno = why;
    }
    return error;
}

/* Connect to the socket that wakes the handler, if there is one of this user. */
static inline int fh_connect_bell(const char *directory, const char *name)
{
    struct sockaddr_un address;
    struct stat found;
    char path[FH_PATH_BYTES];
    int folder = open(directory, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (folder < 0)
        return -1;
    memset(&address, 0, sizeof(address));
    address.sun_family = AF_UNIX;
    /* By the descriptor: an address has room for 107 characters. */
    snprintf(path, sizeof(path), "/proc/self/fd/%d/.fh-%s.wake", folder, name);
    memcpy(address.sun_path, path, strlen(path));
    int bell = -1;
    if (lstat(path, &found) == 0 && S_ISSOCK(found.st_mode) && found.st_uid == geteuid())
        bell = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (bell >= 0
        && connect(bell, (const struct sockaddr *)&address, sizeof(address)) != 0) {
        close(bell);
        bell = -1;
    }
    close(folder);
    return bell;
}

/* Say whether the handler has a cursor for our channel; keep it mapped if so. */
static inline int fh_is_taken(struct fh_trader *trader, const char *directory,
                              const char *name)
{
    struct fh_segment *cursor = &trader->cursor;
    char stream[32];
    snprintf(stream, sizeof(stream), "cursor-%d", (int)trader->pid);
    if (fh_attach(cursor, directory, name, stream, FH_ONLY_ME) != FH_OK)
        return 0;
    const struct fh_cursor_page *page =
        (const struct fh_cursor_page *)(cursor->base + FH_DATA_OFFSET);
    if (fh_schema_is(cursor, FH_CURSOR_SCHEMA)
        && cursor->meta.slots_offset == FH_DATA_OFFSET
        && cursor->size >= FH_DATA_OFFSET + sizeof(*page)
        && cursor->meta.epoch == trader->writer_epoch
        && __atomic_load_n(&page->channel_epoch, __ATOMIC_ACQUIRE) == trader->epoch) {
        trader->cursor_page = page;
        return 1;
    }
    fh_detach(cursor);      /* one that a handler before left for a process of our number */
    return 0;
}

/* Say goodbye: what is in the channel is still carried out, if it is in time. In a forked
   child it only lets go of what the parent has. */
static inline void fh_trader_close(struct fh_trader *trader)
{
    char lock_path[FH_PATH_BYTES + 8];
    int is_ours = trader->pid == getpid();
    if (trader->base != NULL && is_ours) {
        struct stat ours, found;
        __atomic_store_n(&trader->live->state, (uint32_t)FH_WRITER_CLOSED,
                         __ATOMIC_RELEASE);
        if (fstat(trader->fd, &ours) == 0 && lstat(trader->path, &found) == 0
            && ours.st_ino == found.st_ino)
            unlink(trader->path);
        munmap(trader->base, trader->size);
    }
    if (trader->fd >= 0)
        close(trader->fd);
    if (trader->lock >= 0) {
        snprintf(lock_path, sizeof(lock_path), "%s.lock", trader->path);
        if (is_ours)
            unlink(lock_path);          /* while it is locked: nobody locks an orphan */
        close(trader->lock);
    }
    if (trader->bell >= 0)
        close(trader->bell);
    fh_detach(&trader->cursor);
    trader->base = NULL;
    trader->lock = trader->fd = trader->bell = -1;
}

/* Open a channel of *capacity* commands (a power of two of 64 to 4096) to the handler of
   the feed *name* in *directory* (NULL: /dev/shm). FH_E_GONE if none takes it within
   *timeout_ms*. On an error there is nothing to close. */
static inline int fh_trader_open(struct fh_trader *trader, const char *directory,
                                 const char *name, uint64_t capacity, int timeout_ms)
{
    struct fh_segment *board = &trader->cursor;     /* its place is free until then */
    char text[FH_PATH_BYTES + 8];
    struct timespec nap = {0, 1000000};
    memset(trader, 0, sizeof(*trader));
    trader->lock = trader->fd = trader->bell = -1;
    trader->pid = getpid();
    if (directory == NULL)
        directory = FH_DIRECTORY;
    if (capacity < FH_CAPACITY_MIN || capacity > FH_CHANNEL_MAX
        || (capacity & (capacity - 1)))
        return FH_E_CAPACITY;
    int error = fh_attach(board, directory, name, "board", FH_ONLY_ME);
    if (error)
        return error == FH_E_ABSENT ? FH_E_GONE : error;
    int status = fh_segment_status(board);
    trader->writer_epoch = board->meta.epoch;
    trader->utc_offset_ns = fh_utc_offset_ns(board);
    fh_detach(board);
    if (status != FH_LIVE && status != FH_STALLED)
        return status < 0 ? status : FH_E_GONE;
    uint64_t random[2];
    if (getrandom(random, sizeof(random), 0) != (ssize_t)sizeof(random))
        return FH_E_SYSTEM;
    trader->epoch = random[0] ? random[0] : 1;
    trader->prefix = random[1];
    trader->capacity = capacity;
    trader->size = (size_t)fh_align(
        FH_CHANNEL_SLOTS + capacity * sizeof(struct fh_command), FH_PAGE);
    int length = snprintf(trader->path, sizeof(trader->path), "%s/fh-%s.commands-%d",
                          directory, name, (int)trader->pid);
    if (length < 0 || (size_t)length >= sizeof(trader->path))
        return FH_E_NAME;
    snprintf(text, sizeof(text), "%s.lock", trader->path);
    trader->lock = fh_take_lock(text);
    if (trader->lock < 0)
        return trader->lock;
    error = fh_make_channel(trader, directory, name);
    length = snprintf(text, sizeof(text), "%d", (int)trader->pid);
    int64_t now_ns = fh_now_ns(), announce_ns = now_ns;
    int64_t end_ns = now_ns + (int64_t)timeout_ms * 1000000;
    while (!error && !fh_is_taken(trader, directory, name)) {
        if (now_ns >= announce_ns) {    /* it looks around by itself too, every second */
            announce_ns = now_ns + FH_BEAT_NS;
            if (trader->bell < 0)
                trader->bell = fh_connect_bell(directory, name);
            if (trader->bell >= 0)
                send(trader->bell, text, (size_t)length, MSG_NOSIGNAL);
        }
        if (now_ns >= end_ns)
            error = FH_E_GONE;
        else
            nanosleep(&nap, NULL);
        now_ns = fh_now_ns();
    }
    if (error) {
        int why = errno;
        fh_trader_close(trader);
        errno = why;
    }
    return error;
}

/* Publish nothing more, and take back what the handler has not taken. */
static inline void fh_trader_revoke(struct fh_trader *trader)
{
    if (trader->is_gone)
        return;
    trader->is_gone = 1;
    __atomic_store_n(&trader->page->revoked, 1, __ATOMIC_RELEASE);          /* T1 */
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    uint64_t cursor = fh_head(&trader->cursor);                             /* T2 */
    int is_one = cursor >= trader->known && cursor <= trader->count;
    trader->expired = is_one ? cursor : trader->count;
}

/* Copy a command that the handler left behind, oldest first, to *out*; return 1, or 0 if
   there is none. None of these was or will be carried out (an order whose cancel is among
   them may well live); what was taken before may have been. */
static inline int fh_trader_expired(struct fh_trader *trader, struct fh_command *out)
{
    if (!trader->is_gone || trader->base == NULL || trader->pid != getpid())
        return 0;
    if (trader->expired >= trader->count)
        return 0;
    uint64_t place = trader->expired++ & (trader->capacity - 1);
    memcpy(out, trader->base + FH_CHANNEL_SLOTS + place * sizeof(*out), sizeof(*out));
    return 1;
}

/* Say whether the handler lives, by its heartbeat and, now and then, by its lock. */
static inline int fh_trader_has_handler(struct fh_trader *trader, int64_t now_ns)
{
    const struct fh_live_page *handler = trader->cursor.live;
    if (now_ns >= trader->watch_ns) {
        trader->watch_ns = now_ns + FH_BEAT_NS;
        int status = fh_segment_status(&trader->cursor);
        if (status != FH_LIVE && status != FH_STALLED)
            return 0;
    }
    if (__atomic_load_n(&handler->state, __ATOMIC_ACQUIRE) != FH_WRITER_LIVE)
        return 0;
    uint64_t beat = __atomic_load_n(&handler->heartbeat_mono_ns, __ATOMIC_ACQUIRE);
    /* Unsigned: a beat of the future is as bad as one of long ago. */
    return (uint64_t)now_ns - beat + (uint64_t)FH_GONE_NS <= 2 * (uint64_t)FH_GONE_NS;
}

/* Publish *command*, whose texts and numbers are set; the rest is set here. It is given up
   *patience_ns* from now, a minute at most. */
static inline int fh_trader_give(struct fh_trader *trader, struct fh_command *command,
                                 int64_t patience_ns)
{
    if (trader->pid != getpid())
        return FH_E_FORKED;
    if (patience_ns < 0 || patience_ns > 60000000000LL)
        return FH_E_COMMAND;
    int64_t now_ns = fh_now_ns();
    if (trader->base == NULL || trader->is_gone)
        return FH_E_GONE;
    if (!fh_trader_has_handler(trader, now_ns)) {
        fh_trader_revoke(trader);
        return FH_E_GONE;
    }
    if (trader->count - trader->known >= trader->capacity) {
        uint64_t cursor = fh_head(&trader->cursor);                         /* C1 */
        if (cursor < trader->known || cursor > trader->count) {
            fh_trader_revoke(trader);
            return FH_E_GONE;
        }
        trader->known = cursor;
        if (trader->count - cursor >= trader->capacity)
            return FH_E_FULL;
    }
    command->writer_epoch = trader->writer_epoch;
    command->sent_ns = now_ns + trader->utc_offset_ns;
    command->deadline_ns = command->sent_ns + patience_ns;
    uint64_t number = trader->count + 1;
    uint64_t place = trader->count & (trader->capacity - 1);
    fh_cell *slot =
        (fh_cell *)(trader->base + FH_CHANNEL_SLOTS + place * sizeof(*command));
    const fh_cell *words = (const fh_cell *)command;
    __atomic_store_n(slot, FH_BUSY | number, __ATOMIC_RELEASE);             /* W1 */
    __atomic_thread_fence(__ATOMIC_RELEASE);                                /* W2 */
    for (size_t i = 1; i < sizeof(*command) / sizeof(*words); i++)
        __atomic_store_n(&slot[i], words[i], __ATOMIC_RELAXED);             /* W3 */
    __atomic_store_n(slot, number, __ATOMIC_RELEASE);                       /* W4 */
    __atomic_store_n(&trader->live->head, number, __ATOMIC_RELEASE);        /* W5 */
    trader->count = number;
    __atomic_thread_fence(__ATOMIC_SEQ_CST);                                /* P1, P2 */
    uint64_t turn = __atomic_load_n(&trader->cursor_page->turn, __ATOMIC_ACQUIRE);
    if (turn != 0 && turn != trader->woken && trader->bell >= 0
        && send(trader->bell, "", 1, MSG_NOSIGNAL) == 1)
        trader->woken = turn;   /* once a turn; a lost one is made up for by its beat */
    return FH_OK;
}

/* Begin a command of *kind* on *client_id* and *symbol*, of which either may be NULL. */
static inline int fh_command_init(struct fh_command *command, int kind,
                                  const char *client_id, const char *symbol)
{
    memset(command, 0, sizeof(*command));
    command->kind = (uint8_t)kind;
    command->quantity = command->price = command->stop_price = FH_NOT_GIVEN;
    size_t id = client_id == NULL ? 0 : strlen(client_id);
    size_t name = symbol == NULL ? 0 : strlen(symbol);
    if (id > FH_ID_BYTES || name > FH_SYMBOL_BYTES)
        return FH_E_COMMAND;
    if (id > 0)
        memcpy(command->client_id, client_id, id);
    if (name > 0)
        memcpy(command->symbol, symbol, name);
    return FH_OK;
}

/* Write a client order id that nobody else has to *out*, of FH_ID_BYTES + 1 bytes. */
static inline void fh_trader_next_id(struct fh_trader *trader, char *out)
{
    snprintf(out, FH_ID_BYTES + 1, "%016llx-%llu", (unsigned long long)trader->prefix,
             (unsigned long long)(++trader->ids % 1000000000000000ULL));
}

/* Ask for a new order; its client order id goes to *client_id*, of FH_ID_BYTES + 1 bytes.
   Numbers that the type does not need are FH_NOT_GIVEN, and *tif* may be 0. This and all
   that follow return when the command is in the channel; on an error it is not, nor will
   be. The handler refuses what makes no sense, by an event with that id. */
static inline int fh_trader_submit(struct fh_trader *trader, const char *symbol, int side,
                                   int type, int tif, double quantity, double price,
                                   double stop_price, int64_t patience_ns, char *client_id)
{
    struct fh_command command;
    fh_trader_next_id(trader, client_id);
    int error = fh_command_init(&command, FH_SUBMIT, client_id, symbol);
    command.side = (uint8_t)side;
    command.type = (uint8_t)type;
    command.tif = (uint8_t)tif;
    command.quantity = quantity;
    command.price = price;
    command.stop_price = stop_price;
    return error ? error : fh_trader_give(trader, &command, patience_ns);
}

/* Ask for another total quantity, price or stop price of an order. */
static inline int fh_trader_modify(struct fh_trader *trader, const char *client_id,
                                   double quantity, double price, double stop_price,
                                   int64_t patience_ns)
{
    struct fh_command command;
    int error = fh_command_init(&command, FH_MODIFY, client_id, NULL);
    command.quantity = quantity;
    command.price = price;
    command.stop_price = stop_price;
    return error ? error : fh_trader_give(trader, &command, patience_ns);
}

/* Ask for an order to be taken out. */
static inline int fh_trader_cancel(struct fh_trader *trader, const char *client_id,
                                   int64_t patience_ns)
{
    struct fh_command command;
    int error = fh_command_init(&command, FH_CANCEL, client_id, NULL);
    return error ? error : fh_trader_give(trader, &command, patience_ns);
}

/* Ask for all orders to be taken out, of *symbol* or, if that is NULL, of all; the name by
   which it is answered if it expires goes to *id*, of FH_ID_BYTES + 1 bytes. */
static inline int fh_trader_cancel_all(struct fh_trader *trader, const char *symbol,
                                       int64_t patience_ns, char *id)
{
    struct fh_command command;
    fh_trader_next_id(trader, id);
    int error = fh_command_init(&command, FH_CANCEL_ALL, id, symbol);
    return error ? error : fh_trader_give(trader, &command, patience_ns);
}

/* Ask to be told again what an order is by now, say after FH_E_GONE. */
static inline int fh_trader_resolve(struct fh_trader *trader, const char *client_id,
                                    int64_t patience_ns)
{
    struct fh_command command;
    int error = fh_command_init(&command, FH_RESOLVE, client_id, NULL);
    return error ? error : fh_trader_give(trader, &command, patience_ns);
}

#ifdef __cplusplus
}
#endif

#endif
