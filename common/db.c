/* db.c: a libpq connection whose every wait has a deadline. */
#include "pgshunt/db.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "pgshunt/arena.h"

#define LOOK_EVERY_MS 100 /* at the stop flag: a signal may come just ahead of poll() */
#define PARAMS_MAX 24
#define CANCEL_S 2 /* for a server to take a cancel request */

struct db {
    PGconn *pg; /* NULL: lost */
    const volatile sig_atomic_t *stop;
};

int64_t db_clock_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* ---- parameters ---- */

void db_put(struct db_parameters *list, const char *name, const char *value)
{
    if (list->count == DB_PARAMETERS_MAX)
        abort();
    list->names[list->count] = name;
    list->values[list->count++] = value;
}

/* A file that is named and not there counts as none; one that is not named, libpq would look for in the
 * home folder, and with mode "require" even verify with. */
#define NO_FILE "/nonexistent"

void db_put_tls(struct db_parameters *list, const struct server_tls_config *server)
{
    static const char *const modes[] = {"disable", "prefer", "require", "verify-ca", "verify-full"};
    static const char *const bindings[] = {"disable", "prefer", "require"};
    static const char *const versions[] = {"TLSv1.2", "TLSv1.3"};
    const struct tls_config *tls = &server->tls;
    bool verify = server->mode >= SERVER_TLS_VERIFY_CA;
    db_put(list, "sslmode", modes[server->mode]);
    db_put(list, "channel_binding", bindings[server->channel_binding]);
    db_put(list, "ssl_min_protocol_version", versions[tls->min_version]);
    db_put(list, "ssl_max_protocol_version", versions[tls->max_version]);
    db_put(list, "sslrootcert", verify ? tls->ca_file : NO_FILE);
    db_put(list, "sslcert", tls->cert_file[0] ? tls->cert_file : NO_FILE);
    db_put(list, "sslkey", tls->key_file[0] ? tls->key_file : NO_FILE);
    db_put(list, "sslcrl", NO_FILE);
    db_put(list, "sslcrldir", NO_FILE);
}

/* ---- errors ---- */

static void set_error(struct db_error *error, const char *text)
{
    *error = (struct db_error){.text = ""};
    size_t used = 0;
    for (const char *p = text; *p && used + 1 < sizeof error->text; p++)
        error->text[used++] = *p == '\n' || *p == '\t' ? ' ' : *p;
    while (used && error->text[used - 1] == ' ')
        used--;
    error->text[used] = '\0';
}

static void set_result_error(struct db_error *error, const PGresult *result)
{
    const char *primary = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);
    const char *sqlstate = PQresultErrorField(result, PG_DIAG_SQLSTATE);
    const char *hint = PQresultErrorField(result, PG_DIAG_MESSAGE_HINT);
    set_error(error, primary ? primary : PQresultErrorMessage(result));
    snprintf(error->sqlstate, sizeof error->sqlstate, "%s", sqlstate ? sqlstate : "");
    snprintf(error->hint, sizeof error->hint, "%s", hint ? hint : "");
}

/* ---- waiting ---- */

static bool is_stopped(const struct db *db)
{
    return db->stop && *db->stop;
}

/* False: the time is over, or it was stopped. */
static bool wait_socket(const struct db *db, bool for_writing, int64_t until,
                        struct db_error *error)
{
    for (;;) {
        int64_t left = until - db_clock_ms();
        struct pollfd socket = {.fd = PQsocket(db->pg),
                                .events = POLLIN | (for_writing ? POLLOUT : 0)};
        if (is_stopped(db)) {
            set_error(error, "interrupted");
            return false;
        }
        if (left <= 0) {
            set_error(error, "no answer in time");
            return false;
        }
        if (poll(&socket, 1, (int)(left < LOOK_EVERY_MS ? left : LOOK_EVERY_MS)) > 0)
            return true;
    }
}

/* ---- opening ---- */

static void ignore_notice(void *arg, const PGresult *result)
{
    (void)arg;
    (void)result;
}

static PGconn *start(const struct db_target *target, const char *password, int64_t timeout_ms)
{
    char port[16], timeout[32];
    struct db_parameters list = {.count = 0};
    snprintf(port, sizeof port, "%d", target->port);
    snprintf(timeout, sizeof timeout, "%lld", (long long)timeout_ms);
    db_put(&list, "host", target->host);
    db_put(&list, "port", port);
    db_put(&list, "dbname", target->dbname);
    db_put(&list, "user", target->user);
    if (password)
        db_put(&list, "password", password);
    db_put(&list, "application_name", target->application);
    db_put(&list, "client_encoding", "UTF8");
    db_put(&list, "options", target->console ? "" : "-csearch_path=pg_catalog -cdatestyle=ISO");
    db_put(&list, "gssencmode", "disable");
    db_put(&list, "target_session_attrs", "any");
    db_put(&list, "tcp_user_timeout", timeout);
    db_put(&list, "replication", "false");
    if (target->tls)
        db_put_tls(&list, target->tls);
    return PQconnectStartParams(list.names, list.values, 0);
}

static bool log_in(struct db *db, int64_t until, struct db_error *error)
{
    PostgresPollingStatusType next = PGRES_POLLING_WRITING;
    while (next != PGRES_POLLING_OK) {
        if (next == PGRES_POLLING_FAILED || PQstatus(db->pg) == CONNECTION_BAD) {
            set_error(error, PQerrorMessage(db->pg));
            return false;
        }
        if (!wait_socket(db, next == PGRES_POLLING_WRITING, until, error))
            return false;
        next = PQconnectPoll(db->pg);
    }
    return true;
}

static bool has_password(const struct db_target *target)
{
    return target->password && *target->password;
}

struct db *db_open(const struct db_target *target, int64_t timeout_ms, struct db_error *error)
{
    struct db *db = mem_alloc(sizeof *db);
    int64_t until = db_clock_ms() + timeout_ms;
    *error = (struct db_error){.text = ""};
    db->stop = target->stop;
    db->pg = start(target, NULL, timeout_ms);
    if (db->pg && log_in(db, until, error))
        goto opened;
    /* The environment had no password; a wrong one of the environment is not tried around. */
    if (db->pg && PQconnectionNeedsPassword(db->pg) && has_password(target)) {
        PQfinish(db->pg);
        db->pg = start(target, target->password, timeout_ms);
        if (db->pg && log_in(db, until, error))
            goto opened;
    }
    if (!error->text[0])
        set_error(error, "out of memory");
    db_close(db);
    return NULL;

opened:
    PQsetNoticeReceiver(db->pg, ignore_notice, NULL);
    PQsetnonblocking(db->pg, 1);
    return db;
}

void db_close(struct db *db)
{
    if (!db)
        return;
    PQfinish(db->pg);
    free(db);
}

bool db_is_open(const struct db *db)
{
    return db && db->pg && PQstatus(db->pg) == CONNECTION_OK;
}

PGconn *db_connection(struct db *db)
{
    return db->pg;
}

void db_set_stop(struct db *db, const volatile sig_atomic_t *stop)
{
    db->stop = stop;
}

bool db_answers(const struct db_target *target, int64_t timeout_ms)
{
    char port[16], seconds[32];
    struct db_parameters list = {.count = 0};
    snprintf(port, sizeof port, "%d", target->port);
    snprintf(seconds, sizeof seconds, "%lld", (long long)(timeout_ms + 999) / 1000);
    db_put(&list, "host", target->host);
    db_put(&list, "port", port);
    db_put(&list, "dbname", target->dbname);
    db_put(&list, "user", target->user);
    db_put(&list, "connect_timeout", seconds);
    if (target->tls)
        db_put_tls(&list, target->tls);
    PGPing answer = PQpingParams(list.names, list.values, 0);
    return answer == PQPING_OK || answer == PQPING_REJECT;
}

/* ---- queries ---- */

/* libpq's cancel waits without an end for a server that hangs: so it has a thread, and we some patience. */
struct cancelling {
    PGcancel *cancel;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool done, left; /* the last one frees it: the thread, or who waits */
};

static void free_cancelling(struct cancelling *cancelling)
{
    PQfreeCancel(cancelling->cancel);
    pthread_cond_destroy(&cancelling->changed);
    pthread_mutex_destroy(&cancelling->lock);
    free(cancelling);
}

static void *send_cancel(void *arg)
{
    struct cancelling *cancelling = arg;
    char ignored[256];
    PQcancel(cancelling->cancel, ignored, sizeof ignored);
    pthread_mutex_lock(&cancelling->lock);
    bool left = cancelling->left;
    cancelling->done = true;
    pthread_cond_signal(&cancelling->changed);
    pthread_mutex_unlock(&cancelling->lock);
    if (left)
        free_cancelling(cancelling);
    return NULL;
}

static void wait_for_cancel(struct cancelling *cancelling)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += CANCEL_S;
    pthread_mutex_lock(&cancelling->lock);
    while (!cancelling->done)
        if (pthread_cond_timedwait(&cancelling->changed, &cancelling->lock, &until) == ETIMEDOUT)
            break;
    bool done = cancelling->done;
    cancelling->left = true;
    pthread_mutex_unlock(&cancelling->lock);
    if (done)
        free_cancelling(cancelling);
}

static void cancel_statement(PGconn *pg)
{
    pthread_t thread;
    struct cancelling *cancelling = mem_alloc(sizeof *cancelling);
    cancelling->cancel = PQgetCancel(pg);
    pthread_mutex_init(&cancelling->lock, NULL);
    pthread_cond_init(&cancelling->changed, NULL);
    if (!cancelling->cancel || pthread_create(&thread, NULL, send_cancel, cancelling) != 0) {
        free_cancelling(cancelling);
        return;
    }
    pthread_detach(thread);
    wait_for_cancel(cancelling);
}

static void give_up(struct db *db)
{
    cancel_statement(db->pg);
    PQfinish(db->pg);
    db->pg = NULL;
}

static bool lost(struct db *db, struct db_error *error)
{
    set_error(error, PQerrorMessage(db->pg));
    PQfinish(db->pg);
    db->pg = NULL;
    return false;
}

/* Until the answer's next result can be taken without blocking. */
static bool wait_answer(struct db *db, int64_t until, struct db_error *error)
{
    int unsent;
    while ((unsent = PQflush(db->pg)) != 0 || PQisBusy(db->pg)) {
        if (unsent < 0)
            return lost(db, error);
        if (!wait_socket(db, unsent > 0, until, error)) {
            give_up(db);
            return false;
        }
        if (!PQconsumeInput(db->pg))
            return lost(db, error);
    }
    return true;
}

/* The first result that is an error, else the last. */
static PGresult *take_answer(struct db *db, int64_t until, struct db_error *error)
{
    PGresult *kept = NULL, *next;
    for (;;) {
        if (!wait_answer(db, until, error)) {
            PQclear(kept);
            return NULL;
        }
        next = PQgetResult(db->pg);
        if (!next)
            return kept;
        bool keeps_old = kept && PQresultStatus(kept) == PGRES_FATAL_ERROR;
        PQclear(keeps_old ? next : kept);
        kept = keeps_old ? kept : next;
    }
}

static bool send_query(struct db *db, struct db_error *error, const char *sql, int nparams,
                       const char *const *params)
{
    *error = (struct db_error){.text = ""};
    if (!db_is_open(db)) {
        set_error(error, "the connection is lost");
        return false;
    }
    /* Without parameters by the simple protocol, which is all that a console needs to know. */
    int sent = nparams ? PQsendQueryParams(db->pg, sql, nparams, NULL, params, NULL, NULL, 0)
                       : PQsendQuery(db->pg, sql);
    return sent ? true : lost(db, error);
}

bool db_send(struct db *db, struct db_error *error, const char *sql)
{
    return send_query(db, error, sql, 0, NULL);
}

PGresult *db_take(struct db *db, int64_t timeout_ms, struct db_error *error)
{
    *error = (struct db_error){.text = ""};
    if (!db_is_open(db)) {
        set_error(error, "the connection is lost");
        return NULL;
    }
    PGresult *result = take_answer(db, db_clock_ms() + timeout_ms, error);
    if (!result)
        return NULL;
    ExecStatusType status = PQresultStatus(result);
    if (status == PGRES_TUPLES_OK || status == PGRES_COMMAND_OK)
        return result;
    set_result_error(error, result);
    PQclear(result);
    return NULL;
}

static PGresult *query(struct db *db, int64_t timeout_ms, struct db_error *error, const char *sql,
                       int nparams, const char *const *params)
{
    return send_query(db, error, sql, nparams, params) ? db_take(db, timeout_ms, error) : NULL;
}

static void take_params(const char **params, int nparams, va_list list)
{
    if (nparams > PARAMS_MAX)
        abort();
    for (int i = 0; i < nparams; i++)
        params[i] = va_arg(list, const char *);
}

PGresult *db_query(struct db *db, int64_t timeout_ms, struct db_error *error, const char *sql,
                   int nparams, ...)
{
    const char *params[PARAMS_MAX];
    va_list list;
    va_start(list, nparams);
    take_params(params, nparams, list);
    va_end(list);
    return query(db, timeout_ms, error, sql, nparams, params);
}

bool db_run(struct db *db, int64_t timeout_ms, struct db_error *error, const char *sql, int nparams,
            ...)
{
    const char *params[PARAMS_MAX];
    va_list list;
    va_start(list, nparams);
    take_params(params, nparams, list);
    va_end(list);
    PGresult *result = query(db, timeout_ms, error, sql, nparams, params);
    PQclear(result);
    return result != NULL;
}
