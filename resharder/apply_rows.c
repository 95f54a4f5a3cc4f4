/* apply_rows.c: what an inserted, updated or deleted row of the source means for the target. */
#include <stdlib.h>
#include <string.h>

#include "pgshunt/arena.h"
#include "resharder/apply_internal.h"

/* ---- whose row it is ---- */

enum whose { NOT_OURS, OURS, UNKNOWN };

static const struct pgoutput_value *value_of(const struct pgoutput_tuple *row,
                                             const struct pgoutput_tuple *old, int column)
{
    const struct pgoutput_value *value = &row->values[column];
    return value->kind == PGOUTPUT_UNCHANGED && old ? &old->values[column] : value;
}

/* Whether the row moves on this link; `old`: where it has what is unchanged, or NULL. */
static enum whose whose_row(struct apply *apply, const struct apply_relation *relation,
                            const struct pgoutput_tuple *row, const struct pgoutput_tuple *old,
                            struct shardkey keys[SHARDMAP_MAX_PARTS])
{
    const struct apply_options *options = &apply->options;
    const struct keyspace *keyspace = relation->table->rule->keyspace;
    struct move_value parts[SHARDMAP_MAX_PARTS];
    for (unsigned i = 0; i < relation->nkey; i++) {
        const struct pgoutput_value *value = value_of(row, old, relation->key[i]);
        if (value->kind == PGOUTPUT_NULL)
            return NOT_OURS; /* in no bucket */
        parts[i] = (struct move_value){value->bytes, value->length, value->kind == PGOUTPUT_BINARY};
    }
    if (!move_keys(keyspace, parts, relation->key_types, keys)) {
        apply_problem(apply, NULL, "a row of %s.%s has a sharding key that is no value of its type",
                      relation->schema, relation->name);
        return UNKNOWN;
    }
    const struct move *move =
        moves_find(options->moves, keyspace, move_keys_bucket(keyspace, keys));
    bool ours =
        move && move->source == options->link.source && move->target == options->link.target;
    return ours ? OURS : NOT_OURS;
}

/* The row is new on the target: its key goes into the ghost keys of the sides that have some. */
static bool collect_key(struct apply *apply, const struct apply_relation *relation,
                        const struct shardkey *keys)
{
    const struct keyspace *keyspace = relation->table->rule->keyspace;
    if (relation->source_keys)
        ghostkeys_add(apply->source_keys, keyspace, keys);
    if (!apply->known && relation->target_keys)
        ghostkeys_add(apply->target_keys, keyspace, keys);
    if (ghostkeys_full(apply->target_keys) && !ghostkeys_send(apply->target_keys, &apply->target))
        return apply_pipe_failed(apply, &apply->target, "target");
    return !ghostkeys_full(apply->source_keys) || apply_send_source_keys(apply);
}

/* ---- INSERT ---- */

static bool insert(struct apply *apply, struct apply_relation *relation,
                   const struct pgoutput_tuple *row, const struct shardkey *keys)
{
    apply->progress.inserted++;
    return collect_key(apply, relation, keys) && apply_put(apply, relation, APPLY_INSERT, row, row);
}

/* ---- rows that enter the moving set ---- */

static const char *select_columns(struct apply *apply, const struct apply_relation *relation)
{
    struct buffer *sql = &apply->sql;
    int number = 1;
    buffer_clear(sql);
    for (int i = 0; i < relation->ncolumns; i++)
        buffer_printf(sql, "%s t.%s::text", i ? "," : "SELECT", relation->columns[i].quoted);
    buffer_printf(sql, " FROM %s AS t", relation->quoted);
    for (int i = 0; i < relation->ncolumns; i++)
        if (relation->columns[i].locator) {
            buffer_printf(sql, "%s t.%s %s $%d", number == 1 ? " WHERE" : " AND",
                          relation->columns[i].quoted, relation->columns[i].equals, number);
            number++;
        }
    buffer_append(sql, "", 1);
    return buffer_head(sql);
}

/* The row as it is on the source now. Later changes of it are still to come, and are as good on the newer values. */
static PGresult *fetch_row(struct apply *apply, const struct apply_relation *relation,
                           const struct pgoutput_tuple *row)
{
    struct apply_located located;
    apply_located_take(&located, relation, row, NULL, 0);
    const struct pipe_parameters parameters = {located.count, located.values, located.lengths,
                                               located.formats};
    PGresult *rows = pipe_ask(&apply->source, select_columns(apply, relation), &parameters);
    if (!rows || !pipe_sync(&apply->source, NULL)) {
        PQclear(rows);
        rows = NULL;
        apply_pipe_failed(apply, &apply->source, "source");
    }
    apply_located_free(&located);
    return rows;
}

static void fill_from_old(struct pgoutput_tuple *row, const struct pgoutput_tuple *old)
{
    for (int i = 0; i < row->count; i++)
        row->values[i] = *value_of(row, old, i);
}

static void fill_from_rows(struct pgoutput_tuple *row, const PGresult *rows)
{
    for (int i = 0; i < row->count; i++)
        if (row->values[i].kind == PGOUTPUT_UNCHANGED && !PQgetisnull(rows, 0, i))
            row->values[i] = (struct pgoutput_value){
                PQgetvalue(rows, 0, i), (uint32_t)PQgetlength(rows, 0, i), PGOUTPUT_TEXT};
        else if (row->values[i].kind == PGOUTPUT_UNCHANGED)
            row->values[i] = (struct pgoutput_value){.kind = PGOUTPUT_NULL};
}

static bool has_unchanged(const struct pgoutput_tuple *row)
{
    for (int i = 0; i < row->count; i++)
        if (row->values[i].kind == PGOUTPUT_UNCHANGED)
            return true;
    return false;
}

/* An UPDATE has brought the row into the moving set: it is new on the target. */
static bool enter(struct apply *apply, struct apply_relation *relation,
                  struct pgoutput_message *message, const struct shardkey *keys)
{
    PGresult *rows = NULL;
    if (relation->full)
        fill_from_old(&message->new, &message->old);
    if (has_unchanged(&message->new)) {
        rows = fetch_row(apply, relation, &message->new);
        if (!rows)
            return false;
        if (PQntuples(rows) != 1) {
            /* Deleted since, or found by another locator now. That is still to come, and makes it whole, or needless. */
            PQclear(rows);
            return apply_owe(apply, relation, &message->new);
        }
        fill_from_rows(&message->new, rows);
    }
    bool good = insert(apply, relation, &message->new, keys);
    PQclear(rows);
    return good;
}

/* ---- UPDATE ---- */

static bool same_value(const struct pgoutput_value *a, const struct pgoutput_value *b)
{
    return a->kind == b->kind && a->length == b->length &&
           (!a->length || memcmp(a->bytes, b->bytes, a->length) == 0);
}

static bool same_locator(const struct apply_relation *relation, const struct pgoutput_tuple *row,
                         const struct pgoutput_tuple *old)
{
    for (int i = 0; i < relation->ncolumns; i++)
        if (relation->columns[i].locator && row->values[i].kind != PGOUTPUT_UNCHANGED &&
            !same_value(&row->values[i], &old->values[i]))
            return false;
    return true;
}

static bool has_locator(struct apply *apply, const struct apply_relation *relation,
                        const struct pgoutput_tuple *located)
{
    for (int i = 0; i < relation->ncolumns; i++)
        if (relation->columns[i].locator && !located->values[i].bytes)
            return apply_problem(
                apply, NULL,
                "a change of %s.%s came without column \"%s\", by which rows are found",
                relation->schema, relation->name, relation->columns[i].name);
    return true;
}

/* Columns GENERATED ALWAYS AS IDENTITY can only be inserted: the row is made anew. */
static bool replace(struct apply *apply, struct apply_relation *relation,
                    const struct pgoutput_tuple *row, const struct pgoutput_tuple *located)
{
    return apply_put(apply, relation, APPLY_DELETE, located, located) &&
           apply_put(apply, relation, APPLY_INSERT, row, row);
}

/* Over newer rows: whatever of the old and the new place is taken already, the row ends in the new one. */
static bool move_over_newer(struct apply *apply, struct apply_relation *relation,
                            const struct pgoutput_tuple *row, const struct pgoutput_tuple *located)
{
    return apply_put(apply, relation, APPLY_UPDATE, row, row) &&
           apply_put(apply, relation, APPLY_MOVE_ABSENT, row, located) &&
           apply_put(apply, relation, APPLY_DELETE, located, located);
}

static bool has_always_locator(const struct apply_relation *relation)
{
    for (int i = 0; i < relation->ncolumns; i++)
        if (relation->columns[i].always && relation->columns[i].locator)
            return true;
    return false;
}

static bool move_row(struct apply *apply, struct apply_relation *relation,
                     struct pgoutput_message *message)
{
    struct pgoutput_tuple *row = &message->new;
    if (relation->full)
        fill_from_old(row, &message->old);
    for (int i = 0; i < relation->ncolumns; i++) /* what is found by is always known */
        if (relation->columns[i].locator)
            row->values[i] = *value_of(row, &message->old, i);
    if (!has_locator(apply, relation, row))
        return false;
    if ((has_always_locator(relation) || relation->nalways) && !has_unchanged(row))
        return replace(apply, relation, row, &message->old);
    if (has_always_locator(relation))
        return apply_problem(apply, NULL,
                             "a row of %s.%s has a new GENERATED ALWAYS identity, and the change "
                             "did not carry its long values",
                             relation->schema, relation->name);
    return apply->strict ? apply_put(apply, relation, APPLY_MOVE, row, &message->old)
                         : move_over_newer(apply, relation, row, &message->old);
}

static bool change_row(struct apply *apply, struct apply_relation *relation,
                       struct pgoutput_message *message)
{
    struct pgoutput_tuple *row = &message->new;
    const struct pgoutput_tuple *located = message->old_kind ? &message->old : row;
    apply->progress.updated++;
    if (!relation->nlocators)
        return apply_put(apply, relation, APPLY_UPDATE_FULL, row, &message->old);
    if (!has_locator(apply, relation, located))
        return false;
    if (message->old_kind && !same_locator(relation, row, &message->old))
        return move_row(apply, relation, message);
    if (relation->nalways && !has_unchanged(row))
        return replace(apply, relation, row, located);
    return apply_put(apply, relation, APPLY_UPDATE, row, located);
}

static bool delete_row(struct apply *apply, struct apply_relation *relation,
                       const struct pgoutput_tuple *old)
{
    bool was_owed;
    apply->progress.deleted++;
    if (!relation->nlocators)
        return apply_put(apply, relation, APPLY_DELETE_FULL, old, old);
    if (!apply_was_owed(apply, relation, old, &was_owed))
        return false;
    return was_owed || (has_locator(apply, relation, old) &&
                        apply_put(apply, relation, APPLY_DELETE, old, old));
}

static bool update(struct apply *apply, struct apply_relation *relation,
                   struct pgoutput_message *message)
{
    struct shardkey new_keys[SHARDMAP_MAX_PARTS], old_keys[SHARDMAP_MAX_PARTS];
    const struct pgoutput_tuple *old = message->old_kind ? &message->old : NULL;
    enum whose after = whose_row(apply, relation, &message->new, old, new_keys);
    enum whose before = old ? whose_row(apply, relation, old, NULL, old_keys) : after;
    if (before == UNKNOWN || after == UNKNOWN)
        return false;
    bool was_owed = false;
    if (before == OURS && after == OURS &&
        !apply_was_owed(apply, relation, old ? old : &message->new, &was_owed))
        return false;
    if (was_owed)
        return enter(apply, relation, message, new_keys);
    if (before == OURS && after == OURS) {
        /* Another key of the same buckets is a new one for those who filter. */
        return (!old || collect_key(apply, relation, new_keys)) &&
               change_row(apply, relation, message);
    }
    if (before == OURS)
        return delete_row(apply, relation, old);
    if (after == OURS)
        return enter(apply, relation, message, new_keys);
    apply->progress.left_out++;
    return true;
}

/* ---- a row's message ---- */

static bool take_marker(struct apply *apply, const struct apply_relation *relation,
                        const struct pgoutput_message *message)
{
    const struct pgoutput_value *value = &message->new.values[relation->marker];
    if (message->kind != PGOUTPUT_DELETE && value->bytes) {
        free(apply->marker);
        apply->marker = strndup(value->bytes, value->length);
        return apply_open_transaction(apply);
    }
    return true;
}

static bool counts_fit(const struct apply_relation *relation,
                       const struct pgoutput_message *message)
{
    bool has_new = message->kind != PGOUTPUT_DELETE;
    return (!has_new || message->new.count == relation->ncolumns) &&
           (!message->old_kind || message->old.count == relation->ncolumns);
}

static bool does_not_fit(struct apply *apply)
{
    return apply_problem(apply, NULL, "the source sent a row that fits no table it has described");
}

/* Rows of others' buckets come too: another link's that were applied on the source among them. */
static bool whose_are_both(struct apply *apply, const struct apply_relation *relation,
                           const struct pgoutput_message *message, enum whose *whose)
{
    struct shardkey keys[SHARDMAP_MAX_PARTS];
    const struct pgoutput_tuple *old = message->old_kind ? &message->old : NULL;
    *whose = NOT_OURS;
    if (old)
        *whose = whose_row(apply, relation, old, NULL, keys);
    if (*whose == NOT_OURS && message->kind != PGOUTPUT_DELETE)
        *whose = whose_row(apply, relation, &message->new, old, keys);
    return *whose != UNKNOWN;
}

/* Of a table that is not alike on both sides: that stops the stream if the row is to be there. */
static bool leave_unfit(struct apply *apply, const struct apply_relation *relation,
                        const struct pgoutput_message *message)
{
    enum whose whose;
    if (!whose_are_both(apply, relation, message, &whose))
        return false;
    if (whose == OURS)
        apply->failure = *relation->unfit;
    apply->progress.left_out += whose == NOT_OURS;
    return whose == NOT_OURS;
}

bool apply_row(struct apply *apply, const struct pgoutput_message *message)
{
    struct apply_relation *relation = apply_find_relation(apply, message->oid);
    struct shardkey keys[SHARDMAP_MAX_PARTS];
    struct pgoutput_message row = *message; /* the tuples' values may be filled in */
    if (!relation || !counts_fit(relation, message))
        return does_not_fit(apply);
    if (relation->marker >= 0)
        return take_marker(apply, relation, message);
    if (!relation->table)
        return true;
    if (relation->unfit)
        return leave_unfit(apply, relation, message);
    if (message->kind == PGOUTPUT_UPDATE)
        return update(apply, relation, &row);
    bool inserts = message->kind == PGOUTPUT_INSERT;
    enum whose whose = whose_row(apply, relation, inserts ? &row.new : &row.old, NULL, keys);
    if (whose == OURS)
        return inserts ? insert(apply, relation, &row.new, keys)
                       : delete_row(apply, relation, &row.old);
    apply->progress.left_out += whose == NOT_OURS;
    return whose == NOT_OURS;
}

/* The keys that an INSERT or UPDATE may have made new, without the rest: insert(), enter() and update() on the first way. */
bool apply_row_keys(struct apply *apply, const struct pgoutput_message *message)
{
    struct shardkey keys[SHARDMAP_MAX_PARTS];
    bool updates = message->kind == PGOUTPUT_UPDATE && message->old_kind;
    if (message->kind != PGOUTPUT_INSERT && !updates)
        return true;
    struct apply_relation *relation = apply_find_relation(apply, message->oid);
    if (!relation || !counts_fit(relation, message))
        return does_not_fit(apply);
    if (!relation->table)
        return true;
    enum whose whose =
        whose_row(apply, relation, &message->new, updates ? &message->old : NULL, keys);
    return whose == OURS ? collect_key(apply, relation, keys) : whose == NOT_OURS;
}
