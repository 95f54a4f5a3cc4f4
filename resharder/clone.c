/* clone.c: which server a clone is: its cluster, timelines, and the mark that it gets. */
#include "resharder/clone.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "resharder/slot.h"

#define ASK_MS 30000

bool clone_is(const struct job *job)
{
    return json_object_get(job->options, "clone") != NULL;
}

struct link clone_link(struct reshard *reshard)
{
    return (struct link){reshard->moves.items[0].source, reshard->moves.items[0].target};
}

bool clone_fails(struct reshard *reshard, const char *sqlstate, const char *text, const char *hint)
{
    struct db_error error = {.text = ""};
    snprintf(error.sqlstate, sizeof error.sqlstate, "%s", sqlstate);
    snprintf(error.text, sizeof error.text, "%s", text);
    snprintf(error.hint, sizeof error.hint, "%s", hint ? hint : "");
    reshard->error = error;
    return false;
}

/* ---- timelines ---- */

/* The first one has no history. */
static bool read_history(struct reshard *reshard, PGconn *connection,
                         struct clone_identity *identity)
{
    identity->history = "";
    if (identity->timeline <= 1)
        return true;
    PGresult *rows =
        slot_command(reshard, connection,
                     RESHARD_TEXT(reshard, "TIMELINE_HISTORY %u", identity->timeline), ASK_MS);
    if (rows)
        identity->history = arena_strdup(&reshard->arena, PQgetvalue(rows, 0, 1));
    PQclear(rows);
    return rows != NULL;
}

bool clone_identify(struct reshard *reshard, unsigned shard, struct clone_identity *identity)
{
    bool before = reshard->replicas;
    reshard->replicas = true;
    PGconn *connection = slot_connect(reshard, shard);
    reshard->replicas = before;
    PGresult *rows =
        connection ? slot_command(reshard, connection, "IDENTIFY_SYSTEM", ASK_MS) : NULL;
    bool good = rows != NULL;
    if (good) {
        identity->system = arena_strdup(&reshard->arena, PQgetvalue(rows, 0, 0));
        identity->timeline = (unsigned)strtoul(PQgetvalue(rows, 0, 1), NULL, 10);
        good = read_history(reshard, connection, identity);
    }
    PQclear(rows);
    PQfinish(connection);
    return good;
}

/* Lines are "<timeline> <where it ended> <why>"; others are comments. */
const char *clone_end_of(struct reshard *reshard, const char *history, unsigned timeline)
{
    for (const char *line = history; line && *line; line = strchr(line, '\n')) {
        unsigned number, high, low;
        line += *line == '\n';
        if (sscanf(line, " %u %X/%X", &number, &high, &low) == 3 && number == timeline)
            return RESHARD_TEXT(reshard, "%X/%X", high, low);
    }
    return NULL;
}

/* ---- what is recorded ---- */

bool clone_recorded(struct reshard *reshard, const struct job *job, const char *name,
                    const char **detail)
{
    struct job_object *objects;
    int count;
    *detail = NULL;
    if (!job_objects(reshard, job, &objects, &count))
        return false;
    for (int i = 0; i < count; i++)
        if (strcmp(objects[i].kind, CLONE_OBJECT) == 0 && strcmp(objects[i].name, name) == 0)
            *detail = objects[i].detail;
    return true;
}

/* What is removed from a clone must never be removed from anything else. */
struct db *clone_open(struct reshard *reshard, const struct job *job)
{
    struct link link = clone_link(reshard);
    struct db *db = reshard_open(reshard, link.target, &reshard->error);
    PGresult *rows = db ? db_query(db, RESHARD_QUERY_MS, &reshard->error,
                                   "SELECT FROM pgshunt.clone WHERE job = $1 AND source = $2 AND"
                                   " target = $3",
                                   3, job->name, shardmap_shard_name(reshard->map, link.source),
                                   shardmap_shard_name(reshard->map, link.target))
                        : NULL;
    bool marked = rows && PQntuples(rows);
    if (rows && !marked)
        clone_fails(reshard, "55000", "the target's server is not the clone that the job has made",
                    "Look at the nodes of the shard in the configuration.");
    PQclear(rows);
    if (marked)
        return db;
    db_close(db);
    return NULL;
}
