/* rewrite_insert.c: INSERT ... VALUES taken apart into one statement for each shard. */
#include "router/rewrite_internal.h"

#include <stdlib.h>

/* DO NOTHING, and DO UPDATE ... WHERE, leave rows out of RETURNING. */
static bool returns_all(const InsertStmt *insert, bool updates)
{
    return !insert->onConflictClause || (updates && !insert->onConflictClause->whereClause);
}

/* The rows of each part; false: the text has other rows than the planner has seen. */
static bool split_lists(const SelectStmt *values, const struct rewrite_rows *rows, List **parts)
{
    if (list_length(values->valuesLists) != rows->nrows)
        return false;
    for (int i = 0; i < rows->nrows; i++)
        parts[rows->part[i]] = lappend(parts[rows->part[i]], list_nth(values->valuesLists, i));
    for (int i = 0; i < rows->nparts; i++)
        if (parts[i] == NIL)
            return false;
    return true;
}

bool rewrite_insert(const char *text, const struct rewrite_rows *rows, struct arena *arena,
                    struct shard_query *out, bool *whole)
{
    struct rewriting r;
    rewrite_open(&r, text);
    if (!r.statement || !IsA(r.statement, InsertStmt))
        return rewrite_abandon(&r);
    InsertStmt *insert = (InsertStmt *)r.statement;
    if (!insert->selectStmt || !IsA(insert->selectStmt, SelectStmt))
        return rewrite_abandon(&r);
    SelectStmt *values = (SelectStmt *)insert->selectStmt;
    List **parts = palloc0(sizeof(List *) * (size_t)rows->nparts);
    if (!split_lists(values, rows, parts))
        return rewrite_abandon(&r);
    *whole = returns_all(insert, insert->onConflictClause && insert->onConflictClause->targetList);
    /* All trees are packed before the first becomes text: that changes the memory context. */
    PgQueryProtobuf *packed = palloc0(sizeof(PgQueryProtobuf) * (size_t)rows->nparts);
    for (int i = 0; i < rows->nparts; i++) {
        values->valuesLists = parts[i];
        packed[i] = rewrite_pack(&r);
    }
    bool ok = true;
    for (int i = 0; i < rows->nparts; i++) {
        values->valuesLists = parts[i];
        ok &= rewrite_text(&r, packed[i], arena, &out[i]);
    }
    rewrite_abandon(&r);
    return ok;
}
