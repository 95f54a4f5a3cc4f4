/* program.c: finds and runs pg_dump and pg_restore. */
#include "resharder/program.h"

#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

#define LOOK_EVERY_MS 20

/* ---- where it is ---- */

static int version_of(const char *path)
{
    const char *at = strstr(path, "/postgresql/");
    return at ? atoi(at + strlen("/postgresql/")) : 0;
}

const char *program_find(struct reshard *reshard, const char *name)
{
    const char *folder = getenv("PGSHUNT_PG_BINDIR"), *best = name;
    glob_t found;
    if (folder && *folder)
        return RESHARD_TEXT(reshard, "%s/%s", folder, name);
    if (glob(RESHARD_TEXT(reshard, "/usr/lib/postgresql/*/bin/%s", name), 0, NULL, &found) != 0)
        return name;
    for (size_t i = 0; i < found.gl_pathc; i++)
        if (version_of(found.gl_pathv[i]) > version_of(best))
            best = RESHARD_TEXT(reshard, "%s", found.gl_pathv[i]);
    globfree(&found);
    return best;
}

/* ---- its environment ---- */

static const struct {
    const char *parameter, *variable;
} variables[] = {
    {"host", "PGHOST"},
    {"port", "PGPORT"},
    {"dbname", "PGDATABASE"},
    {"user", "PGUSER"},
    {"password", "PGPASSWORD"},
    {"application_name", "PGAPPNAME"},
    {"gssencmode", "PGGSSENCMODE"},
    {"sslmode", "PGSSLMODE"},
    {"channel_binding", "PGCHANNELBINDING"},
    {"ssl_min_protocol_version", "PGSSLMINPROTOCOLVERSION"},
    {"ssl_max_protocol_version", "PGSSLMAXPROTOCOLVERSION"},
    {"sslrootcert", "PGSSLROOTCERT"},
    {"sslcert", "PGSSLCERT"},
    {"sslkey", "PGSSLKEY"},
    {"sslcrl", "PGSSLCRL"},
};
#define NVARIABLES (sizeof variables / sizeof *variables)
#define OPTIONS "PGOPTIONS=-c statement_timeout=0 -c lock_timeout=0"

static const char *variable_of(const char *parameter)
{
    for (size_t i = 0; i < NVARIABLES; i++)
        if (strcmp(variables[i].parameter, parameter) == 0)
            return variables[i].variable;
    return NULL;
}

/* Ours without what names a server; a password of ours stays. */
static bool is_inherited(const char *entry)
{
    return strncmp(entry, "PG", 2) != 0 || strncmp(entry, "PGPASS", 6) == 0;
}

static char **environment(struct reshard *reshard, unsigned shard)
{
    struct db_parameters parameters;
    int count = 0, room = 0;
    while (environ[room])
        room++;
    char **result = arena_array(&reshard->arena, char *, room + DB_PARAMETERS_MAX + 2);
    if (!reshard_parameters(reshard, shard, &parameters, &reshard->error))
        return NULL;
    for (int i = 0; i < room; i++)
        if (is_inherited(environ[i]))
            result[count++] = environ[i];
    for (int i = 0; i < parameters.count; i++) {
        const char *variable = variable_of(parameters.names[i]);
        if (variable && parameters.values[i])
            result[count++] = RESHARD_TEXT(reshard, "%s=%s", variable, parameters.values[i]);
    }
    result[count++] = RESHARD_TEXT(reshard, "%s", OPTIONS);
    return result;
}

/* ---- running ---- */

static int fails(struct reshard *reshard, const char *what, const char *why)
{
    reshard->error = (struct db_error){.sqlstate = "58000"};
    snprintf(reshard->error.text, sizeof reshard->error.text, "%s: %s", what, why);
    return -1;
}

/* Its exit status; where we are stopped it is too. */
static int wait_for(struct reshard *reshard, pid_t pid, const char *name, void (*watch)(void *arg),
                    void *arg)
{
    int status;
    for (;;) {
        pid_t ended = waitpid(pid, &status, WNOHANG);
        if (ended == pid)
            break;
        if (ended < 0 && errno != EINTR)
            return fails(reshard, name, strerror(errno));
        if (reshard_stopped(reshard)) {
            kill(pid, SIGTERM);
            waitpid(pid, &status, 0);
            return fails(reshard, name, "interrupted");
        }
        if (watch)
            watch(arg);
        reshard_sleep(reshard, LOOK_EVERY_MS * 1000);
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : fails(reshard, name, "it was killed");
}

struct start {
    const char *const *argv;
    char **environment;
    int files[3]; /* its standard ones */
    pid_t parent;
    int told; /* errno of an exec that has failed goes here */
};

/* In the child of a process that has threads: nothing but system calls. It ends with its parent, however that ends; pg_dump and pg_restore
 * end their own workers. */
static _Noreturn void become(const struct start *start)
{
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getppid() != start->parent) /* it was gone before */
        _exit(127);
    for (int fd = 0; fd < 3; fd++)
        if (start->files[fd] == fd)
            fcntl(fd, F_SETFD, 0);
        else
            dup2(start->files[fd], fd);
    execvpe(start->argv[0], (char *const *)start->argv, start->environment);
    int error = errno;
    ssize_t ignored = write(start->told, &error, sizeof error);
    (void)ignored;
    _exit(127);
}

/* errno; 0: it runs. */
static int fork_and_exec(struct start *start, pid_t *pid)
{
    int ends[2], error = 0;
    if (pipe2(ends, O_CLOEXEC) != 0)
        return errno;
    start->parent = getpid();
    start->told = ends[1];
    *pid = fork();
    if (*pid == 0)
        become(start);
    if (*pid < 0)
        error = errno;
    close(ends[1]);
    while (*pid > 0 && read(ends[0], &error, sizeof error) < 0 && errno == EINTR)
        ;
    close(ends[0]);
    if (*pid > 0 && error)
        waitpid(*pid, NULL, 0);
    return error;
}

static int open_for_writing(const char *path)
{
    return open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
}

/* errno; 0: it runs. */
static int start_program(struct start *start, const char *out, const char *complaints, pid_t *pid)
{
    int error = 0;
    start->files[0] = open("/dev/null", O_RDONLY | O_CLOEXEC);
    start->files[1] = open_for_writing(out ? out : "/dev/null");
    start->files[2] = open_for_writing(complaints);
    for (int i = 0; i < 3; i++)
        if (start->files[i] < 0)
            error = EIO;
    if (!error)
        error = fork_and_exec(start, pid);
    for (int i = 0; i < 3; i++)
        if (start->files[i] >= 0)
            close(start->files[i]);
    return error;
}

int program_run(struct reshard *reshard, unsigned shard, const char *const *argv, const char *out,
                const char *complaints)
{
    return program_run_watched(reshard, shard, argv, out, complaints, NULL, NULL);
}

int program_run_watched(struct reshard *reshard, unsigned shard, const char *const *argv,
                        const char *out, const char *complaints, void (*watch)(void *arg),
                        void *arg)
{
    struct start start = {.argv = argv, .environment = environment(reshard, shard)};
    pid_t pid;
    if (!start.environment)
        return -1;
    int error = start_program(&start, out, complaints, &pid);
    if (error)
        return fails(reshard, argv[0],
                     error == ENOENT ? "not found: install the client programs of Postgres, or set"
                                       " PGSHUNT_PG_BINDIR to their folder"
                                     : strerror(error));
    return wait_for(reshard, pid, argv[0], watch, arg);
}
