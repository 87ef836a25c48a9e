/* Read a ring by the header that ships, spinning on the next slot:
 *
 *     ./one_way DIRECTORY NAME COUNT
 *
 * Prints "ready", then for each record the ns from its recv_ns to here and the looks that
 * were in vain before it: the receiver was waiting if there were some.
 */
#include "feedhandler.h"

#include <inttypes.h>
#include <stdlib.h>

int main(int argc, char **argv)
{
    static struct fh_segment segment;
    struct fh_ring ring;
    struct fh_quote quote;
    if (argc != 4)
        return 2;
    size_t count = strtoull(argv[3], NULL, 10), taken = 0;
    int64_t(*found)[2] = (int64_t(*)[2])calloc(count, sizeof *found);
    int error = fh_attach(&segment, argv[1], argv[2], "quotes", FH_ONLY_ME);
    if (!error)
        error = fh_ring_bind(&ring, &segment, FH_QUOTES, FH_START_NEW, FH_LAP_HALF);
    if (error || !found) {
        fprintf(stderr, "%s\n", fh_error_text(error));
        return 1;
    }
    puts("ready");
    fflush(stdout);
    for (int64_t looks = 0, end_ns = fh_now_ns() + 20000000000; taken < count; looks++) {
        if (fh_ring_next(&ring, &quote) == FH_RECORD) {
            found[taken][0] = fh_now_ns() - quote.recv_ns;
            found[taken++][1] = looks;
            looks = -1;
        } else {
            fh_relax();
            if (looks % 65536 == 65535 && fh_now_ns() > end_ns)
                break;
        }
    }
    for (size_t i = 0; i < taken; i++)
        printf("%" PRId64 " %" PRId64 "\n", found[i][0], found[i][1]);
    return 0;
}
