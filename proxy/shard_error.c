/* shard_error.c: an error of one shard as the error of a statement on several. */
#include "proxy/shard_error.h"

static const char *keep(struct arena *arena, const char *text)
{
    return text ? arena_strdup(arena, text) : NULL;
}

struct pg_error shard_error_keep(struct arena *arena, const struct pg_error *error,
                                 const char *shard_name)
{
    struct pg_error kept = {
        .sqlstate = keep(arena, error->sqlstate),
        .message = keep(arena, error->message),
        .detail = keep(arena, error->detail),
        .hint = keep(arena, error->hint),
        .where = keep(arena, error->where),
        .schema = keep(arena, error->schema),
        .table = keep(arena, error->table),
        .column = keep(arena, error->column),
        .datatype = keep(arena, error->datatype),
        .constraint = keep(arena, error->constraint),
        .position = error->position,
    };
    if (shard_name)
        kept.detail = arena_printf(arena, "%s%sShard: %s.", kept.detail ? kept.detail : "",
                                   kept.detail ? "\n" : "", shard_name);
    return kept;
}
