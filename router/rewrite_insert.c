/* rewrite_insert.c: INSERT ... VALUES with some of its rows. */
#include "router/rewrite_internal.h"

bool rewrite_insert(const char *text, const int *rows, int nrows, struct arena *arena,
                    struct shard_query *out)
{
    struct rewriting r;
    rewrite_open(&r, text);
    if (!r.statement || !IsA(r.statement, InsertStmt))
        return rewrite_abandon(&r);
    Node *source = ((InsertStmt *)r.statement)->selectStmt;
    if (!source || !IsA(source, SelectStmt))
        return rewrite_abandon(&r);
    SelectStmt *values = (SelectStmt *)source;
    List *kept = NIL;
    for (int i = 0; i < nrows; i++) {
        if (rows[i] >= list_length(values->valuesLists))
            return rewrite_abandon(&r);
        kept = lappend(kept, list_nth(values->valuesLists, rows[i]));
    }
    values->valuesLists = kept;
    return rewrite_close(&r, arena, out);
}
