/* rewrite_fill.c: an INSERT of VALUES with values in the place of defaults. */
#include "router/rewrite_internal.h"

static void *new_node(size_t size, NodeTag tag)
{
    Node *node = palloc0(size);
    node->type = tag;
    return node;
}

static Node *constant(const char *text)
{
    A_Const *node = new_node(sizeof *node, T_A_Const);
    node->location = -1;
    node->isnull = !text;
    if (text)
        node->val.sval = *makeString(pstrdup(text));
    return (Node *)node;
}

static ResTarget *named_column(const char *name)
{
    ResTarget *column = new_node(sizeof *column, T_ResTarget);
    column->name = pstrdup(name);
    column->location = -1;
    return column;
}

/* Without a list the values are those of the table's first columns. */
static bool name_columns(InsertStmt *insert, const struct rewrite_fill *fill, int width)
{
    if (insert->cols || width > fill->relation->ncolumns)
        return insert->cols != NIL;
    for (int i = 0; i < width; i++)
        insert->cols = lappend(insert->cols, named_column(fill->relation->columns[i].name));
    return true;
}

static bool adds_columns(const struct rewrite_fill *fill)
{
    for (int i = 0; i < fill->ncolumns; i++)
        if (fill->columns[i].position < 0)
            return true;
    return false;
}

static void fill_row(const struct rewrite_fill *fill, int number, List **row)
{
    for (int i = 0; i < fill->ncolumns; i++) {
        const struct rewrite_fill_column *column = &fill->columns[i];
        Node *value = constant(column->values[number]);
        if (column->position < 0)
            *row = lappend(*row, value);
        else if (fill->user_values || IsA(list_nth(*row, column->position), SetToDefault))
            lfirst(list_nth_cell(*row, column->position)) = value;
    }
}

/* INSERT ... DEFAULT VALUES has no list of values. */
static List *values_of(InsertStmt *insert)
{
    if (!insert->selectStmt) {
        SelectStmt *values = new_node(sizeof *values, T_SelectStmt);
        values->valuesLists = list_make1(NIL);
        insert->selectStmt = (Node *)values;
    }
    if (!IsA(insert->selectStmt, SelectStmt))
        return NIL;
    return ((SelectStmt *)insert->selectStmt)->valuesLists;
}

static bool fits(const struct rewrite_fill *fill, List *rows)
{
    if (list_length(rows) != fill->nrows)
        return false;
    for (int i = 0; i < fill->nrows; i++)
        for (int k = 0; k < fill->ncolumns; k++)
            if (fill->columns[k].position >= list_length(list_nth(rows, i)))
                return false;
    return true;
}

bool rewrite_fill(const char *text, const struct rewrite_fill *fill, struct arena *arena,
                  struct shard_query *out)
{
    struct rewriting r;
    rewrite_open(&r, text);
    if (!r.statement || !IsA(r.statement, InsertStmt))
        return rewrite_abandon(&r);
    InsertStmt *insert = (InsertStmt *)r.statement;
    List *rows = values_of(insert);
    if (!fits(fill, rows))
        return rewrite_abandon(&r);
    int width = list_length(linitial(rows));
    if (adds_columns(fill) && width && !name_columns(insert, fill, width))
        return rewrite_abandon(&r);
    for (int i = 0; i < fill->nrows; i++)
        fill_row(fill, i, (List **)&lfirst(list_nth_cell(rows, i)));
    for (int i = 0; i < fill->ncolumns; i++)
        if (fill->columns[i].position < 0)
            insert->cols = lappend(insert->cols, named_column(fill->columns[i].name));
    if (fill->always)
        insert->override = OVERRIDING_SYSTEM_VALUE;
    else if (fill->user_values)
        insert->override = OVERRIDING_NOT_SET;
    return rewrite_close(&r, arena, out);
}
