/* plan_copy.c: COPY of tables and queries that concern several shards. */
#include <string.h>
#include <strings.h>

#include "router/plan_internal.h"

static struct copy_rows *new_rows(struct planner *p, const struct relation_ref *table)
{
    struct copy_rows *rows = arena_new(p->arena, struct copy_rows);
    rows->table = table ? table->name : "";
    rows->map = p->map;
    return rows;
}

static char single(const char *text, char otherwise)
{
    return text && text[0] && !text[1] ? text[0] : otherwise;
}

/* What the server refuses (two bytes for a delimiter) is read as if it were not said. */
static void read_options(const struct copy_options *said, struct copy_rows *rows)
{
    const char *format = said->format ? said->format : "text";
    bool csv = strcmp(format, "csv") == 0;
    rows->format = csv ? COPY_CSV : strcmp(format, "binary") == 0 ? COPY_BINARY : COPY_TEXT;
    rows->delimiter = single(said->delimiter, csv ? ',' : '\t');
    rows->quote = single(said->quote, '"');
    rows->escape = single(said->escape, rows->quote);
    rows->null = said->null ? said->null : csv ? "" : "\\N";
    rows->default_ = said->default_;
    rows->header = said->header && rows->format != COPY_BINARY;
    rows->encoding = said->encoding;
}

static bool has_name(const char **names, int count, const char *name)
{
    for (int i = 0; i < count; i++)
        if (same_name(names[i], name) || same_name(names[i], "*"))
            return true;
    return false;
}

static void scatter(struct planner *p, enum scatter_mode mode, const struct copy_rows *rows,
                    const char *reason)
{
    struct shard_set all = {.kind = SHARDS_ALL};
    plan_scatter(p, mode, &all, NULL);
    p->plan->copy = rows;
    p->plan->merge = NULL;
    p->plan->reason = reason;
}

static bool refuse_file(struct planner *p, const char *name)
{
    bool from = p->statement->kind == STMT_COPY_FROM;
    if (p->statement->copy_stdio)
        return false;
    plan_refuse(p,
                from ? "COPY it FROM STDIN, in psql with \\copy: the rows go to their shards."
                     : "COPY it TO STDOUT, in psql with \\copy: the rows of all shards come.",
                "COPY of \"%s\", which is on several shards, %s a file or program of the server",
                name, from ? "from" : "to");
    return true;
}

/* ---- FROM ---- */

/* The key among the named columns, or among all that COPY takes. -1: missing. */
static int key_position(const struct statement *statement, const struct schema_relation *relation,
                        const char *key, int *columns)
{
    int position = -1;
    *columns = statement->ncopy_columns;
    for (int i = 0; i < statement->ncopy_columns; i++)
        if (same_name(statement->copy_columns[i], key))
            position = i;
    if (statement->ncopy_columns)
        return position;
    for (int i = 0; i < relation->ncolumns; i++) {
        if (relation->columns[i].generated)
            continue;
        if (same_name(relation->columns[i].name, key))
            position = *columns;
        ++*columns;
    }
    return position;
}

/* Characters that cannot be told apart would tear rows, or give a key another shard. */
static bool refuse_encoding(struct planner *p, struct copy_rows *rows)
{
    const struct route_session *session = p->input->session;
    bool utf8 = !rows->encoding || strcasestr(rows->encoding, "utf8") ||
                strcasestr(rows->encoding, "utf-8") || strcasestr(rows->encoding, "unicode") ||
                strcasestr(rows->encoding, "sql_ascii");
    bool foreign = rows->encoding ? !utf8 : session && session->foreign_encoding;
    bool hides = rows->encoding ? copy_encoding_hides_ascii(rows->encoding)
                                : session && session->ascii_hides;
    rows->only_ascii_keys = foreign;
    if (!hides || rows->format == COPY_BINARY)
        return false;
    plan_refuse(p, "Send the rows in UTF-8: SET client_encoding = UTF8, or ENCODING 'UTF8'.",
                "COPY FROM into sharded table \"%s\" in this encoding is not supported",
                rows->table);
    return true;
}

static void refuse_option(struct planner *p, const char *name)
{
    plan_refuse(p, "Leave it away, or use INSERT.",
                "COPY option \"%s\", as it is said, is not known here: rows cannot be split by it",
                name);
}

static void read_key(const struct statement *statement, const struct schema_relation *relation,
                     const char *name, struct copy_rows *rows)
{
    const struct copy_options *said = statement->copy_options;
    const struct schema_column *column = schema_column(relation, name);
    rows->keys[rows->nkeys++] = (struct copy_key_column){
        .name = name,
        .field = key_position(statement, relation, name, &rows->columns),
        .type = column ? column->type_oid : 0,
        .force_null = has_name(said->force_null, said->nforce_null, name),
        .force_not_null = has_name(said->force_not_null, said->nforce_not_null, name),
    };
}

/* False: refused, some of them is missing. */
static bool read_keys(struct planner *p, const struct table_rule *rule,
                      const struct schema_relation *relation, struct copy_rows *rows)
{
    for (unsigned i = 0; i < table_rule_nkeys(rule); i++) {
        const char *name = table_rule_key(rule, i);
        read_key(p->statement, relation, name, rows);
        if (rows->keys[i].field >= 0)
            continue;
        plan_refuse_state(p, "23502",
                          "Name it in the column list: its value decides on which shard a row "
                          "lives. A default cannot.",
                          "COPY gives no value for \"%s\", %s of table \"%s\"", name,
                          rule->nparts ? "a column of the shard key" : "the shard key",
                          rows->table);
        return false;
    }
    return true;
}

static void copy_from(struct planner *p, const struct relation_ref *table, struct copy_rows *rows)
{
    const struct table_rule *rule = plan_rule(p, table->schema, table->name);
    const struct schema_relation *relation =
        p->schema ? schema_relation(p->schema, table->schema, table->name) : NULL;
    if (!relation) {
        plan_needs_schema(p, table->schema, table->name);
        plan_refuse(p, "Create the table, or name its schema.",
                    "the columns of sharded table \"%s\" are not known", table->name);
        return;
    }
    rows->keyspace = rule->keyspace;
    if (read_keys(p, rule, relation, rows) && !refuse_encoding(p, rows)) {
        scatter(p, SCATTER_COPY_IN, rows,
                arena_printf(p->arena, "rows by shard key %s.%s", table->name,
                             plan_key_words(p, rule)));
        plan_leave_out(p, rule->keyspace);
    }
}

static void copy_to(struct planner *p, const struct relation_ref *table, struct copy_rows *rows)
{
    scatter(p, SCATTER_COPY_OUT, rows, "rows of all shards");
    plan_leave_out(p, plan_rule(p, table->schema, table->name)->keyspace);
    plan_hide_copied(p, plan_relation(p, table->schema, table->name));
}

void plan_copy_sharded(struct planner *p, const struct relation_ref *table)
{
    const struct copy_options *said = p->statement->copy_options;
    struct copy_rows *rows = new_rows(p, table);
    read_options(said, rows);
    if (refuse_file(p, table->name))
        return;
    if (said->unknown)
        refuse_option(p, said->unknown);
    else if (p->statement->kind == STMT_COPY_FROM)
        copy_from(p, table, rows);
    else
        copy_to(p, table, rows);
}

/* A column that a row may leave to its default, where that would make the copies differ; NULL: none. */
static const char *differing_default(struct planner *p, const struct relation_ref *table)
{
    const struct statement *statement = p->statement;
    const struct schema_relation *relation =
        p->schema ? schema_relation(p->schema, table->schema, table->name) : NULL;
    bool all = statement->ncopy_columns == 0, some = statement->copy_options->default_ != NULL;
    if (!relation)
        plan_needs_schema(p, table->schema, table->name);
    for (int i = 0; relation && i < relation->ncolumns; i++) {
        const struct schema_column *column = &relation->columns[i];
        if (column->default_differs &&
            (some ||
             !(all || has_name(statement->copy_columns, statement->ncopy_columns, column->name))))
            return column->name;
    }
    return NULL;
}

void plan_copy_reference(struct planner *p, const struct relation_ref *table)
{
    struct copy_rows *rows = new_rows(p, table);
    const char *differs = differing_default(p, table);
    if (differs)
        plan_refuse_default(p, differs, table->name);
    else if (!refuse_file(p, table->name))
        scatter(p, SCATTER_COPY_IN, rows, "reference table: every shard");
}

/* ---- of a query ---- */

/* Each shard's rows, one shard's behind the other's, are the answer: nothing is left to do with them. */
static bool is_plain_sum(const struct planner *p, const struct statement *inner)
{
    const struct plan *plan = p->plan;
    const struct merge_spec *merge = plan->merge;
    if (plan->mode != SCATTER_ROWS || merge->group || merge->distinct || merge->nsort ||
        merge->hidden || merge->limit >= 0 || merge->offset || merge->row_source ||
        merge->limit_param || merge->offset_param)
        return false;
    for (int i = 0; i < plan->nqueries; i++)
        if (!same_name(plan->queries[i].sql, inner->text))
            return false;
    return true;
}

/* Not said, or one character, which is not among the bad ones. */
static bool is_one_but(const char *text, const char *bad)
{
    return !text || (text[0] && !text[1] && (unsigned char)text[0] < 128 && !strchr(bad, text[0]));
}

static bool has_any(const char *text, char a, char b)
{
    return strchr(text, '\r') || strchr(text, '\n') || (a && strchr(text, a)) ||
           (b && strchr(text, b));
}

/* Whether nothing is to be said against these options, for rows of which the shards know nothing but the
 * query: what is wrong with others a server has to tell, which is asked in a gather. */
static bool can_encode(const struct planner *p, const struct copy_options *said)
{
    const char *format = said->format ? said->format : "text";
    bool csv = strcmp(format, "csv") == 0, text = strcmp(format, "text") == 0;
    struct copy_rows rows = {0};
    if (said->unknown || said->odd || said->encoding || said->default_ ||
        (p->input->session && p->input->session->ascii_hides))
        return false;
    if (!csv && (said->quote || said->escape || said->force_quote_all))
        return false;
    if (!csv && !text)
        return strcmp(format, "binary") == 0 && !said->delimiter && !said->null && !said->header;
    read_options(said, &rows);
    return is_one_but(said->delimiter,
                      csv ? "\r\n" : "\r\n\\.abcdefghijklmnopqrstuvwxyz0123456789") &&
           is_one_but(said->quote, "\r\n") && is_one_but(said->escape, "\r\n") &&
           !(csv && rows.delimiter == rows.quote) &&
           !has_any(rows.null, rows.delimiter, csv ? rows.quote : '\0');
}

void plan_copy_query(struct planner *p)
{
    const struct statement *outer = p->statement, *inner = outer->inner;
    struct plan *plan = p->plan;
    plan_inner(p);
    if (plan->kind != PLAN_SCATTER || plan->mode == SCATTER_GATHER)
        return;
    if (outer->copy_stdio && !outer->copy_options->unknown && is_plain_sum(p, inner)) {
        struct copy_rows *rows = new_rows(p, NULL);
        read_options(outer->copy_options, rows);
        for (int i = 0; i < plan->nqueries; i++)
            plan->queries[i] =
                (struct shard_query){.shard = plan->queries[i].shard, .sql = outer->text};
        plan->mode = SCATTER_COPY_OUT;
        plan->copy = rows;
        plan->merge = NULL;
        return;
    }
    if (outer->copy_stdio && plan->mode == SCATTER_ROWS && can_encode(p, outer->copy_options)) {
        struct copy_rows *rows = new_rows(p, NULL);
        read_options(outer->copy_options, rows);
        rows->force_quote = outer->copy_options->force_quote_all;
        plan->copy = rows;
        return;
    }
    plan_refuse_shape(p, "COPY over several shards");
    if (inner->query)
        plan_gather(p, inner->query);
}
