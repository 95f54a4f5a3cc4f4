/* stream_open.c: opens a stream's sessions: the source's for keys and questions, the target's, and the slot. */
#include "resharder/stream_open.h"

#include <stdlib.h>
#include <string.h>

#include "pgshunt/buffer.h"
#include "resharder/slot.h"

#define START_MS 30000
#define STREAMING                                                                                  \
    140000 /* versions from which on there are protocol 2, messages and binary values */

static bool fail(struct apply_failure *failure, const struct db_error *error)
{
    failure->error = *error;
    failure->passing = apply_is_passing(error->sqlstate);
    snprintf(failure->mend, sizeof failure->mend, "%.255s", error->hint);
    return false;
}

/* ---- whether values may travel in binary form ---- */

/*
 * Columns of the tables with their types, as one checksum, and how many have a binary form that means something else on
 * another server: those made of other types have their numbers inside, the reg* types are numbers of objects.
 */
static const char types_query[] =
    "SELECT coalesce(md5(string_agg(format('%s %s %s', a.attrelid::regclass, "
    "quote_ident(a.attname),"
    "   format_type(a.atttypid, a.atttypmod)), ',' ORDER BY a.attrelid::regclass::text COLLATE "
    "\"C\","
    "   a.attname)), ''),"
    " count(*) FILTER (WHERE NOT coalesce(t.typtype = 'e' OR (b.oid < 16384 AND b.typtype = 'b'"
    "   AND b.typname NOT LIKE 'reg%' AND b.typname NOT LIKE '\\_reg%'), false))"
    " FROM unnest($1::text[]) r(name) JOIN pg_attribute a ON a.attrelid = to_regclass(r.name)"
    "   AND a.attnum > 0 AND NOT a.attisdropped JOIN pg_type t ON t.oid = a.atttypid"
    " JOIN pg_type b ON b.oid = CASE t.typtype WHEN 'd' THEN t.typbasetype ELSE t.oid END";

static void put_element(struct buffer *out, const char *text)
{
    buffer_append(out, "\"", 1);
    for (const char *p = text; *p; p++)
        buffer_printf(out, *p == '"' || *p == '\\' ? "\\%c" : "%c", *p);
    buffer_append(out, "\"", 1);
}

static PGresult *ask_types(struct db *db, const struct move_tables *tables, struct db_error *error)
{
    struct buffer names = {0};
    buffer_append(&names, "{", 1);
    for (int i = 0; i < tables->count; i++) {
        if (i)
            buffer_append(&names, ",", 1);
        put_element(&names, tables->items[i].relation);
    }
    buffer_append(&names, "}", 2);
    PGresult *rows = db_query(db, RESHARD_QUERY_MS, error, types_query, 1, buffer_head(&names));
    buffer_release(&names);
    return rows;
}

/* 1: yes; 0: no; -1: failed. */
static int may_be_binary(struct db *source, struct db *target, const struct move_tables *tables,
                         struct db_error *error)
{
    PGresult *there = ask_types(source, tables, error);
    PGresult *here = there ? ask_types(target, tables, error) : NULL;
    int answer = -1;
    if (here)
        answer = strcmp(PQgetvalue(there, 0, 0), PQgetvalue(here, 0, 0)) == 0 &&
                 strcmp(PQgetvalue(there, 0, 1), "0") == 0 &&
                 strcmp(PQgetvalue(here, 0, 1), "0") == 0;
    PQclear(there);
    PQclear(here);
    return answer;
}

/* ---- the slot ---- */

/* From where the slot is (0/0), which may be ahead of the target's position, for the sake of keys; see apply.h. */
static const char *start_command(struct reshard *reshard, const struct stream_options *options,
                                 int version, bool binary)
{
    const char *more =
        version < STREAMING
            ? "proto_version '1'"
            : RESHARD_TEXT(reshard, "proto_version '2', streaming 'on', messages 'true'%s",
                           binary ? ", binary 'true'" : "");
    return RESHARD_TEXT(reshard,
                        "START_REPLICATION SLOT \"%s\" LOGICAL 0/0 (%s, publication_names"
                        " '\"%s\"')",
                        options->slot, more, options->publication);
}

static bool start_replication(struct reshard *reshard, const struct stream_options *options,
                              bool binary, PGconn **replication, struct apply_failure *failure)
{
    *replication = slot_connect(reshard, options->link.source);
    if (!*replication)
        return fail(failure, &reshard->error);
    const char *command = start_command(reshard, options, PQserverVersion(*replication), binary);
    PGresult *result = slot_command(reshard, *replication, command, START_MS);
    PQclear(result);
    if (!result) {
        fail(failure, &reshard->error);
        if (strcmp(failure->error.sqlstate, "55000") == 0 && !*failure->mend)
            snprintf(failure->mend, sizeof failure->mend,
                     "The slot has lost WAL that is still needed (max_slot_wal_keep_size): "
                     "pgshuntctl reshard cancel %s, then create it again.",
                     options->job);
        if (strcmp(failure->error.sqlstate, "42704") == 0)
            snprintf(failure->mend, sizeof failure->mend,
                     "Slots do not survive a failover before PostgreSQL 17: pgshuntctl reshard "
                     "cancel %s, then create it again.",
                     options->job);
        return false;
    }
    return PQsetnonblocking(*replication, 1) == 0;
}

bool stream_open(struct reshard *reshard, const struct stream_open_request *request,
                 struct apply **apply, PGconn **replication, struct apply_failure *failure)
{
    const struct stream_options *options = request->options;
    struct db_error error;
    struct db *source = reshard_open(reshard, options->link.source, &error);
    struct db *target = source ? reshard_open(reshard, options->link.target, &error) : NULL;
    int binary = target ? may_be_binary(source, target, options->tables, &error) : -1;
    if (binary > 0 && options->text)
        binary = 0;
    if (binary < 0) {
        db_close(source);
        db_close(target);
        return fail(failure, &error);
    }
    struct apply_options how = {
        .tables = options->tables,
        .moves = options->moves,
        .link = options->link,
        .job = options->job,
        .source = shardmap_shard_name(options->moves->map, options->link.source),
        .origin = options->origin,
        .consistent_after = options->consistent_after,
        .careful = options->careful,
        .text = !binary,
        .arg = request->arg,
        .attend = request->attend,
        .stop = request->stop,
    };
    *apply = apply_open(&how, source, target, failure);
    return *apply && start_replication(reshard, options, binary, replication, failure);
}
