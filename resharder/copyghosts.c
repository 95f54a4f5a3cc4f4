/* copyghosts.c: ghost keys as binary arrays. */
#include "resharder/copyghosts.h"

#include <stdio.h>
#include <string.h>
#include <xxhash.h>

#include "pgshunt/pgtypes.h"
#include "pgshunt/wire.h"

#define WRITE_MS 600000
#define ARRAY_HEADER 20

void copyghosts_begin(struct copyghosts *ghosts, const struct keyspace *keyspace)
{
    memset(ghosts, 0, sizeof *ghosts);
    ghosts->keyspace = keyspace;
}

void copyghosts_release(struct copyghosts *ghosts)
{
    for (int i = 0; i < SHARDMAP_MAX_PARTS; i++)
        buffer_release(&ghosts->parts[i]);
}

void copyghosts_clear(struct copyghosts *ghosts)
{
    for (int i = 0; i < SHARDMAP_MAX_PARTS; i++)
        buffer_clear(&ghosts->parts[i]);
    memset(ghosts->recent, 0, sizeof ghosts->recent);
    ghosts->count = 0;
}

static unsigned parts_of(const struct keyspace *keyspace)
{
    return keyspace->nparts ? keyspace->nparts : 1;
}

static enum key_type type_of(const struct keyspace *keyspace, unsigned part)
{
    return keyspace->nparts ? keyspace->types[part] : keyspace->type;
}

/* Whether it is one of the last ones; it is, from now on. */
static bool is_recent(struct copyghosts *ghosts, const struct shardkey *key)
{
    if (ghosts->keyspace->nparts || !key->length || key->length > sizeof ghosts->recent[0].bytes)
        return false;
    unsigned place = (unsigned)(XXH64(key->bytes, key->length, 0) % COPYGHOSTS_RECENT);
    if (ghosts->recent[place].length == (int32_t)key->length &&
        memcmp(ghosts->recent[place].bytes, key->bytes, key->length) == 0)
        return true;
    ghosts->recent[place].length = (int32_t)key->length;
    memcpy(ghosts->recent[place].bytes, key->bytes, key->length);
    return false;
}

bool copyghosts_add(struct copyghosts *ghosts, const struct move_value *parts, const uint32_t *oids)
{
    struct shardkey keys[SHARDMAP_MAX_PARTS];
    unsigned count = parts_of(ghosts->keyspace);
    for (unsigned i = 0; i < count; i++) {
        enum key_type type = type_of(ghosts->keyspace, i);
        if (!parts[i].bytes)
            return false;
        if (parts[i].binary
                ? !shardkey_from_binary(type, oids[i], parts[i].bytes, parts[i].length, &keys[i])
                : !shardkey_from_text(type, parts[i].bytes, parts[i].length, &keys[i]))
            return false;
    }
    if (is_recent(ghosts, &keys[0]))
        return true;
    for (unsigned i = 0; i < count; i++) {
        char length[4];
        wire_set32(length, (uint32_t)keys[i].length);
        buffer_append(&ghosts->parts[i], length, 4);
        buffer_append(&ghosts->parts[i], keys[i].bytes, keys[i].length);
    }
    ghosts->count++;
    return true;
}

size_t copyghosts_bytes(const struct copyghosts *ghosts)
{
    size_t bytes = 0;
    for (int i = 0; i < SHARDMAP_MAX_PARTS; i++)
        bytes += buffer_length(&ghosts->parts[i]);
    return bytes;
}

/* In order, so that two sessions that insert the same keys wait for each other one way round only. */
static void put_statement(const struct copyghosts *ghosts, const char *table, struct buffer *sql)
{
    static const char *const types[] = {"bigint", "uuid", "text"};
    unsigned count = parts_of(ghosts->keyspace);
    buffer_printf(sql, "INSERT INTO %s SELECT DISTINCT * FROM unnest(", table);
    for (unsigned i = 0; i < count; i++)
        buffer_printf(sql, "%s$%u::%s[]", i ? ", " : "", i + 1,
                      types[type_of(ghosts->keyspace, i)]);
    buffer_printf(sql, ") ORDER BY 1");
    for (unsigned i = 1; i < count; i++)
        buffer_printf(sql, ", %u", i + 1);
    buffer_append(sql, " ON CONFLICT DO NOTHING", sizeof " ON CONFLICT DO NOTHING");
}

/* A one-dimensional array without NULLs. */
static void put_array(const struct copyghosts *ghosts, unsigned part, struct buffer *out)
{
    static const uint32_t oids[] = {OID_INT8, OID_UUID, OID_TEXT};
    char header[ARRAY_HEADER];
    wire_set32(header, 1);
    wire_set32(header + 4, 0);
    wire_set32(header + 8, oids[type_of(ghosts->keyspace, part)]);
    wire_set32(header + 12, (uint32_t)ghosts->count);
    wire_set32(header + 16, 1);
    buffer_append(out, header, sizeof header);
    buffer_append(out, buffer_head(&ghosts->parts[part]), buffer_length(&ghosts->parts[part]));
}

bool copyghosts_send(const struct copyghosts *ghosts, const struct copyio *io, const char *table,
                     struct db_error *error)
{
    struct buffer sql = {.data = NULL}, arrays[SHARDMAP_MAX_PARTS];
    const char *values[SHARDMAP_MAX_PARTS];
    int lengths[SHARDMAP_MAX_PARTS], formats[SHARDMAP_MAX_PARTS];
    unsigned count = parts_of(ghosts->keyspace);
    if (!db_is_open(io->db)) {
        *error = (struct db_error){.text = "the connection is lost"};
        return false;
    }
    memset(arrays, 0, sizeof arrays);
    put_statement(ghosts, table, &sql);
    for (unsigned i = 0; i < count; i++) {
        put_array(ghosts, i, &arrays[i]);
        values[i] = buffer_head(&arrays[i]);
        lengths[i] = (int)buffer_length(&arrays[i]);
        formats[i] = 1;
    }
    bool good = PQsendQueryParams(db_connection(io->db), buffer_head(&sql), (int)count, NULL,
                                  values, lengths, formats, 0) == 1;
    if (!good)
        snprintf(error->text, sizeof error->text, "%s", PQerrorMessage(db_connection(io->db)));
    for (unsigned i = 0; i < count; i++)
        buffer_release(&arrays[i]);
    buffer_release(&sql);
    return good && copyio_flush(io, error);
}

bool copyghosts_take(const struct copyio *io, struct db_error *error)
{
    PGresult *result = db_take(io->db, WRITE_MS, error);
    PQclear(result);
    return result != NULL;
}
