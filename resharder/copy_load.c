/* copy_load.c: sources are probed while they are copied from, and given rest. */
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>

#include "resharder/copy_internal.h"
#include "resharder/load.h"

#define PROBE_MS 5000
#define SAMPLE_US 200000
#define SETTLE_US 300000           /* what is under way when the work is laid down */
#define UNDER_WAY_MOST (512 << 10) /* bytes given to a target that it has not taken */
#define ALONE_EVERY_US 15000000
#define WORKED_MOST_US 1000000

/* How many transactions have written so far is what number the next one gets. */
static const char probe_sql[] = "SELECT pg_snapshot_xmax(pg_current_snapshot()), "
                                "pg_logical_emit_message(true, 'pgshunt_load', '')";

struct copy_load {
    struct load load;
    struct db *db; /* owned */
    unsigned shard;
    const char *name;
};

int64_t copy_clock_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

void copy_load_bound(const struct copy_run *run, struct db *db)
{
    int most = UNDER_WAY_MOST;
    if (run->options->max_load >= 0)
        setsockopt(PQsocket(db_connection(db)), SOL_SOCKET, SO_SNDBUF, &most, sizeof most);
}

/* ---- beginning and end ---- */

void copy_load_begin(struct copy_run *run)
{
    int percent = run->options->max_load ? run->options->max_load : LOAD_PERCENT;
    if (percent < 0)
        return;
    run->loads = mem_alloc(((size_t)run->nqueues + 1) * sizeof *run->loads);
    for (int i = 0; i < run->nqueues; i++)
        run->loads[i] = (struct copy_load){.load = {.percent = percent},
                                           .shard = run->queues[i].source->shard,
                                           .name = run->queues[i].name};
    run->alone = run->nqueues > 0;
}

void copy_load_end(struct copy_run *run)
{
    for (int i = 0; run->loads && i < run->nqueues; i++)
        db_close(run->loads[i].db);
    free(run->loads);
    run->loads = NULL;
}

/* ---- probing ---- */

static void tell(struct copy_run *run, const struct copy_load *load, enum load_verdict verdict)
{
    struct reshard *reshard = run->reshard;
    char text[160];
    if (verdict == LOAD_BRAKES && !load_is_slow(&load->load))
        snprintf(text, sizeof text,
                 "copying slows down: %.0f transactions a second write there, %.0f without it",
                 load_per_second(&load->load.with_pace), load_per_second(&load->load.alone_pace));
    else if (verdict == LOAD_BRAKES)
        snprintf(text, sizeof text,
                 "copying slows down: a small transaction takes %.1f ms there, %.1f ms without it",
                 load->load.with_ms, load->load.alone_ms);
    else
        snprintf(text, sizeof text, "copying is at full speed again");
    reshard_tell(reshard, RESHARD_NOTE, load->name, NULL, text, NULL);
}

static struct db *session(struct copy_run *run, struct copy_load *load)
{
    struct db_error ignored;
    if (load->db && !db_is_open(load->db)) {
        db_close(load->db);
        load->db = NULL;
    }
    if (!load->db)
        load->db = reshard_open(run->reshard, load->shard, &ignored);
    return load->db;
}

/* A transaction that is written, as an application's would be. What fails is not timed: whoever reads there will hear of it. */
static enum load_verdict probe(struct copy_run *run, struct copy_load *load, bool alone)
{
    struct db_error ignored;
    struct db *db = session(run, load);
    int64_t began = copy_clock_us();
    PGresult *rows = db ? db_query(db, PROBE_MS, &ignored, probe_sql, 0) : NULL;
    struct load_sample sample = {.at = copy_clock_us()};
    if (rows) {
        sample.ms = (double)(sample.at - began) / 1000;
        sample.transactions = strtoull(PQgetvalue(rows, 0, 0), NULL, 10);
    }
    PQclear(rows);
    enum load_verdict verdict = load_take(&load->load, &sample, alone);
    if (verdict == LOAD_BRAKES || verdict == LOAD_RELEASES)
        tell(run, load, verdict);
    return verdict;
}

/* Whether one of them is in doubt. */
static bool probe_all(struct copy_run *run, bool alone)
{
    bool doubts = false;
    int brake = 0;
    for (int i = 0; i < run->nqueues; i++) {
        doubts = probe(run, &run->loads[i], alone) == LOAD_DOUBTS || doubts;
        brake = run->loads[i].load.brake > brake ? run->loads[i].load.brake : brake;
    }
    run->brake = brake;
    return doubts;
}

static bool all_known_alone(const struct copy_run *run)
{
    for (int i = 0; i < run->nqueues; i++)
        if (run->loads[i].load.alone_at < run->laid_at || !run->loads[i].load.alone_at)
            return false;
    return true;
}

static bool all_calm(const struct copy_run *run)
{
    for (int i = 0; i < run->nqueues; i++)
        if (!load_is_calm(&run->loads[i].load))
            return false;
    return true;
}

static void lay_down(struct copy_run *run, int64_t now)
{
    run->alone = true;
    run->laid_at = now;
    run->probe_at = now + SETTLE_US;
}

void copy_load_tend(struct copy_run *run)
{
    int64_t now = copy_clock_us();
    if (!run->loads || run->halt || now < run->probe_at)
        return;
    if (run->alone) {
        probe_all(run, true);
        run->alone = !all_known_alone(run);
        run->alone_at = now + ALONE_EVERY_US;
        run->probe_at = run->alone ? now : now + SAMPLE_US;
    } else if (now >= run->alone_at && !all_calm(run)) {
        lay_down(run, now);
    } else {
        run->probe_at = now + SAMPLE_US;
        if (!run->wait && probe_all(run, false))
            lay_down(run, now);
    }
}

/* ---- the threads' rest ---- */

int64_t copy_load_rest_us(struct copy_run *run, int64_t worked_since)
{
    int64_t worked = worked_since ? copy_clock_us() - worked_since : 0;
    worked = worked < WORKED_MOST_US ? worked : WORKED_MOST_US;
    return worked * run->brake / 1000;
}
