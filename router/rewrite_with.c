/* rewrite_with.c: a statement with changes in its WITH, taken apart and put together again. */
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

static bool names_cte(Node *node, void *name)
{
    if (!node)
        return false;
    if (IsA(node, RangeVar))
        return is_named((RangeVar *)node, NULL, name);
    return pgtree_children(node, names_cte, name);
}

/* The place of its WITH; NULL: it is no statement that has one. */
static WithClause **with_of(Node *statement)
{
    if (IsA(statement, SelectStmt))
        return &((SelectStmt *)statement)->withClause;
    if (IsA(statement, UpdateStmt))
        return &((UpdateStmt *)statement)->withClause;
    return IsA(statement, DeleteStmt) ? &((DeleteStmt *)statement)->withClause : NULL;
}

/* The WITH of the statement, if these are its CTEs. */
static WithClause *open_with(struct rewriting *r, const char *text, const struct rewrite_with *with)
{
    rewrite_open(r, text);
    WithClause **place = r->statement ? with_of(r->statement) : NULL;
    if (!place || !*place || list_length((*place)->ctes) != with->nctes)
        return NULL;
    for (int i = 0; i < with->nctes; i++) {
        const CommonTableExpr *cte = list_nth((*place)->ctes, i);
        if (strcmp(cte->ctename, with->ctes[i].name) != 0)
            return NULL;
    }
    return *place;
}

/* A table for each of the first `count` CTEs that the part names. */
static bool put_tables(Node *part, const struct rewrite_with *with, int count)
{
    struct renaming any = {.bad = false};
    for (int i = 0; i < count && !any.bad; i++) {
        const struct rewrite_cte *cte = &with->ctes[i];
        struct renaming renaming = {NULL, cte->name, cte->schema, cte->table, cte->table, false};
        if (!names_cte(part, (void *)cte->name))
            continue;
        if (!cte->table)
            return false;
        rename_ranges(part, &renaming);
        any.bad |= renaming.bad;
    }
    return !any.bad;
}

static bool has_with(Node *node, void *context)
{
    if (!node)
        return false;
    return IsA(node, WithClause) || pgtree_children(node, has_with, context);
}

bool rewrite_with_parts(const char *text, const struct rewrite_with *with, struct arena *arena,
                        struct shard_query *parts)
{
    struct rewriting r;
    Node *trees[REWRITE_MAX_TEXTS];
    struct shard_query *out[REWRITE_MAX_TEXTS];
    WithClause *clause = open_with(&r, text, with);
    if (!clause)
        return rewrite_abandon(&r);
    *with_of(r.statement) = NULL;
    bool ok = true;
    for (int i = 0; i <= with->nctes && ok; i++) {
        trees[i] = i < with->nctes ? ((CommonTableExpr *)list_nth(clause->ctes, i))->ctequery
                                   : r.statement;
        out[i] = &parts[i];
        ok = !has_with(trees[i], NULL) && put_tables(trees[i], with, i);
    }
    ok = ok && rewrite_all(&r, trees, out, with->nctes + 1, arena);
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

/* What a change gives where there is nothing to change: its columns, and no rows. */
static Node *returns_nothing(Node *change)
{
    bool insert = IsA(change, InsertStmt), update = IsA(change, UpdateStmt);
    RangeVar *table = insert   ? ((InsertStmt *)change)->relation
                      : update ? ((UpdateStmt *)change)->relation
                               : ((DeleteStmt *)change)->relation;
    List *columns = insert   ? ((InsertStmt *)change)->returningList
                    : update ? ((UpdateStmt *)change)->returningList
                             : ((DeleteStmt *)change)->returningList;
    SelectStmt *select = palloc0(sizeof *select);
    A_Const *sides[2];
    A_Expr *never = palloc0(sizeof *never);
    for (int i = 0; i < 2; i++) {
        sides[i] = palloc0(sizeof *sides[i]);
        sides[i]->type = T_A_Const;
        sides[i]->val.ival.type = T_Integer;
        sides[i]->val.ival.ival = i;
        sides[i]->location = -1;
    }
    never->type = T_A_Expr;
    never->kind = AEXPR_OP;
    never->name = list_make1(makeString(pstrdup("=")));
    never->lexpr = (Node *)sides[0];
    never->rexpr = (Node *)sides[1];
    never->location = -1;
    select->type = T_SelectStmt;
    select->targetList = columns;
    select->fromClause = list_make1(table);
    select->whereClause = (Node *)never;
    return (Node *)select;
}

/* The part as it was planned, naming what it named. NULL: it cannot be read. */
static Node *take_part(const struct shard_query *part, const struct rewrite_with *with, int number,
                       const bool *named)
{
    Node *tree = read_part(part);
    for (int i = 0; tree && i < number; i++) {
        const struct rewrite_cte *cte = &with->ctes[i];
        struct renaming renaming = {cte->schema, cte->table, NULL, cte->name, NULL, false};
        if (!named[i])
            continue;
        rename_ranges(tree, &renaming);
        if (renaming.bad)
            return NULL;
    }
    return tree;
}

/* Which of the CTEs a part names. */
static void find_named(Node *part, const struct rewrite_with *with, int count, bool *named)
{
    for (int i = 0; i < with->nctes; i++)
        named[i] = i < count && names_cte(part, (void *)with->ctes[i].name);
}

bool rewrite_with_whole(const char *text, const struct rewrite_with *with,
                        const struct shard_query *const *parts, struct arena *arena,
                        struct shard_query *out)
{
    struct rewriting r;
    bool named[REWRITE_MAX_CTES];
    WithClause *clause = open_with(&r, text, with);
    List *left = NULL;
    for (int i = 0; clause && i < with->nctes; i++) {
        CommonTableExpr *cte = list_nth(clause->ctes, i);
        find_named(cte->ctequery, with, i, named);
        if (!parts[i] && !with->ctes[i].table)
            continue;
        cte->ctequery =
            parts[i] ? take_part(parts[i], with, i, named) : returns_nothing(cte->ctequery);
        if (!cte->ctequery)
            return rewrite_abandon(&r);
        left = lappend(left, cte);
    }
    if (!clause)
        return rewrite_abandon(&r);
    *with_of(r.statement) = NULL;
    find_named(r.statement, with, with->nctes, named);
    r.statement = take_part(parts[with->nctes], with, with->nctes, named);
    WithClause **place = r.statement ? with_of(r.statement) : NULL;
    if (!place)
        return rewrite_abandon(&r);
    clause->ctes = left;
    *place = left ? clause : NULL;
    return rewrite_close(&r, arena, out);
}
