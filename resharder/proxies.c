/* proxies.c: waits for the last transaction that was begun under an older map, on any proxy. */
#include "resharder/proxies.h"

#include <stdio.h>
#include <string.h>

#include "pgshunt/catalog.h"

#define LOOK_EVERY_MS 100
#define LOOK_AT_JOB_MS 500
#define FOLLOW_MS 30000
#define DRAIN_MS 600000
#define SAY_MS 2000 /* nobody has to know of shorter waits */

struct wait {
    struct reshard *reshard;
    struct job *job;
    int64_t epoch, began, drain_ms;
    int64_t looked_at;       /* at the job */
    char who[320], how[480]; /* in the way now: who, and what it is about */
    char said[480];          /* `who`, as it was told last */
    bool follows;            /* all have the map; what is in the way is a transaction */
};

static bool blocks(struct wait *wait, const struct catalog_proxy *proxy)
{
    if (proxy->epoch >= wait->epoch && proxy->oldest >= wait->epoch)
        return false;
    snprintf(wait->who, sizeof wait->who, "%s process %d", proxy->host, proxy->pid);
    wait->follows = proxy->epoch >= wait->epoch;
    if (!wait->follows)
        snprintf(wait->how, sizeof wait->how, "a proxy does not follow the map (%.300s)",
                 wait->who);
    else if (proxy->oldest < 0)
        snprintf(
            wait->how, sizeof wait->how,
            "a proxy does not tell whether transactions from before have ended (%.200s, version "
            "%.40s)",
            wait->who, proxy->version);
    else
        snprintf(wait->how, sizeof wait->how,
                 "a transaction that was begun before has not ended: proxy %.120s, %.200s",
                 wait->who, proxy->oldest_who);
    return true;
}

/* What has to be waited for most comes first: a proxy that does not follow. False: it cannot be known. */
static bool look(struct wait *wait)
{
    struct catalog_proxy *proxies;
    struct arena arena;
    int count;
    arena_init(&arena);
    bool known = catalog_proxies(reshard_catalog(wait->reshard), wait->reshard->request->database,
                                 &arena, &proxies, &count, &wait->reshard->error);
    wait->who[0] = '\0';
    wait->follows = true;
    for (int i = 0; known && i < count && wait->follows; i++)
        blocks(wait, &proxies[i]);
    arena_free(&arena);
    return known;
}

static bool gives_up(struct wait *wait, const char *hint)
{
    struct db_error *error = &wait->reshard->error;
    *error = (struct db_error){.sqlstate = "55P03"};
    snprintf(error->text, sizeof error->text, "%.470s", wait->how);
    snprintf(error->hint, sizeof error->hint, "%s", hint);
    return false;
}

static void say(struct wait *wait)
{
    if (db_clock_ms() - wait->began < SAY_MS || strcmp(wait->said, wait->how) == 0)
        return;
    snprintf(wait->said, sizeof wait->said, "%.470s", wait->how);
    reshard_tell(wait->reshard, RESHARD_NOTE, NULL, wait->job->name,
                 RESHARD_TEXT(wait->reshard, "waits: %s", wait->how), NULL);
    job_set_error(wait->reshard, wait->job, RESHARD_TEXT(wait->reshard, "waits: %s", wait->how));
}

/* False: nobody wants it any more. */
static bool job_goes_on(struct wait *wait)
{
    if (db_clock_ms() - wait->looked_at < LOOK_AT_JOB_MS)
        return true;
    wait->looked_at = db_clock_ms();
    if (!job_look(wait->reshard, wait->job))
        return false;
    if (wait->job->state == JOB_CREATED)
        return true;
    snprintf(wait->how, sizeof wait->how, "the job is %s now", job_state_name(wait->job->state));
    return gives_up(wait, "");
}

static bool wait_for_all(struct wait *wait)
{
    while (look(wait)) {
        if (!wait->who[0])
            return true;
        int64_t waited = db_clock_ms() - wait->began;
        if (reshard_stopped(wait->reshard) ||
            waited >= (wait->follows ? wait->drain_ms : FOLLOW_MS))
            return gives_up(
                wait,
                !wait->follows
                    ? ""
                    : "It might see rows twice while they are copied. End it, or give it more "
                      "time (--drain), and run the job again.");
        say(wait);
        if (!job_goes_on(wait))
            return false;
        reshard_sleep(wait->reshard, LOOK_EVERY_MS * 1000);
    }
    return false;
}

bool proxies_wait(struct reshard *reshard, struct job *job, int64_t drain_ms)
{
    struct shardmap *map;
    if (!catalog_read_map(reshard_catalog(reshard), reshard->database, &map, &reshard->error))
        return false;
    struct wait wait = {.reshard = reshard,
                        .job = job,
                        .epoch = shardmap_epoch(map),
                        .began = db_clock_ms(),
                        .drain_ms = drain_ms ? drain_ms : DRAIN_MS};
    shardmap_free(map);
    bool done = wait_for_all(&wait);
    if (wait.said[0])
        job_set_error(reshard, job, NULL);
    return done;
}
