/* reshard_runner.c: children that run detached jobs of resharding. */
#include "proxy/reshard_runner.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "pgshunt/buffer.h"
#include "pgshunt/log.h"
#include "proxy/poller.h"

#define LOOK_EVERY_MS 1000
#define ASK_MS 5000
#define AGAIN_FIRST_MS 1000
#define AGAIN_MOST_MS 60000
#define GOOD_MS 60000 /* one that has run for so long had begun well */
#define END_MS 5000

extern char **environ;

/*
 * started --ends--> waiting until again_at --nobody has the job--> started ...; forgotten when nothing is heard of the job.
 */
struct child {
    struct child *next;
    char *job;
    pid_t pid; /* 0: none runs */
    int64_t started_at, again_at, delay_ms;
    bool wanted; /* by the newest look */
};

struct reshard_runner {
    char *database;
    struct child *children;
    int64_t looked_at;
    char said[512]; /* so as not to repeat it */
};

struct reshard_runner *reshard_runner_new(const char *database)
{
    struct reshard_runner *runner = mem_alloc(sizeof *runner);
    runner->database = mem_strdup(database);
    return runner;
}

/* ---- a child ---- */

/* pgshuntctl is where this program is. */
static bool find_program(char *path, size_t size)
{
    char self[PATH_MAX];
    ssize_t length = readlink("/proc/self/exe", self, sizeof self - 1);
    if (length <= 0)
        return false;
    self[length] = '\0';
    char *slash = strrchr(self, '/');
    if (slash)
        *slash = '\0';
    return snprintf(path, size, "%s/pgshuntctl", self) < (int)size && access(path, X_OK) == 0;
}

/* With a quiet standard output: the job's row and history have it all. */
static int spawn(pid_t *pid, char **argv)
{
    posix_spawnattr_t attributes;
    posix_spawn_file_actions_t files;
    sigset_t none, usual;
    sigemptyset(&none);
    sigfillset(&usual);
    posix_spawnattr_init(&attributes);
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setsigdefault(&attributes, &usual);
    posix_spawnattr_setpgroup(&attributes, 0); /* a Ctrl-C is the proxy's, which ends them */
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF |
                                              POSIX_SPAWN_SETPGROUP);
    posix_spawn_file_actions_init(&files);
    posix_spawn_file_actions_addopen(&files, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_addopen(&files, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
    poller_descriptors_shared(true);
    int failed = posix_spawn(pid, argv[0], &files, &attributes, argv, environ);
    poller_descriptors_shared(false);
    posix_spawn_file_actions_destroy(&files);
    posix_spawnattr_destroy(&attributes);
    return failed;
}

static void complain(struct reshard_runner *runner, const struct child *child, const char *reason)
{
    char said[sizeof runner->said];
    snprintf(said, sizeof said, "%s: %s", child->job, reason);
    if (strcmp(said, runner->said) == 0)
        return;
    memcpy(runner->said, said, sizeof said);
    log_event(LOG_WARNING, "a resharding job cannot be run", LOG_S("database", runner->database),
              LOG_S("job", child->job), LOG_S("reason", reason));
}

static void put_off(struct child *child)
{
    child->delay_ms = child->delay_ms ? 2 * child->delay_ms : AGAIN_FIRST_MS;
    if (child->delay_ms > AGAIN_MOST_MS)
        child->delay_ms = AGAIN_MOST_MS;
    child->again_at = db_clock_ms() + child->delay_ms;
}

/* user: whom the job's owner has named; "": monitor.user, or $PGUSER. */
static void start(struct reshard_runner *runner, struct child *child, const char *user,
                  const struct config *config)
{
    char program[PATH_MAX], supervisor[16];
    snprintf(supervisor, sizeof supervisor, "%d", (int)getpid());
    char *argv[] = {program,
                    (char *)"-c",
                    (char *)config->path,
                    (char *)"reshard",
                    (char *)"run",
                    child->job,
                    (char *)"--database",
                    runner->database,
                    (char *)"--supervisor",
                    supervisor,
                    user[0] ? (char *)"--user" : NULL,
                    (char *)user,
                    NULL};
    put_off(child);
    if (!find_program(program, sizeof program)) {
        complain(runner, child, "pgshuntctl is not where pgshunt is");
        return;
    }
    int failed = spawn(&child->pid, argv);
    if (failed) {
        child->pid = 0;
        complain(runner, child, strerror(failed));
        return;
    }
    child->started_at = db_clock_ms();
    log_event(LOG_INFO, "runs a resharding job", LOG_S("database", runner->database),
              LOG_S("job", child->job), LOG_I("pid", child->pid));
}

static void note_end(struct reshard_runner *runner, struct child *child, int status)
{
    int64_t now = db_clock_ms();
    int code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    if (now - child->started_at >= GOOD_MS)
        child->delay_ms = AGAIN_FIRST_MS;
    child->again_at = now + child->delay_ms;
    child->pid = 0;
    log_event(code ? LOG_WARNING : LOG_INFO, "a resharding job's runner has ended",
              LOG_S("database", runner->database), LOG_S("job", child->job),
              LOG_I("exit_code", code));
}

static void reap(struct reshard_runner *runner)
{
    for (struct child *child = runner->children; child; child = child->next) {
        int status;
        if (child->pid && waitpid(child->pid, &status, WNOHANG) == child->pid)
            note_end(runner, child, status);
    }
}

/* ---- what is to be run ---- */

/* Detached jobs that are not over and that nobody runs; the lock is that of job_lock(). */
static const char jobs_query[] =
    "SELECT j.name, EXISTS (SELECT FROM pg_locks l WHERE l.locktype = 'advisory' AND l.objsubid = 1"
    " AND l.granted AND l.database = (SELECT oid FROM pg_database WHERE datname ="
    " current_database()) AND (l.classid::bigint << 32) | l.objid::bigint ="
    " hashtextextended(j.database || '/' || j.name, 7741936514602252)),"
    " coalesce(j.options->>'user', '')"
    " FROM pgshunt.job j WHERE j.database = $1 AND j.options->'detached' = 'true' AND j.state IN"
    " ('created', 'copying', 'indexing', 'streaming', 'switching', 'switched', 'rolling_back')";

static struct child *child_of(struct reshard_runner *runner, const char *job)
{
    for (struct child *child = runner->children; child; child = child->next)
        if (strcmp(child->job, job) == 0)
            return child;
    struct child *child = mem_alloc(sizeof *child);
    child->job = mem_strdup(job);
    child->next = runner->children;
    runner->children = child;
    return child;
}

static void look(struct reshard_runner *runner, struct db *db, const struct config *config)
{
    struct db_error ignored; /* no right to read it, or no job was ever made */
    PGresult *rows = db_query(db, ASK_MS, &ignored, jobs_query, 1, runner->database);
    for (struct child *child = runner->children; child; child = child->next)
        child->wanted = false;
    for (int i = 0; rows && i < PQntuples(rows); i++) {
        struct child *child = child_of(runner, PQgetvalue(rows, i, 0));
        bool is_run = PQgetvalue(rows, i, 1)[0] == 't';
        child->wanted = true;
        if (!child->pid && !is_run && db_clock_ms() >= child->again_at)
            start(runner, child, PQgetvalue(rows, i, 2), config);
    }
    PQclear(rows);
}

/* Of jobs that are over. */
static void forget(struct reshard_runner *runner)
{
    for (struct child **link = &runner->children; *link;) {
        struct child *child = *link;
        if (child->pid || child->wanted) {
            link = &child->next;
            continue;
        }
        *link = child->next;
        free(child->job);
        free(child);
    }
}

static void ask_to_end(struct reshard_runner *runner, int signal)
{
    for (struct child *child = runner->children; child; child = child->next)
        if (child->pid)
            kill(child->pid, signal);
}

void reshard_runner_tend(struct reshard_runner *runner, struct db *db, const struct config *config)
{
    if (db_clock_ms() - runner->looked_at < LOOK_EVERY_MS)
        return;
    runner->looked_at = db_clock_ms();
    reap(runner);
    if (!config->reshard_daemon) {
        ask_to_end(runner, SIGINT);
        return;
    }
    look(runner, db, config);
    forget(runner);
}

static bool any_runs(const struct reshard_runner *runner)
{
    for (const struct child *child = runner->children; child; child = child->next)
        if (child->pid)
            return true;
    return false;
}

void reshard_runner_free(struct reshard_runner *runner)
{
    if (!runner)
        return;
    ask_to_end(runner, SIGINT);
    for (int64_t until = db_clock_ms() + END_MS; any_runs(runner) && db_clock_ms() < until;
         reap(runner))
        nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
    ask_to_end(runner, SIGKILL); /* what it does may be killed at any moment */
    while (any_runs(runner)) {
        reap(runner);
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
    while (runner->children) {
        struct child *child = runner->children;
        runner->children = child->next;
        free(child->job);
        free(child);
    }
    free(runner->database);
    free(runner);
}
