/* rewrite_change.c: changes taken apart into what finds the rows, what takes them away and what inserts them. */
#include "pgshunt/buffer.h"
#include "pgshunt/change.h"
#include "router/rewrite_internal.h"

#include <stdio.h>
#include <string.h>

/* Stands for the rows in an INSERT that is cut there. */
#define ROWS_MARK "pgshunt_rows"

static void *new_node(size_t size, NodeTag tag)
{
    Node *node = palloc0(size);
    node->type = tag;
    return node;
}

static Node *string_node(const char *text)
{
    return (Node *)makeString(pstrdup(text));
}

bool rewrite_finds_sublink(Node *node, void *context)
{
    if (!node)
        return false;
    return IsA(node, SubLink) || pgtree_children(node, rewrite_finds_sublink, context);
}

/* ---- several texts of one statement ---- */

bool rewrite_all(struct rewriting *r, Node **trees, struct shard_query **out, int count,
                 struct arena *arena)
{
    PgQueryProtobuf packed[REWRITE_MAX_TEXTS];
    bool ok = true;
    for (int i = 0; i < count; i++) {
        r->statement = trees[i];
        packed[i] = rewrite_pack(r);
    }
    for (int i = 0; i < count; i++) {
        r->statement = trees[i];
        ((RawStmt *)linitial(r->parsed.tree))->stmt = trees[i];
        ok &= rewrite_text(r, packed[i], arena, out[i]);
    }
    return ok;
}

Node *rewrite_marked_values(void)
{
    SelectStmt *values = new_node(sizeof *values, T_SelectStmt);
    A_Const *mark = new_node(sizeof *mark, T_A_Const);
    mark->val.sval = *makeString(pstrdup(ROWS_MARK));
    mark->location = -1;
    values->valuesLists = list_make1(list_make1(mark));
    return (Node *)values;
}

bool rewrite_cut_rows(struct arena *arena, const char **head, struct shard_query *tail)
{
    static const char mark[] = "VALUES ('" ROWS_MARK "')";
    const char *found = strstr(tail->sql, mark);
    if (!found)
        return false;
    *head = arena_strndup(arena, tail->sql, (size_t)(found - tail->sql));
    tail->sql = arena_strdup(arena, found + sizeof mark - 1);
    return true;
}

/* ---- INSERT ---- */

bool rewrite_insert_source(const char *text, struct arena *arena, struct shard_query *out)
{
    struct rewriting r;
    rewrite_open(&r, text);
    InsertStmt *insert =
        r.statement && IsA(r.statement, InsertStmt) ? (InsertStmt *)r.statement : NULL;
    if (!insert || !insert->selectStmt || !IsA(insert->selectStmt, SelectStmt))
        return rewrite_abandon(&r);
    SelectStmt *select = (SelectStmt *)insert->selectStmt;
    if (insert->withClause && select->withClause)
        return rewrite_abandon(&r);
    if (insert->withClause)
        select->withClause = insert->withClause;
    r.statement = (Node *)select;
    return rewrite_close(&r, arena, out);
}

bool rewrite_insert_frame(const char *text, struct rewrite_frame *frame, struct arena *arena)
{
    struct rewriting r;
    rewrite_open(&r, text);
    InsertStmt *insert =
        r.statement && IsA(r.statement, InsertStmt) ? (InsertStmt *)r.statement : NULL;
    if (!insert || rewrite_finds_sublink((Node *)insert->onConflictClause, NULL) ||
        rewrite_finds_sublink((Node *)insert->returningList, NULL))
        return rewrite_abandon(&r);
    insert->withClause = NULL;
    insert->selectStmt = rewrite_marked_values();
    if (frame->schema && !insert->relation->schemaname)
        insert->relation->schemaname = pstrdup(frame->schema);
    frame->updates = insert->onConflictClause && insert->onConflictClause->targetList;
    return rewrite_close(&r, arena, &frame->tail) &&
           rewrite_cut_rows(arena, &frame->head, &frame->tail);
}

/* ---- UPDATE of a key ---- */

static Node *cast_to(Node *arg, const char *schema, const char *type)
{
    TypeCast *cast = new_node(sizeof *cast, T_TypeCast);
    TypeName *name = new_node(sizeof *name, T_TypeName);
    if (schema)
        name->names = lappend(name->names, string_node(schema));
    name->names = lappend(name->names, string_node(type));
    name->typemod = -1;
    name->location = cast->location = -1;
    cast->arg = arg;
    cast->typeName = name;
    return (Node *)cast;
}

static Node *cast_to_key(Node *arg, enum key_type type)
{
    switch (type) {
    case KEY_BIGINT:
        return cast_to(arg, "pg_catalog", "int8");
    case KEY_UUID:
        return cast_to(arg, NULL, "uuid");
    case KEY_TEXT:
        break;
    }
    return arg;
}

static const char *visible(const RangeVar *table)
{
    return table->alias ? table->alias->aliasname : table->relname;
}

static Node *column_of(const char *alias, const char *name)
{
    ColumnRef *ref = new_node(sizeof *ref, T_ColumnRef);
    ref->fields =
        alias ? list_make2(string_node(alias), string_node(name)) : list_make1(string_node(name));
    ref->location = -1;
    return (Node *)ref;
}

static Node *column(const RangeVar *table, const char *name)
{
    return column_of(visible(table), name);
}

static Node *operation(A_Expr_Kind kind, const char *name, Node *left, Node *right)
{
    A_Expr *op = new_node(sizeof *op, T_A_Expr);
    op->kind = kind;
    op->name = list_make1(string_node(name));
    op->lexpr = left;
    op->rexpr = right;
    op->location = -1;
    return (Node *)op;
}

static ResTarget *result(Node *value, const char *name)
{
    ResTarget *target = new_node(sizeof *target, T_ResTarget);
    target->val = value;
    target->name = name ? pstrdup(name) : NULL;
    target->location = -1;
    return target;
}

Node *rewrite_partition_row(const char *alias)
{
    return operation(AEXPR_OP, "||", cast_to(column_of(alias, "tableoid"), NULL, "text"),
                     cast_to(column_of(alias, "ctid"), NULL, "text"));
}

/* What tells a row from all others: in a partitioned table rows of two partitions may have one ctid. */
static Node *identity(const struct schema_relation *relation, const RangeVar *table)
{
    return relation->kind == 'p' ? rewrite_partition_row(visible(table)) : column(table, "ctid");
}

static Node *is_listed(const struct rewrite_move *move, const RangeVar *table, Node *where)
{
    ParamRef *list = new_node(sizeof *list, T_ParamRef);
    list->number = move->list + 1;
    list->location = -1;
    Node *any = operation(AEXPR_OP_ANY, "=", identity(move->relation, table), (Node *)list);
    if (!where)
        return any;
    BoolExpr *both = new_node(sizeof *both, T_BoolExpr);
    both->boolop = AND_EXPR;
    both->location = -1;
    if (IsA(where, BoolExpr) && ((BoolExpr *)where)->boolop == AND_EXPR)
        both->args = lappend(list_copy(((BoolExpr *)where)->args), any);
    else
        both->args = list_make2(where, any);
    return (Node *)both;
}

/* The value assigned to the column; NULL: none. *bad: it cannot be had as an expression of its own. */
static Node *assigned(const UpdateStmt *update, const char *name, bool *bad)
{
    Node *found = NULL;
    for (int i = 0; i < list_length(update->targetList); i++) {
        ResTarget *target = list_nth(update->targetList, i);
        if (strcmp(target->name, name) != 0)
            continue;
        *bad |= found || target->indirection;
        found = target->val;
        if (!found || !IsA(found, MultiAssignRef))
            continue;
        const MultiAssignRef *part = (const MultiAssignRef *)found;
        if (IsA(part->source, RowExpr) &&
            part->colno <= list_length(((RowExpr *)part->source)->args))
            found = list_nth(((RowExpr *)part->source)->args, part->colno - 1);
        else
            *bad = true;
    }
    return found;
}

/* A literal or a parameter takes its type from the column. */
static bool is_untyped(const Node *value)
{
    if (IsA(value, ParamRef))
        return true;
    const A_Const *constant = (const A_Const *)value;
    return IsA(value, A_Const) && (constant->isnull || IsA(&constant->val.node, String));
}

/* NULL: it is no expression that can stand alone. What nothing is assigned to stays as it is. */
static Node *new_key(const struct rewrite_move *move, const UpdateStmt *update, unsigned part)
{
    bool bad = false;
    Node *key = assigned(update, move->keys[part], &bad);
    if (bad || (key && (IsA(key, SetToDefault) || rewrite_finds_sublink(key, NULL))))
        return NULL;
    return key ? key : column(update->relation, move->keys[part]);
}

static Node *look_for_rows(const struct rewrite_move *move, const UpdateStmt *update, Node **keys)
{
    SelectStmt *select = new_node(sizeof *select, T_SelectStmt);
    LockingClause *lock = new_node(sizeof *lock, T_LockingClause);
    RangeVar *of = new_node(sizeof *of, T_RangeVar);
    const RangeVar *table = update->relation;
    Node *row = identity(move->relation, table);
    if (move->relation->kind != 'p')
        row = cast_to(row, NULL, "text");
    select->targetList = list_make1(result(row, NULL));
    for (unsigned i = 0; i < move->nkeys; i++)
        select->targetList =
            lappend(select->targetList,
                    result(cast_to(cast_to_key(keys[i], move->types[i]), NULL, "text"), NULL));
    select->fromClause = list_concat(list_make1((void *)table), update->fromClause);
    select->whereClause = update->whereClause;
    of->relname = pstrdup(visible(table));
    of->inh = true;
    of->relpersistence = 'p';
    of->location = -1;
    lock->lockedRels = list_make1(of);
    lock->strength = LCS_FORUPDATE;
    lock->waitPolicy = LockWaitBlock;
    select->lockingClause = list_make1(lock);
    return (Node *)select;
}

static Node *update_in_place(const struct rewrite_move *move, const UpdateStmt *update)
{
    UpdateStmt *stay = palloc0(sizeof *stay);
    *stay = *update;
    stay->whereClause = is_listed(move, update->relation, update->whereClause);
    return (Node *)stay;
}

static Node *take_away(const struct rewrite_move *move, const UpdateStmt *update, List *values)
{
    DeleteStmt *go = new_node(sizeof *go, T_DeleteStmt);
    go->relation = update->relation;
    go->usingClause = update->fromClause;
    go->whereClause = is_listed(move, update->relation, update->whereClause);
    go->returningList = values;
    return (Node *)go;
}

static Node *insert_again(const UpdateStmt *update, List *columns)
{
    InsertStmt *insert = new_node(sizeof *insert, T_InsertStmt);
    insert->relation = palloc0(sizeof(RangeVar));
    *insert->relation = *update->relation;
    insert->relation->inh = true;
    insert->cols = columns;
    insert->selectStmt = rewrite_marked_values();
    insert->returningList = update->returningList;
    insert->override = OVERRIDING_SYSTEM_VALUE;
    return (Node *)insert;
}

/* The new row, column by column: what it is, and where. What DEFAULT makes, or the table, is left out. */
static bool new_row(struct rewrite_move *move, const UpdateStmt *update, struct arena *arena,
                    List **values, List **columns)
{
    const struct schema_relation *relation = move->relation;
    bool bad = false;
    move->untyped = arena_array(arena, bool, relation->ncolumns);
    for (unsigned k = 0; k < move->nkeys; k++)
        move->positions[k] = -1;
    for (int i = 0; i < relation->ncolumns && !bad; i++) {
        const char *name = relation->columns[i].name;
        Node *value = assigned(update, name, &bad);
        if (relation->columns[i].generated || (value && IsA(value, SetToDefault)))
            continue;
        for (unsigned k = 0; k < move->nkeys; k++)
            if (strcmp(name, move->keys[k]) == 0)
                move->positions[k] = move->ncolumns;
        move->untyped[move->ncolumns++] = value && is_untyped(value);
        *values = lappend(*values, result(value ? value : column(update->relation, name), NULL));
        *columns = lappend(*columns, result(NULL, name));
    }
    for (unsigned k = 0; k < move->nkeys; k++)
        bad |= move->positions[k] < 0;
    return !bad;
}

static bool is_movable(const struct rewriting *r)
{
    const UpdateStmt *update = (const UpdateStmt *)r->statement;
    return r->statement && IsA(r->statement, UpdateStmt) && !update->withClause &&
           !(update->fromClause && update->returningList) &&
           !rewrite_finds_sublink((Node *)update->returningList, NULL) &&
           !(update->whereClause && IsA(update->whereClause, CurrentOfExpr));
}

bool rewrite_move(const char *text, struct rewrite_move *move, struct arena *arena)
{
    struct rewriting r;
    List *values = NIL, *columns = NIL;
    Node *keys[SHARDMAP_MAX_PARTS];
    rewrite_open(&r, text);
    if (!is_movable(&r))
        return rewrite_abandon(&r);
    UpdateStmt *update = (UpdateStmt *)r.statement;
    for (unsigned k = 0; k < move->nkeys; k++) {
        keys[k] = new_key(move, update, k);
        if (!keys[k])
            return rewrite_abandon(&r);
    }
    if (!new_row(move, update, arena, &values, &columns))
        return rewrite_abandon(&r);
    r.nparams = move->list + 1;
    Node *trees[] = {look_for_rows(move, update, keys), update_in_place(move, update),
                     take_away(move, update, values), insert_again(update, columns)};
    struct shard_query *out[] = {&move->look, &move->stay, &move->go, &move->tail};
    bool ok =
        rewrite_all(&r, trees, out, 4, arena) && rewrite_cut_rows(arena, &move->head, &move->tail);
    rewrite_abandon(&r);
    return ok;
}

/* ---- UPDATE and DELETE of rows that are found elsewhere ---- */

#define VALUES_ALIAS "pgshunt_values"

/* What UPDATE and DELETE have in common. */
struct apart {
    RangeVar *table;
    List *from, *with_values;
    Node *where;
    List *returning;
    WithClause *with;
    List *set;     /* UPDATE */
    List *columns; /* names of the values */
};

static bool open_apart(Node *statement, struct apart *a)
{
    if (statement && IsA(statement, UpdateStmt)) {
        UpdateStmt *update = (UpdateStmt *)statement;
        *a = (struct apart){.table = update->relation,
                            .from = update->fromClause,
                            .where = update->whereClause,
                            .returning = update->returningList,
                            .with = update->withClause};
        return true;
    }
    if (!statement || !IsA(statement, DeleteStmt))
        return false;
    DeleteStmt *delete = (DeleteStmt *)statement;
    *a = (struct apart){.table = delete->relation,
                        .from = delete->usingClause,
                        .where = delete->whereClause,
                        .returning = delete->returningList,
                        .with = delete->withClause};
    return true;
}

/* `*` is the table's columns, and not those of the values. */
static List *own_columns(const struct apart *a)
{
    List *list = NIL;
    for (int i = 0; i < list_length(a->returning); i++) {
        ResTarget *target = copyObjectImpl(list_nth(a->returning, i));
        ColumnRef *ref = (ColumnRef *)target->val;
        if (IsA(target->val, ColumnRef) && list_length(ref->fields) == 1 &&
            IsA(linitial(ref->fields), A_Star))
            ref->fields = list_make2(string_node(visible(a->table)), linitial(ref->fields));
        list = lappend(list, target);
    }
    return list;
}

/* A value that is the same wherever it stands. */
static bool is_plain(const Node *value)
{
    return IsA(value, A_Const) || IsA(value, ParamRef) || IsA(value, SetToDefault);
}

static bool set_values(const UpdateStmt *update, struct apart *a)
{
    bool bad = false;
    for (int i = 0; i < list_length(update->targetList) && !bad; i++) {
        const char *name = ((ResTarget *)list_nth(update->targetList, i))->name;
        Node *value = assigned(update, name, &bad);
        if (bad)
            return false;
        if (!is_plain(value)) {
            char number[16];
            snprintf(number, sizeof number, "pgshunt_%d", i + 1);
            a->columns = lappend(a->columns, string_node(number));
            a->with_values = lappend(a->with_values, result(value, NULL));
            value = column_of(VALUES_ALIAS, number);
        }
        a->set = lappend(a->set, result(value, name));
    }
    return !bad;
}

/* A row that several partners match is changed once, by any of them. */
static Node *find_rows(const struct apart *a)
{
    SelectStmt *select = new_node(sizeof *select, T_SelectStmt);
    select->distinctClause =
        list_make2(column(a->table, CHANGE_SHARD), column(a->table, CHANGE_ROW));
    select->targetList = list_concat(list_make2(result(column(a->table, CHANGE_SHARD), NULL),
                                                result(column(a->table, CHANGE_ROW), NULL)),
                                     a->with_values);
    select->fromClause = list_concat(list_make1(a->table), a->from);
    select->whereClause = a->where;
    select->withClause = a->with;
    return (Node *)select;
}

static List *told_rows(const struct apart *a)
{
    RangeSubselect *rows = new_node(sizeof *rows, T_RangeSubselect);
    rows->subquery = rewrite_marked_values();
    rows->alias = new_node(sizeof *rows->alias, T_Alias);
    rows->alias->aliasname = pstrdup(VALUES_ALIAS);
    rows->alias->colnames = list_concat(list_make1(string_node(CHANGE_ROW)), a->columns);
    return list_make1(rows);
}

void rewrite_put_name(struct buffer *out, const char *name)
{
    buffer_append(out, "\"", 1);
    for (; *name; name++)
        buffer_append(out, *name == '"' ? "\"\"" : name, *name == '"' ? 2 : 1);
    buffer_append(out, "\"", 1);
}

/* Rows of inheritance children may have the same ctid: none of them is meant. */
static Node *is_own_row(const struct rewrite_apart *apart, const struct apart *a)
{
    struct buffer name = {0};
    A_Const *own = new_node(sizeof *own, T_A_Const);
    rewrite_put_name(&name, apart->relation->schema);
    buffer_append(&name, ".", 1);
    rewrite_put_name(&name, apart->relation->name);
    buffer_append(&name, "", 1);
    own->val.sval = *makeString(pstrdup(buffer_head(&name)));
    own->location = -1;
    buffer_release(&name);
    return operation(AEXPR_OP, "=", column(a->table, "tableoid"),
                     cast_to((Node *)own, "pg_catalog", "regclass"));
}

static Node *is_told(const struct rewrite_apart *apart, const struct apart *a)
{
    Node *row = operation(AEXPR_OP, "=", identity(apart->relation, a->table),
                          column_of(VALUES_ALIAS, CHANGE_ROW));
    if (apart->relation->kind == 'p')
        return row;
    BoolExpr *both = new_node(sizeof *both, T_BoolExpr);
    both->boolop = AND_EXPR;
    both->location = -1;
    both->args = list_make2(row, is_own_row(apart, a));
    return (Node *)both;
}

static Node *change_rows(const struct rewrite_apart *apart, const struct apart *a, bool update)
{
    RangeVar *table = palloc0(sizeof *table);
    *table = *a->table;
    table->schemaname = pstrdup(apart->relation->schema); /* not the one that is gathered */
    Node *where = is_told(apart, a);
    if (update) {
        UpdateStmt *change = new_node(sizeof *change, T_UpdateStmt);
        change->relation = table;
        change->targetList = a->set;
        change->fromClause = told_rows(a);
        change->whereClause = where;
        change->returningList = own_columns(a);
        return (Node *)change;
    }
    DeleteStmt *change = new_node(sizeof *change, T_DeleteStmt);
    change->relation = table;
    change->usingClause = told_rows(a);
    change->whereClause = where;
    change->returningList = own_columns(a);
    return (Node *)change;
}

bool rewrite_apart(const char *text, struct rewrite_apart *apart, struct arena *arena)
{
    struct rewriting r;
    struct apart a;
    rewrite_open(&r, text);
    bool update = r.statement && IsA(r.statement, UpdateStmt);
    if (!open_apart(r.statement, &a) || (a.from && a.returning) ||
        rewrite_finds_sublink((Node *)a.returning, NULL) ||
        (a.where && IsA(a.where, CurrentOfExpr)) ||
        (update && !set_values((UpdateStmt *)r.statement, &a)))
        return rewrite_abandon(&r);
    Node *trees[] = {find_rows(&a), change_rows(apart, &a, update)};
    struct shard_query *out[] = {&apart->source, &apart->tail};
    bool ok = rewrite_all(&r, trees, out, 2, arena) &&
              rewrite_cut_rows(arena, &apart->head, &apart->tail);
    rewrite_abandon(&r);
    return ok;
}
