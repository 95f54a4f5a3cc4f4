/* rewrite_create.c: CREATE TABLE AS without its rows, for the shards that do not keep them, or get them otherwise. */
#include "pgshunt/buffer.h"
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

/* ---- a table that is filled by INSERTs ---- */

static const char *insert_head(const RangeVar *table, struct arena *arena)
{
    struct buffer name = {0};
    if (table->schemaname) {
        rewrite_put_name(&name, table->schemaname);
        buffer_append(&name, ".", 1);
    }
    rewrite_put_name(&name, table->relname);
    const char *head = arena_printf(arena, "INSERT INTO %.*s ", (int)buffer_length(&name),
                                    (const char *)buffer_head(&name));
    buffer_release(&name);
    return head;
}

/* Any relation is in the way, as it is for the server. */
static const char *exists_query(const RangeVar *table, struct arena *arena)
{
    const char *schema = table->schemaname ? rewrite_literal(table->schemaname, arena)
                                           : "pg_catalog.current_schema()";
    return arena_printf(arena,
                        "SELECT pg_catalog.count(*) > 0 FROM pg_catalog.pg_class AS c"
                        " JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace"
                        " WHERE c.relname = %s AND n.nspname = %s",
                        rewrite_literal(table->relname, arena), schema);
}

static void take_names(const CreateTableAsStmt *stmt, struct arena *arena,
                       struct rewrite_create *create)
{
    const List *names = stmt->into->colNames;
    create->names = arena_array(arena, const char *, list_length(names) + 1);
    for (int i = 0; i < list_length(names); i++)
        create->names[create->nnames++] = arena_strdup(arena, strVal(list_nth(names, i)));
}

static bool only_made(const char *text, struct arena *arena, struct shard_query *out)
{
    struct rewriting r;
    CreateTableAsStmt *stmt = open_create(&r, text);
    if (!stmt)
        return rewrite_abandon(&r);
    stmt->into->skipData = true;
    stmt->if_not_exists = false;
    r.statement = (Node *)stmt;
    return rewrite_close(&r, arena, out);
}

bool rewrite_create_parts(const char *text, struct arena *arena, struct rewrite_create *create)
{
    struct rewriting r;
    CreateTableAsStmt *stmt = open_create(&r, text);
    if (!stmt)
        return rewrite_abandon(&r);
    create->head = insert_head(stmt->into->rel, arena);
    create->lenient = stmt->if_not_exists;
    create->exists = stmt->if_not_exists ? exists_query(stmt->into->rel, arena) : NULL;
    take_names(stmt, arena, create);
    stmt->into->skipData = true;
    r.statement = (Node *)stmt;
    return rewrite_close(&r, arena, &create->without) && only_made(text, arena, &create->made);
}
