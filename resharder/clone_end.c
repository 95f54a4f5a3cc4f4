/* clone_end.c: a clone whose job ends: completed, it is a shard like any other; cancelled, it is a copy to be thrown away. */
#include <string.h>

#include "resharder/clean.h"
#include "resharder/clone.h"

bool clone_is_promoted(struct reshard *reshard)
{
    struct db_error kept = reshard->error;
    bool is = reshard_primary(reshard, clone_link(reshard).target) != NULL;
    reshard->error = kept;
    return is;
}

static bool is_of_target(struct reshard *reshard, const struct job_object *object)
{
    return strcmp(object->shard, shardmap_shard_name(reshard->map, clone_link(reshard).target)) ==
           0;
}

/* A server that is away, or a replica still, keeps whatever it has. */
static bool strike_out(struct reshard *reshard, const struct job *job)
{
    struct job_object *objects;
    int count;
    if (!job_objects(reshard, job, &objects, &count))
        return false;
    for (int i = 0; i < count; i++)
        if (is_of_target(reshard, &objects[i]) && strcmp(objects[i].kind, CLONE_OBJECT) != 0 &&
            !job_has_removed(reshard, job, &objects[i]))
            return false;
    return true;
}

/* What is to be done with the server, whose rows stay. */
static void advise(struct reshard *reshard, bool asked, bool promoted)
{
    struct link link = clone_link(reshard);
    const char *source = shardmap_shard_name(reshard->map, link.source),
               *target = shardmap_shard_name(reshard->map, link.target);
    const char *mend =
        RESHARD_TEXT(reshard,
                     "Take the shard out of the configuration of every proxy, and remove the "
                     "server, or make it anew by pg_basebackup from the primary of %s",
                     source);
    if (promoted)
        reshard_tell(reshard, RESHARD_NOTE, target, NULL,
                     RESHARD_TEXT(reshard,
                                  "its server is a copy of %s as it was, and no replica any more: "
                                  "it is to be thrown away",
                                  source),
                     mend);
    else if (asked)
        reshard_tell(reshard, RESHARD_NOTE, target, NULL,
                     "its server was told to promote itself, and is no primary that answers now: "
                     "it is to be thrown away, whatever it is",
                     mend);
    else
        reshard_tell(
            reshard, RESHARD_NOTE, target, NULL,
            RESHARD_TEXT(reshard, "its server is what it was, a replica of %s", source),
            "Create another job for it, or take the shard out of the configuration of every proxy");
}

static bool was_asked(struct reshard *reshard, const struct job *job, bool *asked)
{
    struct job_object *objects;
    int count;
    *asked = false;
    if (!job_objects(reshard, job, &objects, &count))
        return false;
    for (int i = 0; i < count; i++)
        *asked |= strcmp(objects[i].kind, CLONE_OBJECT) == 0 &&
                  strcmp(objects[i].name, CLONE_PROMOTION) == 0;
    return true;
}

bool clone_leave(struct reshard *reshard, const struct job *job)
{
    bool promoted = clone_is_promoted(reshard), asked;
    if (!was_asked(reshard, job, &asked) || (!promoted && !strike_out(reshard, job)))
        return false;
    advise(reshard, asked, promoted);
    return true;
}

bool clone_settle(struct reshard *reshard)
{
    struct db *db = reshard_primary(reshard, clone_link(reshard).target);
    return db &&
           db_run(db, RESHARD_QUERY_MS, &reshard->error, "DROP TABLE IF EXISTS pgshunt.clone", 0);
}

void clone_tell(struct reshard *reshard, const struct job *job)
{
    const char *position = NULL, *text;
    bool asked = false;
    if (job->state >= JOB_STREAMING || !clone_recorded(reshard, job, CLONE_POSITION, &position) ||
        !was_asked(reshard, job, &asked))
        text = "is a clone of its source";
    else if (asked)
        text = "is a clone of its source: promoted, rows that do not move are deleted from it";
    else if (position)
        text = RESHARD_TEXT(reshard,
                            "is a replica of its source, to be promoted when it has replayed %s",
                            position);
    else
        text = "is a replica of its source, to be promoted by run";
    reshard_tell(reshard, RESHARD_FACT,
                 shardmap_shard_name(reshard->map, clone_link(reshard).target), job->name, text,
                 NULL);
}
