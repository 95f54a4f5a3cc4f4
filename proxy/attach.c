/* attach.c: routes statements and gets servers for them, with the client's settings and BEGIN ahead. */
#include "proxy/search_path.h"
#include "proxy/session.h"

#include <string.h>

#include "pgshunt/arena.h"
#include "pgshunt/session_function.h"
#include "pgshunt/wire.h"
#include "proxy/balance.h"
#include "proxy/bucket_load.h"
#include "proxy/draw.h"
#include "proxy/control.h"
#include "proxy/epoch.h"
#include "proxy/listen_points.h"
#include "proxy/hold.h"
#include "proxy/lookup.h"
#include "proxy/node_wait.h"
#include "proxy/pins.h"
#include "proxy/pool.h"
#include "proxy/reported.h"
#include "proxy/sequences.h"

/* ---- routing ---- */

static bool became_serializable(const struct guc_pending *said)
{
    for (int i = 0; i < said->count; i++) {
        const struct guc_change *change = &said->items[i];
        if (change->kind == GUC_SET && strcmp(change->name, "transaction_isolation") == 0 &&
            change->value && strcasestr(change->value, "serializable"))
            return true;
    }
    return false;
}

/* Hot standby knows no SERIALIZABLE. */
static bool is_serializable(const struct client *client)
{
    const struct transaction *tx = client->tx;
    return (guc_set_facts(client->guc) & GUC_SERIALIZABLE) ||
           (tx &&
            (strcasestr(tx->begin_sql, "serializable") || became_serializable(&tx->settings)));
}

static bool is_for_replicas(const struct client *client)
{
    return client->peer.tag == LISTEN_REPLICA;
}

static const char *primary_because(const struct client *client)
{
    if (client->peer.tag == LISTEN_PRIMARY)
        return "port of primaries";
    if (is_for_replicas(client)) /* the server tells what it cannot do */
        return NULL;
    if (client->account->settings.read_write_split == SPLIT_OFF)
        return "read_write_split is off";
    if (client->request.on_primary)
        return "refused by a replica";
    if (is_serializable(client))
        return "serializable transaction";
    return client_keeps_servers(client) ? "session pooling" : NULL;
}

static bool begun_on_primary(const struct client *client)
{
    for (int i = 0; client->tx && i < client->nparticipants; i++)
        if (client->participants[i]->begun &&
            atomic_load(&client->participants[i]->pool->node->role) != NODE_ROLE_REPLICA)
            return true;
    return false;
}

/* Where a READ ONLY block can still gather (server.h: guarded): one that has done so, or has not begun. */
static int gather_home(const struct client *client)
{
    int nshards = client->database->nshards, home = -1;
    if (!client->tx || !client->tx->read_only || client->tx->nsavepoints)
        return -1;
    for (int shard = nshards - 1; shard >= 0; shard--) {
        const struct server *server = client_participant(client, (unsigned)shard);
        if (server && server->guarded)
            return shard;
        if (!server || !server->begun)
            home = shard;
    }
    return home;
}

void attach_route_session(const struct client *client, struct route_session *session)
{
    uint32_t pins = pins_of(client);
    unsigned facts = guc_set_facts(client->guc);
    struct route_wish wish;
    own_settings_wish(client, &wish);
    *session = (struct route_session){
        .key = own_setting_value(client, OWN_KEY),
        .shard = own_setting_value(client, OWN_SHARD),
        .force_primary = primary_because(client),
        .only_declared = client->account->settings.read_write_split == SPLIT_CONSERVATIVE,
        .route = wish.route,
        .in_transaction = client->tx != NULL,
        .on_primary = begun_on_primary(client),
        .read_only = client->tx ? client->tx->read_only : (facts & GUC_READ_ONLY) != 0,
        .transaction_shard = -1,
        .schema_is_fresh =
            client->request.schema_waited || pins || (client->tx && client->tx->changed_schema),
        .foreign_encoding = (facts & GUC_OTHER_ENCODING) != 0, /* text keys are hashed in UTF-8 */
        .ascii_hides = (facts & GUC_ASCII_HIDES) != 0,
        .require_key = (enum require_key)client->account->settings.require_key,
        .sequence_shard = client->sequence_shard,
        .temp_tables = (pins >> PIN_TEMPORARY & 1) != 0,
        .gather_home = gather_home(client),
        .schema_changes = client->tx && client->tx->changed_schema,
        .changed_views = client->tx ? (const char *const *)client->tx->changed_views : NULL,
    };
    if (shardmap_has_schemas(client->database->map)) {
        session->search_path = search_path_of(client, client->request.arena);
        session->user = search_path_user(client, client->request.arena);
        session->schema_is_stale = topology_schema_changed_at(client->database) >
                                   topology_schema_read_at(client->database);
    }
    if (client->tx && client->nparticipants == 1)
        session->transaction_shard = (int)client->participants[0]->shard;
}

static void fill_input(struct client *client, struct route_session *session,
                       struct route_input *input)
{
    attach_route_session(client, session);
    *input = (struct route_input){
        .map = client->database->map,
        .schema = client->schema ? client->schema->schema : NULL,
        .session = session,
        .lookups = lookup_answers(client),
        .drawn = draw_values(client),
    };
}

/* It would be prepared on one of them, and the others' part left open. */
static void refuse_to_prepare(const struct client *client, const struct statement *statement,
                              struct plan *plan)
{
    int begun = 0;
    for (int i = 0; i < client->nparticipants; i++)
        begun += client->participants[i]->begun;
    if (statement->kind != STMT_PREPARE_TRANSACTION || begun < 2)
        return;
    *plan = (struct plan){.kind = PLAN_REFUSE};
    plan->error = (struct pg_error){
        .sqlstate = "0A000",
        .message = "PREPARE TRANSACTION of a transaction on several shards is not supported",
        .hint = "Roll back. COMMIT ends a transaction on all of its shards; prepare only what is "
                "on one."};
}

/* On the port of replicas nothing runs elsewhere. */
static void keep_to_replicas(const struct client *client, struct plan *plan)
{
    if (!is_for_replicas(client) || plan->kind == PLAN_REFUSE || plan->node == NODE_CLASS_REPLICA)
        return;
    if (!plan->write) {
        plan->node = NODE_CLASS_REPLICA;
        return;
    }
    const char *why = plan->node_reason;
    *plan = (struct plan){.kind = PLAN_REFUSE, .reason = "port of replicas"};
    plan->error = (struct pg_error){
        .sqlstate = "25006",
        .message = arena_printf(client->request.arena,
                                "this port is for reads on replicas, and the statement is none: %s",
                                why ? why : "write"),
        .hint = "Connect to listen.port, or listen.primary_port, for it."};
}

/* Outside transactions, with nothing said that may send a read anywhere but to a replica. */
static bool says_nothing(const struct client *client)
{
    const struct account *account = client->account;
    return !client->own && !client->tx && !client->nparticipants &&
           client->peer.tag == LISTEN_PLAIN && !client->request.on_primary &&
           account->settings.read_write_split == SPLIT_AGGRESSIVE &&
           account->wish.route != ROUTE_PRIMARY && account->wish.route != ROUTE_REPLICA &&
           !is_serializable(client) && !client_keeps_servers(client);
}

/* Whether the plan follows from the statement and the schema alone, whatever values it comes with. */
static bool is_plain_read(const struct client *client, const struct statement *statement,
                          const struct plan *plan)
{
    return !shardmap_is_sharded(client->database->map) && plan->kind == PLAN_DIRECT &&
           !plan->write && plan->node == NODE_CLASS_REPLICA && !plan->needs_schema &&
           !plan->needs_params && !statement->nhints && statement->kind == STMT_QUERY &&
           !(statement->facts & FACT_SESSION) && !statement_may_use_sequence_state(statement);
}

/* What the proxy's other parts want to know of the plan that was made. */
static void note_plan(struct client *client, const struct statement *statement, struct plan *plan)
{
    plan->write |= client->request.on_primary; /* it did try to */
    keep_to_replicas(client, plan);
    sequences_planned(client, statement, plan);
    refuse_to_prepare(client, statement, plan);
}

static void plan_anew(struct client *client, struct statement *statement,
                      const struct params *params, struct arena *arena, struct plan *plan)
{
    struct route_session session;
    struct route_input input;
    fill_input(client, &session, &input);
    input.statement = statement;
    input.params = params;
    input.made = client->schema_version ? &statement->planned : NULL;
    statement->planned.schema = client->schema_version;
    router_plan(&input, arena, plan);
    note_plan(client, statement, plan);
}

/* One of some statements, for who wants to know which buckets are asked for. */
static void count_bucket(const struct client *client, const struct statement *statement,
                         const struct route_input *input, struct arena *arena)
{
    const struct keyspace *keyspace = NULL;
    unsigned bucket = router_template_bucket(&statement->planned, input, arena, &keyspace);
    if (bucket != SHARDMAP_NO_BUCKET)
        bucket_load_note(client->database->name, keyspace->name, bucket);
}

/* The statement was planned before, and that plan holds for these values, too. False: it does not. `plain`:
 * says_nothing(). */
static bool plan_again(struct client *client, const struct statement *statement, bool plain,
                       const struct params *params, struct arena *arena, struct plan *plan)
{
    struct route_session session;
    struct route_input input = {
        .map = client->database->map, .statement = statement, .params = params};
    if (!plain || guc_set_facts(client->guc) & GUC_OTHER_ENCODING) {
        attach_route_session(client, &session);
        input.session = &session;
    }
    if (!router_plan_again(&statement->planned, &input, arena, plan))
        return false;
    if (++client->worker->planned_again % LOAD_SAMPLE == 0)
        count_bucket(client, statement, &input, arena);
    if (!plain || plan->write || statement->nfunctions) /* else there is nothing to note */
        note_plan(client, statement, plan);
    return true;
}

/* One shard only, and a read by the schema as it is. */
static bool is_known_read(const struct client *client, const struct statement *statement)
{
    return statement->read_in && statement->read_in == client->schema_version &&
           !shardmap_is_sharded(client->database->map);
}

void attach_route(struct client *client, struct statement *statement, const struct params *params,
                  struct arena *arena, struct plan *plan)
{
    bool plain = says_nothing(client);
    if (plain && is_known_read(client, statement)) {
        mem_clear(plan, sizeof *plan);
        plan->kind = PLAN_DIRECT;
        plan->node = NODE_CLASS_REPLICA;
        plan->reason = "one shard";
        plan->node_reason = "read";
        return;
    }
    if (statement->planned.nvalues && statement->planned.schema == client->schema_version &&
        plan_again(client, statement, plain, params, arena, plan))
        return;
    plan_anew(client, statement, params, arena, plan);
    if (plain && is_plain_read(client, statement, plan))
        statement->read_in = client->schema_version;
    /* Where any shard would do, the one the transaction is on already costs nothing. */
    if (plan->kind == PLAN_DIRECT && plan->any_shard && client->nparticipants)
        plan->shard = client->participants[0]->shard;
}

void attach_route_list(struct client *client, const struct statement_list *list,
                       struct arena *arena, struct plan *plan)
{
    struct route_session session;
    struct route_input input;
    fill_input(client, &session, &input);
    router_plan_list(list, &input, arena, plan);
    plan->write |= client->request.on_primary;
    keep_to_replicas(client, plan);
    for (int i = 0; i < list->count; i++)
        sequences_planned(client, list->items[i], plan);
    for (int i = 0; i < list->count; i++)
        refuse_to_prepare(client, list->items[i], plan);
    if (plan->kind == PLAN_DIRECT && plan->any_shard && client->nparticipants)
        plan->shard = client->participants[0]->shard;
}

/* ---- choosing a node ---- */

static int node_in_use(const struct node *node, void *arg)
{
    const struct account *account = arg;
    for (const struct pool *pool = account->pools; pool; pool = pool->next)
        if (pool->node == node)
            return pool->nactive + pool->nwaiting;
    return 0;
}

static void wish_of_request(const struct client *client, struct route_wish *wish)
{
    own_settings_wish(client, wish);
    if (client->request.plan.wish)
        route_wish_lay_over(wish, client->request.plan.wish);
}

struct choice {
    const char *why;
    bool refused; /* no node is to be waited for */
    bool behind;  /* the primary it is, for what the session has written or seen */
};

/* What it takes to pick one of several replicas. */
static void fill_choice(struct client *client, unsigned shard, struct choice *choice,
                        struct balance_request *request)
{
    const struct config *config = client->topology->config;
    struct route_wish wish;
    wish_of_request(client, &wish);
    request->max_lag_us = wish.max_lag_us;
    request->no_replica = wish.no_replica;
    request->refused = &choice->refused;
    request->behind = &choice->behind;
    request->region = wish.region;
    request->region_spill = config->region_spill;
    request->slow_start_us = config->slow_start * 1000;
    request->now_us = worker_now(client->worker);
    if (config->balance == BALANCE_ROUND_ROBIN)
        request->turn = &client->database->shards[shard].turn;
    session_need(client, shard, &wish, &request->need);
}

/* A shard of one node leaves no choice. */
static struct node *only_node(const struct client *client, const struct shard *shard)
{
    if (shard->nnodes != 1)
        return NULL;
    struct node *node = shard_primary(shard);
    return node != client->request.avoid ? node : NULL;
}

static struct node *choose(struct client *client, unsigned shard, enum node_class class,
                           struct choice *choice)
{
    struct node *only = only_node(client, &client->database->shards[shard]);
    if (only) {
        *choice = (struct choice){.why = "primary"};
        return only;
    }
    struct balance_request request = {
        .class = class,
        .exclude = client->request.avoid,
        .seed = &client->worker->random,
        .in_use = node_in_use,
        .arg = client->account,
    };
    *choice = (struct choice){.why = ""};
    if (class == NODE_CLASS_REPLICA)
        fill_choice(client, shard, choice, &request);
    return balance_choose(&client->database->shards[shard], &request, &choice->why);
}

struct node *attach_choose_any(struct client *client, const char **why)
{
    struct choice choice;
    enum node_class class = is_for_replicas(client) ? NODE_CLASS_REPLICA : NODE_CLASS_PRIMARY;
    struct node *node = choose(client, 0, class, &choice);
    *why = choice.why;
    for (int i = 0; !node && i < client->database->nshards; i++) {
        const struct shard *shard = &client->database->shards[i];
        for (int j = 0; !node && j < shard->nnodes; j++)
            if (atomic_load(&shard->nodes[j]->state) == NODE_STATE_UP)
                node = shard->nodes[j];
    }
    return node;
}

bool attach_has_node(struct client *client, unsigned shard, enum node_class class)
{
    const struct node *avoid = client->request.avoid;
    client->request.avoid = NULL;
    struct choice choice;
    struct node *node = choose(client, shard, class, &choice);
    bool found = node && !hold_until(node);
    client->request.avoid = (struct node *)avoid;
    return found;
}

bool attach_has_replica(struct client *client, unsigned shard)
{
    struct choice choice;
    const struct node *node = choose(client, shard, NODE_CLASS_REPLICA, &choice);
    return node && atomic_load(&node->role) == NODE_ROLE_REPLICA;
}

static enum attach refuse_no_node(struct client *client, const char *why)
{
    struct pg_error error = {
        .sqlstate = "08006",
        .message = arena_strdup(client->request.arena, why),
        .hint = "SHOW NODES on the admin console tells which servers answer; pgshunt goes on as "
                "soon as one does. routing.failover_wait says how long statements wait for that."};
    session_refuse(client, &error);
    return ATTACH_FAILED;
}

static enum attach refuse_primary(struct client *client, const char *why)
{
    struct pg_error error = {
        .sqlstate = "55000",
        .message = arena_strdup(client->request.arena, why),
        .hint = "routing.no_replica = \"error\" keeps such reads from the primary. Raise max_lag "
                "(SET pgshunt.max_lag), or send the statement there: SET pgshunt.route = "
                "'primary'. SHOW NODES on the admin console tells how far the replicas are."};
    session_refuse(client, &error);
    return ATTACH_FAILED;
}

static uint64_t *count_of_reads(struct client *client, const struct node *node)
{
    bool replica = atomic_load(&node->role) == NODE_ROLE_REPLICA;
    return replica ? &client->stats->reads_on_replica : &client->stats->reads_on_primary;
}

static enum attach take_from(struct client *client, unsigned shard, struct node *node)
{
    client->request.attaching = true;
    enum checkout checkout = pool_checkout(pool_get(client->account, node), client, shard);
    client->request.attaching = false;
    if (checkout == CHECKOUT_READY)
        return ATTACH_READY;
    if (client->request.hold)
        return ATTACH_WAITING;
    if (!client->waiting_pool) /* the pool has said no already */
        return ATTACH_FAILED;
    client->state = CLIENT_WAITING;
    return ATTACH_WAITING;
}

/*
 * A session that never pauses would stay on the primary for good: each read there is one more thing that
 * no replica is yet known to have. Now and then it waits for the monitor to ask them right away.
 */
static bool waits_for_freshness(struct client *client, unsigned shard)
{
    if (!session_is_stuck(client, shard))
        return false;
    if (node_wait_fresh(client, shard, NULL))
        return true;
    session_stays_stuck(client, shard);
    return false;
}

/* One node. FAILED with request->elsewhere set: another one is to be tried. */
static enum attach try_node(struct client *client, unsigned shard, enum node_class class)
{
    struct choice choice;
    client->request.hold = false;
    struct node *node = choose(client, shard, class, &choice);
    if (choice.refused)
        return refuse_primary(client, choice.why);
    if (node && is_for_replicas(client) && atomic_load(&node->role) != NODE_ROLE_REPLICA)
        return refuse_primary(client, "no replica of the shard can be read from");
    if (choice.behind && waits_for_freshness(client, shard))
        return ATTACH_WAITING;
    if (!node)
        return node_wait(client, shard, class) ? ATTACH_WAITING
                                               : refuse_no_node(client, choice.why);
    if (hold_until(node)) {
        node_wait_held(client, shard, class, node);
        return ATTACH_WAITING;
    }
    if (class == NODE_CLASS_REPLICA)
        ++*count_of_reads(client, node);
    return take_from(client, shard, node);
}

/*
 * A node was chosen for what the monitor knew of it. That holds for the connection too if this was there
 * when the monitor asked: else the server may have been started anew since, from an older state.
 */
static bool holds_enough(struct client *client, struct server *server, enum node_class class)
{
    struct freshness_need need;
    uint32_t stint;
    const struct node *node = server->pool->node;
    if (server->judged || class != NODE_CLASS_REPLICA)
        return true;
    server->judged = true;
    if (server->begun || server->pinned || atomic_load(&node->role) != NODE_ROLE_REPLICA)
        return true;
    struct route_wish wish;
    wish_of_request(client, &wish);
    session_need(client, server->shard, &wish, &need);
    if (freshness_needs_nothing(&need))
        return true;
    return server->vouched &&
           freshness_holds(&client->database->shards[server->shard], node, &need, &stint) &&
           stint == server->vouched;
}

/* Once more when the monitor has asked that node, which is a matter of a moment; after that the primary. */
static enum attach try_again(struct client *client, struct server *instead_of)
{
    unsigned shard = instead_of->shard;
    struct choice choice;
    const struct node *doubted = instead_of->pool->node;
    --*count_of_reads(client, doubted);
    client_detach(client, instead_of);
    pool_checkin(instead_of);
    if (node_wait_fresh(client, shard, doubted))
        return ATTACH_WAITING;
    struct node *node = choose(client, shard, NODE_CLASS_PRIMARY, &choice);
    if (!node)
        return node_wait(client, shard, NODE_CLASS_REPLICA) ? ATTACH_WAITING
                                                            : refuse_no_node(client, choice.why);
    if (hold_until(node)) {
        node_wait_held(client, shard, NODE_CLASS_REPLICA, node);
        return ATTACH_WAITING;
    }
    ++*count_of_reads(client, node);
    return take_from(client, shard, node);
}

static enum attach judge(struct client *client, unsigned shard, enum node_class class)
{
    struct server *server = client_participant(client, shard);
    return holds_enough(client, server, class) ? ATTACH_READY : try_again(client, server);
}

enum attach attach_shard(struct client *client, unsigned shard, enum node_class class)
{
    if (client_participant(client, shard))
        return judge(client, shard, class);
    if (is_for_replicas(client))
        class = NODE_CLASS_REPLICA;
    if (client->worker->gates && control_holds(client))
        return ATTACH_WAITING;
    enum attach attached;
    do {
        client->request.elsewhere = false;
        attached = try_node(client, shard, class);
        if (attached == ATTACH_READY)
            attached = judge(client, shard, class);
    } while (attached == ATTACH_FAILED && client->request.elsewhere);
    return attached;
}

/* ---- what goes ahead of the first statement ---- */

static void put_swallowed(struct server *server, struct buffer *out, const char *sql)
{
    wire_put_query(out, sql);
    server_expect(server, EXPECT_QUERY)->swallow = true;
    server->unnamed = (struct prepared_key){0}; /* a Query forgets the unnamed statement */
}

static void append_text(struct buffer *sql, const char *text)
{
    buffer_append(sql, text, strlen(text));
}

/* DISCARD ALL, where it may be: the client's settings go, refused ones with them. */
static bool discards_all(const struct client *client)
{
    const struct statement_list *list = &client->request.statements;
    return !client->tx && list->count == 1 && list->items[0]->kind == STMT_DISCARD &&
           strcmp(list->items[0]->name, "ALL") == 0;
}

static bool is_ascii(const struct buffer *text)
{
    for (const char *p = buffer_head(text); p < buffer_head(text) + buffer_length(text); p++)
        if ((unsigned char)*p >= 0x80)
            return false;
    return true;
}

/* The client's bytes are in its own encoding: so must the server take them from here on. */
static void put_encoding(struct client *client, struct server *server, struct buffer *out)
{
    struct guc_set *changed = NULL;
    struct buffer sql = {0};
    guc_set_assign(&changed, server->guc);
    guc_set_put(&changed, "client_encoding", guc_set_get(client->guc, "client_encoding"));
    guc_difference(server->guc, changed, &sql);
    if (buffer_length(&sql)) {
        buffer_append(&sql, "", 1);
        put_swallowed(server, out, buffer_head(&sql));
    }
    guc_set_release(&changed);
    buffer_release(&sql);
}

/*
 * The settings stand in a transaction of their own: where one of them is refused, it stays open and
 * failed, and the statement that is already on its way behind them fails with it, instead of running
 * as somebody else or under other settings.
 */
static void put_settings(struct client *client, struct guc_set *wanted, struct server *server,
                         struct buffer *out, struct buffer *sql)
{
    append_text(sql, "BEGIN;");
    guc_difference(server->guc, wanted, sql);
    append_text(sql, "COMMIT;");
    if (!is_ascii(sql))
        put_encoding(client, server, out);
    guc_set_assign(&server->guc, wanted);
}

/* What has been said in the transaction so far, savepoints in their places. */
static void put_history(const struct transaction *tx, struct buffer *sql)
{
    int done = 0;
    for (int i = 0; i < tx->nsavepoints; i++) {
        guc_pending_sql(&tx->settings, done, tx->savepoints[i].pending, sql);
        done = tx->savepoints[i].pending;
        append_text(sql, "SAVEPOINT ");
        guc_append_identifier(sql, tx->savepoints[i].name);
        append_text(sql, ";");
    }
    guc_pending_sql(&tx->settings, done, tx->settings.count, sql);
}

static void put_begin(struct client *client, struct server *server, struct buffer *sql)
{
    struct transaction *tx = client->tx;
    append_text(sql, tx->begin_sql);
    append_text(sql, ";");
    put_history(tx, sql);
    if (server->guarded)
        append_text(sql, "SET TRANSACTION READ WRITE;");
    server->begun = true;
    tx->state = TX_OPEN;
}

/*
 * A RESET in a transaction has taken servers back to their own defaults, where the client's are those of
 * its startup packet: they are set again on every server of the transaction, as settings of it.
 */
static void go_back_to_startup(struct client *client)
{
    struct transaction *tx = client->tx;
    struct buffer sql = {0};
    int from = tx->settings.count;
    for (int i = 0; i < guc_set_count(client->startup); i++) {
        const struct guc *item = &client->startup->items[i];
        const struct guc_change *last = guc_pending_last(&tx->settings, item->name);
        if (last && (last->kind != GUC_SET || !last->value))
            guc_pending_add(&tx->settings, false, item->name, item->value);
    }
    tx->went_back = false;
    guc_pending_sql(&tx->settings, from, tx->settings.count, &sql);
    buffer_append(&sql, "", 1);
    for (int i = 0; i < client->nparticipants && tx->settings.count > from; i++) {
        struct server *server = client->participants[i];
        struct buffer out = {0};
        if (!server->begun)
            continue;
        put_swallowed(server, &out, buffer_head(&sql));
        conn_send(&server->conn, buffer_head(&out), buffer_length(&out));
        buffer_release(&out);
    }
    buffer_release(&sql);
}

/* Nothing has to go ahead: the client hears now of parameters that are other here. */
static void tell_parameters(struct client *client, struct server *server)
{
    struct buffer out = {0};
    if (client->state != CLIENT_GREETING && reported_tell(client, server, &out))
        client_send_buffer(client, &out);
}

/* A guard may refuse what comes next (epoch.h). */
static void note_begin(struct client *client)
{
    client->request.begins = session_may_begin_again(client);
    if (client->request.begins)
        transaction_note_place(client->tx);
}

void attach_prefix(struct client *client, struct server *server, struct buffer *out)
{
    struct buffer sql = {0};
    if (client->tx && client->tx->went_back && client->tx->state == TX_OPEN)
        go_back_to_startup(client);
    sequences_ahead(client, server, out, &sql);
    epoch_ahead(client, server, &sql);
    /* Another client's settings are undone ahead of a DISCARD ALL too: this one would hear of them. */
    if (!server->begun && server->guc != client->guc)
        put_settings(client, discards_all(client) ? NULL : client->guc, server, out, &sql);
    if (client->tx && !client->tx->ran)
        note_begin(client);
    if (client->tx && !server->begun)
        put_begin(client, server, &sql);
    if (buffer_length(&sql)) {
        buffer_append(&sql, "", 1);
        put_swallowed(server, out, buffer_head(&sql));
        buffer_release(&sql);
    } else if (!server->expect_count) {
        tell_parameters(client, server);
    }
}
