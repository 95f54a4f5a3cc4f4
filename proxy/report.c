/* report.c: sends a report round the workers; each adds what it has. */
#include "proxy/report.h"

#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>

#include "proxy/client.h"
#include "proxy/control.h"
#include "proxy/extended.h"
#include "proxy/lookup.h"
#include "proxy/pool.h"
#include "proxy/replication.h"
#include "proxy/server.h"
#include "proxy/tls.h"

/* ---- sums ---- */

static void add_account(struct report *report, const struct client *client)
{
    struct report_account *row = report_account(report, client->database_name, client->user);
    switch (client->state) {
    case CLIENT_GREETING:
    case CLIENT_WAITING:
        row->waiting++;
        break;
    case CLIENT_BUSY:
    case CLIENT_REPLICATING:
        row->active++;
        break;
    case CLIENT_STARTUP:
    case CLIENT_AUTH:
    case CLIENT_IDLE:
    case CLIENT_CANCELLING:
    case CLIENT_CLOSED:
        *(client->nparticipants ? &row->active : &row->idle) += 1;
        break;
    }
}

/* Before that it has no name that counts. */
static bool has_logged_in(const struct client *client)
{
    return client->stats != NULL && client->state != CLIENT_AUTH;
}

static void sum_clients(struct report *report, struct worker *worker)
{
    list_each(at, following, &worker->clients)
    {
        const struct client *client = list_entry(at, struct client, all);
        if (client->state == CLIENT_CANCELLING)
            report->cancelling++;
        else if (has_logged_in(client))
            add_account(report, client);
        else
            report->logging_in++;
        for (uint32_t pins = pins_of(client); pins; pins &= pins - 1)
            report->pinned[__builtin_ctz(pins)]++;
    }
    for (int i = 0; i < PIN_REASONS; i++)
        report->pins[i] += worker->pins[i];
}

static void add_pool(struct report *report, struct pool *pool)
{
    struct report_pool *row =
        report_pool(report, pool->account->database, pool->account->user, pool->node);
    row->limit = atomic_load(&pool->budget->limit);
    row->reserve = atomic_load(&pool->budget->reserve);
    row->least = (int)pool->account->settings.min_size;
    row->active += pool->nactive - pool->ntended;
    row->tended += pool->ntended;
    row->idle += pool->nidle;
    row->login += pool->nstarting;
    row->waiting += pool->nwaiting;
    row->assignments += pool->assignments;
    row->wait_us += pool->wait_us;
    row->wait_timeouts += pool->wait_timeouts;
    row->deadlocks += pool->deadlocks;
    row->evictions += pool->evictions;
    row->reserves += pool->reserves;
    row->moves += pool->moves;
    list_each(at, following, &pool->waiting)
    {
        int64_t waited = report->now - list_entry(at, struct client, waiting)->waiting_since;
        if (waited > row->longest_wait_us)
            row->longest_wait_us = waited;
    }
}

static void sum_servers(struct report *report, struct worker *worker)
{
    list_each(at, following, &worker->servers)
    {
        const struct server *server = list_entry(at, struct server, all);
        if (!server->cancels && !server->marks.count)
            continue;
        const struct pool *pool = server->pool;
        struct report_pool *row =
            report_pool(report, pool->account->database, pool->account->user, pool->node);
        row->prepared += server->marks.count;
        row->cancels += server->cancels;
        row->being_canceled += server->parked;
    }
}

/* They are in no pool's queue, but one pool per (database, user) says how long they have waited. */
static void sum_held(struct report *report, const struct list_node *held)
{
    list_each(at, following, held)
    {
        const struct client *client = list_entry(at, struct client, waiting);
        struct report_account *row = report_account(report, client->database_name, client->user);
        int64_t waited = report->now - client->waiting_since;
        if (waited > row->longest_held_us)
            row->longest_held_us = waited;
    }
}

static void sum_pools(struct report *report, struct worker *worker)
{
    sum_held(report, &worker->held);
    sum_held(report, &worker->bucket_held);
    for (struct account *account = worker->accounts; account; account = account->hh.next)
        for (struct pool *pool = account->pools; pool; pool = pool->next)
            add_pool(report, pool);
    sum_servers(report, worker);
}

static void subtract_counts(struct worker_stats *from, const struct worker_stats *less)
{
    uint64_t *rest = (uint64_t *)from;
    const uint64_t *part = (const uint64_t *)less;
    for (size_t i = 0; i < sizeof *from / sizeof *rest; i++)
        rest[i] -= part[i];
}

static void sum_stats(struct report *report, struct worker *worker)
{
    bool complete = worker->period_end != 0;
    int64_t begin = complete ? worker->period_begin : report->started_at;
    int64_t end = complete ? worker->period_end : report->now;
    if (end - begin > report->period_us)
        report->period_us = end - begin;
    for (struct database_stats *stats = worker->stats; stats; stats = stats->hh.next) {
        struct report_stats *row = report_stats(report, stats->name);
        struct worker_stats period = complete ? stats->at_end : stats->counts;
        if (complete)
            subtract_counts(&period, &stats->at_begin);
        report_add_counts(&row->counts, &stats->counts);
        report_add_counts(&row->period, &period);
    }
}

static void sum_tls(struct report *report, struct worker *worker)
{
    list_each(at, following, &worker->clients)
    {
        report->tls_clients += tls_is_open(&list_entry(at, struct client, all)->conn);
    }
    list_each(at, following, &worker->servers)
    {
        report->tls_servers += tls_is_open(&list_entry(at, struct server, all)->conn);
    }
}

static int count_list(const struct list_node *head)
{
    int count = 0;
    for (const struct list_node *at = head->next; at != head; at = at->next)
        count++;
    return count;
}

/* ---- connections ---- */

static void take_tls(struct report *report, struct report_connection *row, const struct conn *conn)
{
    char text[80];
    tls_describe(conn, text, sizeof text);
    if (text[0])
        row->tls = arena_strdup(&report->arena, text);
}

/* The local end; the other end too where the caller asks for it. */
static void take_addresses(struct report *report, struct report_connection *row,
                           const struct conn *conn, const struct sockaddr_storage *peer)
{
    struct sockaddr_storage address = {0};
    socklen_t length = sizeof address;
    if (conn->fd >= 0 && getsockname(conn->fd, (struct sockaddr *)&address, &length) == 0)
        row->local_address = report_address(&report->arena, &address, &row->local_port);
    row->address = report_address(&report->arena, peer, &row->port);
    take_tls(report, row, conn);
}

static void take_links(struct report *report, struct report_connection *row,
                       const struct client *client)
{
    row->links = arena_array(&report->arena, const void *, client->nparticipants);
    for (int i = 0; i < client->nparticipants; i++)
        row->links[row->nlinks++] = client->participants[i];
}

static const char *application_name(struct report *report, const struct client *client)
{
    const char *value = guc_set_get(client->guc, "application_name");
    return value ? report_unquote(&report->arena, value) : "";
}

static const char *pin_reason(struct report *report, uint32_t pins)
{
    char text[256];
    return pins ? report_text(&report->arena, pins_describe(pins, text, sizeof text)) : "";
}

static void add_client(struct report *report, const struct client *client)
{
    struct report_connection *row = report_connection(report, &report->clients);
    bool holding = client->state == CLIENT_IDLE && client->nparticipants;
    struct sockaddr_storage peer;
    row->user = report_text(&report->arena, client->user);
    row->database = report_text(&report->arena, client->database_name);
    row->state = holding ? "active" : client_state_name(client->state);
    peer_address(&client->peer, &peer);
    take_addresses(report, row, &client->conn, &peer);
    row->connected_at = client->connected_at;
    row->request_at = client->request.started_at;
    if (client->waiting_pool || client->bucket_held)
        row->wait_us = report->now - client->waiting_since;
    row->close_needed = client->terminate;
    row->replication = replication_name(client);
    row->object = client;
    take_links(report, row, client);
    row->application_name = application_name(report, client);
    if (client->extended)
        row->prepared_statements = (int)HASH_COUNT(client->extended->names.statements);
    row->id = client->id;
    row->pin_reason = pin_reason(report, pins_of(client));
}

static void list_clients(struct report *report, struct worker *worker)
{
    list_each(at, following, &worker->clients)
    {
        const struct client *client = list_entry(at, struct client, all);
        if (client->state != CLIENT_CANCELLING && has_logged_in(client))
            add_client(report, client);
    }
}

static void take_server_address(struct report *report, struct report_connection *row,
                                const struct server *server)
{
    struct node *node = server->pool->node;
    struct sockaddr_storage address = {0};
    socklen_t length;
    if (!node_address(node, &address, &length))
        address.ss_family = AF_UNSPEC;
    take_addresses(report, row, &server->conn, &address);
    row->port = node->port;
    if (!row->address[0])
        row->address = report_text(&report->arena, node->host);
}

static void add_server(struct report *report, const struct server *server)
{
    struct report_connection *row = report_connection(report, &report->servers);
    const struct client *client = server->client;
    row->user = report_text(&report->arena, server->pool->account->server_user);
    row->database = report_text(&report->arena, server->pool->account->database);
    row->state = server->parked ? "being_canceled" : server_state_name(server->state);
    take_server_address(report, row, server);
    row->connected_at = server->connected_at;
    row->request_at = server->request_at;
    row->close_needed = server->discard;
    row->replication = replication_name(client);
    row->object = server;
    row->remote_pid = server->backend_pid;
    row->prepared_statements = server->marks.count;
    row->id = server->id;
    row->pin_reason = server->hub ? "listens for clients" : pin_reason(report, server->pins);
    if (!client)
        return;
    row->links = arena_array(&report->arena, const void *, 1);
    row->links[row->nlinks++] = client;
    row->application_name = application_name(report, client);
}

static void list_servers(struct report *report, struct worker *worker)
{
    list_each(at, following, &worker->servers)
    {
        add_server(report, list_entry(at, struct server, all));
    }
}

/* ---- the round ---- */

struct round {
    struct report *report;
    void (*done)(struct report *report, void *arg);
    void *arg;
};

static void add_gates(struct report *report, const struct worker *worker)
{
    report->suspended |= worker->suspended;
    report->paused |= control_is_paused(worker, "");
    for (int i = 0; i < report->topology->ndatabases; i++) {
        const char *name = report->topology->databases[i].name;
        if (control_is_paused(worker, name))
            report->closed[i] |= CLOSED_PAUSED;
        if (control_is_disabled(worker, name))
            report->closed[i] |= CLOSED_DISABLED;
    }
}

static void visit(struct worker *worker, void *arg)
{
    struct report *report = ((struct round *)arg)->report;
    if (report->parts & REPORT_SUMS) {
        add_gates(report, worker);
        sum_clients(report, worker);
        sum_pools(report, worker);
        sum_stats(report, worker);
        sum_tls(report, worker);
        report->workers[report->nworkers++] = (struct report_worker){
            .index = worker->index,
            .clients = worker->nclients,
            .servers = count_list(&worker->servers),
            .prepared = (int)HASH_COUNT(worker->prepared.entries),
        };
    }
    if (report->parts & REPORT_CLIENTS)
        list_clients(report, worker);
    if (report->parts & REPORT_SERVERS)
        list_servers(report, worker);
    if (report->parts & REPORT_PREPARED)
        report_list_prepared(report, worker);
    if (report->parts & REPORT_LOOKUPS)
        report_list_lookups(report, worker);
}

static void finish(void *arg)
{
    struct round *round = arg;
    report_sort(round->report);
    round->done(round->report, round->arg);
    free(round);
}

static void take_handshakes(struct report_handshakes *row, struct tls_counters *counters)
{
    row->done = atomic_load(&counters->handshakes);
    row->resumed = atomic_load(&counters->resumed);
    row->failed = atomic_load(&counters->failures);
}

static void take_maps(struct report *report, struct catalog_watches *watches)
{
    int count = report->topology->ndatabases;
    for (int i = 0; i < count; i++)
        catalog_watch_report(watches, report->topology->databases[i].name, &report->arena,
                             &report->maps[i]);
}

static void take_partitions(struct report *report, struct partition_keeper *keeper)
{
    int count = report->topology->ndatabases;
    report->partitions = arena_array(&report->arena, struct partition_report, count + 1);
    for (int i = 0; i < count; i++)
        partition_keeper_report(keeper, report->topology->databases[i].name, &report->arena,
                                &report->partitions[i]);
}

struct report *report_static(struct daemon *daemon)
{
    struct timespec wall;
    struct topology *topology = daemon_topology(daemon);
    struct report *report = report_new(topology, 0);
    topology_unref(topology);
    clock_gettime(CLOCK_REALTIME, &wall);
    report->now = clock_us();
    report->wall_us = (int64_t)wall.tv_sec * 1000000 + wall.tv_nsec / 1000;
    report->started_at = daemon->started_at;
    report->draining = atomic_load(&daemon->draining);
    report->reload_ok = atomic_load(&daemon->reload_ok);
    report->accepted = atomic_load(&daemon->connections);
    recovery_counts(daemon->recovery, &report->recovery);
    take_maps(report, daemon->catalog);
    take_partitions(report, daemon->keeper);
    take_handshakes(&report->handshakes[0], &daemon->tls_clients);
    take_handshakes(&report->handshakes[1], &daemon->tls_servers);
    return report;
}

void report_start(struct daemon *daemon, struct worker *origin, unsigned parts,
                  void (*done)(struct report *report, void *arg), void *arg)
{
    struct report *report = report_static(daemon);
    if (!parts) {
        done(report, arg);
        return;
    }
    struct round *round = mem_alloc(sizeof *round);
    report->parts = parts;
    report->workers = arena_array(&report->arena, struct report_worker, daemon->nworkers);
    *round = (struct round){report, done, arg};
    daemon_visit_workers(daemon, origin, visit, finish, round);
}

/* ---- periods ---- */

void report_tick(struct worker *worker, int64_t now)
{
    int64_t since = worker->period_end ? worker->period_end : worker->daemon->started_at;
    if (now - since < REPORT_PERIOD_US)
        return;
    worker->period_begin = since;
    worker->period_end = now;
    for (struct database_stats *stats = worker->stats; stats; stats = stats->hh.next) {
        stats->at_begin = stats->at_end;
        stats->at_end = stats->counts;
    }
}
