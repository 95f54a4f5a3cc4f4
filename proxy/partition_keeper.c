/* partition_keeper.c: partitions maintained on a schedule, by whichever proxy comes first. */
#include "proxy/partition_keeper.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "pgshunt/cron.h"
#include "pgshunt/db.h"
#include "pgshunt/log.h"
#include "proxy/worker.h"

#define LOOK_AGAIN_MS (5 * 60 * 1000) /* for metrics, while no run was made */

/* What is known of one database. */
struct kept {
    struct kept *next;
    char *database;
    struct partition_survey survey; /* guarded by the keeper's lock */
    int64_t looked_at;              /* the thread's own, as the next; 0: never */
    char said[256];                 /* the last failure that was logged */
};

struct partition_keeper {
    struct daemon *daemon;
    pthread_t thread;
    volatile sig_atomic_t stop;
    struct kept *databases; /* only the thread adds to it, under the lock */

    pthread_mutex_t lock;
    pthread_cond_t changed;
};

/* ---- a database ---- */

static struct kept *find_kept(const struct partition_keeper *keeper, const char *database)
{
    struct kept *kept = keeper->databases;
    while (kept && strcmp(kept->database, database) != 0)
        kept = kept->next;
    return kept;
}

static struct kept *kept_for(struct partition_keeper *keeper, const char *database)
{
    struct kept *kept = find_kept(keeper, database);
    if (kept)
        return kept;
    kept = mem_alloc(sizeof *kept);
    kept->database = mem_strdup(database);
    arena_init(&kept->survey.arena);
    pthread_mutex_lock(&keeper->lock);
    kept->next = keeper->databases;
    keeper->databases = kept;
    pthread_mutex_unlock(&keeper->lock);
    return kept;
}

/* ---- what the engine tells ---- */

struct telling {
    struct kept *kept;
    bool run;    /* else only looking */
    bool failed; /* something was told as a failure */
};

/* What keeps failing is said once, until something else does. */
static bool is_news(struct telling *telling, const struct fleet_event *event)
{
    char text[sizeof telling->kept->said];
    snprintf(text, sizeof text, "%s %s %s", event->shard ? event->shard : "",
             event->object ? event->object : "", event->text);
    if (strcmp(text, telling->kept->said) == 0)
        return false;
    memcpy(telling->kept->said, text, sizeof text);
    return true;
}

static void on_event(void *arg, const struct fleet_event *event)
{
    struct telling *telling = arg;
    bool bad = event->kind == FLEET_FAILED || event->kind == FLEET_PROBLEM;
    telling->failed |= event->kind == FLEET_FAILED;
    if ((!bad && !telling->run) || (bad && !is_news(telling, event)))
        return;
    log_event(bad ? LOG_WARNING : LOG_INFO, "partitions",
              LOG_S("database", telling->kept->database),
              LOG_S("shard", event->shard ? event->shard : ""),
              LOG_S("table", event->object ? event->object : ""), LOG_S("what", event->text),
              LOG_S("hint", event->mend ? event->mend : ""));
}

static struct partition_call call_of(struct partition_keeper *keeper, const struct config *config,
                                     struct telling *telling)
{
    return (struct partition_call){
        .fleet = {.config = config,
                  .database = telling->kept->database,
                  .user = config->partition_user[0] ? config->partition_user : config->monitor_user,
                  .stop = &keeper->stop,
                  .tell = on_event,
                  .arg = telling},
    };
}

/* ---- a round ---- */

static void look(struct partition_keeper *keeper, struct kept *kept,
                 const struct partition_call *call)
{
    struct partition_survey survey;
    enum fleet_outcome outcome = partition_look(call, false, &survey);
    if (outcome == FLEET_OUTCOME_DONE || survey.ntables) {
        pthread_mutex_lock(&keeper->lock);
        struct partition_survey before = kept->survey;
        kept->survey = survey;
        survey = before;
        pthread_mutex_unlock(&keeper->lock);
    }
    partition_survey_free(&survey);
    kept->looked_at = db_clock_ms();
}

static void tend(struct partition_keeper *keeper, const struct config *config, const char *database)
{
    struct kept *kept = kept_for(keeper, database);
    struct telling telling = {.kept = kept};
    struct partition_call call = call_of(keeper, config, &telling);
    struct cron cron;
    bool due = config->partition_schedule[0] && cron_parse(config->partition_schedule, &cron) &&
               partition_is_due(&call, &cron);
    if (due) {
        telling.run = true;
        call.timeout = config->partition_timeout;
        call.schedule = &cron;
        if (partition_maintain(&call) == FLEET_OUTCOME_DONE)
            kept->said[0] = '\0';
        telling.run = false;
        call.timeout = 0;
        call.schedule = NULL;
    }
    bool stale = !kept->looked_at || db_clock_ms() - kept->looked_at > LOOK_AGAIN_MS;
    if (!keeper->stop && !telling.failed && (due || stale))
        look(keeper, kept, &call);
}

static int64_t pause_of(struct partition_keeper *keeper)
{
    struct topology *topology = daemon_topology(keeper->daemon);
    int64_t pause = topology->config->partition_interval;
    topology_unref(topology);
    return pause;
}

static void make_round(struct partition_keeper *keeper)
{
    struct topology *topology = daemon_topology(keeper->daemon);
    const struct config *config = topology->config;
    for (int i = 0; i < config->ndatabases && !keeper->stop; i++)
        tend(keeper, config, config->databases[i].name);
    topology_unref(topology);
}

/* ---- the thread ---- */

static void wait_for(struct partition_keeper *keeper, int64_t ms)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += ms / 1000;
    until.tv_nsec += (long)(ms % 1000) * 1000000;
    if (until.tv_nsec >= 1000000000) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000;
    }
    pthread_mutex_lock(&keeper->lock);
    while (!keeper->stop)
        if (pthread_cond_timedwait(&keeper->changed, &keeper->lock, &until) == ETIMEDOUT)
            break;
    pthread_mutex_unlock(&keeper->lock);
}

static void *run(void *arg)
{
    struct partition_keeper *keeper = arg;
    pthread_setname_np(pthread_self(), "pgshunt-parts");
    log_thread_name("partitions");
    wait_for(keeper, pause_of(keeper));
    while (!keeper->stop) {
        make_round(keeper);
        wait_for(keeper, pause_of(keeper));
    }
    return NULL;
}

static void free_keeper(struct partition_keeper *keeper)
{
    while (keeper->databases) {
        struct kept *kept = keeper->databases;
        keeper->databases = kept->next;
        partition_survey_free(&kept->survey);
        free(kept->database);
        free(kept);
    }
    pthread_cond_destroy(&keeper->changed);
    pthread_mutex_destroy(&keeper->lock);
    free(keeper);
}

struct partition_keeper *partition_keeper_start(struct daemon *daemon)
{
    struct partition_keeper *keeper = mem_alloc(sizeof *keeper);
    pthread_condattr_t attributes;
    keeper->daemon = daemon;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_mutex_init(&keeper->lock, NULL);
    pthread_cond_init(&keeper->changed, &attributes);
    pthread_condattr_destroy(&attributes);
    if (pthread_create(&keeper->thread, NULL, run, keeper) == 0)
        return keeper;
    free_keeper(keeper);
    return NULL;
}

void partition_keeper_stop(struct partition_keeper *keeper)
{
    if (!keeper)
        return;
    pthread_mutex_lock(&keeper->lock);
    keeper->stop = 1;
    pthread_cond_broadcast(&keeper->changed);
    pthread_mutex_unlock(&keeper->lock);
    pthread_join(keeper->thread, NULL);
    free_keeper(keeper);
}

/* ---- for others ---- */

void partition_keeper_report(struct partition_keeper *keeper, const char *database,
                             struct arena *arena, struct partition_report *report)
{
    *report = (struct partition_report){.ntables = 0};
    if (!keeper)
        return;
    pthread_mutex_lock(&keeper->lock);
    const struct kept *kept = find_kept(keeper, database);
    if (kept) {
        const struct partition_survey *survey = &kept->survey;
        struct partition_table *tables =
            arena_array(arena, struct partition_table, survey->ntables + 1);
        for (int i = 0; i < survey->ntables; i++) {
            tables[i] = survey->tables[i];
            tables[i].table = arena_strdup(arena, survey->tables[i].table);
        }
        *report = (struct partition_report){.tables = tables,
                                            .ntables = survey->ntables,
                                            .last_success = survey->last_success,
                                            .last_seconds = survey->last_seconds};
    }
    pthread_mutex_unlock(&keeper->lock);
}
