/* schema_copy.c: a source's schema as pg_dump tells it, run on a target. */
#include "resharder/schema_copy.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "pgshunt/buffer.h"

#define MAKE_MS (30 * 60 * 1000)
#define MAX_DUMP (256u << 20)

extern char **environ;

static bool fail(struct reshard *reshard, const char *hint, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static bool fail(struct reshard *reshard, const char *hint, const char *format, ...)
{
    va_list args;
    reshard->error = (struct db_error){.hint = ""};
    va_start(args, format);
    vsnprintf(reshard->error.text, sizeof reshard->error.text, format, args);
    va_end(args);
    snprintf(reshard->error.hint, sizeof reshard->error.hint, "%s", hint);
    return false;
}

bool schema_is_empty(struct reshard *reshard, unsigned shard, bool *empty)
{
    struct db *db = reshard_primary(reshard, shard);
    PGresult *rows =
        db ? db_query(
                 db, RESHARD_QUERY_MS, &reshard->error,
                 "SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
                 " WHERE c.relkind IN ('r', 'p', 'f') AND c.relpersistence <> 't'"
                 " AND n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'pgshunt')"
                 " AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass"
                 "  AND d.objid = c.oid AND d.deptype = 'e') LIMIT 1",
                 0)
           : NULL;
    *empty = rows && !PQntuples(rows);
    PQclear(rows);
    return rows != NULL;
}

/* ---- pg_dump ---- */

/* How to get there, but for what the command line of a process shows to all. */
static const char *connection_text(struct reshard *reshard, const struct db_parameters *parameters)
{
    const char *text = "";
    for (int i = 0; i < parameters->count; i++) {
        const char *name = parameters->names[i], *escaped = "";
        if (strcmp(name, "password") == 0 || strcmp(name, "replication") == 0)
            continue;
        for (const char *at = parameters->values[i]; *at; at++)
            escaped = RESHARD_TEXT(reshard, "%s%s%c", escaped,
                                   *at == '\'' || *at == '\\' ? "\\" : "", *at);
        text = RESHARD_TEXT(reshard, "%s%s='%s' ", text, name, escaped);
    }
    return text;
}

/* Ours, with the password. */
static char **environment(struct reshard *reshard, const struct db_parameters *parameters)
{
    size_t count = 0, next = 0;
    while (environ[count])
        count++;
    char **list = arena_array(&reshard->arena, char *, count + 2);
    for (int i = 0; i < parameters->count; i++)
        if (strcmp(parameters->names[i], "password") == 0)
            list[next++] = (char *)RESHARD_TEXT(reshard, "PGPASSWORD=%s", parameters->values[i]);
    for (size_t i = 0; i < count; i++)
        if (!next || strncmp(environ[i], "PGPASSWORD=", 11) != 0)
            list[next++] = environ[i];
    return list;
}

struct child {
    pid_t pid;
    int out, err; /* its output; -1: ended */
};

static bool start(struct reshard *reshard, unsigned source, struct child *child)
{
    struct db_parameters parameters;
    int out[2], err[2];
    if (!reshard_parameters(reshard, source, &parameters, &reshard->error))
        return false;
    if (pipe2(out, O_CLOEXEC) != 0)
        return fail(reshard, "", "pipe: %s", strerror(errno));
    if (pipe2(err, O_CLOEXEC) != 0) {
        close(out[0]);
        close(out[1]);
        return fail(reshard, "", "pipe: %s", strerror(errno));
    }
    const char *argv[] = {"pg_dump",
                          "--schema-only",
                          "--no-publications",
                          "--no-subscriptions",
                          "--exclude-schema",
                          "pgshunt",
                          "--dbname",
                          connection_text(reshard, &parameters),
                          NULL};
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, out[1], STDOUT_FILENO);
    posix_spawn_file_actions_adddup2(&actions, err[1], STDERR_FILENO);
    int failed = posix_spawnp(&child->pid, "pg_dump", &actions, NULL, (char *const *)argv,
                              environment(reshard, &parameters));
    posix_spawn_file_actions_destroy(&actions);
    close(out[1]);
    close(err[1]);
    child->out = out[0];
    child->err = err[0];
    if (!failed)
        return true;
    close(out[0]);
    close(err[0]);
    return fail(reshard,
                "Install PostgreSQL's client programs, of the source's version or a newer one.",
                "cannot run pg_dump: %s", strerror(failed));
}

/* What is there to be read, into the text; closes at the end. */
static void take(int *fd, struct buffer *text)
{
    char bytes[65536];
    ssize_t got = read(*fd, bytes, sizeof bytes);
    if (got > 0) {
        buffer_append(text, bytes, (size_t)got);
    } else if (got == 0 || errno != EINTR) {
        close(*fd);
        *fd = -1;
    }
}

/* Until it has ended; false: stopped, or too much. */
static bool listen_to(struct reshard *reshard, struct child *child, struct buffer *dump,
                      struct buffer *complaints)
{
    while (child->out >= 0 || child->err >= 0) {
        struct pollfd polled[2] = {{.fd = child->out, .events = POLLIN},
                                   {.fd = child->err, .events = POLLIN}};
        if (reshard_stopped(reshard) || buffer_length(dump) > MAX_DUMP)
            return false;
        if (poll(polled, 2, 100) <= 0)
            continue;
        if (polled[0].revents)
            take(&child->out, dump);
        if (polled[1].revents)
            take(&child->err, complaints);
    }
    return true;
}

static bool end(struct reshard *reshard, struct child *child, bool good,
                const struct buffer *complaints)
{
    int status = 0;
    if (!good)
        kill(child->pid, SIGKILL);
    while (waitpid(child->pid, &status, 0) < 0 && errno == EINTR)
        ;
    if (child->out >= 0)
        close(child->out);
    if (child->err >= 0)
        close(child->err);
    if (!good)
        return fail(reshard, "", "pg_dump was stopped");
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
        return true;
    size_t length = buffer_length(complaints);
    while (length && ((const char *)buffer_head(complaints))[length - 1] == '\n')
        length--;
    return fail(reshard, "pg_dump has to be of the source's version or a newer one.", "%.*s",
                length > 400 ? 400 : (int)length, (const char *)buffer_head(complaints));
}

static bool dump(struct reshard *reshard, unsigned source, struct buffer *text)
{
    struct buffer complaints = {0};
    struct child child;
    if (!start(reshard, source, &child))
        return false;
    bool good = end(reshard, &child, listen_to(reshard, &child, text, &complaints), &complaints);
    buffer_release(&complaints);
    return good;
}

/* ---- the target ---- */

/* Newer pg_dumps begin and end with commands for psql alone. */
static void blank_commands(char *text)
{
    static const char *const commands[] = {"\\restrict ", "\\unrestrict "};
    for (char *line = text; line; line = strchr(line, '\n')) {
        line += *line == '\n';
        for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++)
            if (strncmp(line, commands[i], strlen(commands[i])) == 0)
                for (char *at = line; *at && *at != '\n'; at++)
                    *at = ' ';
    }
}

/* One message is one transaction. Its settings end with the session. */
static bool run(struct reshard *reshard, unsigned target, const char *sql)
{
    struct db *db = reshard_open(reshard, target, &reshard->error);
    if (!db)
        return false;
    PGresult *result =
        db_send(db, &reshard->error, sql) ? db_take(db, MAKE_MS, &reshard->error) : NULL;
    PQclear(result);
    db_close(db);
    return result != NULL;
}

bool schema_copy(struct reshard *reshard, unsigned source, unsigned target)
{
    struct buffer text = {0};
    bool good = dump(reshard, source, &text);
    if (good) {
        buffer_append(&text, "", 1);
        blank_commands((char *)buffer_head(&text));
        good = run(reshard, target, buffer_head(&text));
    }
    buffer_release(&text);
    return good;
}
