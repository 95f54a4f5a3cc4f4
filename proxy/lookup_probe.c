/*
 * lookup_probe.c: asks one shard's primary which of some values it has, over a connection of the worker's own.
 *
 *   OFF --first ask--> CONNECTING --> IDLE <--> BUSY     what is asked meanwhile goes out together
 *    ^                      \----------\---------\---- failed: all that wait fail; OFF for a second
 *
 * A lookup's function is prepared on the connection when it is first asked for.
 */
#include <stdlib.h>
#include <string.h>

#include "pgshunt/arena.h"
#include "pgshunt/log.h"
#include "proxy/lookup_internal.h"
#include "proxy/monitor_conn.h"

#define TIMEOUT_MS 1000  /* of an answer: then the statement goes to all shards */
#define PAUSE_US 1000000 /* after a failure: nobody waits for a server that is not there */
#define AT_ONCE 128      /* values in one question */
#define LOG_EVERY_US 10000000

enum probe_state { PROBE_OFF, PROBE_CONNECTING, PROBE_IDLE, PROBE_PREPARING, PROBE_BUSY };

struct prepared_function {
    struct prepared_function *next;
    char name[];
};

struct probe {
    struct list_node link; /* lookups->probes */
    struct lookups *lookups;
    struct node *node; /* reference */
    enum probe_state state;
    struct monitor_conn *conn; /* NULL in OFF */
    struct prepared_function *prepared;
    struct prepared_function *preparing; /* NULL unless PREPARING */
    struct list_node queue;              /* asks not sent yet */
    struct lookup_ask *sent[AT_ONCE];    /* NULL: given up */
    int nsent;
    bool refused; /* the question under way was answered with an error */
    int64_t failed_at, told_at;
};

/* ---- failing ---- */

static void fail_all(struct probe *probe)
{
    for (int i = 0; i < probe->nsent; i++)
        if (probe->sent[i])
            lookup_failed(probe->sent[i]);
    probe->nsent = 0;
    while (!list_empty(&probe->queue)) {
        struct lookup_ask *ask = list_entry(probe->queue.next, struct lookup_ask, link);
        list_remove(&ask->link);
        lookup_failed(ask);
    }
}

static void forget_prepared(struct probe *probe)
{
    free(probe->preparing);
    probe->preparing = NULL;
    while (probe->prepared) {
        struct prepared_function *next = probe->prepared->next;
        free(probe->prepared);
        probe->prepared = next;
    }
}

static void turn_off(struct probe *probe)
{
    monitor_conn_close(probe->conn);
    probe->conn = NULL;
    probe->state = PROBE_OFF;
    forget_prepared(probe);
    fail_all(probe);
}

static void tell(struct probe *probe, const char *why)
{
    int64_t now = clock_us();
    if (probe->told_at && now - probe->told_at < LOG_EVERY_US)
        return;
    probe->told_at = now;
    log_event(LOG_WARNING, "a lookup cannot ask a shard: statements go to all shards",
              LOG_S("node", probe->node->host), LOG_I("port", probe->node->port),
              LOG_S("dbname", probe->node->dbname), LOG_S("reason", why ? why : ""),
              LOG_S("hint", "pgshuntctl lookup verify tells what is wrong with it"));
}

static void on_failed(void *arg, const char *why, const char *sqlstate)
{
    struct probe *probe = arg;
    (void)sqlstate;
    tell(probe, why);
    probe->failed_at = clock_us();
    turn_off(probe);
    lookup_resume(probe->lookups);
}

/* ---- asking ---- */

static bool is_prepared(const struct probe *probe, const char *function)
{
    for (const struct prepared_function *at = probe->prepared; at; at = at->next)
        if (strcmp(at->name, function) == 0)
            return true;
    return false;
}

static const char *function_of(const struct lookup_ask *ask)
{
    return lookup_rule_of(ask->question)->function;
}

/* Function names are made of letters, digits and _: see shardmap.c. */
static void prepare(struct probe *probe, const char *function)
{
    struct buffer sql = {0};
    probe->preparing = mem_alloc(sizeof *probe->preparing + strlen(function) + 1);
    memcpy(probe->preparing->name, function, strlen(function) + 1);
    buffer_printf(&sql, "SELECT n, key FROM pgshunt.%s($1::pg_catalog.text[])", function);
    buffer_append(&sql, "", 1);
    probe->state = PROBE_PREPARING;
    monitor_conn_prepare(probe->conn, function, buffer_head(&sql), TIMEOUT_MS);
    buffer_release(&sql);
}

static void put_element(struct buffer *out, const char *value)
{
    buffer_append(out, "\"", 1);
    for (; *value; value++) {
        if (*value == '"' || *value == '\\')
            buffer_append(out, "\\", 1);
        buffer_append(out, value, 1);
    }
    buffer_append(out, "\"", 1);
}

/* All that wait for the same function, as one array. */
static void execute(struct probe *probe, const char *function)
{
    struct buffer array = {0};
    buffer_append(&array, "{", 1);
    list_each(at, following, &probe->queue)
    {
        struct lookup_ask *ask = list_entry(at, struct lookup_ask, link);
        if (probe->nsent == AT_ONCE || strcmp(function_of(ask), function) != 0)
            continue;
        list_remove(&ask->link);
        ask->slot = probe->nsent;
        probe->sent[probe->nsent++] = ask;
        if (ask->slot)
            buffer_append(&array, ",", 1);
        put_element(&array, lookup_value_of(ask->question));
    }
    buffer_append(&array, "}", 2);
    probe->state = PROBE_BUSY;
    monitor_conn_execute_with(probe->conn, function, buffer_head(&array), TIMEOUT_MS);
    buffer_release(&array);
}

static void send_next(struct probe *probe)
{
    if (probe->state != PROBE_IDLE || list_empty(&probe->queue))
        return;
    const char *function = function_of(list_entry(probe->queue.next, struct lookup_ask, link));
    probe->refused = false;
    if (is_prepared(probe, function))
        execute(probe, function);
    else
        prepare(probe, function);
}

/* ---- answers ---- */

static void take_rows(struct probe *probe, const PGresult *result)
{
    for (int row = 0; row < PQntuples(result); row++) {
        int slot = atoi(PQgetvalue(result, row, 0)) - 1;
        if (slot < 0 || slot >= probe->nsent || !probe->sent[slot])
            continue;
        struct lookup_ask *ask = probe->sent[slot];
        probe->sent[slot] = NULL;
        lookup_answered(ask, true, PQgetisnull(result, row, 1) ? NULL : PQgetvalue(result, row, 1));
    }
}

/* What was not among the rows is not there. */
static void finish_question(struct probe *probe)
{
    for (int i = 0; i < probe->nsent; i++) {
        if (probe->sent[i] && probe->refused)
            lookup_failed(probe->sent[i]);
        else if (probe->sent[i])
            lookup_answered(probe->sent[i], false, NULL);
    }
    probe->nsent = 0;
}

static void finish_preparing(struct probe *probe)
{
    struct prepared_function *function = probe->preparing;
    probe->preparing = NULL;
    if (!probe->refused) {
        function->next = probe->prepared;
        probe->prepared = function;
        return;
    }
    list_each(at, following, &probe->queue)
    {
        struct lookup_ask *ask = list_entry(at, struct lookup_ask, link);
        if (strcmp(function_of(ask), function->name) != 0)
            continue;
        list_remove(&ask->link);
        lookup_failed(ask);
    }
    free(function);
}

static void on_result(void *arg, const PGresult *result)
{
    struct probe *probe = arg;
    if (result && PQresultStatus(result) == PGRES_TUPLES_OK) {
        take_rows(probe, result);
        return;
    }
    if (result && PQresultStatus(result) != PGRES_COMMAND_OK) {
        probe->refused = true;
        tell(probe, PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY));
    }
    if (result)
        return;
    if (probe->state == PROBE_PREPARING)
        finish_preparing(probe);
    else
        finish_question(probe);
    probe->state = PROBE_IDLE;
    send_next(probe);
    lookup_resume(probe->lookups);
}

static void on_ready(void *arg)
{
    struct probe *probe = arg;
    probe->state = PROBE_IDLE;
    send_next(probe);
}

static const struct monitor_conn_events events = {on_ready, on_result, on_failed};

/* ---- probes ---- */

static struct probe *probe_of(struct lookups *lookups, struct node *node)
{
    list_each(at, following, &lookups->probes)
    {
        struct probe *probe = list_entry(at, struct probe, link);
        if (probe->node == node)
            return probe;
    }
    struct probe *probe = mem_alloc(sizeof *probe);
    probe->lookups = lookups;
    probe->node = node_ref(node);
    list_init(&probe->queue);
    list_push_back(&lookups->probes, &probe->link);
    return probe;
}

static void turn_on(struct probe *probe)
{
    struct worker *worker = probe->lookups->worker;
    struct monitor_login login = monitor_login(worker->topology->config, "pgshunt lookup");
    probe->state = PROBE_CONNECTING;
    probe->conn = monitor_conn_open(&worker->loop, probe->node, &login, TIMEOUT_MS, &events, probe);
}

bool probe_ask(struct lookups *lookups, const struct database *database, unsigned shard,
               struct lookup_ask *ask)
{
    struct node *node = shard_primary(&database->shards[shard]);
    if (!node)
        return false;
    struct probe *probe = probe_of(lookups, node);
    if (probe->state == PROBE_OFF && probe->failed_at && clock_us() - probe->failed_at < PAUSE_US)
        return false;
    ask->probe = probe;
    ask->slot = -1;
    list_push_back(&probe->queue, &ask->link);
    if (probe->state == PROBE_OFF)
        turn_on(probe);
    else
        send_next(probe);
    return true;
}

void probe_give_up(struct lookup_ask *ask)
{
    if (!ask->probe)
        return;
    if (ask->slot >= 0)
        ask->probe->sent[ask->slot] = NULL;
    else
        list_remove(&ask->link);
    ask->probe = NULL;
}

static void free_probe(struct probe *probe)
{
    turn_off(probe);
    list_remove(&probe->link);
    node_unref(probe->node);
    free(probe);
}

static bool is_primary(const struct worker *worker, const struct node *node)
{
    const struct topology *topology = worker->topology;
    for (int d = 0; d < topology->ndatabases; d++)
        for (int s = 0; s < topology->databases[d].nshards; s++)
            if (shard_primary(&topology->databases[d].shards[s]) == node)
                return true;
    return false;
}

void probes_tick(struct lookups *lookups)
{
    list_each(at, following, &lookups->probes)
    {
        struct probe *probe = list_entry(at, struct probe, link);
        if (!is_primary(lookups->worker, probe->node))
            free_probe(probe);
    }
    lookup_resume(lookups);
}

void probes_free(struct lookups *lookups)
{
    while (!list_empty(&lookups->probes))
        free_probe(list_entry(lookups->probes.next, struct probe, link));
}
