/* change_rows.c: rows on their way from a query to the shards that their keys name. */
#include "proxy/change_internal.h"

#include <stdlib.h>
#include <string.h>

#include "pgshunt/pgtypes.h"
#include "pgshunt/wire.h"

#define MAX_COLUMNS 1664
#define MAX_PARAMS 65535
/* Rows of one INSERT, where nothing asks for all of them in one. */
#define BATCH_ROWS 500
#define OID_ACLITEM 1033

/* ---- columns ---- */

/* Types that users made have other numbers on each shard, and so have what regclass and its like are numbers of. A
 * record says the numbers of its columns' types, and is nothing that can be sent. */
static bool travels_as_text(uint32_t type)
{
    static const uint32_t numbers[] = {
        OID_ACLITEM,
        OID_UNKNOWN,
        24 /* regproc */,
        2202 /* regprocedure */,
        2203 /* regoper */,
        2204 /* regoperator */,
        2205 /* regclass */,
        2206 /* regtype */,
        2249 /* record */,
        2287 /* record[] */,
        3734 /* regconfig */,
        3769 /* regdictionary */,
        4089 /* regnamespace */,
        4096 /* regrole */,
        4191 /* regcollation */,
    };
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++)
        if (type == numbers[i])
            return true;
    return type >= OID_FIRST_USER;
}

/* A VALUES list would take them for text. */
static void fail_made_by_users(struct change *change)
{
    const struct change_rows *rows = &change->plan->rows;
    struct arena *arena = &change->scatter->arena;
    if (rows->alias)
        change_fail(change, "0A000",
                    arena_printf(arena,
                                 "a MERGE into table \"%s\" of rows with a value of a type that "
                                 "users made, which are not on its shards, is not supported yet",
                                 rows->table),
                    "Leave such columns out of the source, with a SELECT of the others, or cast "
                    "them to text.");
    else
        change_fail(change, "0A000",
                    arena_printf(arena,
                                 "an UPDATE of table \"%s\" with a value of a type that users "
                                 "made, computed from rows of several shards, is not supported yet",
                                 rows->table),
                    "Read the value first, and give it as a literal or a parameter.");
}

static void name_columns(struct change *change, const struct wire_field *fields)
{
    struct buffer *names = &change->names;
    buffer_clear(names);
    for (int i = change->skip; i < change->ncolumns; i++) {
        buffer_append(names, i > change->skip ? ", \"" : "\"", i > change->skip ? 3 : 1);
        for (const char *at = fields[i].name; *at; at++)
            buffer_append(names, *at == '"' ? "\"\"" : at, *at == '"' ? 2 : 1);
        buffer_append(names, "\"", 1);
    }
    buffer_append(names, "", 1);
}

void change_take_columns(struct change *change, const char *body, size_t len)
{
    static const struct wire_field none;
    bool made_by_users = false;
    struct wire_field *fields = mem_alloc(sizeof *fields * MAX_COLUMNS);
    const struct change_rows *rows = &change->plan->rows;
    int count = wire_read_row_description(body, len, fields, MAX_COLUMNS);
    buffer_clear(&change->formats);
    free(change->column_types);
    change->ncolumns = count < 0 ? 0 : count;
    change->column_types = mem_alloc(sizeof(uint32_t) * ((size_t)change->ncolumns + 1));
    wire_put16(&change->formats, change->ncolumns);
    for (int i = 0; i < change->ncolumns; i++) {
        const struct wire_field *field = i < MAX_COLUMNS ? &fields[i] : &none;
        bool untyped = i < rows->nuntyped && rows->untyped[i] && field->type_oid == OID_TEXT;
        bool text = untyped || travels_as_text(field->type_oid);
        wire_put16(&change->formats, !text);
        change->column_types[i] = text ? 0 : field->type_oid;
        made_by_users |= text && i >= change->skip + rows->by_shard;
    }
    if (rows->alias)
        name_columns(change, fields);
    if (change->plan->create && count <= MAX_COLUMNS)
        change_create_columns(change, fields, change->ncolumns);
    free(fields);
    if ((rows->by_shard || rows->alias) && made_by_users)
        fail_made_by_users(change);
}

/* ---- keys ---- */

static void fail_null(struct change *change)
{
    const struct change_rows *rows = &change->plan->rows;
    struct arena *arena = &change->scatter->arena;
    change_fail(change, "23502",
                arena_printf(arena, "null value in \"%s\", the shard key of table \"%s\"",
                             rows->key, rows->table),
                arena_printf(arena, "Give \"%s\" a value: it decides on which shard the row lives.",
                             rows->key));
}

static void fail_type(struct change *change)
{
    const struct change_rows *rows = &change->plan->rows;
    struct arena *arena = &change->scatter->arena;
    change_fail(change, "0A000",
                arena_printf(arena,
                             "the value of \"%s\", the shard key of table \"%s\", is of a type "
                             "whose shard is not known",
                             rows->key, rows->table),
                arena_printf(arena, "Cast the value to the type of \"%s\".", rows->key));
}

static void fail_value(struct change *change)
{
    const struct change_rows *rows = &change->plan->rows;
    struct arena *arena = &change->scatter->arena;
    change_fail(change, "22P02",
                arena_printf(arena,
                             "invalid input syntax for \"%s\", the shard key of table \"%s\"",
                             rows->key, rows->table),
                arena_printf(arena, "Give a value of the type of \"%s\".", rows->key));
}

static void fail_nowhere(struct change *change)
{
    const struct change_rows *rows = &change->plan->rows;
    change_fail(change, "23514",
                arena_printf(&change->scatter->arena,
                             "the value of \"%s\", the shard key of table \"%s\", is in no list of "
                             "keyspace \"%s\"",
                             rows->key, rows->table, rows->keyspace->name),
                "Add the value to a shard's list, or name a default shard, in the configuration.");
}

static bool is_foreign(const struct change_rows *rows, unsigned part,
                       const struct change_value *value)
{
    if (!rows->ascii_keys || rows->keyspace->types[part] != KEY_TEXT)
        return false;
    for (int i = 0; i < value->length; i++)
        if (value->bytes[i] & 0x80)
            return true;
    return false;
}

static void fail_encoding(struct change *change)
{
    const struct change_rows *rows = &change->plan->rows;
    change_fail(change, "0A000",
                arena_printf(&change->scatter->arena,
                             "a value of \"%s\", the shard key of table \"%s\", is not plain "
                             "ASCII, and client_encoding is not UTF8",
                             rows->key, rows->table),
                "Set client_encoding to UTF8 on this connection: keys are found by their bytes in "
                "UTF-8.");
}

/* Whether a value of the type becomes the key that it is itself. */
static bool is_key_type(enum key_type key, uint32_t type)
{
    switch (key) {
    case KEY_BIGINT:
        return type == OID_INT8 || type == OID_INT4 || type == OID_INT2;
    case KEY_UUID:
        return type == OID_UUID;
    case KEY_TEXT:
        return type == OID_TEXT || type == OID_VARCHAR || type == OID_BPCHAR;
    }
    return false;
}

static bool read_key(const struct change_rows *rows, unsigned part,
                     const struct change_value *value, struct shardkey *key)
{
    enum key_type kind = rows->keyspace->types[part];
    size_t length = (size_t)value->length;
    if (kind == KEY_TEXT)
        return shardkey_from_binary(kind,
                                    rows->keys[part].blank_padded ? OID_BPCHAR
                                    : value->type                 ? value->type
                                                                  : OID_TEXT,
                                    value->bytes, length, key);
    return value->type ? shardkey_from_binary(kind, value->type, value->bytes, length, key)
                       : shardkey_from_text(kind, value->bytes, length, key);
}

/* The blanks at the end of char(n) count for a table's text, and for a comparison of the two they do not. */
static bool is_comparable(const struct change_rows *rows, unsigned part, uint32_t type)
{
    return !rows->compared || type != OID_BPCHAR || rows->keys[part].blank_padded;
}

static bool fits(const struct change_rows *rows, unsigned part, const struct change_value *value)
{
    return !value->type || (is_key_type(rows->keyspace->types[part], value->type) &&
                            is_comparable(rows, part, value->type));
}

/* False: failed. */
static bool take_key(struct change *change, unsigned part, const struct change_value *value,
                     struct shardkey *key)
{
    const struct change_rows *rows = &change->plan->rows;
    if (value->length < 0) {
        fail_null(change);
        return false;
    }
    if (is_foreign(rows, part, value)) {
        fail_encoding(change);
        return false;
    }
    if (!fits(rows, part, value)) {
        fail_type(change);
        return false;
    }
    if (read_key(rows, part, value, key))
        return true;
    fail_value(change);
    return false;
}

bool change_find_shard(struct change *change, const struct change_value *values, unsigned *shard)
{
    const struct change_rows *rows = &change->plan->rows;
    struct shardkey keys[SHARDMAP_MAX_PARTS];
    for (unsigned i = 0; i < rows->nkeys; i++)
        if (!take_key(change, i, &values[i], &keys[i]))
            return false;
    *shard = shardmap_shard_of_row(change->scatter->client->database->map, rows->keyspace, keys);
    if (*shard < (unsigned)change->nparts)
        return true;
    fail_nowhere(change);
    return false;
}

/* ---- rows ---- */

static int width(const struct change *change)
{
    return change->ncolumns - change->skip;
}

static void give(struct change *change, unsigned shard, const char *values, size_t len)
{
    struct change_part *part = &change->parts[shard];
    buffer_append(&part->in, values, len);
    part->nin++;
    change->given++;
    change->bytes += (int64_t)len;
}

/* The row's first value is the number of its shard. */
static void give_by_shard(struct change *change, const char *values, size_t len)
{
    if (len < 8 || wire_get32(values) != 4 || wire_get32(values + 4) >= (uint32_t)change->nparts) {
        change_fail(change, "08P01", "a shard sent a malformed row", NULL);
        return;
    }
    give(change, wire_get32(values + 4), values + 8, len - 8);
}

/* What is behind a row's first values, which only tell its shard. */
static const char *behind_skipped(const struct change *change, const char *values, size_t *len)
{
    struct wire_reader reader = wire_reader(values, *len);
    for (int i = 0; i < change->skip; i++) {
        int32_t length = wire_read32(&reader);
        if (length > 0)
            wire_read_bytes(&reader, (size_t)length);
    }
    size_t left = wire_left(&reader);
    values += *len - left;
    *len = left;
    return values;
}

/* The values of the key's columns; what is not among the row's is NULL. False: malformed. */
static bool read_row(const struct change *change, const char *body, size_t len,
                     struct change_value *values)
{
    const struct change_rows *rows = &change->plan->rows;
    struct wire_reader reader = wire_reader(body, len);
    int count = wire_read16(&reader);
    for (unsigned k = 0; k < rows->nkeys; k++)
        values[k] = (struct change_value){.length = -1};
    for (int i = 0; i < count && !reader.bad; i++) {
        int32_t length = wire_read32(&reader);
        const char *value = length >= 0 ? wire_read_bytes(&reader, (size_t)length) : NULL;
        for (unsigned k = 0; k < rows->nkeys && i < change->ncolumns; k++)
            if (i == change->key_at[k])
                values[k] = (struct change_value){change->column_types[i], value, length};
    }
    return !reader.bad && count == change->ncolumns;
}

static bool has_null(const struct change_rows *rows, const struct change_value *values)
{
    for (unsigned k = 0; k < rows->nkeys; k++)
        if (values[k].length < 0)
            return true;
    return false;
}

/* A key that is compared with that of no row, as it is in no list. */
static bool is_nobodys(const struct change *change, const struct change_value *values)
{
    const struct change_rows *rows = &change->plan->rows;
    struct shardkey keys[SHARDMAP_MAX_PARTS];
    for (unsigned k = 0; k < rows->nkeys; k++)
        if (!fits(rows, k, &values[k]) || !read_key(rows, k, &values[k], &keys[k]))
            return false; /* it will be told of */
    return shardmap_shard_of_row(change->scatter->client->database->map, rows->keyspace, keys) >=
           (unsigned)change->nparts;
}

/* A row of MERGE's source that matches nothing: true, it is dealt with. Any server can say what becomes of it, if
 * that cannot be a row without a key. */
static bool matches_nothing(struct change *change, const struct change_value *values,
                            const char *row, size_t len)
{
    const struct change_rows *rows = &change->plan->rows;
    bool null = has_null(rows, values);
    if (!rows->compared || (rows->adds && !(null && rows->never_null)))
        return false;
    if (!rows->adds)
        return null || is_nobodys(change, values);
    row = behind_skipped(change, row, &len);
    give(change, 0, row, len);
    return true;
}

void change_take_row(struct change *change, const char *body, size_t len)
{
    const struct change_rows *rows = &change->plan->rows;
    struct change_value values[SHARDMAP_MAX_PARTS];
    unsigned shard = 0;
    if (!read_row(change, body, len, values)) {
        change_fail(change, "08P01", "a shard sent a malformed row", NULL);
        return;
    }
    if (rows->by_shard) {
        give_by_shard(change, body + 2, len - 2);
        return;
    }
    if (!rows->key) {
        for (int i = 0; i < change->nparts; i++)
            give(change, (unsigned)i, body + 2, len - 2);
        return;
    }
    if (matches_nothing(change, values, body + 2, len - 2))
        return;
    if (change_find_shard(change, values, &shard)) {
        size_t left = len - 2;
        body = behind_skipped(change, body + 2, &left);
        give(change, shard, body, left);
    }
}

/* ---- INSERTs ---- */

static int tail_params(const struct change_rows *rows)
{
    return rows->tail.nparams;
}

static void put_text(const struct change *change, int count, struct buffer *sql)
{
    const struct change_rows *rows = &change->plan->rows;
    int number = tail_params(rows);
    buffer_printf(sql, "%sVALUES ", rows->head);
    for (int i = 0; i < count; i++) {
        buffer_printf(sql, i ? ", (" : "(");
        for (int k = 0; k < width(change); k++)
            buffer_printf(sql, k ? ", $%d" : "$%d", ++number);
        buffer_append(sql, ")", 1);
    }
    if (rows->alias)
        buffer_printf(sql, "%s(%s)", rows->alias, (const char *)buffer_head(&change->names));
    buffer_append(sql, rows->tail.sql, strlen(rows->tail.sql) + 1);
}

static int tail_param(const struct change_rows *rows, int at)
{
    return rows->tail.params ? rows->tail.params[at] : at;
}

static void put_parse(const struct change *change, int count, struct buffer *out)
{
    const struct change_rows *rows = &change->plan->rows;
    int ahead = tail_params(rows), total = ahead + count * width(change);
    uint32_t *types = mem_alloc(sizeof *types * ((size_t)total + 1));
    struct buffer sql = {0};
    for (int i = 0; i < total; i++) {
        int number = i < ahead ? tail_param(rows, i) : 0;
        types[i] = i >= ahead ? change->column_types[change->skip + (i - ahead) % width(change)]
                   : number < change->typed.ntypes ? change->typed.types[number]
                                                   : 0;
    }
    put_text(change, count, &sql);
    wire_put_parse(out, "", buffer_head(&sql), types, total);
    buffer_release(&sql);
    free(types);
}

static void put_value(struct buffer *out, const struct param *param)
{
    wire_put32(out, param->bytes ? param->length : -1);
    if (param->bytes)
        wire_put_bytes(out, param->bytes, (size_t)param->length);
}

static void put_bind(const struct change *change, int count, const char *values, size_t len,
                     struct buffer *out)
{
    const struct change_rows *rows = &change->plan->rows;
    int ahead = tail_params(rows), total = ahead + count * width(change);
    const struct scatter_ask *ask = &change->ask;
    size_t begin = wire_begin(out, 'B');
    wire_put_cstring(out, "");
    wire_put_cstring(out, "");
    wire_put16(out, total);
    for (int i = 0; i < ahead; i++)
        wire_put16(out, change->params.items[tail_param(rows, i)].binary);
    for (int i = 0; i < count; i++)
        wire_put_bytes(out, buffer_head(&change->formats) + 2 + 2 * (size_t)change->skip,
                       2 * (size_t)width(change));
    wire_put16(out, total);
    for (int i = 0; i < ahead; i++)
        put_value(out, &change->params.items[tail_param(rows, i)]);
    wire_put_bytes(out, values, len);
    if (ask->result_formats_len >= 2)
        wire_put_bytes(out, ask->result_formats, ask->result_formats_len);
    else
        wire_put16(out, 0);
    wire_end(out, begin);
}

static void put_execute(struct buffer *out)
{
    size_t begin = wire_begin(out, 'E');
    wire_put_cstring(out, "");
    wire_put32(out, 0);
    wire_end(out, begin);
    wire_put_simple(out, 'S');
}

/* Bytes of the first `count` rows. */
static size_t length_of(const struct change *change, const struct buffer *in, int count)
{
    struct wire_reader reader = wire_reader(buffer_head(in), buffer_length(in));
    for (int i = 0; i < count * width(change); i++) {
        int32_t length = wire_read32(&reader);
        if (length > 0)
            wire_read_bytes(&reader, (size_t)length);
    }
    return buffer_length(in) - wire_left(&reader);
}

static void insert_some(struct change *change, int index, int count)
{
    struct change_part *part = &change->parts[index];
    struct buffer out = {0};
    size_t len = length_of(change, &part->in, count);
    put_parse(change, count, &out);
    put_bind(change, count, buffer_head(&part->in), len, &out);
    put_execute(&out);
    buffer_consume(&part->in, len);
    part->nin -= count;
    change->bytes -= (int64_t)len;
    change->scatter->parts[index].server->wrote = true;
    change_send(change, index, &out, 1);
}

static int most_rows(const struct change *change)
{
    int columns = width(change) > 0 ? width(change) : 1;
    return (MAX_PARAMS - tail_params(&change->plan->rows)) / columns;
}

static void fail_too_many(struct change *change, int rows)
{
    bool merge = change->plan->rows.alias != NULL;
    change_fail(change, "54000",
                arena_printf(&change->scatter->arena,
                             "%d rows for one shard, which %s has to see in one statement, are "
                             "more than it can have parameters for",
                             rows, merge ? "MERGE" : "ON CONFLICT DO UPDATE"),
                merge ? "Leave out columns of the source that are not used, or merge fewer rows "
                        "with each statement."
                      : "Insert fewer rows with each statement.");
}

static void insert_into(struct change *change, int index, bool last)
{
    struct change_part *part = &change->parts[index];
    int most = most_rows(change);
    if (change->plan->rows.in_one_statement) {
        if (part->nin > most)
            fail_too_many(change, part->nin);
        else if (part->nin && last)
            insert_some(change, index, part->nin);
        return;
    }
    while (part->nin && most && change->scatter->parts[index].server)
        insert_some(change, index,
                    part->nin < BATCH_ROWS && part->nin < most ? part->nin
                    : most < BATCH_ROWS                        ? most
                                                               : BATCH_ROWS);
}

void change_insert(struct change *change, bool last)
{
    for (int i = 0; i < change->nparts && !change->scatter->failed; i++)
        insert_into(change, i, last);
}
