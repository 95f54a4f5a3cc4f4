/* copy_load.c: sources are probed while they are copied from, and given rest. */
#include <stdlib.h>
#include <time.h>

#include "resharder/copy_internal.h"
#include "resharder/load.h"

#define PROBE_MS 5000
#define SAMPLE_US 200000
#define SETTLE_US 100000 /* what is under way when the work is laid down */
#define ALONE_EVERY_US 30000000
#define WORKED_MOST_US 1000000

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
    if (verdict == LOAD_BRAKES)
        snprintf(text, sizeof text,
                 "copying slows down: a small transaction takes %.1f ms there, %.1f ms without it",
                 load->load.with_ms, load->load.alone_ms);
    else
        snprintf(text, sizeof text, "copying is at full speed again");
    reshard_tell(reshard, RESHARD_NOTE, load->name, NULL, text, NULL);
}

/* A transaction that is written, as an application's would be. What fails is not timed: whoever reads there will hear of it. */
static void probe(struct copy_run *run, struct copy_load *load, bool alone)
{
    struct db_error ignored;
    if (load->db && !db_is_open(load->db)) {
        db_close(load->db);
        load->db = NULL;
    }
    if (!load->db)
        load->db = reshard_open(run->reshard, load->shard, &ignored);
    int64_t began = copy_clock_us();
    bool good = load->db && db_run(load->db, PROBE_MS, &ignored,
                                   "SELECT pg_logical_emit_message(true, 'pgshunt_load', '')", 0);
    double ms = (double)(copy_clock_us() - began) / 1000;
    enum load_verdict verdict = load_take(&load->load, good ? ms : 0, alone);
    if (verdict == LOAD_BRAKES || verdict == LOAD_RELEASES)
        tell(run, load, verdict);
}

/* Whether each has its samples. */
static bool probe_all(struct copy_run *run, bool alone)
{
    bool all = true;
    int brake = 0;
    for (int i = 0; i < run->nqueues; i++) {
        probe(run, &run->loads[i], alone);
        all = all && run->loads[i].load.count == 0;
        brake = run->loads[i].load.brake > brake ? run->loads[i].load.brake : brake;
    }
    run->brake = brake;
    return all;
}

void copy_load_tend(struct copy_run *run)
{
    int64_t now = copy_clock_us();
    if (!run->loads || run->halt || now < run->probe_at)
        return;
    if (run->alone && probe_all(run, true)) {
        run->alone = false;
        run->alone_at = now + ALONE_EVERY_US;
        run->probe_at = now + SAMPLE_US;
    } else if (!run->alone && now >= run->alone_at) {
        run->alone = true;
        run->probe_at = now + SETTLE_US;
    } else if (!run->alone) {
        if (!run->wait)
            probe_all(run, false);
        run->probe_at = now + SAMPLE_US;
    }
}

/* ---- the threads' rest ---- */

int64_t copy_load_rest_us(struct copy_run *run, int64_t worked_since)
{
    int64_t worked = worked_since ? copy_clock_us() - worked_since : 0;
    worked = worked < WORKED_MOST_US ? worked : WORKED_MOST_US;
    return worked * run->brake / 1000;
}
