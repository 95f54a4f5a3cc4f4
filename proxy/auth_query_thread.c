/*
 * auth_query_thread.c: the thread that asks servers for users' secrets and roles.
 *
 *   seat (one per database):  OFF --an entry to look up--> CONNECTING --> IDLE <--> ASKING
 *                              ^                               |            |        |
 *                              '--- unused for a minute, failed (the next node is tried) ---'
 */
#include "proxy/auth_query_internal.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "pgshunt/arena.h"
#include "pgshunt/log.h"
#include "proxy/credentials.h"
#include "proxy/monitor_internal.h"

#define TICK_MS 10000
#define UNUSED_US 60000000 /* a connection nobody needs is closed */
#define COLUMN_SECRET 1
#define COLUMN_VALID 2

/* VALID UNTIL counts, and goes with the answer, so that no cache outlives it. */
static const char default_query[] =
    "SELECT rolname, CASE WHEN rolvaliduntil <= now() THEN NULL ELSE rolpassword END,"
    " CASE WHEN isfinite(rolvaliduntil) THEN extract(epoch FROM rolvaliduntil - now()) END"
    " FROM pg_catalog.pg_authid WHERE rolname = $1 AND rolcanlogin";

/* All roles that one is a member of, its own first among them, however the membership is granted: what
 * Postgres' +role asks for. Superusers are members of what they were made members of, and no more. */
static const char roles_query[] =
    "WITH RECURSIVE member(oid) AS (SELECT oid FROM pg_catalog.pg_roles WHERE rolname = $1::text"
    " UNION SELECT roleid FROM pg_catalog.pg_auth_members m JOIN member ON m.member = member.oid)"
    " SELECT $1::text, ',' || pg_catalog.string_agg(pg_catalog.encode(pg_catalog.convert_to("
    "rolname, 'UTF8'), 'hex'), ',') || ',' FROM pg_catalog.pg_roles JOIN member USING (oid)";

enum seat_state {
    SEAT_OFF,        /* no connection */
    SEAT_CONNECTING, /* to nodes[tried - 1] */
    SEAT_IDLE,
    SEAT_ASKING, /* for `current` */
};

/* Freed when the configuration changes; what it has to look up then goes to a new one. */
struct seat {
    struct seat *next;
    struct auth_query *query;
    char *database; /* owned */
    enum seat_state state;
    struct monitor_conn *conn;  /* owned; NULL in SEAT_OFF */
    struct node *node;          /* a reference: where conn goes */
    struct entry *queue, *last; /* to look up */
    struct entry *current;      /* ASKING */
    uint64_t tried;             /* bit per node of the shard, since the last success */
    bool proven;                /* conn has answered something */
    int64_t used_at;            /* last answer */
    enum look_up outcome;       /* ASKING: what the rows so far say */
    char *secret;               /* ... owned */
    int64_t valid_us;
    char problem[300]; /* ... why they are of no use; "" nothing */
};

static void next_entry(struct seat *seat);

/* ---- settings: the database's own, else the global ones ---- */

static const char *either(const char *own, const char *global)
{
    return own[0] ? own : global;
}

static const struct database *database_of(const struct seat *seat)
{
    return topology_database(seat->query->topology, seat->database);
}

static const char *query_text(const struct seat *seat)
{
    if (seat->current->kind == LOOK_UP_ROLES)
        return roles_query;
    const struct config *config = seat->query->topology->config;
    return either(either(database_of(seat)->config->auth_query, config->auth_query), default_query);
}

static struct monitor_login login_of(const struct seat *seat)
{
    const struct config *config = seat->query->topology->config;
    const struct database_config *database = database_of(seat)->config;
    bool own = database->auth_query_user[0];
    return monitor_login_as(config, own ? database->auth_query_user : config->auth_query_user,
                            own ? database->auth_query_password : config->auth_query_password,
                            either(database->auth_query_dbname, config->auth_query_dbname),
                            "pgshunt auth");
}

/* ---- the rows of an answer ---- */

static void forget_rows(struct seat *seat)
{
    credential_free_secret(seat->secret);
    seat->secret = NULL;
    seat->outcome = LOOK_UP_ABSENT;
    seat->valid_us = -1;
    seat->problem[0] = '\0';
}

static void complain(struct seat *seat, const char *why)
{
    seat->outcome = LOOK_UP_FAILED;
    snprintf(seat->problem, sizeof seat->problem, "%s", why);
}

/* Seconds the password remains valid; no such column, or NULL: for ever. False: not any more. */
static bool take_validity(struct seat *seat, const PGresult *result)
{
    if (PQnfields(result) <= COLUMN_VALID || PQgetisnull(result, 0, COLUMN_VALID))
        return true;
    const char *text = PQgetvalue(result, 0, COLUMN_VALID);
    char *end;
    double seconds = strtod(text, &end);
    if (end == text || *end || isnan(seconds)) {
        complain(seat, "the third column of auth.query is no number of seconds");
        return false;
    }
    if (seconds <= 0)
        return false;
    if (seconds < 1e9)
        seat->valid_us = (int64_t)(seconds * 1e6);
    return true;
}

static void take_rows(struct seat *seat, const PGresult *result)
{
    if (PQnfields(result) < 2)
        complain(seat,
                 "auth.query returned fewer than two columns; it must return name and secret");
    else if (PQntuples(result) > 1)
        complain(seat, "auth.query returned more than one row");
    else if (PQntuples(result) == 1 && strcmp(PQgetvalue(result, 0, 0), seat->current->user) != 0)
        complain(seat, "auth.query returned another user than the one it was asked for");
    else if (PQntuples(result) == 1 && !PQgetisnull(result, 0, COLUMN_SECRET) &&
             *PQgetvalue(result, 0, COLUMN_SECRET) && take_validity(seat, result)) {
        seat->outcome = LOOK_UP_FOUND;
        seat->secret = mem_strdup(PQgetvalue(result, 0, COLUMN_SECRET));
    }
}

/* ---- course ---- */

static void close_conn(struct seat *seat)
{
    monitor_conn_close(seat->conn);
    seat->conn = NULL;
    if (seat->node)
        node_unref(seat->node);
    seat->node = NULL;
    seat->state = SEAT_OFF;
    seat->proven = false;
}

static void log_failure(const struct seat *seat, const char *why)
{
    log_event(LOG_ERROR, "cannot look up users", LOG_S("database", seat->database),
              LOG_S("host", seat->node ? seat->node->host : ""),
              LOG_I("port", seat->node ? seat->node->port : 0), LOG_S("reason", why));
}

static void answer_current(struct seat *seat)
{
    struct entry *entry = seat->current;
    seat->current = NULL;
    auth_query_answer(seat->query, entry, seat->outcome, seat->secret, seat->valid_us);
    forget_rows(seat);
}

/* Nobody can be asked: all who wait hear of it at once. */
static void fail_all(struct seat *seat)
{
    while (seat->queue) {
        struct entry *entry = seat->queue;
        seat->queue = entry->next;
        auth_query_answer(seat->query, entry, LOOK_UP_FAILED, NULL, -1);
    }
    seat->last = NULL;
    seat->tried = 0;
}

static void put_first(struct seat *seat, struct entry *entry)
{
    entry->next = seat->queue;
    seat->queue = entry;
    if (!seat->last)
        seat->last = entry;
}

/* The connection is of no use. What it was asked is asked elsewhere. */
static void on_failed(void *arg, const char *why, const char *sqlstate)
{
    struct seat *seat = arg;
    (void)sqlstate;
    if (seat->current)
        put_first(seat, seat->current);
    seat->current = NULL;
    forget_rows(seat);
    if (seat->queue || !seat->proven)
        log_failure(seat, why);
    if (seat->proven) /* it was good once: the same node may be tried again */
        seat->tried = 0;
    close_conn(seat);
    next_entry(seat);
}

static void ask(struct seat *seat)
{
    const struct config *config = seat->query->topology->config;
    seat->current = seat->queue;
    seat->queue = seat->current->next;
    if (!seat->queue)
        seat->last = NULL;
    forget_rows(seat);
    seat->state = SEAT_ASKING;
    monitor_conn_query_with(seat->conn, query_text(seat), seat->current->user,
                            config->auth_query_timeout);
}

static void on_ready(void *arg)
{
    struct seat *seat = arg;
    seat->state = SEAT_IDLE;
    next_entry(seat);
}

static void end_answer(struct seat *seat)
{
    if (seat->problem[0])
        log_failure(seat, seat->problem);
    seat->state = SEAT_IDLE;
    seat->proven = true;
    seat->tried = 0;
    seat->used_at = clock_us();
    answer_current(seat);
    next_entry(seat);
}

/* The name is not valid in the server's encoding: nobody is called that. */
static bool is_no_name(const PGresult *result)
{
    const char *sqlstate = PQresultErrorField(result, PG_DIAG_SQLSTATE);
    return sqlstate && (strcmp(sqlstate, "22021") == 0 || strcmp(sqlstate, "22P05") == 0);
}

static void on_result(void *arg, const PGresult *result)
{
    struct seat *seat = arg;
    if (!result) {
        end_answer(seat);
        return;
    }
    if (PQresultStatus(result) == PGRES_TUPLES_OK)
        take_rows(seat, result);
    else if (!is_no_name(result))
        complain(seat, PQresultErrorMessage(result));
}

static const struct monitor_conn_events seat_events = {on_ready, on_result, on_failed};

/* The primary if it answers, else a replica that does, else one that nobody has seen yet. */
static int worth(const struct node *node)
{
    int state = atomic_load(&node->state), role = atomic_load(&node->role);
    if (state == NODE_STATE_DOWN)
        return 0;
    return (state == NODE_STATE_UP ? 2 : 0) + (role == NODE_ROLE_PRIMARY ? 2 : 1);
}

static int choose_node(const struct seat *seat, const struct shard *shard)
{
    int best = -1;
    for (int i = 0; i < shard->nnodes; i++)
        if (!(seat->tried & 1ULL << i) && worth(shard->nodes[i]) &&
            (best < 0 || worth(shard->nodes[i]) > worth(shard->nodes[best])))
            best = i;
    return best;
}

static void connect_seat(struct seat *seat)
{
    const struct shard *shard = &database_of(seat)->shards[0];
    struct monitor_login login = login_of(seat);
    int index = choose_node(seat, shard);
    if (index < 0) {
        if (!seat->tried)
            log_failure(seat, "no server of the first shard answers");
        fail_all(seat);
        return;
    }
    seat->tried |= 1ULL << index;
    seat->node = node_ref(shard->nodes[index]);
    seat->state = SEAT_CONNECTING;
    seat->conn =
        monitor_conn_open(&seat->query->loop, seat->node, &login,
                          seat->query->topology->config->auth_query_timeout, &seat_events, seat);
}

static void next_entry(struct seat *seat)
{
    if (!seat->queue)
        return;
    if (!database_of(seat) ||
        !auth_query_applies(seat->query->topology->config, database_of(seat)->config))
        fail_all(seat);
    else if (seat->state == SEAT_OFF)
        connect_seat(seat);
    else if (seat->state == SEAT_IDLE)
        ask(seat);
}

/* ---- seats ---- */

static struct seat *seat_get(struct auth_query *query, const char *database)
{
    for (struct seat *seat = query->seats; seat; seat = seat->next)
        if (strcmp(seat->database, database) == 0)
            return seat;
    struct seat *seat = mem_alloc(sizeof *seat);
    seat->query = query;
    seat->database = mem_strdup(database);
    seat->outcome = LOOK_UP_ABSENT;
    seat->next = query->seats;
    query->seats = seat;
    return seat;
}

/* Frees a seat; what it had to look up is appended to the list that ends at `last`. */
static struct entry **seat_free(struct seat *seat, struct entry **last)
{
    if (seat->current)
        put_first(seat, seat->current);
    for (*last = seat->queue; *last; last = &(*last)->next)
        continue;
    close_conn(seat);
    forget_rows(seat);
    free(seat->database);
    free(seat);
    return last;
}

/* Returns what they had to look up. */
static struct entry *free_seats(struct auth_query *query)
{
    struct entry *entries = NULL, **last = &entries;
    while (query->seats) {
        struct seat *seat = query->seats;
        query->seats = seat->next;
        last = seat_free(seat, last);
    }
    return entries;
}

/* ---- the thread ---- */

static void enqueue(struct auth_query *query, struct entry *entry)
{
    entry->next = NULL;
    if (entry->kind == LOOK_UP_HOST) {
        auth_query_find_host(query, entry);
        return;
    }
    struct seat *seat = seat_get(query, entry->key);
    if (seat->last)
        seat->last->next = entry;
    else
        seat->queue = entry;
    seat->last = entry;
    next_entry(seat);
}

static void enqueue_all(struct auth_query *query, struct entry *entries)
{
    while (entries) {
        struct entry *entry = entries;
        entries = entry->next;
        enqueue(query, entry);
    }
}

/* The configuration may have changed anything: begin with new connections. */
static void take_topology(struct auth_query *query, struct topology *topology)
{
    struct entry *entries = free_seats(query);
    topology_unref(query->topology);
    query->topology = topology;
    enqueue_all(query, entries);
}

static void on_wake(uv_async_t *wake)
{
    struct auth_query *query = wake->data;
    pthread_mutex_lock(&query->lock);
    struct entry *asked = query->asked;
    struct topology *topology = query->next_topology;
    bool stop = query->stop;
    query->asked = query->asked_last = NULL;
    query->next_topology = NULL;
    if (topology)
        query->cache_us = topology->config->auth_query_cache * 1000;
    pthread_mutex_unlock(&query->lock);
    if (topology)
        take_topology(query, topology);
    if (!stop) {
        enqueue_all(query, asked);
        return;
    }
    query->stopped = true;
    free_seats(query); /* nobody waits any more */
    uv_close((uv_handle_t *)&query->wake, NULL);
    uv_close((uv_handle_t *)&query->tick, NULL);
}

static void on_tick(uv_timer_t *tick)
{
    struct auth_query *query = tick->data;
    int64_t now = clock_us();
    auth_query_sweep(query, now);
    for (struct seat *seat = query->seats; seat; seat = seat->next)
        if (seat->state == SEAT_IDLE && now - seat->used_at > UNUSED_US)
            close_conn(seat);
}

static void *run(void *arg)
{
    struct auth_query *query = arg;
    log_thread_name("auth query");
    uv_run(&query->loop, UV_RUN_DEFAULT);
    uv_loop_close(&query->loop);
    return NULL;
}

bool auth_query_thread_start(struct auth_query *query)
{
    uv_loop_init(&query->loop);
    uv_async_init(&query->loop, &query->wake, on_wake);
    uv_timer_init(&query->loop, &query->tick);
    query->wake.data = query->tick.data = query;
    uv_timer_start(&query->tick, on_tick, TICK_MS, TICK_MS);
    return pthread_create(&query->thread, NULL, run, query) == 0;
}

void auth_query_thread_stop(struct auth_query *query)
{
    pthread_mutex_lock(&query->lock);
    query->stop = true;
    uv_async_send(&query->wake);
    pthread_mutex_unlock(&query->lock);
    pthread_join(query->thread, NULL);
}
