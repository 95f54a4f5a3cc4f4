/*
 * monitor_watch.c: watches one node: finds its address, logs in, asks for its role and WAL position
 * every round, and decides when it is down and when it is up again.
 *
 *   OFF -> RESOLVE -> CONNECT -> IDENTIFY -> PREPARE -> CHECK <-> IDLE
 *    \-------<---------<- failure in any step -<--------/
 *
 * A failure of a node that was well is answered by a new attempt at once, until health.fall in a row take
 * it out. A refused connection takes it out directly, because nothing listens there.
 */
#include "proxy/monitor_internal.h"

#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pgshunt/arena.h"
#include "pgshunt/log.h"
#include "proxy/freshness.h"
#include "proxy/node_health.h"

#define MS 1000                         /* in microseconds, the unit of clock_us() */
#define RETRY_URGENT (200 * MS)         /* at least so often while the shard has no primary */
#define RETRY_REFUSED_LOGIN (5000 * MS) /* someone has to change a password or a name first */
#define RETRY_FULL (1000 * MS)          /* too many connections */
#define RETRY_SUSPECT (50 * MS)         /* least time between attempts that workers ask for */
#define RESOLVE_AGAIN_DOWN (1000 * MS)
#define IDENTIFY_AGAIN (5000 * MS) /* while the node's timeline is not the primary's */

static const char check_name[] = "pgshunt_check";

/*
 * One statement for both roles; `r` is evaluated once, so that a promotion in between cannot mix the
 * two. The receiver's timeline is NULL without pg_read_all_stats (pg_monitor); then the control file's
 * (identify_sql) has to do, which follows later. On a primary pg_walfile_name tells the timeline at
 * once after a promotion, the control file only after the next checkpoint.
 */
static const char check_sql[] =
    "SELECT r,"
    " CASE WHEN r THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_insert_lsn() END,"
    " CASE WHEN r THEN NULL ELSE pg_current_wal_flush_lsn() END,"
    " CASE WHEN r THEN (SELECT received_tli FROM pg_stat_wal_receiver)"
    " ELSE ('x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))::bit(32)::int END,"
    " current_setting('default_transaction_read_only')"
    " FROM (SELECT pg_is_in_recovery() AS r OFFSET 0) AS s";

static const char identify_sql[] =
    "SELECT s.system_identifier, greatest(c.timeline_id, r.min_recovery_end_timeline),"
    " i.wal_block_size, i.bytes_per_wal_segment, pg_postmaster_start_time()"
    " FROM pg_control_system() AS s, pg_control_checkpoint() AS c, pg_control_recovery() AS r,"
    " pg_control_init() AS i";

static void on_ready(void *arg);
static void on_result(void *arg, const PGresult *result);
static void on_failed(void *arg, const char *why, const char *sqlstate);

static const struct monitor_conn_events watch_events = {on_ready, on_result, on_failed};

/* A name look-up in libuv's thread pool. It cannot be stopped, so it may outlive its watch. */
struct resolution {
    uv_getaddrinfo_t request;
    struct watch *watch; /* NULL: nobody waits any more */
};

static int64_t check_timeout(const struct watch *watch)
{
    return watch->monitor->topology->config->check_timeout;
}

/* ---- disconnecting ---- */

/* What a replica's numbers said is not to be trusted over a lost connection: it may come back older. */
static void forget_position(struct watch *watch)
{
    watch->has_position = false;
    atomic_store(&watch->node->stint, 0);
    if (atomic_load(&watch->node->role) == NODE_ROLE_REPLICA) {
        atomic_store(&watch->node->lag_us, -1);
        atomic_store(&watch->node->held_lag_us, -1);
        atomic_store(&watch->node->lag_bytes, -1);
        atomic_store(&watch->node->fresh_as_of, 0);
    }
}

static void disconnect(struct watch *watch)
{
    monitor_conn_close(watch->conn);
    watch->conn = NULL;
    watch->step = WATCH_OFF;
    watch->prepared = false;
    watch->recheck = false;
    forget_position(watch);
}

/* The server is there but does not let the monitor in: only its administrator can change that. */
static void login_refused(struct watch *watch, const char *why)
{
    if (!watch->said_refused)
        log_event(LOG_ERROR, "the monitor cannot log in", LOG_S("node", watch->name),
                  LOG_S("database", watch->node->dbname),
                  LOG_S("user", watch->monitor->topology->config->monitor_user),
                  LOG_S("reason", why),
                  LOG_S("hint", "set monitor.user and monitor.password to a role that may connect "
                                "to every shard, and grant it pg_monitor"));
    watch->said_refused = true;
    watch->retry_at = clock_us() + RETRY_REFUSED_LOGIN;
    health_down(watch, why);
}

static void server_full(struct watch *watch, const char *why)
{
    if (!watch->said_refused)
        log_event(
            LOG_WARNING, "no connection left for the monitor", LOG_S("node", watch->name),
            LOG_S("reason", why),
            LOG_S("hint", "raise max_connections, or lower pool.size; the node stays in use"));
    watch->said_refused = true;
    watch->checked_once = true;
    watch->retry_at = clock_us() + RETRY_FULL;
}

static bool is_refused(const char *why)
{
    return strstr(why, strerrordesc_np(ECONNREFUSED)) || strstr(why, strerrordesc_np(ENOENT));
}

/* ---- addresses ---- */

static void use_address(struct watch *watch, int index)
{
    watch->address = index;
    node_set_address(watch->node, (struct sockaddr *)&watch->addresses[index],
                     watch->lengths[index]);
}

/* After a failed login: is there an address of this name not tried in this round? */
static bool next_address(struct watch *watch)
{
    if (watch->naddresses < 2 || ++watch->tried_addresses >= watch->naddresses) {
        watch->tried_addresses = 0;
        if (watch->naddresses > 1)
            use_address(watch, (watch->address + 1) % watch->naddresses);
        return false;
    }
    use_address(watch, (watch->address + 1) % watch->naddresses);
    return true;
}

/*
 * Another server may stand there: until it has said what it is, it is nothing. Connections to the old
 * address serve whom they serve, and end.
 */
static void address_changed(struct watch *watch)
{
    log_event(LOG_INFO, "the name of a node has another address now", LOG_S("node", watch->name));
    if (watch->conn)
        disconnect(watch);
    node_leave(watch->node, clock_us());
    watch->started[0] = '\0';
    atomic_store(&watch->node->role, NODE_ROLE_UNKNOWN);
    group_settle(watch->group);
}

/* Keeps the address in use if the name still has it. */
static void take_addresses(struct watch *watch, const struct addrinfo *list)
{
    struct sockaddr_storage current = {0};
    socklen_t length = 0;
    bool had = watch->naddresses > 0;
    if (had) {
        current = watch->addresses[watch->address];
        length = watch->lengths[watch->address];
    }

    int count = 0, keep = -1;
    for (const struct addrinfo *at = list; at && count < WATCH_MAX_ADDRESSES; at = at->ai_next) {
        if (at->ai_addrlen > sizeof watch->addresses[0])
            continue;
        memset(&watch->addresses[count], 0, sizeof watch->addresses[count]);
        memcpy(&watch->addresses[count], at->ai_addr, at->ai_addrlen);
        watch->lengths[count] = at->ai_addrlen;
        if (had && length == at->ai_addrlen &&
            memcmp(&current, &watch->addresses[count], length) == 0)
            keep = count;
        count++;
    }
    watch->naddresses = count;
    if (keep >= 0) {
        watch->address = keep;
        return;
    }
    use_address(watch, 0);
    if (had)
        address_changed(watch);
}

static void connect_node(struct watch *watch);
static void failed(struct watch *watch, const char *why, const char *sqlstate);

static void on_resolved(uv_getaddrinfo_t *request, int status, struct addrinfo *list)
{
    struct resolution *resolution = request->data;
    struct watch *watch = resolution->watch;
    free(resolution);
    if (watch) {
        watch->resolution = NULL;
        watch->resolved_at = clock_us();
        if (status == 0 && list)
            take_addresses(watch, list);
        bool waiting = watch->step == WATCH_RESOLVE;
        if (waiting)
            watch->step = WATCH_OFF;
        if (waiting && watch->naddresses > 0) {
            connect_node(watch);
        } else if (waiting) {
            char why[128];
            snprintf(why, sizeof why, "cannot resolve its name: %s", uv_strerror(status));
            failed(watch, why, "");
        }
    }
    uv_freeaddrinfo(list);
}

static bool resolve(struct watch *watch)
{
    if (watch->resolution)
        return true;
    char port[16];
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV};
    struct resolution *resolution = mem_alloc(sizeof *resolution);
    snprintf(port, sizeof port, "%d", watch->node->port);
    resolution->request.data = resolution;
    resolution->watch = watch;
    if (uv_getaddrinfo(&watch->monitor->loop, &resolution->request, on_resolved, watch->node->host,
                       port, &hints) != 0) {
        free(resolution);
        return false;
    }
    watch->resolution = resolution;
    return true;
}

static bool resolve_is_due(const struct watch *watch, int64_t now)
{
    if (watch->literal)
        return false;
    if (watch->naddresses == 0)
        return true;
    int64_t ttl = watch->monitor->topology->config->dns_ttl * MS;
    if (watch->verdict == NODE_STATE_DOWN && ttl > RESOLVE_AGAIN_DOWN)
        ttl = RESOLVE_AGAIN_DOWN;
    return now - watch->resolved_at >= ttl;
}

/* ---- failing and starting again ---- */

static void start(struct watch *watch);

static int64_t retry_pause(const struct watch *watch)
{
    int64_t pause = watch->monitor->topology->config->health_down_interval * MS;
    return pause > RETRY_URGENT && group_is_urgent(watch->group) ? RETRY_URGENT : pause;
}

static void failed(struct watch *watch, const char *why, const char *sqlstate)
{
    bool logging_in = watch->step == WATCH_CONNECT;
    disconnect(watch);
    if (watch->monitor->closing)
        return;
    atomic_fetch_add(&watch->node->checks_failed, 1);
    if (strcmp(sqlstate, "53300") == 0) {
        server_full(watch, why);
        return;
    }
    if (strncmp(sqlstate, "28", 2) == 0 || strcmp(sqlstate, "3D000") == 0 ||
        strcmp(sqlstate, "42501") == 0) {
        login_refused(watch, why);
        return;
    }
    if (logging_in && !*sqlstate && next_address(watch)) {
        start(watch);
        return;
    }
    watch->failures++;
    watch->retry_at = clock_us() + retry_pause(watch);
    /* 57P03: it is starting up or shutting down, and says so. */
    bool certain = strcmp(sqlstate, "57P03") == 0 || (logging_in && is_refused(why));
    if (certain || watch->failures >= watch->monitor->topology->config->health_fall)
        health_down(watch, why);
    else
        start(watch);
}

static void connect_node(struct watch *watch)
{
    struct monitor *monitor = watch->monitor;
    struct monitor_login login = monitor_login(monitor->topology->config, "pgshunt monitor");
    watch->tried_at = clock_us();
    watch->step = WATCH_CONNECT;
    watch->conn = monitor_conn_open(&monitor->loop, watch->node, &login, check_timeout(watch),
                                    &watch_events, watch);
}

/* A name server that hangs holds up only nodes whose address was never known. */
static void start(struct watch *watch)
{
    if (resolve_is_due(watch, clock_us()) && resolve(watch) && watch->naddresses == 0) {
        watch->tried_at = clock_us();
        watch->step = WATCH_RESOLVE;
        return;
    }
    connect_node(watch);
}

/* ---- what the node says ---- */

static uint64_t parse_number(const PGresult *result, int column)
{
    return PQgetisnull(result, 0, column) ? 0 : strtoull(PQgetvalue(result, 0, column), NULL, 10);
}

/* "16/B374D848". False for NULL. */
static bool parse_lsn(const PGresult *result, int column, uint64_t *position)
{
    unsigned high, low;
    if (PQgetisnull(result, 0, column) ||
        sscanf(PQgetvalue(result, 0, column), "%X/%X", &high, &low) != 2)
        return false;
    *position = (uint64_t)high << 32 | low;
    return true;
}

/* Started anew, it knows nothing of the connections that were made before. */
static void take_start_time(struct watch *watch, const char *started)
{
    if (watch->started[0] && strcmp(watch->started, started) != 0)
        node_disown(watch->node, watch->answered_at);
    snprintf(watch->started, sizeof watch->started, "%s", started);
}

/* Without these a node is judged more carefully than needed, but rightly: an error is no failure. */
static void take_identity(struct watch *watch, const PGresult *result)
{
    if (PQresultStatus(result) != PGRES_TUPLES_OK || PQntuples(result) != 1) {
        log_event(LOG_DEBUG, "control file data is not available", LOG_S("node", watch->name),
                  LOG_S("reason", PQresultErrorMessage(result)));
        return;
    }
    watch->system_id = parse_number(result, 0);
    watch->control_timeline = (int)parse_number(result, 1);
    watch->page_size = (uint32_t)parse_number(result, 2);
    watch->segment_size = parse_number(result, 3);
    take_start_time(watch, PQgetvalue(result, 0, 4));
    group_settle(watch->group); /* before its timeline can be taken for this cluster's */
}

static void take_primary_sample(struct watch *watch, const PGresult *result)
{
    struct node *node = watch->node;
    uint64_t insert, flushed;
    int timeline = watch->foreign ? 0 : (int)parse_number(result, 3);
    if (!parse_lsn(result, 1, &insert) || !parse_lsn(result, 2, &flushed))
        return;
    insert = lag_skip_page_header(insert, watch->page_size, watch->segment_size);
    if (timeline != watch->history_timeline)
        lag_reset(&watch->history);
    watch->history_timeline = timeline;
    lag_add_sample(&watch->history, watch->sent_at, insert, flushed);
    watch->has_position = false;
    atomic_store(&node->timeline, timeline);
    atomic_store(&node->wal_position, insert);
    atomic_store(&node->lag_us, 0);
    atomic_store(&node->held_lag_us, 0);
    atomic_store(&node->lag_bytes, 0);
    atomic_store(&node->fresh_as_of, watch->sent_at);
}

static void take_replica_sample(struct watch *watch, const PGresult *result)
{
    struct node *node = watch->node;
    int timeline = (int)parse_number(result, 3);
    if (timeline < watch->control_timeline)
        timeline = watch->control_timeline;
    /* A replica never goes back to an older timeline while it runs; one that was started anew may. */
    if (!watch->first_check && timeline < atomic_load(&node->timeline))
        timeline = atomic_load(&node->timeline);
    atomic_store(&node->timeline, watch->foreign ? 0 : timeline);
    lag_reset(&watch->history);
    watch->has_position = parse_lsn(result, 1, &watch->replayed);
    if (!watch->has_position)
        return;
    atomic_store(&node->wal_position, watch->replayed);
    atomic_store(&node->sampled_at, watch->sent_at);
    if (atomic_load(&node->stint) == 0)
        atomic_store(&node->stint, freshness_new_stint());
}

/* What was measured in the old role goes before anyone can take it for the new one's. */
static bool change_role(struct watch *watch, enum node_role role)
{
    struct node *node = watch->node;
    if ((enum node_role)atomic_load(&node->role) == role)
        return false;
    atomic_store(&node->stint, 0);
    if (role == NODE_ROLE_REPLICA && atomic_load(&node->role) == NODE_ROLE_PRIMARY)
        node_disown(node, watch->answered_at);
    if (role == NODE_ROLE_REPLICA) {
        atomic_store(&node->fresh_as_of, 0);
        atomic_store(&node->lag_us, -1);
        atomic_store(&node->held_lag_us, -1);
        atomic_store(&node->lag_bytes, -1);
    } else if (watch->group->primary && watch->group->primary != watch) {
        atomic_store(&node->fenced, true); /* until group_settle() has weighed the two */
    }
    atomic_store(&node->role, (int)role);
    return true;
}

static void report_check(const struct watch *watch, enum node_role role, const char *what)
{
    log_event(LOG_INFO, what, LOG_S("node", watch->name), LOG_S("database", watch->node->dbname),
              LOG_S("role", node_role_name(role)),
              LOG_I("timeline", atomic_load(&watch->node->timeline)));
}

/* Its own business, but somebody will look for the reason of so many 25006. */
static void take_read_only(struct watch *watch, bool read_only)
{
    if (read_only && !atomic_load(&watch->node->read_only))
        log_event(LOG_WARNING, "a primary refuses writes: default_transaction_read_only is on",
                  LOG_S("node", watch->name), LOG_S("database", watch->node->dbname));
    atomic_store(&watch->node->read_only, read_only);
}

static void take_check(struct watch *watch, const PGresult *result)
{
    struct node *node = watch->node;
    bool replica = PQgetvalue(result, 0, 0)[0] == 't';
    enum node_role role = replica ? NODE_ROLE_REPLICA : NODE_ROLE_PRIMARY;
    enum node_state before = watch->verdict;
    int timeline = atomic_load(&node->timeline);

    bool known = atomic_load(&node->role) != NODE_ROLE_UNKNOWN;
    bool new_role = change_role(watch, role);
    if (replica)
        take_replica_sample(watch, result);
    else
        take_primary_sample(watch, result);
    take_read_only(watch, !replica && strcmp(PQgetvalue(result, 0, 4), "on") == 0);
    watch->first_check = false;
    watch->tried_addresses = 0;
    watch->checked_once = true;
    watch->said_refused = false;
    watch->answered_at = watch->sent_at;
    atomic_store(&node->checked_at, clock_us());
    if (before == NODE_STATE_DOWN)
        atomic_store(&node->up_since, clock_us());
    /* Last: whoever sees it up finds the rest in place; a replica's lag stays unknown until measured. */
    health_answered(watch, new_role);
    if (before == NODE_STATE_DOWN && watch->verdict == NODE_STATE_UP)
        report_check(watch, role, "node is up");
    else if (new_role)
        report_check(watch, role, known ? "node changed its role" : "role of a node found");
    if (new_role || before != watch->verdict || timeline != atomic_load(&node->timeline))
        group_settle(watch->group);
    else
        group_measure(watch->group, watch);
}

/* ---- steps ---- */

static void send_check(struct watch *watch)
{
    watch->step = WATCH_CHECK;
    watch->recheck = false;
    watch->sent_at = freshness_stamp();
    monitor_conn_execute(watch->conn, check_name, check_timeout(watch));
}

static void send_identify(struct watch *watch)
{
    watch->step = WATCH_IDENTIFY;
    watch->identified_at = clock_us();
    monitor_conn_query(watch->conn, identify_sql, false, check_timeout(watch));
}

static void on_ready(void *arg)
{
    struct watch *watch = arg;
    watch->first_check = true;
    send_identify(watch);
}

static void query_over(struct watch *watch)
{
    if (watch->step == WATCH_IDENTIFY && !watch->prepared) {
        watch->step = WATCH_PREPARE;
        monitor_conn_prepare(watch->conn, check_name, check_sql, check_timeout(watch));
    } else if (watch->step == WATCH_IDENTIFY || watch->step == WATCH_PREPARE || watch->recheck) {
        send_check(watch);
    } else {
        watch->step = WATCH_IDLE;
    }
}

static void on_result(void *arg, const PGresult *result)
{
    struct watch *watch = arg;
    if (!result) {
        query_over(watch);
        return;
    }
    ExecStatusType status = PQresultStatus(result);
    if (watch->step == WATCH_IDENTIFY) {
        take_identity(watch, result);
    } else if (watch->step == WATCH_PREPARE && status == PGRES_COMMAND_OK) {
        watch->prepared = true;
    } else if (watch->step == WATCH_CHECK && status == PGRES_TUPLES_OK && PQntuples(result) == 1) {
        take_check(watch, result);
    } else {
        char why[256];
        snprintf(why, sizeof why, "%.*s", (int)strcspn(PQresultErrorMessage(result), "\n"),
                 PQresultErrorMessage(result));
        failed(watch, *why ? why : "unexpected answer to the check", "");
    }
}

static void on_failed(void *arg, const char *why, const char *sqlstate)
{
    failed(arg, why, sqlstate);
}

void watch_tick(struct watch *watch, int64_t now, bool round)
{
    health_tick(watch, now);
    if (watch->step == WATCH_OFF) {
        if (now >= watch->retry_at)
            start(watch);
        return;
    }
    if (watch->step == WATCH_RESOLVE && now - watch->tried_at > check_timeout(watch) * MS)
        health_down(watch, "its name is not resolved yet");
    if (watch->step != WATCH_IDLE || !(round || group_is_urgent(watch->group)))
        return;
    if (resolve_is_due(watch, now))
        resolve(watch);
    if (watch->unverified_since && now - watch->identified_at >= IDENTIFY_AGAIN)
        send_identify(watch);
    else
        send_check(watch);
}

/*
 * A server that shuts down, or whose postmaster is stopped, lets nobody in any more but answers those who
 * are. A replica that does so is as good as down: reads have other nodes. A primary is not.
 */
static bool login_is_doubted(const struct watch *watch)
{
    return atomic_load(&watch->node->refusals) > 0 &&
           atomic_load(&watch->node->role) == NODE_ROLE_REPLICA &&
           clock_us() - watch->tried_at >= RETRY_SUSPECT;
}

static void log_in_again(struct watch *watch)
{
    disconnect(watch);
    start(watch);
}

void watch_suspect(struct watch *watch)
{
    switch (watch->step) {
    case WATCH_OFF: {
        int64_t soonest = watch->tried_at + RETRY_SUSPECT;
        if (watch->retry_at > soonest)
            watch->retry_at = soonest;
        if (clock_us() >= soonest)
            start(watch);
        break;
    }
    case WATCH_IDLE:
        if (login_is_doubted(watch))
            log_in_again(watch);
        else
            send_check(watch);
        break;
    case WATCH_CHECK:
        watch->recheck = true;
        break;
    case WATCH_RESOLVE:
    case WATCH_CONNECT:
    case WATCH_IDENTIFY:
    case WATCH_PREPARE:
        break; /* a check follows anyway */
    }
}

/* ---- birth and end ---- */

struct watch *watch_new(struct monitor *monitor, struct node *node)
{
    struct watch *watch = mem_alloc(sizeof *watch);
    watch->monitor = monitor;
    watch->node = node_ref(node);
    watch->verdict = (enum node_state)atomic_load(&node->state);
    watch->literal = atomic_load(&node->resolved) && node->host[0] == '/';
    if (!watch->literal) {
        struct in6_addr ignored;
        watch->literal = uv_inet_pton(AF_INET, node->host, &ignored) == 0 ||
                         uv_inet_pton(AF_INET6, node->host, &ignored) == 0;
    }
    snprintf(watch->name, sizeof watch->name, strchr(node->host, ':') ? "[%s]:%d" : "%s:%d",
             node->host, node->port);
    lag_init(&watch->history);
    return watch;
}

void watch_free(struct watch *watch)
{
    monitor_conn_close(watch->conn);
    if (watch->resolution) {
        watch->resolution->watch = NULL;
        uv_cancel((uv_req_t *)&watch->resolution->request);
    }
    lag_free(&watch->history);
    node_unref(watch->node);
    free(watch);
}
