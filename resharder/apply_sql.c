/* apply_sql.c: the statements by which changes are carried out. */
#include "resharder/apply_internal.h"

/* Whether the statement sets the column (an INSERT: has it). */
bool apply_is_parameter(const struct apply_relation *relation, const struct apply_shape *shape,
                        int column)
{
    const struct apply_column *of = &relation->columns[column];
    if (of->left_out || shape->kind == APPLY_DELETE || shape->kind == APPLY_DELETE_FULL)
        return false;
    if (shape->kind == APPLY_INSERT)
        return true;
    bool found_by = shape->kind == APPLY_UPDATE && of->locator;
    return shape->present[column] && !of->always && !found_by;
}

static bool is_full(enum apply_kind kind)
{
    return kind == APPLY_UPDATE_FULL || kind == APPLY_DELETE_FULL;
}

/* Whether the row is found by the column. */
static bool finds(const struct apply_relation *relation, const struct apply_shape *shape,
                  int column)
{
    const struct apply_column *of = &relation->columns[column];
    if (shape->kind == APPLY_INSERT)
        return false;
    return is_full(shape->kind) ? !of->left_out : of->locator;
}

void apply_sql_types(const struct apply_relation *relation, const struct apply_shape *shape,
                     uint32_t *types)
{
    for (int i = 0; i < relation->ncolumns; i++)
        if (apply_is_parameter(relation, shape, i))
            *types++ = relation->columns[i].type;
    for (int i = 0; i < relation->ncolumns; i++)
        if (finds(relation, shape, i))
            *types++ = relation->columns[i].type;
}

void apply_sql_array_types(const struct apply_relation *relation, const struct apply_shape *shape,
                           uint32_t *types)
{
    for (int i = 0; i < relation->ncolumns; i++)
        if (apply_is_parameter(relation, shape, i))
            *types++ = relation->columns[i].array;
    for (int i = 0; i < relation->ncolumns; i++)
        if (finds(relation, shape, i))
            *types++ = relation->columns[i].array;
}

/* ($1, $2), ($3, $4) */
static void put_values(struct buffer *out, int rows, int nparams)
{
    for (int row = 0; row < rows; row++)
        for (int i = 0; i < nparams; i++)
            buffer_printf(out, "%s$%d%s",
                          i     ? ", "
                          : row ? ", ("
                                : "(",
                          row * nparams + i + 1, i + 1 < nparams ? "" : ")");
}

/* SELECT unnest($1) AS v1, unnest($2) AS v2: as many rows as the arrays have elements, in order. */
static void put_arrays(struct buffer *out, int nparams)
{
    for (int i = 1; i <= nparams; i++)
        buffer_printf(out, "%sunnest($%d) AS v%d", i > 1 ? ", " : "SELECT ", i, i);
}

/* (VALUES ...) AS v(v1, v2) */
static void put_rows(struct buffer *out, int rows, int nparams)
{
    if (!rows) {
        buffer_printf(out, "(");
        put_arrays(out, nparams);
        buffer_printf(out, ") AS v");
        return;
    }
    buffer_printf(out, "(VALUES ");
    put_values(out, rows, nparams);
    buffer_printf(out, ") AS v(");
    for (int i = 0; i < nparams; i++)
        buffer_printf(out, "%sv%d", i ? ", " : "", i + 1);
    buffer_printf(out, ")");
}

/* ---- INSERT ---- */

static void put_conflict(const struct apply_relation *relation, struct buffer *out)
{
    int set = 0;
    if (!relation->nprimary)
        return;
    buffer_printf(out, " ON CONFLICT (");
    for (int i = 0, listed = 0; i < relation->ncolumns; i++)
        if (relation->columns[i].primary)
            buffer_printf(out, "%s%s", listed++ ? ", " : "", relation->columns[i].quoted);
    buffer_printf(out, ") DO ");
    for (int i = 0; i < relation->ncolumns; i++) {
        const struct apply_column *column = &relation->columns[i];
        if (!column->primary && !column->left_out && !column->always)
            buffer_printf(out, "%s%s = EXCLUDED.%s", set++ ? ", " : "UPDATE SET ", column->quoted,
                          column->quoted);
    }
    if (!set)
        buffer_printf(out, "NOTHING");
}

static void put_insert(const struct apply_relation *relation, const struct apply_shape *shape,
                       int rows, struct buffer *out)
{
    buffer_printf(out, "INSERT INTO %s (", relation->quoted);
    for (int i = 0, listed = 0; i < relation->ncolumns; i++)
        if (apply_is_parameter(relation, shape, i))
            buffer_printf(out, "%s%s", listed++ ? ", " : "", relation->columns[i].quoted);
    buffer_printf(out, ") OVERRIDING SYSTEM VALUE ");
    if (rows) {
        buffer_printf(out, "VALUES ");
        put_values(out, rows, shape->nparams);
    } else {
        put_arrays(out, shape->nparams);
    }
    if (shape->over)
        put_conflict(relation, out);
}

/* ---- UPDATE and DELETE ---- */

/* SET a = $1, or a = v.v1. Returns the number of the parameter behind. */
static int put_set(const struct apply_relation *relation, const struct apply_shape *shape,
                   const char *parameter, struct buffer *out)
{
    int number = 1;
    for (int i = 0; i < relation->ncolumns; i++)
        if (apply_is_parameter(relation, shape, i)) {
            buffer_printf(out, "%s%s = %s%d", number > 1 ? ", " : " SET ",
                          relation->columns[i].quoted, parameter, number);
            number++;
        }
    return number;
}

static void put_found(const struct apply_relation *relation, const struct apply_shape *shape,
                      const char *parameter, int number, struct buffer *out)
{
    const char *word = " WHERE";
    for (int i = 0; i < relation->ncolumns; i++)
        if (finds(relation, shape, i)) {
            buffer_printf(out, "%s t.%s %s %s%d", word, relation->columns[i].quoted,
                          relation->columns[i].equals, parameter, number++);
            word = " AND";
        }
}

/* The one row, or one of several that are the same to the last bit; by the key's index where there is one. */
static void put_found_full(const struct apply_relation *relation, const struct apply_shape *shape,
                           int first, struct buffer *out)
{
    bool partitioned = relation->table && relation->table->partitioned;
    buffer_printf(out, partitioned ? " WHERE (t.tableoid, t.ctid) = (SELECT x.tableoid, x.ctid"
                                   : " WHERE t.ctid = (SELECT x.ctid");
    buffer_printf(out, " FROM %s AS x WHERE ", relation->quoted);
    for (unsigned k = 0; k < relation->nkey; k++) {
        int number = first;
        for (int i = 0; i < relation->key[k]; i++)
            number += finds(relation, shape, i);
        const struct apply_column *column = &relation->columns[relation->key[k]];
        buffer_printf(out, "x.%s %s $%d AND ", column->quoted, column->equals, number);
    }
    for (int i = 0, listed = 0; i < relation->ncolumns; i++)
        if (finds(relation, shape, i))
            buffer_printf(out, "%sx.%s", listed++ ? ", " : "ROW(", relation->columns[i].quoted);
    buffer_printf(out,
                  ")::record *= ROW("); /* as images: bare ROWs would be compared part by part */
    for (int i = 0, listed = 0; i < relation->ncolumns; i++)
        if (finds(relation, shape, i))
            buffer_printf(out, "%s$%d", listed++ ? ", " : "", first++);
    buffer_printf(out, ")::record LIMIT 1)");
}

/* ... and nothing is where the row is to go. */
static void put_absent(const struct apply_relation *relation, const struct apply_shape *shape,
                       struct buffer *out)
{
    int number = 1;
    const char *word = "WHERE";
    buffer_printf(out, " AND NOT EXISTS (SELECT FROM %s AS x ", relation->quoted);
    for (int i = 0; i < relation->ncolumns; i++) {
        if (!apply_is_parameter(relation, shape, i))
            continue;
        if (relation->columns[i].locator) {
            buffer_printf(out, "%s x.%s %s $%d", word, relation->columns[i].quoted,
                          relation->columns[i].equals, number);
            word = " AND";
        }
        number++;
    }
    buffer_printf(out, ")");
}

static void put_change(const struct apply_relation *relation, const struct apply_shape *shape,
                       int rows, struct buffer *out)
{
    bool deletes = shape->kind == APPLY_DELETE || shape->kind == APPLY_DELETE_FULL;
    bool many = rows != 1;
    int first = 1;
    buffer_printf(out, deletes ? "DELETE FROM %s AS t" : "UPDATE %s AS t", relation->quoted);
    if (!deletes)
        first = put_set(relation, shape, many ? "v.v" : "$", out);
    if (many) {
        buffer_printf(out, deletes ? " USING " : " FROM ");
        put_rows(out, rows, shape->nparams);
    }
    if (is_full(shape->kind))
        put_found_full(relation, shape, first, out);
    else
        put_found(relation, shape, many ? "v.v" : "$", first, out);
    if (shape->kind == APPLY_MOVE_ABSENT)
        put_absent(relation, shape, out);
}

void apply_sql(const struct apply_relation *relation, const struct apply_shape *shape, int rows,
               struct buffer *out)
{
    buffer_clear(out);
    if (shape->kind == APPLY_INSERT)
        put_insert(relation, shape, rows, out);
    else
        put_change(relation, shape, rows, out);
    buffer_append(out, "", 1);
}
