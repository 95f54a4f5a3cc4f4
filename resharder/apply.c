/* apply.c: transactions of a source become transactions of a target, with position, ghost keys and markers. */
#include "resharder/apply.h"

#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pgshunt/arena.h"
#include "pgshunt/wire.h"
#include "resharder/apply_internal.h"

#define SETUP_MS 60000
#define DUE_ROWS 10000 /* of one transaction on the target; those of the source are never parted */

/* ---- failures ---- */

bool apply_is_passing(const char *sqlstate)
{
    static const char *const classes[] = {"08", "40", "53", "57"};
    if (!*sqlstate || strcmp(sqlstate, "55006") == 0 || strcmp(sqlstate, "55P03") == 0)
        return true; /* the connection; an origin or a slot that its last user still holds; a lock */
    for (size_t i = 0; i < sizeof classes / sizeof *classes; i++)
        if (strncmp(sqlstate, classes[i], 2) == 0)
            return true;
    return false;
}

bool apply_problem(struct apply *apply, const char *mend, const char *format, ...)
{
    struct apply_failure *failure = &apply->failure;
    va_list list;
    if (failure->error.text[0])
        return false;
    va_start(list, format);
    vsnprintf(failure->error.text, sizeof failure->error.text, format, list);
    va_end(list);
    snprintf(failure->mend, sizeof failure->mend, "%s", mend ? mend : "");
    return false;
}

bool apply_pipe_failed(struct apply *apply, const struct pipe *pipe, const char *side)
{
    struct apply_failure *failure = &apply->failure;
    if (failure->error.text[0])
        return false;
    failure->error = pipe->error;
    snprintf(failure->error.text, sizeof failure->error.text, "%s: %.480s", side, pipe->error.text);
    snprintf(failure->mend, sizeof failure->mend, "%.255s", pipe->error.hint);
    failure->passing =
        apply_is_passing(pipe->error.sqlstate) ||
        (!apply->options.careful && strcmp(pipe->error.sqlstate, APPLY_THERE_ALREADY) == 0);
    return false;
}

static bool target_failed(struct apply *apply)
{
    return apply_pipe_failed(apply, &apply->target, "target");
}

static bool source_failed(struct apply *apply)
{
    return apply_pipe_failed(apply, &apply->source, "source");
}

/* ---- beginning ---- */

/*
 * Triggers and foreign keys are the source's business. Rows are found by index: a statement for many rows must never
 * read the table, however small it looks when it is planned; comparisons are therefore made dear.
 */
static const char target_settings[] =
    "SELECT set_config('session_replication_role', 'replica', false),"
    " set_config('plan_cache_mode', 'force_generic_plan', false),"
    " set_config('enable_seqscan', 'off', false), set_config('enable_hashjoin', 'off', false),"
    " set_config('enable_mergejoin', 'off', false), set_config('enable_material', 'off', false),"
    " set_config('enable_bitmapscan', 'off', false), set_config('cpu_operator_cost', '100', false),"
    " set_config('jit', 'off', false), set_config('row_security', 'off', false),"
    " set_config('search_path', 'pg_catalog', false), set_config('datestyle', 'ISO', false),"
    " set_config('intervalstyle', 'postgres', false), set_config('lc_monetary', 'C', false),"
    " set_config('xmloption', 'content', false), set_config('statement_timeout', '0', false),"
    " set_config('lock_timeout', '0', false),"
    " set_config('idle_in_transaction_session_timeout', '0', false),"
    " set_config('client_min_messages', 'error', false)";

/* Of versions from 14 on. */
static const char newer_settings[] =
    "SELECT set_config(name, '0', false) FROM pg_settings WHERE name = 'idle_session_timeout'";

/* What is computed of values read as text on the source. */
static const char source_settings[] =
    "SELECT set_config('search_path', 'pg_catalog', false), set_config('datestyle', 'ISO', false),"
    " set_config('intervalstyle', 'postgres', false), set_config('lc_monetary', 'C', false),"
    " set_config('extra_float_digits', '3', false), set_config('bytea_output', 'hex', false),"
    /* DDL may hold a table here and wait for ours on the target: no server sees that deadlock */
    " set_config('lock_timeout', '5s', false)";

static bool set_up_target(struct apply *apply, struct db *target, struct db_error *error)
{
    const char *origin = apply->options.origin;
    unsigned high = 0, low = 0;
    if (!db_run(target, SETUP_MS, error, target_settings, 0) ||
        !db_run(target, SETUP_MS, error, newer_settings, 0) ||
        !apply_owed_read(apply, target, error) ||
        !db_run(target, SETUP_MS, error, "SELECT pg_replication_origin_session_setup($1)", 1,
                origin))
        return false;
    PGresult *rows =
        db_query(target, SETUP_MS, error, "SELECT pg_replication_origin_session_progress(true)", 0);
    if (rows && !PQgetisnull(rows, 0, 0))
        sscanf(PQgetvalue(rows, 0, 0), "%X/%X", &high, &low);
    apply->known_until = (uint64_t)high << 32 | low;
    apply->progress.applied = apply->known_until;
    PQclear(rows);
    return rows != NULL;
}

bool apply_prepare_fixed(struct apply *apply)
{
    return pipe_prepare(&apply->target, "position",
                        "SELECT pg_replication_origin_xact_setup($1::pg_lsn, $2::timestamptz)", 0,
                        NULL) &&
           pipe_prepare(&apply->target, "marker",
                        "INSERT INTO pgshunt.applied (job, source, lsn, marker)"
                        " VALUES ($1, $2, $3::pg_lsn, $4) ON CONFLICT (job, source) DO UPDATE"
                        " SET lsn = EXCLUDED.lsn, marker = EXCLUDED.marker",
                        0, NULL);
}

/* While one session is waited for, the other's answers are taken too. */
static void attend(void *arg)
{
    struct apply *apply = arg;
    bool lost = !apply->source.waiting && !pipe_take(&apply->source);
    if (!lost && apply->options.attend) /* a failure stays, and is found later */
        apply->options.attend(apply->options.arg);
}

static bool open_pipes(struct apply *apply, struct db *source, struct db *target)
{
    const struct apply_options *options = &apply->options;
    bool good = pipe_open(&apply->source, source, apply, attend, options->stop);
    return pipe_open(&apply->target, target, apply, attend, options->stop) && good;
}

static bool begin(struct apply *apply, struct db *source, struct db *target)
{
    struct apply_failure *failure = &apply->failure;
    struct db_error error;
    bool ready = db_run(source, SETUP_MS, &error, source_settings, 0) &&
                 set_up_target(apply, target, &error);
    if (!ready) {
        failure->error = error;
        failure->passing = apply_is_passing(error.sqlstate);
        snprintf(failure->mend, sizeof failure->mend, "%.255s", error.hint);
    }
    bool piped = open_pipes(apply, source, target);
    if (!ready)
        return false;
    return (piped && apply_prepare_fixed(apply) && pipe_sync(&apply->target, NULL) &&
            pipe_wait(&apply->target, 0)) ||
           target_failed(apply);
}

struct apply *apply_open(const struct apply_options *options, struct db *source, struct db *target,
                         struct apply_failure *failure)
{
    struct apply *apply = mem_alloc(sizeof *apply);
    apply->options = *options;
    apply->source_keys = ghostkeys_new(options->moves->map);
    apply->target_keys = ghostkeys_new(options->moves->map);
    if (begin(apply, source, target))
        return apply;
    *failure = apply->failure;
    apply_close(apply);
    return NULL;
}

void apply_close(struct apply *apply)
{
    if (!apply)
        return;
    pipe_close(&apply->source);
    pipe_close(&apply->target);
    ghostkeys_free(apply->source_keys);
    ghostkeys_free(apply->target_keys);
    apply_free_relations(apply);
    apply_owed_free(apply);
    for (int i = 0; i < apply->ncommits; i++)
        free(apply->commits[i]);
    free(apply->marker);
    buffer_release(&apply->sql);
    buffer_release(&apply->values);
    free(apply);
}

/* ---- transactions ---- */

bool apply_open_transaction(struct apply *apply)
{
    if (apply->open)
        return true;
    apply->open = true;
    apply->rows = 0;
    return pipe_run(&apply->target, "BEGIN", NULL) || target_failed(apply);
}

bool apply_begin(struct apply *apply, uint64_t lsn)
{
    bool strict = lsn >= apply->options.consistent_after;
    if (strict != apply->strict && apply->open && !apply_send_all(apply))
        return false; /* what waits is judged by what was */
    apply->strict = strict;
    apply->known = lsn < apply->known_until;
    apply->within = true;
    return true;
}

bool apply_end(struct apply *apply, uint64_t end, int64_t time)
{
    apply->within = false;
    apply->end = end;
    apply->time = time;
    apply->progress.transactions++;
    if (!apply->open && !apply->ncommits && !apply->known)
        apply->progress.applied =
            end; /* nothing of it was for us, and nothing before is under way */
    return true;
}

bool apply_is_due(const struct apply *apply)
{
    return apply->open && (apply->rows >= DUE_ROWS || apply->marker);
}

const char *apply_marker(const struct apply *apply)
{
    return apply->marker;
}

bool apply_has_pending(const struct apply *apply)
{
    return apply->open && !apply->within;
}

int apply_commits_under_way(const struct apply *apply)
{
    return apply->ncommits;
}

/* ---- keys for the source ---- */

static void took_keys(void *arg, const struct pipe_expected *expected, const PGresult *result)
{
    struct apply *apply = arg;
    (void)result;
    apply->key_groups--;
    apply->keys_kept = (uint64_t)expected->number;
}

bool apply_send_source_keys(struct apply *apply)
{
    if (ghostkeys_empty(apply->source_keys))
        return true;
    /* Those of a transaction that is not complete may be among them; of all before none is missing. */
    struct pipe_expected expected = {.take = took_keys, .number = (int64_t)apply->end};
    apply->key_groups++;
    return (ghostkeys_send(apply->source_keys, &apply->source) &&
            pipe_sync(&apply->source, &expected)) ||
           source_failed(apply);
}

bool apply_keys_are_kept(const struct apply *apply)
{
    return !apply->key_groups && ghostkeys_empty(apply->source_keys);
}

void apply_flush_keys(struct apply *apply, int64_t ms)
{
    struct pipe *source = &apply->source;
    bool good = !source->failed;
    source->stop = NULL;
    if (good && !ghostkeys_empty(apply->source_keys))
        good = apply_send_source_keys(apply);
    for (int64_t until = db_clock_ms() + ms; good && apply->key_groups && db_clock_ms() < until;) {
        struct pollfd socket = {.fd = PQsocket(source->pg), .events = POLLIN};
        poll(&socket, 1, 20);
        good = pipe_take(source);
    }
}

uint64_t apply_kept(const struct apply *apply)
{
    if (!apply_keys_are_kept(apply))
        return apply->keys_kept;
    return apply->end < apply->known_until ? apply->end : UINT64_MAX;
}

/* ---- commit ---- */

/* Of what is complete. What was known may be complete again. */
static uint64_t position_of(const struct apply *apply)
{
    return apply->end > apply->known_until ? apply->end : apply->known_until;
}

static void took_commit(void *arg, const struct pipe_expected *expected, const PGresult *result)
{
    struct apply *apply = arg;
    (void)result;
    apply->progress.applied = (uint64_t)expected->number;
    apply->progress.commits++;
    char *marker = apply->commits[0];
    if (*marker) {
        snprintf(apply->progress.marker, sizeof apply->progress.marker, "%s", marker);
        apply->progress.markers++;
    }
    free(marker);
    memmove(apply->commits, apply->commits + 1, sizeof apply->commits - sizeof *apply->commits);
    apply->ncommits--;
    if (!apply->ncommits && !apply->open && !apply->within)
        apply->progress.applied = position_of(apply);
}

/* Before a marker is committed, the source has all keys; see docs/internals/resharding.md. */
static bool settle_source_keys(struct apply *apply)
{
    return apply_send_source_keys(apply) && (pipe_wait(&apply->source, 0) || source_failed(apply));
}

static bool send_marker(struct apply *apply)
{
    uint64_t position = position_of(apply);
    char lsn[32];
    if (!apply->marker)
        return true;
    snprintf(lsn, sizeof lsn, "%X/%X", (unsigned)(position >> 32), (unsigned)position);
    const char *values[] = {apply->options.job, apply->options.source, lsn, apply->marker};
    const struct pipe_parameters parameters = {4, values, NULL, NULL};
    return pipe_execute(&apply->target, "marker", &parameters, NULL);
}

static bool send_position(struct apply *apply)
{
    uint64_t position = position_of(apply);
    unsigned char bytes[16];
    wire_set32(bytes, (uint32_t)(position >> 32));
    wire_set32(bytes + 4, (uint32_t)position);
    wire_set32(bytes + 8, (uint32_t)((uint64_t)apply->time >> 32));
    wire_set32(bytes + 12, (uint32_t)apply->time);
    const char *values[] = {(char *)bytes, (char *)bytes + 8};
    const int lengths[] = {8, 8}, formats[] = {1, 1};
    const struct pipe_parameters parameters = {2, values, lengths, formats};
    return pipe_execute(&apply->target, "position", &parameters, NULL);
}

static bool send_commit(struct apply *apply)
{
    struct pipe_expected expected = {.take = took_commit, .number = (int64_t)position_of(apply)};
    return send_marker(apply) && send_position(apply) && pipe_run(&apply->target, "COMMIT", NULL) &&
           pipe_sync(&apply->target, &expected);
}

bool apply_commit(struct apply *apply)
{
    if (!apply->open || apply->within)
        return true;
    if (!apply_replan(apply) || !apply_send_all(apply))
        return false;
    if (!ghostkeys_send(apply->target_keys, &apply->target))
        return target_failed(apply);
    if (apply->marker && !settle_source_keys(apply))
        return false;
    while (apply->ncommits == APPLY_COMMITS)
        if (!pipe_wait(&apply->target, apply->target.count - 1))
            return target_failed(apply);
    apply->commits[apply->ncommits++] = apply->marker ? apply->marker : mem_strdup("");
    bool sent = send_commit(apply);
    apply->marker = NULL;
    apply->open = false;
    return sent || target_failed(apply);
}

/* ---- messages ---- */

static bool take_message(struct apply *apply, const struct pgoutput_message *message)
{
    if (strcmp(message->name, APPLY_MARKER_PREFIX) != 0 || !message->transactional)
        return true;
    free(apply->marker);
    apply->marker = strndup(message->content, message->content_length);
    return apply_open_transaction(apply);
}

bool apply_change(struct apply *apply, const struct pgoutput_message *message)
{
    bool described = message->kind == PGOUTPUT_TYPE || message->kind == PGOUTPUT_RELATION;
    if (apply->known && !described)
        return apply_row_keys(apply, message);
    switch ((int)message->kind) {
    case PGOUTPUT_TYPE:
        apply_read_type(apply, message);
        return true;
    case PGOUTPUT_RELATION:
        return apply_read_relation(apply, message);
    case PGOUTPUT_INSERT:
    case PGOUTPUT_UPDATE:
    case PGOUTPUT_DELETE:
        return apply_row(apply, message);
    case PGOUTPUT_TRUNCATE:
        return apply_truncate(apply, message);
    case PGOUTPUT_MESSAGE:
        return take_message(apply, message);
    default:
        return apply_problem(apply, NULL, "the source sent a change of an unknown kind");
    }
}

/* ---- answers ---- */

bool apply_take(struct apply *apply)
{
    if (!pipe_take(&apply->target))
        return target_failed(apply);
    return pipe_take(&apply->source) || source_failed(apply);
}

bool apply_wait(struct apply *apply)
{
    return (pipe_wait(&apply->target, 0) || target_failed(apply)) && settle_source_keys(apply);
}

static void took_source_end(void *arg, const struct pipe_expected *expected, const PGresult *result)
{
    struct apply *apply = arg;
    unsigned high, low;
    apply->asking = false;
    if (PQntuples(result) && sscanf(PQgetvalue(result, 0, 0), "%X/%X", &high, &low) == 2) {
        apply->progress.source_end = (uint64_t)high << 32 | low;
        apply->progress.source_asked_ms = expected->number;
    }
}

bool apply_ask_source(struct apply *apply)
{
    struct pipe_expected expected = {.take = took_source_end, .number = db_clock_ms()};
    if (apply->asking || apply->source.waiting)
        return true;
    if (!apply_send_source_keys(apply))
        return false;
    apply->asking = true;
    return (pipe_run(&apply->source, "SELECT pg_current_wal_flush_lsn()", &expected) &&
            pipe_sync(&apply->source, NULL)) ||
           source_failed(apply);
}

int apply_socket(const struct apply *apply)
{
    return PQsocket(apply->target.pg);
}

int apply_source_socket(const struct apply *apply)
{
    return PQsocket(apply->source.pg);
}

const struct apply_progress *apply_progress(const struct apply *apply)
{
    return &apply->progress;
}

const struct apply_failure *apply_failure(const struct apply *apply)
{
    return &apply->failure;
}
