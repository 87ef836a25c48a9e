/*
 * An engine in C that gives commands to a handler:
 *
 *     ./trader DIRECTORY NAME say         one of each kind; prints their ids
 *     ./trader DIRECTORY NAME flood N     N orders as fast as the channel takes them
 *     ./trader DIRECTORY NAME burst N     orders without a pause, killed in N us by a timer
 *     ./trader DIRECTORY NAME left N      N cancels, then waits for the handler's end
 *     ./trader DIRECTORY NAME fork        is there a second trader, or one in a child?
 *
 * Compiles as C11 and as C++17.
 */
#include "feedhandler.h"

#include <sched.h>
#include <stdlib.h>
#include <sys/time.h>
#include <sys/wait.h>

static const int64_t SECOND = 1000000000;

static int fail(const char *what, int error)
{
    fprintf(stderr, "%s: %s\n", what, fh_error_text(error));
    return 1;
}

static int say(struct fh_trader *trader)
{
    char id[FH_ID_BYTES + 1], all[FH_ID_BYTES + 1], some[FH_ID_BYTES + 1];
    int error = fh_trader_submit(trader, "BTC-USD", FH_SIDE_SELL, FH_STOP_LIMIT, FH_DAY,
                                 2.0, 9.5, 9.75, SECOND, id);
    if (!error)
        error = fh_trader_modify(trader, id, 3.0, 11.0, FH_NOT_GIVEN, SECOND);
    if (!error)
        error = fh_trader_cancel(trader, id, SECOND);
    if (!error)
        error = fh_trader_cancel_all(trader, NULL, SECOND, all);
    if (!error)
        error = fh_trader_cancel_all(trader, "BTC-USD", SECOND, some);
    if (!error)
        error = fh_trader_resolve(trader, "mine", SECOND);
    if (error)
        return fail("say", error);
    printf("%s %s %s %d %d %d\n", id, all, some,
           fh_trader_cancel(trader, "123456789012345678901234567890123", SECOND),
           fh_trader_cancel(trader, "x", -1), fh_trader_cancel(trader, "x", 61 * SECOND));
    return 0;
}

/* Every field tells the order's number. */
static int flood(struct fh_trader *trader, unsigned long wanted)
{
    unsigned long number = 0, full = 0;
    char id[FH_ID_BYTES + 1], symbol[FH_SYMBOL_BYTES + 1];
    struct fh_command command;
    while (number < wanted) {
        snprintf(symbol, sizeof(symbol), "S%lu", number);
        snprintf(id, sizeof(id), "%lu", number);
        fh_command_init(&command, FH_SUBMIT, id, symbol);
        command.side = FH_SIDE_BUY;
        command.type = FH_STOP_LIMIT;
        command.quantity = (double)number + 1;
        command.price = (double)number + 2;
        command.stop_price = (double)number + 3;
        int error = fh_trader_give(trader, &command, 30 * SECOND);
        number += error == FH_OK;
        full += error == FH_E_FULL;
        if (error == FH_E_FULL)
            sched_yield();              /* the handler may have this core only */
        if (error && error != FH_E_FULL)
            return fail("flood", error);
    }
    printf("%lu %lu\n", number, full);
    return 0;
}

/* As little as can be between two publishes: death is to find us within one. */
static void burst(struct fh_trader *trader, unsigned long us)
{
    struct itimerval timer;
    struct fh_command command;
    char symbol[FH_SYMBOL_BYTES + 1];
    memset(&timer, 0, sizeof(timer));
    timer.it_value.tv_usec = (suseconds_t)us;
    setitimer(ITIMER_REAL, &timer, NULL);
    for (unsigned long number = 0;; number++) {
        snprintf(symbol, sizeof(symbol), "S%lu", number);
        fh_command_init(&command, FH_SUBMIT, symbol + 1, symbol);
        command.side = FH_SIDE_BUY;
        command.type = FH_STOP_LIMIT;
        command.quantity = (double)number + 1;
        command.price = (double)number + 2;
        command.stop_price = (double)number + 3;
        while (fh_trader_give(trader, &command, 30 * SECOND) != FH_OK)
            continue;
    }
}

static int left(struct fh_trader *trader, unsigned long wanted)
{
    char id[FH_ID_BYTES + 1];
    struct timespec nap = {0, 1000000};
    int error = FH_OK;
    for (unsigned long number = 0; number < wanted && !error; number++) {
        snprintf(id, sizeof(id), "left-%lu", number);
        error = fh_trader_cancel(trader, id, 30 * SECOND);
    }
    puts("given");
    fflush(stdout);
    while (getchar() != EOF)
        continue;
    for (int tries = 0; tries < 5000 && (!error || error == FH_E_FULL); tries++) {
        error = fh_trader_cancel(trader, "late", 30 * SECOND);
        nanosleep(&nap, NULL);
    }
    if (error != FH_E_GONE)
        return fail("left", error);
    struct fh_command command;
    while (fh_trader_expired(trader, &command))
        printf("%.*s ", FH_ID_BYTES, command.client_id);
    printf("%d %d\n", fh_trader_cancel(trader, "later", SECOND),
           fh_trader_expired(trader, &command));
    return 0;
}

static int in_child(struct fh_trader *trader, const char *directory, const char *name)
{
    static struct fh_trader second;
    int error = fh_trader_open(&second, directory, name, 64, 100);
    printf("%s\n", fh_error_text(error));
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        printf("%s\n", fh_error_text(fh_trader_cancel(trader, "child", SECOND)));
        fh_trader_close(trader);
        error = fh_trader_open(&second, directory, name, 64, 5000);
        if (!error)
            error = fh_trader_cancel(&second, "child", SECOND);
        printf("%s\n", fh_error_text(error));
        fflush(stdout);
        fh_trader_close(&second);
        _exit(0);
    }
    waitpid(child, NULL, 0);
    return fh_trader_cancel(trader, "parent", SECOND);
}

int main(int argc, char **argv)
{
    static struct fh_trader trader;
    unsigned long count = argc > 4 ? strtoul(argv[4], NULL, 10) : 0;
    if (argc < 4) {
        fputs("usage: trader DIRECTORY NAME say|flood|burst|left|fork [COUNT]\n", stderr);
        return 2;
    }
    int is_burst = strcmp(argv[3], "burst") == 0;
    int error = fh_trader_open(&trader, argv[1], argv[2], is_burst ? 4096 : 64, 2000);
    if (error)
        return fail("open", error);
    if (strcmp(argv[3], "say") == 0)
        error = say(&trader);
    else if (strcmp(argv[3], "flood") == 0)
        error = flood(&trader, count);
    else if (is_burst)
        burst(&trader, count);
    else if (strcmp(argv[3], "left") == 0)
        error = left(&trader, count);
    else
        error = in_child(&trader, argv[1], argv[2]);
    fh_trader_close(&trader);
    return error != 0;
}
