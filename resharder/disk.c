/* disk.c: the free disk of a server, by a `df` that the server itself runs for a role that may have it do so. */
#include "resharder/disk.h"

#include <stdlib.h>
#include <string.h>

#define DF_MS 10000

static const char may_query[] =
    "SELECT pg_has_role('pg_execute_server_program', 'USAGE'), CASE WHEN d.dattablespace ="
    " (SELECT oid FROM pg_tablespace WHERE spcname = 'pg_default') THEN 'base'"
    " ELSE 'pg_tblspc/' || d.dattablespace END FROM pg_database d"
    " WHERE d.datname = current_database()";

/* Programs of a server run in its data directory. What is read is a row, which a rollback forgets. */
static const char df_query[] =
    "BEGIN; SET LOCAL search_path = pg_temp; CREATE TEMP TABLE pgshunt_df (line text);"
    " COPY pgshunt_df FROM PROGRAM 'LC_ALL=C df -Pk %s/.' WITH (FORMAT csv, DELIMITER E'\\x01',"
    " QUOTE E'\\x02');"
    " SELECT pg_catalog.substring(line, '[[:space:]]([0-9]+)[[:space:]]+[0-9]+%%[[:space:]]')"
    " FROM pgshunt_df WHERE line ~ '[[:space:]][0-9]+%%[[:space:]]' LIMIT 1";

static int64_t unknown(struct reshard *reshard, const char **why, const char *text)
{
    *why = RESHARD_TEXT(reshard, "%s", text);
    return -1;
}

static int64_t ask_df(struct reshard *reshard, struct db *db, const char *folder, const char **why)
{
    struct db_error error;
    PGresult *rows = db_query(db, DF_MS, &error, RESHARD_TEXT(reshard, df_query, folder), 0);
    if (!rows)
        return unknown(reshard, why, error.text);
    bool told = PQntuples(rows) == 1 && PQnfields(rows) == 1 && !PQgetisnull(rows, 0, 0);
    int64_t kilobytes = told ? strtoll(PQgetvalue(rows, 0, 0), NULL, 10) : -1;
    PQclear(rows);
    bool counts = kilobytes >= 0 && kilobytes < INT64_MAX / 1024;
    return counts ? kilobytes * 1024 : unknown(reshard, why, "df says nothing that is known");
}

int64_t disk_free(struct reshard *reshard, unsigned shard, const char **why)
{
    int64_t bytes = -2;
    struct db *db = reshard_open(reshard, shard, &reshard->error);
    PGresult *rows = db ? db_query(db, RESHARD_QUERY_MS, &reshard->error, may_query, 0) : NULL;
    if (rows && PQntuples(rows) == 1)
        bytes = PQgetvalue(rows, 0, 0)[0] == 't'
                    ? ask_df(reshard, db, PQgetvalue(rows, 0, 1), why)
                    : unknown(reshard, why,
                              "this role is neither a superuser nor a member of"
                              " pg_execute_server_program");
    PQclear(rows);
    db_close(db); /* its transaction is rolled back */
    return bytes;
}
