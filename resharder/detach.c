/* detach.c: a job that is left to the proxies: what is recorded for whoever runs it. */
#include "resharder/detach.h"

#include <stdlib.h>
#include <string.h>

#include "pgshunt/catalog.h"

/* ---- what is recorded ---- */

static int64_t wish(const struct job *job, const char *name)
{
    return json_integer_value(json_object_get(job->options, name));
}

struct reshard_run_options detach_options(const struct job *job,
                                          const struct reshard_run_options *said)
{
    struct reshard_run_options options = *said;
    if (!options.jobs)
        options.jobs = (int)wish(job, "jobs");
    if (!options.rate)
        options.rate = wish(job, "rate");
    if (!options.max_lag_ms)
        options.max_lag_ms = wish(job, "max_lag_ms");
    if (!options.max_load)
        options.max_load = (int)wish(job, "max_load");
    if (!options.drain_ms)
        options.drain_ms = wish(job, "drain_ms");
    return options;
}

/* Who is to log in, where it is not whom the proxies log in as anyway. */
static const char *user_of(const struct reshard *reshard)
{
    const char *environment = getenv("PGUSER");
    return reshard->request->user ? reshard->request->user : environment ? environment : "";
}

static bool record(struct reshard *reshard, const struct job *job,
                   const struct reshard_run_options *options)
{
    return db_run(reshard_catalog(reshard), RESHARD_QUERY_MS, &reshard->error,
                  "WITH changed AS (UPDATE pgshunt.job SET options = options ||"
                  " jsonb_strip_nulls(jsonb_build_object('detached', true, 'jobs', nullif($2::int,"
                  " 0), 'rate', nullif($3::bigint, 0), 'max_lag_ms', nullif($4::bigint, 0), "
                  "'max_load', nullif($6::int, 0), 'drain_ms', nullif($7::bigint, 0), 'user', "
                  "nullif($8, ''))),"
                  " changed_at = now() WHERE name = $1)"
                  " SELECT pg_notify('pgshunt_map', $5)",
                  8, job->name, RESHARD_TEXT(reshard, "%d", options->jobs),
                  RESHARD_TEXT(reshard, "%lld", (long long)options->rate),
                  RESHARD_TEXT(reshard, "%lld", (long long)options->max_lag_ms),
                  reshard->request->database, RESHARD_TEXT(reshard, "%d", options->max_load),
                  RESHARD_TEXT(reshard, "%lld", (long long)options->drain_ms), user_of(reshard));
}

/* ---- the call ---- */

/* Nobody can tell whether they have the setting; that they are there can be told. */
static void look_for_proxies(struct reshard *reshard, const struct job *job)
{
    struct catalog_proxy *proxies;
    int count = 0;
    if (catalog_proxies(reshard_catalog(reshard), reshard->request->database, &reshard->arena,
                        &proxies, &count, &reshard->error) &&
        !count)
        reshard_tell(reshard, RESHARD_NOTE, NULL, job->name,
                     "no proxy is alive now: one will run it when it is (reshard.daemon)", NULL);
}

static enum reshard_outcome detach(struct reshard *reshard, const struct job *job,
                                   const struct reshard_run_options *options)
{
    if (job->state >= JOB_COMPLETING) {
        reshard_tell(reshard, RESHARD_PROBLEM, NULL, job->name,
                     RESHARD_TEXT(reshard, "the job is %s: there is nothing to run",
                                  job_state_name(job->state)),
                     NULL);
        return RESHARD_REFUSED;
    }
    if (reshard->request->dry_run) {
        reshard_tell(reshard, RESHARD_PLANNED, NULL, job->name, "the job is left to the proxies",
                     NULL);
        return RESHARD_DONE;
    }
    if (!record(reshard, job, options))
        return reshard_fails(reshard, NULL, "cannot change the job");
    job_step(reshard, job, "detached", NULL);
    look_for_proxies(reshard, job);
    return RESHARD_DONE;
}

enum reshard_outcome reshard_detach(const struct reshard_request *request,
                                    const struct reshard_run_options *options)
{
    struct reshard reshard;
    struct job job;
    enum reshard_outcome outcome = RESHARD_UNFINISHED;
    if (reshard_begin(&reshard, request) && job_open(&reshard, &job, &outcome)) {
        outcome = detach(&reshard, &job, options);
        job_free(&job);
    }
    reshard_end(&reshard);
    return outcome;
}
