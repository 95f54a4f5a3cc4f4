/* change_create.c: CREATE TABLE AS: of rows that were gathered, on one shard; or on all shards, each with its own. */
#include <stdlib.h>
#include <string.h>

#include "pgshunt/wire.h"
#include "proxy/change_internal.h"

static void create_on(struct change *change, int index, const struct shard_query *query,
                      struct buffer *out, int syncs)
{
    struct scatter *scatter = change->scatter;
    shard_query_put(&change->ask, query, &(struct shard_form){.formats = SHARD_AS_ASKED}, out);
    if (scatter->parts[index].server)
        scatter->parts[index].server->wrote = true;
    change_send(change, index, out, syncs + 1);
}

/* ---- with rows on one shard ---- */

static void create_at_home(struct change *change)
{
    const struct change_create *create = change->plan->create;
    int home = (int)change->scatter->plan->shard;
    for (int i = 0; i < change->nparts; i++) {
        struct buffer out = {0};
        if (i != home && !create->without.sql)
            continue;
        int syncs = i == home ? change_put_finishing(change, &out) : 0;
        create_on(change, i, i == home ? &create->filled : &create->without, &out, syncs);
    }
}

/* ---- with rows on all of them ---- */

static void ask_whether_it_exists(struct change *change)
{
    for (int i = 0; i < change->nparts; i++) {
        struct buffer out = {0};
        wire_put_query(&out, change->plan->create->exists);
        change_send(change, i, &out, 1);
    }
}

static const struct shard_query *made_by(const struct change *change, int index)
{
    const struct change_create *create = change->plan->create;
    if (change->exists) /* says so, too */
        return &create->without;
    return create->each ? &create->each[index] : &create->made;
}

static void create_everywhere(struct change *change)
{
    if (change->plan->create->exists && !change->looked) {
        ask_whether_it_exists(change);
        return;
    }
    for (int i = 0; i < change->nparts; i++) {
        struct buffer out = {0};
        create_on(change, i, made_by(change, i), &out, 0);
    }
}

void change_create_row(struct change *change, const char *body, size_t len)
{
    struct wire_reader reader = wire_reader(body, len);
    int columns = wire_read16(&reader);
    int32_t length = wire_read32(&reader);
    const char *value = length == 1 ? wire_read_bytes(&reader, 1) : NULL;
    if (columns == 1 && value && *value == 't')
        change->exists = true;
}

bool change_create_goes_on(struct change *change)
{
    const struct change_create *create = change->plan->create;
    return create->everywhere && !create->each && !change->exists;
}

/* ---- the columns of what fills it ---- */

static const char *column_name(const struct change_create *create, const struct wire_field *fields,
                               int column)
{
    return column < create->nnames ? create->names[column] : fields[column].name;
}

static int find_column(const struct change_create *create, const struct wire_field *fields,
                       int count, const char *name)
{
    for (int i = 0; i < count; i++)
        if (strcmp(column_name(create, fields, i), name) == 0)
            return i;
    return -1;
}

static void fail_without_key(struct change *change, const char *key)
{
    struct arena *arena = &change->scatter->arena;
    change_fail(change, "42703",
                arena_printf(arena,
                             "the query gives no column \"%s\", the shard key of table \"%s\"", key,
                             change->plan->rows.table),
                arena_printf(arena,
                             "Give a column of the select list that name, with AS \"%s\", or in a "
                             "list of columns behind the table's name.",
                             key));
}

void change_create_columns(struct change *change, const struct wire_field *fields, int count)
{
    const struct change_create *create = change->plan->create;
    for (unsigned k = 0; k < change->plan->rows.nkeys; k++) {
        change->key_at[k] = find_column(create, fields, count, create->keys[k]);
        if (change->key_at[k] >= 0)
            continue;
        fail_without_key(change, create->keys[k]);
        return;
    }
}

/* ---- both ---- */

void change_create(struct change *change)
{
    change->phase = CHANGE_CREATING;
    if (change->plan->create->everywhere)
        create_everywhere(change);
    else
        create_at_home(change);
}

static void keep_tag(struct change *change, const char *tag)
{
    struct part *first = &change->scatter->parts[0];
    free(first->tag);
    first->tag = mem_strdup(tag);
}

/* The last one of the shard that has the rows is the statement's own; where all have some they are counted. */
void change_created(struct change *change, int index, const char *tag)
{
    const struct change_create *create = change->plan->create;
    int64_t rows = wire_tag_rows(tag);
    if (index == (create->everywhere ? 0 : (int)change->scatter->plan->shard))
        keep_tag(change, tag);
    if (!create->each || change->exists || (create->exists && !change->looked))
        return;
    if (rows >= 0)
        change->counted += rows;
    else if (create->each[index].sql != create->made.sql)
        change_fail(change, "42P07",
                    arena_printf(&change->scatter->arena, "relation \"%s\" was made meanwhile",
                                 change->plan->rows.table),
                    "Nothing was done; run the statement again.");
}
