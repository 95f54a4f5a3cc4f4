/* run.c: a failover from the request to its outcome. */
#include "failover/run.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

/* ---- for the parts ---- */

void run_nap(int milliseconds)
{
    struct timespec time = {milliseconds / 1000, (long)(milliseconds % 1000) * 1000000};
    nanosleep(&time, NULL);
}

void run_tell(struct run *run, enum failover_event_kind kind, const char *step, const char *text,
              const char *mend)
{
    struct failover_event event = {.kind = kind, .step = step, .text = text, .mend = mend};
    run->request->progress(run->request->arg, &event);
}

bool run_fails(struct run *run, const char *text, const char *mend)
{
    run->error = (struct db_error){.text = ""};
    snprintf(run->error.text, sizeof run->error.text, "%s", text);
    run->mend = mend;
    return false;
}

static bool is_stopped(const struct run *run)
{
    return run->request->stop && *run->request->stop && !run->promoted;
}

bool run_goes_on(struct run *run)
{
    return !is_stopped(run) || run_fails(run, "interrupted", NULL);
}

/* ---- steps ---- */

static bool carry_out(struct run *run, const struct step *step)
{
    int64_t began = db_clock_ms();
    run_tell(run, FAILOVER_BEGIN, step->name, step->help, NULL);
    run->mend = NULL;
    if (!run_goes_on(run) || !step->run(run)) {
        run_tell(run, FAILOVER_FAILED, step->name, run->error.text,
                 run->mend          ? run->mend
                 : *run->error.hint ? run->error.hint
                                    : NULL);
        return false;
    }
    run->request->progress(run->request->arg,
                           &(struct failover_event){.kind = FAILOVER_DONE,
                                                    .step = step->name,
                                                    .text = step->help,
                                                    .took_ms = db_clock_ms() - began});
    return true;
}

/* Behind the promotion a step that fails leaves the others to be done all the same. */
static enum failover_outcome carry_out_all(struct run *run)
{
    for (const struct step *step = steps_of(run->verdict.kind); step->name; step++) {
        if (carry_out(run, step))
            continue;
        if (run->verdict.kind == VERDICT_FINISH || run->promoted) {
            run->unfinished = true;
            if (strcmp(step->name, "promote") != 0)
                continue;
            run_tell(run, FAILOVER_TODO, NULL, "it is not known whether the replica was promoted",
                     "run it again: it finishes what this run has left");
            return FAILOVER_OUTCOME_UNFINISHED;
        }
        bool undone = steps_undo(run);
        if (!undone || run->verdict.kind == VERDICT_UNDO)
            return FAILOVER_OUTCOME_UNFINISHED;
        return is_stopped(run) ? FAILOVER_OUTCOME_INTERRUPTED : FAILOVER_OUTCOME_UNDONE;
    }
    if (run->verdict.kind != VERDICT_UNDO)
        follow_tell_rest(run);
    return run->unfinished ? FAILOVER_OUTCOME_UNFINISHED : FAILOVER_OUTCOME_DONE;
}

static enum failover_outcome plan(struct run *run)
{
    for (const struct step *step = steps_of(run->verdict.kind); step->name; step++)
        run_tell(run, FAILOVER_PLANNED, step->name, step->help, NULL);
    return FAILOVER_OUTCOME_DONE;
}

/* ---- the whole ---- */

static void tell_findings(struct run *run)
{
    const struct verdict *verdict = &run->verdict;
    if (verdict->primary >= 0)
        run_tell(run, FAILOVER_FACT, NULL,
                 RUN_TEXT(run, "primary of shard %s: %s, on timeline %d", run->facts.shard,
                          run_primary(run)->name, run_primary(run)->timeline),
                 NULL);
    if (verdict->candidate >= 0 && verdict->candidate != verdict->primary)
        run_tell(run, FAILOVER_FACT, NULL,
                 RUN_TEXT(run, "replica to be promoted: %s", run_candidate(run)->name), NULL);
    for (int i = 0; i < verdict->count; i++)
        run_tell(run, verdict->findings[i].kind, NULL, verdict->findings[i].text,
                 verdict->findings[i].mend);
}

static enum failover_outcome decide(struct run *run)
{
    const struct failover_request *request = run->request;
    struct wishes wishes = {request->to, request->force, request->accept_data_loss,
                            request->ignore_unknown_proxies, request->undo};
    judge(&run->facts, &wishes, &run->arena, &run->verdict);
    tell_findings(run);
    if (run->verdict.kind == VERDICT_REFUSED)
        return FAILOVER_OUTCOME_REFUSED;
    if (is_stopped(run))
        return FAILOVER_OUTCOME_INTERRUPTED;
    return request->dry_run ? plan(run) : carry_out_all(run);
}

static void close_all(struct run *run)
{
    for (int i = 0; run->nodes && i < run->facts.nnodes; i++)
        db_close(run->nodes[i]);
    for (int i = 0; run->proxies && i < run->facts.nproxies; i++)
        db_close(run->proxies[i]);
    arena_free(&run->arena);
}

enum failover_outcome failover_run(const struct failover_request *request)
{
    struct run run = {.request = request};
    enum failover_outcome outcome = FAILOVER_OUTCOME_REFUSED;
    arena_init(&run.arena);
    survey_logins(&run);
    if (survey_find_shard(&run)) {
        survey_nodes(&run);
        consoles_open(&run);
        consoles_survey(&run);
        outcome = decide(&run);
    } else {
        run_tell(&run, FAILOVER_OBSTACLE, NULL, run.error.text, run.mend);
    }
    close_all(&run);
    return outcome;
}
