/*
 * console_control.c: console commands that are carried out on every worker, and may have to wait.
 *
 *   console_control --> each worker, in turn --> came_back --> answer
 *                           ^                       | something is still busy
 *                           '---- look again, each tick
 *
 * A PAUSE or SUSPEND whose console leaves or cancels while it waits is taken back.
 */
#include "proxy/console_control.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pgshunt/log.h"
#include "proxy/console_internal.h"
#include "proxy/hold.h"

/* One command under way; on worker->asks (of its console's worker) while it waits for the next tick. */
struct task {
    struct console_ask ask; /* what its console points to */
    struct list_node link;
    struct worker *origin;
    struct control_order order;
    char database[64];
    struct topology *topology; /* a reference: order.shard is of it; NULL: no shard is meant */
    bool undoing;              /* it was given up, and is being taken back */
};

static void visit(struct worker *worker, void *arg)
{
    struct task *task = arg;
    control_carry_out(worker, &task->order);
}

static void came_back(void *arg);

static void send_round(struct task *task)
{
    task->order.busy = 0;
    daemon_visit_workers(task->origin->daemon, task->origin, visit, came_back, task);
}

static bool fail(struct console *console, const char *sqlstate, const char *hint)
{
    return console_fail(console, sqlstate, hint) == CONSOLE_FAILED;
}

/* Whether the command has failed, for parsed->error. */
static bool outcome(const struct task *task, struct console *console)
{
    struct console_parsed *parsed = &console->parsed;
    char *message = parsed->message;
    size_t size = sizeof parsed->message;
    const struct control_order *order = &task->order;
    if (task->ask.cancelled) {
        snprintf(message, size, "canceling %s due to user request", parsed->tag);
        return fail(console, "57014", NULL);
    }
    if (order->was_so)
        return false;
    if (order->action == CONTROL_KILL_CLIENT) {
        snprintf(message, size, "there is no client %s", parsed->value);
        return fail(console, "42704", "SHOW CLIENTS lists them, with their id in the last column.");
    }
    if (order->action == CONTROL_RELEASE) {
        snprintf(message, size, "shard \"%.63s\" of database \"%.63s\" is not held", parsed->shard,
                 parsed->value);
        return fail(console, "55000", "SHOW NODES tells in held_ms which nodes are.");
    }
    if (order->action == CONTROL_RESUME && parsed->value[0]) {
        snprintf(message, size, "database \"%.63s\" is not paused", parsed->value);
        return fail(console, "55000",
                    "SHOW DATABASES tells which are. What PAUSE without a name has paused, RESUME "
                    "without a name resumes.");
    }
    if (order->action == CONTROL_RESUME) {
        snprintf(message, size, "nothing is paused or suspended");
        return fail(console, "55000", "SHOW STATE and SHOW DATABASES tell what is.");
    }
    return false;
}

static void finish(struct task *task)
{
    struct console *console = task->ask.console;
    if (console) {
        console->ask = NULL;
        console_ran(console, outcome(task, console));
    }
    topology_unref(task->topology);
    free(task);
}

static bool is_given_up(const struct task *task)
{
    return !task->ask.console || task->ask.cancelled;
}

/* Nothing is left of a PAUSE that was not there before it. */
static void give_up(struct task *task)
{
    enum control_action action = task->order.action;
    if ((action != CONTROL_PAUSE && action != CONTROL_SUSPEND) || task->order.was_so) {
        finish(task);
        return;
    }
    log_event(LOG_INFO, "given up before it was complete",
              LOG_S("command", action == CONTROL_PAUSE ? "PAUSE" : "SUSPEND"),
              LOG_S("database", task->database));
    task->undoing = true;
    task->order.action = action == CONTROL_PAUSE ? CONTROL_UNPAUSE : CONTROL_UNSUSPEND;
    send_round(task);
}

/* All workers have been visited; on the console's own, unless that has ended. */
static void came_back(void *arg)
{
    struct task *task = arg;
    bool waits = task->order.busy && !task->undoing;
    if (task->origin->phase == WORKER_STOPPED || !waits) {
        finish(task);
        return;
    }
    task->order.look = true;
    if (is_given_up(task))
        give_up(task);
    else
        list_push_back(&task->origin->asks, &task->link);
}

void console_control_tick(struct worker *worker)
{
    struct list_node asks;
    list_init(&asks);
    list_each(at, following, &worker->asks)
    {
        list_remove(at);
        list_push_back(&asks, at);
    }
    while (!list_empty(&asks)) {
        struct task *task = list_entry(asks.next, struct task, link);
        list_remove(&task->link);
        if (is_given_up(task))
            give_up(task);
        else
            send_round(task);
    }
}

void console_control_stop(struct worker *worker)
{
    list_each(at, following, &worker->asks)
    {
        struct task *task = list_entry(at, struct task, link);
        list_remove(at);
        finish(task);
    }
}

static bool knows_database(const struct console *console, const char *name)
{
    return !name[0] || topology_database(console->client->worker->topology, name);
}

/* 0 is no client's. */
static uint32_t client_id(const char *text)
{
    unsigned long long id = strtoull(text, NULL, 10);
    return id <= UINT32_MAX ? (uint32_t)id : 0;
}

static const struct shard *find_shard(const struct topology *topology, const char *database_name,
                                      const char *name)
{
    const struct database *database = topology_database(topology, database_name);
    for (int i = 0; database && i < database->nshards; i++)
        if (strcmp(database->shards[i].name, name) == 0)
            return &database->shards[i];
    return NULL;
}

static void check_nodes(struct worker *worker)
{
    const struct topology *topology = worker->topology;
    for (int d = 0; d < topology->ndatabases; d++)
        for (int s = 0; s < topology->databases[d].nshards; s++)
            for (int n = 0; n < topology->databases[d].shards[s].nnodes; n++)
                monitor_suspect(worker->daemon->monitor, topology->databases[d].shards[s].nodes[n]);
}

/* False: parsed->error says why not. */
static bool hold(struct console *console, const struct topology *topology,
                 const struct shard *shard)
{
    struct console_parsed *parsed = &console->parsed;
    const struct node *primary = shard_primary(shard);
    int limit = parsed->limit_ms ? parsed->limit_ms : HOLD_DEFAULT_MS;
    if (!primary) {
        snprintf(parsed->message, sizeof parsed->message, "shard \"%.63s\" has no primary to hold",
                 shard->name);
        fail(console, "55000", "Statements wait anyway until there is one: SHOW NODES.");
        return false;
    }
    hold_begin(topology, primary, clock_us() + (int64_t)limit * 1000);
    return true;
}

/* What is done once for all workers. False: parsed->error says why not. */
static bool carry_out_once(struct console *console, struct task *task)
{
    struct console_parsed *parsed = &console->parsed;
    struct worker *worker = task->origin;
    const struct topology *topology = worker->topology;
    if (task->order.action == CONTROL_CHECK)
        check_nodes(worker);
    if (!parsed->shard[0])
        return true;
    const struct shard *shard = find_shard(topology, parsed->value, parsed->shard);
    if (!shard) {
        snprintf(parsed->message, sizeof parsed->message,
                 "database \"%.63s\" has no shard \"%.63s\"", parsed->value, parsed->shard);
        fail(console, "42704", "SHOW SHARDS lists them.");
        return false;
    }
    task->order.shard = shard;
    task->topology = topology_ref(worker->topology);
    if (task->order.action == CONTROL_RELEASE)
        task->order.was_so = hold_end(topology, shard);
    return task->order.action != CONTROL_HOLD || hold(console, topology, shard);
}

enum console_run console_control(struct console *console)
{
    struct console_parsed *parsed = &console->parsed;
    struct client *client = console->client;
    enum control_action action = parsed->command->control;
    bool numbered = action == CONTROL_KILL_CLIENT;
    if (!numbered && !knows_database(console, parsed->value)) {
        snprintf(parsed->message, sizeof parsed->message, "database \"%.63s\" does not exist",
                 parsed->value);
        return console_fail(console, "3D000", "SHOW DATABASES lists them.");
    }
    if (action != CONTROL_PASS_BY)
        log_event(LOG_INFO, "command on the console", LOG_S("user", client->user),
                  LOG_S("command", parsed->tag), LOG_S("of", parsed->value),
                  LOG_S("shard", parsed->shard));
    struct task *task = mem_alloc(sizeof *task);
    snprintf(task->database, sizeof task->database, "%.63s", numbered ? "" : parsed->value);
    list_init(&task->link);
    task->ask.console = console;
    task->origin = client->worker;
    task->order = (struct control_order){.action = action, .database = task->database};
    task->order.id = numbered ? client_id(parsed->value) : 0;
    if (!carry_out_once(console, task)) {
        topology_unref(task->topology);
        free(task);
        return CONSOLE_FAILED;
    }
    console->ask = &task->ask;
    client->state = CLIENT_BUSY;
    send_round(task);
    return CONSOLE_WAITING;
}
