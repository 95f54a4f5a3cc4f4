/*
 * plan_concurrent.c: what CREATE INDEX CONCURRENTLY IF NOT EXISTS needs on several shards: a shard where it was
 * interrupted has an INVALID index of that name, which Postgres would take for the one that is asked for.
 *
 * It is dropped first. An index that another session is building just now is INVALID as well: whoever builds has
 * locked the table, and this gives up. It does so ahead of deadlock_timeout, for the other waits for all transactions
 * that have begun, this one too.
 */
#include "router/plan_internal.h"

#define LOCK_TIMEOUT "500ms"

/* `quote` '"': a name, '\'': a literal. */
static const char *quote(struct arena *arena, const char *text, char quote)
{
    char *out = arena_alloc(arena, strlen(text) * 2 + 4), *to = out;
    bool escapes = quote == '\'' && strchr(text, '\\');
    if (escapes)
        *to++ = 'E';
    *to++ = quote;
    for (; *text; text++) {
        if (*text == quote || (escapes && *text == '\\'))
            *to++ = *text;
        *to++ = *text;
    }
    *to = quote;
    return out;
}

const char *plan_concurrently(const struct planner *p)
{
    static const char body[] =
        "DECLARE t regclass := pg_catalog.to_regclass(%s); n name := %s; i regclass; "
        "BEGIN FOR round IN 1..2 LOOP i := (SELECT x.indexrelid FROM pg_catalog.pg_index x"
        " JOIN pg_catalog.pg_class c ON c.oid = x.indexrelid"
        " WHERE x.indrelid = t AND c.relname = n AND NOT x.indisvalid); EXIT WHEN i IS NULL; "
        "IF round = 1 THEN PERFORM pg_catalog.set_config('lock_timeout', '" LOCK_TIMEOUT
        "', true); "
        "EXECUTE pg_catalog.format('LOCK TABLE %%s IN SHARE UPDATE EXCLUSIVE MODE', t); "
        "ELSE EXECUTE pg_catalog.format('DROP INDEX %%s', i); END IF; END LOOP; END";
    const struct statement *statement = p->statement;
    if (!statement->if_exists || !statement->name || !statement->nrelations ||
        p->plan->kind != PLAN_SCATTER)
        return NULL;
    const struct relation_ref *table = &statement->relations[0];
    const char *name = quote(p->arena, table->name, '"');
    if (table->schema)
        name = arena_printf(p->arena, "%s.%s", quote(p->arena, table->schema, '"'), name);
    const char *text = arena_printf(p->arena, body, quote(p->arena, name, '\''),
                                    quote(p->arena, statement->name, '\''));
    return arena_printf(p->arena, "DO %s", quote(p->arena, text, '\''));
}
