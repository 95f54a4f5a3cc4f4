/* cmd_status.c: `pgshuntctl status`: every server and proxy in two tables. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ctl/ctl.h"
#include "pgshunt/arena.h"
#include "pgshunt/failover.h"

const char cmd_status_help[] =
    "Asks every server of every shard and every proxy at once. Ends with 0 when all of them\n"
    "answer and every shard has a primary, else with 1.\n\n"
    "      --proxy HOST:PORT a proxy; once for each (default: the one at listen.address)\n"
    "      --user NAME       log in to servers as (default: $PGUSER, monitor.user)\n"
    "      --admin NAME      log in to proxies as (default: the first admin of the users file)\n\n"
    "Examples:\n"
    "  pgshuntctl status\n"
    "  pgshuntctl status --json --proxy px1:6432 --proxy px2:6432\n";

static const struct option options[] = {
    {"proxy", required_argument, NULL, 1},
    {"user", required_argument, NULL, 2},
    {"admin", required_argument, NULL, 3},
    {NULL, 0, NULL, 0},
};

static const char *const node_columns[] = {"database", "shard",     "node",     "role",     "state",
                                           "timeline", "lag_bytes", "upstream", "read_only"};
static const char *const proxy_columns[] = {"proxy", "database", "shard",  "node",   "role",
                                            "state", "primary",  "lag_ms", "held_ms"};

struct tables {
    struct ctl_table *nodes, *proxies;
};

static void add_number(struct ctl_table *table, int64_t number, int64_t unknown)
{
    char text[32];
    snprintf(text, sizeof text, "%" PRId64, number);
    ctl_table_add(table, number == unknown ? NULL : text);
}

static void on_node(void *arg, const struct failover_status *status)
{
    struct ctl_table *table = ((struct tables *)arg)->nodes;
    char name[300];
    snprintf(name, sizeof name, strchr(status->host, ':') ? "[%s]:%d" : "%s:%d", status->host,
             status->port);
    ctl_table_add(table, status->database);
    ctl_table_add(table, status->shard);
    ctl_table_add(table, name);
    ctl_table_add(table, status->role);
    ctl_table_add(table, status->state);
    add_number(table, status->timeline, 0);
    add_number(table, status->lag_bytes, -1);
    ctl_table_add(table, *status->upstream ? status->upstream : NULL);
    ctl_table_add(table, status->read_only ? "yes" : "no");
}

static const char *known(const char *text)
{
    return text && *text ? text : NULL;
}

static void on_proxy(void *arg, const struct failover_proxy_status *status)
{
    struct ctl_table *table = ((struct tables *)arg)->proxies;
    ctl_table_add(table, status->proxy);
    ctl_table_add(table, status->database);
    ctl_table_add(table, status->shard);
    ctl_table_add(table, status->node);
    ctl_table_add(table, status->role);
    ctl_table_add(table, status->error ? status->error : status->state);
    ctl_table_add(table, status->error ? NULL : status->primary ? "yes" : "no");
    ctl_table_add(table, known(status->lag_ms));
    ctl_table_add(table, known(status->held_ms));
}

static void print(const struct ctl *ctl, const struct tables *tables)
{
    if (ctl->json) {
        json_t *all = json_object();
        json_object_set_new(all, "nodes", ctl_table_json(tables->nodes));
        json_object_set_new(all, "proxies", ctl_table_json(tables->proxies));
        ctl_print_json(all);
        return;
    }
    puts("As the servers say:");
    ctl_table_print(tables->nodes);
    puts("\nAs the proxies see them:");
    ctl_table_print(tables->proxies);
}

static int parse(struct ctl *ctl, int argc, char **argv, struct failover_status_request *request)
{
    int option, status;
    while ((option = ctl_option(ctl, argc, argv, "", options, &status)) >= 0) {
        if (option == 2)
            request->user = optarg;
        if (option == 3)
            request->admin = optarg;
        if (option != 1)
            continue;
        request->proxies = mem_realloc(request->proxies,
                                       sizeof *request->proxies * (size_t)(request->nproxies + 1));
        struct failover_address *proxy = &request->proxies[request->nproxies];
        proxy->host = ctl_address(optarg, &proxy->port);
        if (!proxy->host)
            return ctl_usage(ctl, "--proxy takes HOST:PORT, not \"%s\"", optarg);
        request->nproxies++;
    }
    if (option == CTL_OPTION_EXIT)
        return status;
    return optind == argc ? -1 : ctl_usage(ctl, "status takes no \"%s\"", argv[optind]);
}

static int ask_and_print(const struct ctl *ctl, struct failover_status_request *request)
{
    struct tables tables = {
        ctl_table_new(node_columns, sizeof node_columns / sizeof *node_columns),
        ctl_table_new(proxy_columns, sizeof proxy_columns / sizeof *proxy_columns)};
    request->arg = &tables;
    bool good = failover_status(request);
    print(ctl, &tables);
    ctl_table_free(tables.nodes);
    ctl_table_free(tables.proxies);
    return ctl_stop ? CTL_INTERRUPTED : good ? CTL_DONE : CTL_FAILED;
}

int cmd_status(struct ctl *ctl, int argc, char **argv)
{
    struct failover_status_request request = {
        .stop = &ctl_stop, .node = on_node, .proxy = on_proxy};
    int status = parse(ctl, argc, argv, &request);
    if (status < 0 && !ctl_load_config(ctl))
        status = CTL_FAILED;
    request.config = ctl->config;
    if (status < 0)
        status = ask_and_print(ctl, &request);
    for (int i = 0; i < request.nproxies; i++)
        free((char *)request.proxies[i].host);
    free(request.proxies);
    return status;
}
