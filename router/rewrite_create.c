/* rewrite_create.c: CREATE TABLE AS without its rows, for the shards that do not keep them. */
#include "router/rewrite_internal.h"

/* The SELECT that has the INTO: the first of a set operation. */
static SelectStmt *first_select(SelectStmt *select)
{
    while (select->larg)
        select = select->larg;
    return select;
}

static CreateTableAsStmt *from_select_into(SelectStmt *select)
{
    SelectStmt *first = first_select(select);
    if (!first->intoClause)
        return NULL;
    CreateTableAsStmt *create = palloc0(sizeof *create);
    create->type = T_CreateTableAsStmt;
    create->query = (Node *)select;
    create->into = first->intoClause;
    create->objtype = OBJECT_TABLE;
    first->intoClause = NULL;
    return create;
}

static CreateTableAsStmt *open_create(struct rewriting *r, const char *text)
{
    CreateTableAsStmt *create = NULL;
    rewrite_open(r, text);
    if (r->statement && IsA(r->statement, CreateTableAsStmt))
        create = (CreateTableAsStmt *)r->statement;
    else if (r->statement && IsA(r->statement, SelectStmt))
        create = from_select_into((SelectStmt *)r->statement);
    return create;
}

bool rewrite_no_data(const char *text, struct arena *arena, struct shard_query *out)
{
    struct rewriting r;
    CreateTableAsStmt *create = open_create(&r, text);
    if (!create)
        return rewrite_abandon(&r);
    create->into->skipData = true;
    r.statement = (Node *)create;
    return rewrite_close(&r, arena, out);
}

bool rewrite_create_as(const char *text, struct arena *arena, struct shard_query *out)
{
    struct rewriting r;
    CreateTableAsStmt *create = open_create(&r, text);
    if (!create)
        return rewrite_abandon(&r);
    r.statement = (Node *)create;
    return rewrite_close(&r, arena, out);
}
