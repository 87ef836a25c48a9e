"""The records that travel through shared memory, and what their bits mean.

A record's first word belongs to the ring that carries it (`seq`); a producer leaves it
zero. Every `_ns` is UTC: CLOCK_MONOTONIC plus the fixed offset of the segment's meta
page, so it never steps and turns back into monotonic time exactly.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t


cpdef enum Flags:
    LIVE = 0x01                 # in sequence with the venue, and sound
    STALE = 0x02                # may not be what the venue has now
    GAP = 0x04                  # updates were lost; stays until the next snapshot
    CROSSED = 0x08              # bid >= ask: what the venue says, but not LIVE
    NO_BID = 0x10
    NO_ASK = 0x20
    SNAPSHOT = 0x40             # this record came from a snapshot
    MARKET_CLOSED = 0x80        # only where the venue tells

cdef enum:
    EPOCH_SHIFT = 8             # bits 8-15 of Quote.flags and Trade.flags: session epoch mod 256


cpdef enum TradeFlags:
    BUY = 0x01                  # the aggressor bought
    SELL = 0x02                 # the aggressor sold
    ID_CUT = 0x04               # the venue's id is longer than 16 bytes


cpdef enum PrivateFlags:        # of OrderEvent, Fill, Account and Notice
    ORDER_ID_CUT = 0x01         # a cut id names nothing at the venue
    CLIENT_ID_CUT = 0x02
    OWN_ID_CUT = 0x04           # of the fill or the notice itself
    TEXT_CUT = 0x08             # some other text
    REPLAYED = 0x10             # told again after a subscription: not news
    UNTRIGGERED = 0x20          # a stop order that still waits for its price


cpdef enum OrderSide:
    SIDE_UNKNOWN = 0            # this and other zeros: a word that the API does not list
    SIDE_BUY = 1
    SIDE_SELL = 2


cpdef enum OrderType:
    TYPE_UNKNOWN = 0
    MARKET = 1
    LIMIT = 2
    STOP = 3
    STOP_LIMIT = 4


cpdef enum TimeInForce:
    TIF_UNKNOWN = 0
    GTC = 1
    IOC = 2
    FOK = 3
    DAY = 4


cpdef enum OrderStatus:         # ours: the venue has no word for the first two
    STATUS_UNKNOWN = 0          # it may be in the market or not
    PENDING = 1                 # sent, or about to be, and not answered
    ACCEPTED = 2                # in the market
    PARTIALLY_FILLED = 3
    FILLED = 4                  # this and higher: nothing more will happen to the order
    CANCELED = 5
    EXPIRED = 6
    REJECTED = 7                # by the venue, or before it was sent: see EventCause


cpdef enum OrderOperation:
    OPERATION_NONE = 0
    OPERATION_SUBMIT = 1
    OPERATION_CANCEL = 2
    OPERATION_MODIFY = 3


cpdef enum PendingFlags:        # operations without an outcome
    SUBMIT_PENDING = 0x01
    CANCEL_PENDING = 0x02
    MODIFY_PENDING = 0x04
    SUBMIT_UNKNOWN = 0x08       # beside its PENDING: no answer need come any more
    CANCEL_UNKNOWN = 0x10
    MODIFY_UNKNOWN = 0x20


cpdef enum EventCause:          # what an order event tells; of the last four nothing was sent
    CAUSE_UNKNOWN = 0
    CAUSE_SENT = 1
    CAUSE_ACK = 2
    CAUSE_UPDATE = 3
    CAUSE_FILL = 4
    CAUSE_REFUSED = 5           # an operation was; unless it was the submit, the order goes on
    CAUSE_LOST = 6              # what became of something is unknown now
    CAUSE_ADOPTED = 7           # somebody else's, or of an earlier process of ours
    CAUSE_SETTLED = 8           # ended on better knowledge than the venue's word
    CAUSE_EXPIRED = 9           # a command past its deadline, or of another epoch
    CAUSE_GUARDED = 10          # our own limits
    CAUSE_THROTTLED = 11        # the venue's limits
    CAUSE_NOT_CONNECTED = 12


cpdef enum EventReason:         # from 2 on the codes of the venue's error frames
    REASON_NONE = 0
    REASON_OTHER = 1
    REASON_AUTHENTICATION_REQUIRED = 2
    REASON_INVALID_CREDENTIALS = 3
    REASON_INVALID_PARAMETER = 4
    REASON_INVALID_ACTION = 5
    REASON_RATE_LIMIT_EXCEEDED = 6
    REASON_INSUFFICIENT_FUNDS = 7
    REASON_ORDER_NOT_FOUND = 8
    REASON_DUPLICATE_CLIENT_ORDER_ID = 9
    REASON_MARKET_CLOSED = 10
    REASON_INTERNAL_ERROR = 11


cpdef enum AccountKind:
    BALANCE = 1
    POSITION = 2


cpdef enum NoticeKind:
    SYSTEM = 1
    USER = 2
    ALERT = 3


cpdef enum CommandKind:
    SUBMIT = 1
    MODIFY = 2
    CANCEL = 3
    CANCEL_ALL = 4
    RESOLVE = 5                 # tell again what the order is by now


cpdef enum Interval:
    M1 = 0
    M5 = 1
    M15 = 2
    H1 = 3
    H4 = 4
    D1 = 5
    W1 = 6

cpdef enum:
    NO_INSTRUMENT = 0xFFFF      # of private records: not in the directory

cdef enum:
    INTERVALS = 7
    ID_BYTES = 32               # text fields are not terminated when all bytes are used


cdef struct Quote:              # 64 bytes
    uint64_t seq                # the slot's own word: n + 1 when record n is complete
    int64_t venue_ns            # the venue's clock; 0 if it sends none
    int64_t recv_ns             # our clock, when the bytes were read
    uint16_t instrument         # index into the directory
    uint16_t flags
    uint32_t sequence           # low 32 bits of the venue's sequence
    double bid_price            # the wire's JSON number, unchanged; NaN beside NO_BID
    double bid_size
    double ask_price
    double ask_size


cdef struct Trade:              # 64 bytes
    uint64_t seq
    int64_t venue_ns            # the venue's trade_time
    int64_t recv_ns
    uint16_t instrument
    uint16_t flags              # TradeFlags, session epoch in bits 8-15
    char trade_id[16]           # not terminated when all 16 are used
    uint32_t reserved
    double price
    double size


cdef struct Ticker:             # 128 bytes; NaN where the venue does not know
    uint64_t seq
    int64_t venue_ns
    int64_t recv_ns
    uint16_t instrument
    uint16_t flags
    uint32_t reserved
    double last_price
    double last_size
    double bid
    double ask
    double volume
    double daily_change
    double daily_change_percent
    double high
    double low
    double open
    uint64_t pad[2]


# Private records stand alone: the symbol is in them beside its number, for what the
# handler has no market data of. NaN where the venue does not say, and never infinite.

cdef struct OrderEvent:         # 192 bytes; one order as it is after a change
    uint64_t seq
    int64_t venue_ns            # the message's timestamp; 0 where nothing came from it
    int64_t recv_ns
    int64_t created_ns          # 0 if the venue sends none
    int64_t updated_ns
    uint16_t instrument         # NO_INSTRUMENT if the directory does not have it
    uint16_t flags              # PrivateFlags, session epoch in bits 8-15
    uint8_t side                # OrderSide
    uint8_t type                # OrderType
    uint8_t status              # OrderStatus
    uint8_t tif                 # TimeInForce
    char order_id[32]
    char client_id[32]
    char symbol[32]
    double quantity
    double filled
    double remaining
    double price
    double stop_price
    uint8_t pending             # PendingFlags
    uint8_t cause               # EventCause
    uint16_t reason             # EventReason: of the answer, or of the order's end
    uint8_t operation           # OrderOperation that the event answers
    uint8_t pad[3]


cdef struct Fill:               # 192 bytes
    uint64_t seq
    int64_t venue_ns            # the venue's trade_time
    int64_t recv_ns
    uint16_t instrument
    uint16_t flags
    uint8_t side                # of our order
    uint8_t pad[3]
    char trade_id[32]           # together with order_id the key of a fill
    char order_id[32]
    char client_id[32]          # empty while it is not known whose it is
    char symbol[32]
    double price
    double quantity
    double fee
    char fee_currency[8]


cdef struct Account:            # 128 bytes; one row of an account update
    uint64_t seq
    int64_t venue_ns
    int64_t recv_ns
    uint16_t instrument         # of a position
    uint16_t flags
    uint8_t kind                # AccountKind
    uint8_t pad
    uint16_t rows_left          # of the same update, after this one
    char name[32]               # a balance's currency, a position's symbol
    double available            # these three of a balance
    double reserved
    double total
    double quantity             # these four of a position; short is negative
    double average_price
    double unrealized_pnl
    double realized_pnl
    uint64_t pad_account


cdef struct Notice:             # 1024 bytes
    uint64_t seq
    int64_t venue_ns
    int64_t recv_ns
    int64_t triggered_ns        # an alert's triggered_at, otherwise 0
    uint16_t instrument         # of an alert
    uint16_t flags
    uint8_t kind                # NoticeKind
    uint8_t pad[3]
    double threshold            # these two of an alert
    double current_value
    char id[32]
    char level[16]              # as the venue says it: it may have others than it lists
    char symbol[32]
    char condition[32]
    char title[128]             # an alert's name
    char link[216]
    char message[512]           # UTF-8, never cut within a character


# What an engine asks of the handler. All that a kind has no use for is empty: 0 in codes
# and texts, NaN in numbers.

cdef struct Command:            # 192 bytes
    uint64_t seq
    uint64_t writer_epoch       # of the handler that is asked: that of its board
    int64_t deadline_ns         # by the clock of that board's records; not sent after it
    int64_t sent_ns
    uint8_t kind                # CommandKind
    uint8_t side                # OrderSide; this and the two next for SUBMIT alone
    uint8_t type                # OrderType
    uint8_t tif                 # TimeInForce; TIF_UNKNOWN leaves it to the venue
    uint32_t reserved
    char client_id[32]          # of the order; of CANCEL_ALL, a name for its answer
    char order_id[32]           # the venue's, for an order without a client_id
    char symbol[32]             # of SUBMIT; of CANCEL_ALL, if not all symbols
    double quantity
    double price
    double stop_price
    uint64_t pad_command[4]


cdef struct Candle:             # 64 bytes
    int64_t start_ns            # of the bucket, inclusive; 0 before the first candle
    int64_t end_ns              # exclusive
    int64_t recv_ns
    double open
    double high
    double low
    double close
    double volume


cdef struct LevelsView:
    # One book's sides, lent for the length of a call. Levels are sorted so that the best is
    # last: rank r (0 = best) of the bids is bid_prices[bid_count - 1 - r].
    const double *bid_prices
    const double *bid_sizes
    const double *ask_prices
    const double *ask_sizes
    int32_t bid_count
    int32_t ask_count
    int32_t bid_changed         # the best rank that this change touched; INT32_MAX: none
    int32_t ask_changed
