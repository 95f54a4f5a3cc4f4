/* rewrite_with.c: a SELECT of what a change in its WITH returns, taken apart and put together again. */
#include "router/rewrite_internal.h"

#include <stdlib.h>
#include <string.h>

struct renaming {
    const char *schema, *name; /* what is looked for; schema NULL: without one */
    const char *to_schema, *to_name;
    const char * not ; /* no relation may have this name; NULL: any may */
    bool bad;
};

static bool is_named(const RangeVar *range, const char *schema, const char *name)
{
    if (strcmp(range->relname, name) != 0)
        return false;
    return schema ? range->schemaname && strcmp(range->schemaname, schema) == 0
                  : !range->schemaname;
}

static void rename_range(RangeVar *range, struct renaming *renaming)
{
    if (renaming->not &&strcmp(range->relname, renaming->not ) == 0)
        renaming->bad = true;
    if (!is_named(range, renaming->schema, renaming->name))
        return;
    if (!range->alias) {
        range->alias = palloc0(sizeof *range->alias);
        range->alias->type = T_Alias;
        range->alias->aliasname = pstrdup(range->relname);
    }
    range->schemaname = renaming->to_schema ? pstrdup(renaming->to_schema) : NULL;
    range->relname = pstrdup(renaming->to_name);
}

static bool rename_ranges(Node *node, void *context)
{
    struct renaming *renaming = context;
    if (!node || renaming->bad)
        return false;
    renaming->bad |= IsA(node, WithClause);
    if (IsA(node, RangeVar))
        rename_range((RangeVar *)node, renaming);
    return pgtree_children(node, rename_ranges, context);
}

/* The SELECT and its only CTE. */
static SelectStmt *open_with(struct rewriting *r, const char *text, const char *name,
                             CommonTableExpr **cte)
{
    rewrite_open(r, text);
    SelectStmt *select =
        r->statement && IsA(r->statement, SelectStmt) ? (SelectStmt *)r->statement : NULL;
    if (!select || !select->withClause || list_length(select->withClause->ctes) != 1)
        return NULL;
    *cte = linitial(select->withClause->ctes);
    return strcmp((*cte)->ctename, name) == 0 ? select : NULL;
}

bool rewrite_with_parts(const char *text, const struct rewrite_with *with, struct arena *arena,
                        struct shard_query *change, struct shard_query *query)
{
    struct rewriting r;
    CommonTableExpr *cte = NULL;
    SelectStmt *select = open_with(&r, text, with->cte, &cte);
    struct renaming renaming = {NULL, with->cte, with->schema, with->table, with->table, false};
    if (!select)
        return rewrite_abandon(&r);
    select->withClause = NULL;
    rename_ranges((Node *)select, &renaming);
    if (renaming.bad)
        return rewrite_abandon(&r);
    Node *trees[] = {cte->ctequery, (Node *)select};
    struct shard_query *out[] = {change, query};
    bool ok = rewrite_all(&r, trees, out, 2, arena);
    rewrite_abandon(&r);
    return ok;
}

static bool number_params(Node *node, void *context)
{
    const struct shard_query *from = context;
    if (!node)
        return false;
    if (IsA(node, ParamRef)) {
        ParamRef *param = (ParamRef *)node;
        if (param->number > 0 && param->number <= from->nparams)
            param->number = from->params[param->number - 1] + 1;
    }
    return pgtree_children(node, number_params, context);
}

/* The statement of a text, in the memory of what is open, with the parameters' own numbers. */
static Node *read_part(const struct shard_query *part)
{
    PgQueryInternalParsetreeAndError parsed = pgtree_parse(part->sql);
    free(parsed.stderr_buffer);
    if (parsed.error) {
        pg_query_free_error(parsed.error);
        return NULL;
    }
    Node *statement = ((RawStmt *)linitial(parsed.tree))->stmt;
    if (part->params)
        number_params(statement, (void *)part);
    return statement;
}

bool rewrite_with_whole(const char *text, const struct rewrite_with *with,
                        const struct shard_query *change, const struct shard_query *query,
                        struct arena *arena, struct shard_query *out)
{
    struct rewriting r;
    CommonTableExpr *cte = NULL;
    SelectStmt *select = open_with(&r, text, with->cte, &cte);
    struct renaming renaming = {with->schema, with->table, NULL, with->cte, NULL, false};
    Node *changing = select ? read_part(change) : NULL,
         *reading = changing ? read_part(query) : NULL;
    if (!reading || !IsA(reading, SelectStmt))
        return rewrite_abandon(&r);
    rename_ranges(reading, &renaming);
    if (renaming.bad)
        return rewrite_abandon(&r);
    cte->ctequery = changing;
    ((SelectStmt *)reading)->withClause = select->withClause;
    r.statement = reading;
    return rewrite_close(&r, arena, out);
}
