/*
 * fuzz_shape.c: any bytes as SQL: what is taken by shape must be what parsing gives.
 *
 * The text goes in with other digits twice, so that its shape is known, then as it is.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "pgshunt/shape.h"
#include "tests/unit/statement_dump.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct buffer describe(const struct statement_list *list)
{
    struct buffer out = {0};
    const struct statement *s = list->count == 1 ? list->items[0] : NULL;
    if (!s || !s->query)
        abort();
    buffer_printf(&out, "%d %u %s %d %d ", (int)s->kind, s->facts, s->text, s->nrelations,
                  s->nfunctions);
    dump_query(&out, s->query);
    return out;
}

static void check(struct shape_table *table, const char *sql)
{
    struct shape *shape = shape_take(table, sql, strlen(sql));
    if (!shape)
        return;
    struct arena arena;
    arena_init(&arena);
    struct statement_list fresh = statement_parse(sql, &arena);
    struct buffer got = describe(&shape->list), wanted = describe(&fresh);
    if (buffer_length(&got) != buffer_length(&wanted) ||
        memcmp(buffer_head(&got), buffer_head(&wanted), buffer_length(&got)) != 0)
        abort();
    buffer_release(&got);
    buffer_release(&wanted);
    arena_free(&arena);
    shape_give(table, shape);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size > 4000)
        return 0;
    struct shape_table *table = shapes_create(1);
    char *sql = calloc(1, size + 1);
    if (size)
        memcpy(sql, data, size);
    for (int turn = 1; turn < 3; turn++) {
        for (char *p = sql; *p; p++)
            if (*p >= '0' && *p <= '9')
                *p = (char)('0' + (*p - '0' + turn) % 10);
        check(table, sql);
    }
    if (size)
        memcpy(sql, data, size);
    check(table, sql);
    free(sql);
    shapes_free(table);
    return 0;
}
