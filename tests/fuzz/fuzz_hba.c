/* fuzz_hba.c: any bytes as a pg_hba.conf; what it becomes is matched with visitors. */
#include <netinet/in.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "pgshunt/hba.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void visit(const struct hba *hba, const struct sockaddr *address, int flags)
{
    struct hba_visitor visitor = {.user = "bob",
                                  .database = flags & 4 ? "bob" : "c",
                                  .address = address,
                                  .tls = flags & 1,
                                  .replication = flags & 2};
    enum hba_doubt doubt;
    const struct hba_rule *rule = hba_match(hba, &visitor, &doubt);
    visitor.roles = ",626f62,6d,";
    visitor.host = "db.x";
    rule = doubt == HBA_SURE ? rule : hba_match(hba, &visitor, &doubt);
    if (doubt == HBA_NEEDS_ROLES || doubt == HBA_NEEDS_HOST)
        abort();
    if (rule && (!rule->line || hba_method_name(rule->method)[0] == '?'))
        abort();
    if (rule && rule->method == HBA_CERT && !visitor.tls)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct sockaddr local = {.sa_family = AF_UNIX};
    struct sockaddr_in four = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(0x0a000001)};
    struct sockaddr_in6 six = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    struct arena arena;
    char error[1024];
    /* A fuzzer that opens files of its own choice finds other things than bugs. */
    if (size && (memchr(data, '@', size) || memmem(data, size, "include", 7)))
        return 0;
    arena_init(&arena);
    struct hba *hba =
        hba_parse(&arena, "hba", size ? (const char *)data : "", size, error, sizeof error);
    if (!hba && !error[0])
        abort();
    struct ident *ident =
        ident_parse(&arena, "ident", size ? (const char *)data : "", size, error, sizeof error);
    if (!ident && !error[0])
        abort();
    if (ident && ident_match(ident, "m", "ann@x", "ann", ",616e6e,") == IDENT_YES &&
        !ident_has_map(ident, "m"))
        abort();
    for (int flags = 0; hba && flags < 8; flags++) {
        visit(hba, &local, flags);
        visit(hba, (const struct sockaddr *)&four, flags);
        visit(hba, (const struct sockaddr *)&six, flags);
    }
    arena_free(&arena);
    return 0;
}
