/* apply_relation.c: the source's tables as its stream describes them, compared with the target's. */
#include <stdlib.h>
#include <string.h>

#include "resharder/apply_internal.h"

/* ---- types of users ---- */

void apply_read_type(struct apply *apply, const struct pgoutput_message *message)
{
    struct apply_type *type = apply->types;
    while (type && type->oid != message->oid)
        type = type->next;
    if (!type) {
        type = mem_alloc(sizeof *type);
        type->oid = message->oid;
        type->next = apply->types;
        apply->types = type;
    }
    free(type->schema);
    free(type->name);
    type->schema = mem_strdup(*message->schema ? message->schema : "pg_catalog");
    type->name = mem_strdup(message->name);
}

static const struct apply_type *find_type(const struct apply *apply, uint32_t oid)
{
    const struct apply_type *type = apply->types;
    while (type && type->oid != oid)
        type = type->next;
    return type;
}

/* ---- relations ---- */

struct apply_relation *apply_find_relation(struct apply *apply, uint32_t oid)
{
    if (apply->last && apply->last->oid == oid)
        return apply->last;
    for (struct apply_relation *relation = apply->relations; relation; relation = relation->next)
        if (relation->oid == oid)
            return apply->last = relation;
    return NULL;
}

static void free_relation(struct apply_relation *relation)
{
    for (size_t i = 0; i < sizeof relation->batches / sizeof *relation->batches; i++) {
        buffer_release(&relation->batches[i].bytes);
        free(relation->batches[i].values);
    }
    arena_free(&relation->arena);
    free(relation);
}

void apply_free_relations(struct apply *apply)
{
    while (apply->relations) {
        struct apply_relation *relation = apply->relations;
        apply->relations = relation->next;
        free_relation(relation);
    }
    while (apply->types) {
        struct apply_type *type = apply->types;
        apply->types = type->next;
        free(type->schema);
        free(type->name);
        free(type);
    }
}

/* A new description replaces the old one; rows that wait are sent before. */
static bool forget(struct apply *apply, uint32_t oid)
{
    struct apply_relation *old = apply_find_relation(apply, oid);
    if (!old)
        return true;
    if (!apply_send_relation(apply, old) || !pipe_wait(&apply->target, 0))
        return apply_pipe_failed(apply, &apply->target, "target");
    struct apply_relation **link = &apply->relations;
    while (*link != old)
        link = &(*link)->next;
    *link = old->next;
    apply->last = NULL;
    free_relation(old);
    return true;
}

static int column_of(const struct apply_relation *relation, const char *name)
{
    for (int i = 0; i < relation->ncolumns; i++)
        if (strcmp(relation->columns[i].name, name) == 0)
            return i;
    return -1;
}

static struct apply_relation *new_relation(struct apply *apply,
                                           const struct pgoutput_message *message)
{
    struct apply_relation *relation = mem_alloc(sizeof *relation);
    arena_init(&relation->arena);
    relation->oid = message->oid;
    relation->schema =
        arena_strdup(&relation->arena, *message->schema ? message->schema : "pg_catalog");
    relation->name = arena_strdup(&relation->arena, message->name);
    relation->table = tables_find(apply->options.tables, relation->schema, relation->name);
    if (relation->table) {
        const struct apply_options *options = &apply->options;
        const struct keyspace *keyspace = relation->table->rule->keyspace;
        relation->source_keys = moves_need_keys(options->moves, keyspace, options->link.source);
        relation->target_keys = moves_need_keys(options->moves, keyspace, options->link.target);
    }
    relation->full = message->identity == 'f';
    relation->marker = -1;
    relation->ncolumns = message->ncolumns;
    relation->columns = arena_array(&relation->arena, struct apply_column, message->ncolumns + 1);
    for (int i = 0; i < message->ncolumns; i++)
        relation->columns[i].name = arena_strdup(&relation->arena, message->columns[i].name);
    relation->next = apply->relations;
    apply->relations = relation;
    return relation;
}

/* ---- the target's side ---- */

/* Of a domain, the stream tells what it is made of. The operator is that of the type's default B-tree class: the one its indexes find rows by, wherever it is. */
static const char columns_query[] =
    "SELECT a.attname, quote_ident(a.attname), a.atttypid, a.atttypmod, a.attgenerated <> '',"
    " a.attidentity = 'a', tn.nspname, b.typname, coalesce((SELECT format('OPERATOR(%I.%s)',"
    "   n.nspname, o.oprname) FROM pg_opclass c JOIN pg_amop p ON p.amopfamily = c.opcfamily"
    "   AND p.amoplefttype = c.opcintype AND p.amoprighttype = c.opcintype AND p.amopstrategy = 3"
    "   JOIN pg_operator o ON o.oid = p.amopopr JOIN pg_namespace n ON n.oid = o.oprnamespace"
    "   JOIN pg_am m ON m.oid = c.opcmethod WHERE m.amname = 'btree' AND c.opcdefault"
    "   AND c.opcintype = b.oid LIMIT 1), '='),"
    " format('%I.%I', rn.nspname, r.relname), CASE WHEN b.typcategory = 'A' THEN 0"
    "   ELSE (SELECT d.typarray FROM pg_type d WHERE d.oid = a.atttypid) END,"
    " format_type(a.atttypid, a.atttypmod),"
    " (SELECT count(*) FROM pg_index i WHERE i.indrelid IN (SELECT r.oid UNION"
    "   SELECT p.relid FROM pg_partition_tree(r.oid) p) AND (i.indisunique OR i.indisexclusion)"
    "   AND NOT i.indisprimary)"
    " FROM pg_class r JOIN pg_namespace rn ON rn.oid = r.relnamespace"
    " JOIN pg_attribute a ON a.attrelid = r.oid AND a.attnum > 0 AND NOT a.attisdropped"
    " JOIN pg_type b ON b.oid = (WITH RECURSIVE base(oid) AS (SELECT a.atttypid UNION ALL"
    "   SELECT t.typbasetype FROM base JOIN pg_type t ON t.oid = base.oid WHERE t.typtype = 'd')"
    "   SELECT base.oid FROM base JOIN pg_type t ON t.oid = base.oid WHERE t.typtype <> 'd')"
    " JOIN pg_namespace tn ON tn.oid = b.typnamespace"
    " WHERE rn.nspname = $1 AND r.relname = $2";

enum {
    NAME,
    QUOTED,
    TYPE,
    MODIFIER,
    GENERATED,
    ALWAYS,
    TYPE_SCHEMA,
    TYPE_NAME,
    EQUALS,
    TABLE,
    ARRAY,
    FORMATTED,
    UNIQUES
};

static bool is_true(const PGresult *rows, int row, int column)
{
    return PQgetvalue(rows, row, column)[0] == 't';
}

static int row_of(const PGresult *rows, const char *name)
{
    for (int i = 0; i < PQntuples(rows); i++)
        if (strcmp(PQgetvalue(rows, i, NAME), name) == 0)
            return i;
    return -1;
}

static bool same_type(const struct apply *apply, const struct pgoutput_column *column,
                      const PGresult *rows, int row)
{
    const struct apply_type *type = find_type(apply, column->type);
    if (column->modifier != (int32_t)strtol(PQgetvalue(rows, row, MODIFIER), NULL, 10))
        return false;
    if (!type)
        return column->type == (uint32_t)strtoul(PQgetvalue(rows, row, TYPE), NULL, 10);
    return strcmp(type->schema, PQgetvalue(rows, row, TYPE_SCHEMA)) == 0 &&
           strcmp(type->name, PQgetvalue(rows, row, TYPE_NAME)) == 0;
}

/* What DDL on the other side mends; that may be on its way. */
static bool misfit(struct apply *apply, const char *what, const struct apply_relation *relation,
                   const char *column)
{
    apply->failure.misfit = !apply->failure.error.text[0];
    return apply_problem(
        apply, "Make the same change of the table on the other side, too: it goes on then.",
        "column \"%s\" of %s.%s %s", column, relation->schema, relation->name, what);
}

/* A stream may be behind: it describes tables as they were. The type that the column has by now, in the arena; "": none. */
static bool source_type(struct apply *apply, struct apply_relation *relation, const char *column,
                        const char **type)
{
    const char *names[] = {relation->schema, relation->name, column};
    const struct pipe_parameters parameters = {3, names, NULL, NULL};
    PGresult *rows = pipe_ask(&apply->source,
                              "SELECT format_type(a.atttypid, a.atttypmod) FROM pg_attribute a"
                              " JOIN pg_class c ON c.oid = a.attrelid"
                              " JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = $1"
                              " AND c.relname = $2 AND a.attname = $3 AND NOT a.attisdropped",
                              &parameters);
    *type = rows && PQntuples(rows) ? arena_strdup(&relation->arena, PQgetvalue(rows, 0, 0)) : "";
    PQclear(rows);
    return (rows && pipe_sync(&apply->source, NULL)) ||
           apply_pipe_failed(apply, &apply->source, "source");
}

static bool source_has(struct apply *apply, struct apply_relation *relation, const char *column,
                       bool *has)
{
    const char *type;
    bool known = source_type(apply, relation, column, &type);
    *has = known && *type;
    return known;
}

static bool take_missing(struct apply *apply, struct apply_relation *relation,
                         struct apply_column *column)
{
    bool has;
    if (!source_has(apply, relation, column->name, &has))
        return false;
    column->left_out = true;
    return !has || misfit(apply, "is on the source, but not on the target", relation, column->name);
}

/* Values as text are read as what the column is by now, on either side. */
static bool check_type(struct apply *apply, struct apply_relation *relation,
                       const struct pgoutput_column *from, const PGresult *rows, int row)
{
    const char *type;
    if (same_type(apply, from, rows, row))
        return true;
    if (!source_type(apply, relation, from->name, &type))
        return false;
    return (apply->options.text && strcmp(type, PQgetvalue(rows, row, FORMATTED)) == 0) ||
           misfit(apply, "has another type on the source than on the target", relation, from->name);
}

static bool take_column(struct apply *apply, struct apply_relation *relation, int index,
                        const struct pgoutput_column *from, const PGresult *rows)
{
    struct apply_column *column = &relation->columns[index];
    int row = row_of(rows, column->name);
    if (row < 0)
        return take_missing(apply, relation, column);
    if (!check_type(apply, relation, from, rows, row))
        return false;
    column->quoted = arena_strdup(&relation->arena, PQgetvalue(rows, row, QUOTED));
    column->equals = arena_strdup(&relation->arena, PQgetvalue(rows, row, EQUALS));
    column->type = (uint32_t)strtoul(PQgetvalue(rows, row, TYPE), NULL, 10);
    column->array = (uint32_t)strtoul(PQgetvalue(rows, row, ARRAY), NULL, 10);
    column->left_out = is_true(rows, row, GENERATED);
    column->always = is_true(rows, row, ALWAYS);
    return true;
}

/* What neither side has any more: dropped since. */
static const char *gone_column(const struct apply_relation *relation, const PGresult *rows)
{
    for (int i = 0; i < relation->ncolumns; i++)
        if (row_of(rows, relation->columns[i].name) < 0)
            return relation->columns[i].name;
    return NULL;
}

/*
 * The target may have more only where the source has them by now, too: added since. Where one is gone as well, it may
 * have been renamed, and values that come under the old name would be lost.
 */
static bool check_surplus(struct apply *apply, struct apply_relation *relation,
                          const PGresult *rows)
{
    const char *gone = gone_column(relation, rows);
    for (int i = 0; i < PQntuples(rows); i++) {
        const char *name = PQgetvalue(rows, i, NAME);
        bool has = true;
        if (is_true(rows, i, GENERATED) || column_of(relation, name) >= 0)
            continue;
        if (!source_has(apply, relation, name, &has))
            return false;
        if (!has)
            return misfit(apply, "is on the target, but not on the source", relation, name);
        if (gone) {
            apply->failure.misfit = !apply->failure.error.text[0];
            return apply_problem(apply,
                                 "Where it does not go on: cancel the job and create it again.",
                                 "column \"%s\" of %s.%s is gone and \"%s\" is new: whether it was "
                                 "renamed is not known, and rows from before are on their way",
                                 gone, relation->schema, relation->name, name);
        }
    }
    return true;
}

static bool compare(struct apply *apply, struct apply_relation *relation,
                    const struct pgoutput_message *message, const PGresult *rows)
{
    if (!PQntuples(rows))
        return apply_problem(apply, "Create the table there, then resume the job.",
                             "table %s.%s is not on the target", relation->schema, relation->name);
    for (int i = 0; i < relation->ncolumns; i++)
        if (!take_column(apply, relation, i, &message->columns[i], rows))
            return false;
    if (!check_surplus(apply, relation, rows))
        return false;
    relation->quoted = arena_strdup(&relation->arena, PQgetvalue(rows, 0, TABLE));
    relation->only_key = strcmp(PQgetvalue(rows, 0, UNIQUES), "0") == 0;
    return true;
}

static bool ask_target(struct apply *apply, struct apply_relation *relation,
                       const struct pgoutput_message *message)
{
    const char *names[] = {relation->schema, relation->name};
    const struct pipe_parameters parameters = {2, names, NULL, NULL};
    if (!apply_open_transaction(apply))
        return false;
    PGresult *rows = pipe_ask(&apply->target, columns_query, &parameters);
    if (!rows)
        return apply_pipe_failed(apply, &apply->target, "target");
    bool same = compare(apply, relation, message, rows);
    PQclear(rows);
    return same;
}

/* ---- what rows are found by ---- */

/* Columns that the table had when the job's tables were read, and has no more: dropped, or renamed. */
static bool has_all_columns(struct apply *apply, struct apply_relation *relation)
{
    const struct move_table *table = relation->table;
    for (int i = 0; i < table->ncolumns; i++) {
        bool has = true; /* added behind where the stream is */
        if (table->columns[i].generated || column_of(relation, table->columns[i].name) >= 0)
            continue;
        if (!source_has(apply, relation, table->columns[i].name, &has))
            return false;
        if (!has)
            return misfit(apply, "was dropped or renamed on the source", relation,
                          table->columns[i].name);
    }
    return true;
}

/* An index on a computed column is of no use here: its values do not come. */
static bool has_primary(const struct apply_relation *relation)
{
    const struct move_table *table = relation->table;
    for (int i = 0; i < table->nprimary; i++)
        if (column_of(relation, table->columns[table->primary[i]].name) < 0)
            return false;
    return true;
}

static bool find_locator(struct apply *apply, struct apply_relation *relation,
                         const struct pgoutput_message *message)
{
    const struct move_table *table = relation->table;
    for (int i = 0; i < table->nprimary && has_primary(relation); i++) {
        struct apply_column *column =
            &relation->columns[column_of(relation, table->columns[table->primary[i]].name)];
        column->primary = true;
        column->locator = relation->full;
        relation->nprimary++;
    }
    for (int i = 0; i < relation->ncolumns; i++) {
        struct apply_column *column = &relation->columns[i];
        if (!relation->full)
            column->locator = message->columns[i].identity;
        relation->nlocators += column->locator;
        relation->nalways += column->always && !column->locator;
        if (column->primary != column->locator)
            relation->only_key = false;
        if (column->locator && column->left_out)
            return apply_problem(apply, "Cancel the job and create it again.",
                                 "column \"%s\" of %s.%s, by which rows are found, was dropped",
                                 column->name, relation->schema, relation->name);
    }
    relation->only_key = relation->only_key && relation->nprimary > 0;
    return true;
}

/* Without the key in the old row, nobody can say to whom a deleted row belonged. */
static bool find_key(struct apply *apply, struct apply_relation *relation,
                     const struct pgoutput_message *message)
{
    const struct move_table *table = relation->table;
    relation->nkey = table->nkey;
    for (unsigned i = 0; i < table->nkey; i++) {
        const struct move_column *of = &table->columns[table->key[i]];
        int column = column_of(relation, of->name);
        if (column < 0)
            return apply_problem(apply, NULL,
                                 "column \"%s\" of %s.%s is the sharding key, and computed",
                                 of->name, relation->schema, relation->name);
        relation->key[i] = column;
        relation->key_types[i] = of->base_oid;
        if (!relation->full && !message->columns[column].identity)
            return apply_problem(apply, "ALTER TABLE ... REPLICA IDENTITY FULL on the source.",
                                 "the replica identity of %s.%s lacks the sharding key \"%s\"",
                                 relation->schema, relation->name, of->name);
    }
    return true;
}

static bool is_markers(const struct apply_relation *relation)
{
    return strcmp(relation->schema, "pgshunt") == 0 && strcmp(relation->name, "marker") == 0;
}

static bool fits(struct apply *apply, struct apply_relation *relation,
                 const struct pgoutput_message *message)
{
    return has_all_columns(apply, relation) && ask_target(apply, relation, message) &&
           find_key(apply, relation, message) && find_locator(apply, relation, message) &&
           apply_owed_begin(apply, relation);
}

/* It matters where a row of ours comes: of those that the target has already, or that came from it, only the key counts, and
 * since they were written both sides may have been altered. */
static bool fits_later(struct apply *apply, struct apply_relation *relation,
                       const struct pgoutput_message *message)
{
    if (!find_key(apply, relation, message))
        return false;
    if (fits(apply, relation, message))
        return true;
    if (apply->source.failed || apply->target.failed)
        return false;
    relation->unfit = arena_new(&relation->arena, struct apply_failure);
    *relation->unfit = apply->failure;
    apply->failure = (struct apply_failure){.passing = false};
    return true;
}

bool apply_read_relation(struct apply *apply, const struct pgoutput_message *message)
{
    if (!forget(apply, message->oid))
        return false;
    struct apply_relation *relation = new_relation(apply, message);
    if (is_markers(relation))
        relation->marker = column_of(relation, "marker");
    if (!relation->table)
        return true;
    return fits_later(apply, relation, message);
}
