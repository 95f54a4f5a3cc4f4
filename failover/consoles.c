/* consoles.c: what a failover asks and orders the proxies, over their admin consoles. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "failover/run.h"

#define LOOK_EVERY_MS 10
#define CHECK_EVERY_MS 200

/* ---- which ---- */

/* The first of listen.address, as one can connect to it. */
static const char *own_host(struct run *run)
{
    const char *list = run->request->config->listen_address;
    list += strspn(list, " ,");
    const char *first = arena_strndup(&run->arena, list, strcspn(list, " ,"));
    bool any = !*first || strcmp(first, "*") == 0 || strcmp(first, "0.0.0.0") == 0 ||
               strcmp(first, "::") == 0;
    return any ? "127.0.0.1" : first;
}

static struct failover_address address_of(struct run *run, int index)
{
    if (run->request->nproxies)
        return run->request->proxies[index];
    return (struct failover_address){own_host(run), run->request->config->listen_port};
}

static void open_one(struct run *run, int index)
{
    struct failover_address address = address_of(run, index);
    struct db_target target = {.host = address.host,
                               .port = address.port,
                               .dbname = "pgshunt",
                               .user = run->admin,
                               .password = run->admin_password,
                               .application = "pgshuntctl",
                               .console = true};
    run->proxies[index] = db_open(&target, RUN_CONNECT_MS, &run->error);
}

/* A deadline closes the connection it has struck. */
static void reopen(struct run *run, int index)
{
    if (!run->proxies[index] || db_is_open(run->proxies[index]))
        return;
    struct db *old = run->proxies[index];
    open_one(run, index);
    if (run->proxies[index])
        db_close(old);
    else
        run->proxies[index] = old; /* it was there: it is not to be passed over */
}

void consoles_open(struct run *run)
{
    int count = run->request->nproxies ? run->request->nproxies : 1;
    run->facts.nproxies = count;
    run->facts.proxies = arena_array(&run->arena, struct proxy_facts, count);
    run->proxies = arena_array(&run->arena, struct db *, count);
    for (int i = 0; i < count; i++) {
        struct failover_address address = address_of(run, i);
        struct proxy_facts *proxy = &run->facts.proxies[i];
        *proxy = (struct proxy_facts){.primary = "", .up = ""};
        proxy->name = RUN_TEXT(run, "%s:%d", address.host, address.port);
        open_one(run, i);
        if (run->proxies[i])
            continue;
        proxy->why = RUN_TEXT(run, "%s", run->error.text);
        proxy->mend = RUN_TEXT(run,
                               "--proxy names the proxies, --admin a user with admin = true (now "
                               "\"%s\"); the password comes from PGPASSWORD or the password file",
                               run->admin);
    }
}

/* ---- SHOW NODES ---- */

static const char *cell(const PGresult *rows, int row, const char *column)
{
    int number = PQfnumber(rows, column);
    return number < 0 ? "" : PQgetvalue(rows, row, number);
}

static bool is_of_shard(const struct run *run, const PGresult *rows, int row)
{
    return strcmp(cell(rows, row, "database"), run->facts.database) == 0 &&
           strcmp(cell(rows, row, "shard"), run->facts.shard) == 0;
}

static uint64_t read_lsn(const char *text)
{
    unsigned high = 0, low = 0;
    return sscanf(text, "%X/%X", &high, &low) == 2 ? (uint64_t)high << 32 | low : 0;
}

/* A primary that is down is still what the proxy knows of it. */
static void take_node(struct run *run, struct proxy_facts *proxy, const PGresult *rows, int row)
{
    const char *host = cell(rows, row, "host"), *port = cell(rows, row, "port");
    bool primary = cell(rows, row, "primary")[0] == 't';
    if (strcmp(cell(rows, row, "role"), "primary") != 0 || cell(rows, row, "fenced")[0] == 't')
        return;
    uint64_t position = read_lsn(cell(rows, row, "wal_position"));
    if (position > proxy->position) {
        proxy->position = position;
        proxy->seen_ms_ago = strtoll(cell(rows, row, "checked_ms_ago"), NULL, 10);
    }
    if (!primary && *proxy->up)
        return;
    proxy->up = RUN_TEXT(run, "%s", cell(rows, row, "state"));
    proxy->primary = RUN_TEXT(run, strchr(host, ':') ? "[%s]:%s" : "%s:%s", host, port);
}

static void survey_proxy(struct run *run, int index)
{
    struct proxy_facts *proxy = &run->facts.proxies[index];
    int found = 0;
    /* Also tells whether the user may give orders. */
    PGresult *rows = db_run(run->proxies[index], RUN_QUERY_MS, &run->error, "CHECK", 0)
                         ? db_query(run->proxies[index], RUN_QUERY_MS, &run->error, "SHOW NODES", 0)
                         : NULL;
    for (int i = 0; rows && i < PQntuples(rows); i++)
        if (is_of_shard(run, rows, i)) {
            take_node(run, proxy, rows, i);
            found++;
        }
    if (!rows) {
        proxy->why = RUN_TEXT(run, "%s", run->error.text);
        proxy->mend = *run->error.hint
                          ? RUN_TEXT(run, "%s", run->error.hint)
                          : "is it a pgshunt of this version? --proxy names the proxies";
    } else if (!found) {
        proxy->why = RUN_TEXT(run, "it has no shard \"%s\" in database \"%s\"", run->facts.shard,
                              run->facts.database);
        proxy->mend = "all proxies of a cluster must have the same shards: correct it and RELOAD";
    }
    PQclear(rows);
}

void consoles_survey(struct run *run)
{
    for (int i = 0; i < run->facts.nproxies; i++)
        if (run->proxies[i])
            survey_proxy(run, i);
}

/* ---- orders ---- */

bool consoles_order(struct run *run, const char *command, int64_t timeout_ms)
{
    bool good = true;
    for (int i = 0; i < run->facts.nproxies; i++) {
        struct db_error error;
        reopen(run, i);
        if (!run->proxies[i] || db_run(run->proxies[i], timeout_ms, &error, command, 0))
            continue;
        run_fails(run, RUN_TEXT(run, "proxy %s: %s", run->facts.proxies[i].name, error.text), NULL);
        memcpy(run->error.sqlstate, error.sqlstate, sizeof error.sqlstate);
        good = false;
    }
    return good;
}

/* Names as the console takes them. */
static const char *quoted(struct run *run, const char *name)
{
    char *out = arena_alloc(&run->arena, strlen(name) * 2 + 3), *p = out;
    *p++ = '"';
    for (; *name; name++) {
        if (*name == '"')
            *p++ = '"';
        *p++ = *name;
    }
    *p = '"';
    return out;
}

static const char *shard_command(struct run *run, const char *word)
{
    return RUN_TEXT(run, "%s %s %s", word, quoted(run, run->facts.database),
                    quoted(run, run->facts.shard));
}

bool consoles_hold(struct run *run, int64_t limit_ms)
{
    const char *command = RUN_TEXT(run, "%s %lld", shard_command(run, "HOLD"), (long long)limit_ms);
    run->held = true; /* also where only some of them do */
    /* 55000: it has no primary at the moment, so statements wait there as well. */
    return consoles_order(run, command, RUN_QUERY_MS) || strcmp(run->error.sqlstate, "55000") == 0;
}

static void heed_stop(struct run *run, const volatile sig_atomic_t *stop)
{
    for (int i = 0; i < run->facts.nproxies; i++)
        if (run->proxies[i])
            db_set_stop(run->proxies[i], stop);
}

/* The only order that takes its time. */
bool consoles_drain(struct run *run, int64_t timeout_ms)
{
    heed_stop(run, run->request->stop);
    bool drained = consoles_order(run, shard_command(run, "DRAIN"), timeout_ms);
    heed_stop(run, NULL);
    return drained;
}

/* A hold ends by itself with a new primary, or after its time: not to find one is no failure. */
void consoles_release(struct run *run)
{
    struct db_error ignored;
    for (int i = 0; i < run->facts.nproxies; i++) {
        reopen(run, i);
        if (run->proxies[i])
            db_run(run->proxies[i], RUN_QUERY_MS, &ignored, shard_command(run, "RELEASE"), 0);
    }
    run->held = false;
}

/* ---- the new primary ---- */

static bool sees_primary(struct run *run, int index, const struct node_facts *node)
{
    bool sees = false;
    reopen(run, index);
    PGresult *rows = db_query(run->proxies[index], RUN_QUERY_MS, &run->error, "SHOW NODES", 0);
    for (int i = 0; rows && i < PQntuples(rows); i++)
        sees |= is_of_shard(run, rows, i) && cell(rows, i, "primary")[0] == 't' &&
                strcmp(cell(rows, i, "host"), node->host) == 0 &&
                atoi(cell(rows, i, "port")) == node->port;
    PQclear(rows);
    return sees;
}

bool consoles_await_primary(struct run *run, const struct node_facts *node, int64_t timeout_ms)
{
    int64_t until = db_clock_ms() + timeout_ms, check_at = 0;
    for (int i = 0; i < run->facts.nproxies; i++) {
        struct db_error ignored;
        while (run->proxies[i] && !sees_primary(run, i, node)) {
            int64_t now = db_clock_ms();
            if (now > until || !db_is_open(run->proxies[i]))
                return run_fails(
                    run,
                    RUN_TEXT(run, "proxy %s does not take %s for the primary",
                             run->facts.proxies[i].name, node->name),
                    "SHOW NODES on its console and its log tell why; its hold ends by itself");
            if (now >= check_at) {
                for (int j = 0; j < run->facts.nproxies; j++)
                    if (run->proxies[j])
                        db_run(run->proxies[j], RUN_QUERY_MS, &ignored, "CHECK", 0);
                check_at = now + CHECK_EVERY_MS;
            }
            run_nap(LOOK_EVERY_MS);
        }
    }
    return true;
}

/* ---- for status ---- */

static void tell_row(const struct run *run, int index, const PGresult *rows, int row,
                     void (*tell)(void *arg, const struct failover_proxy_status *status), void *arg)
{
    char node[300];
    snprintf(node, sizeof node, "%s:%s", cell(rows, row, "host"), cell(rows, row, "port"));
    tell(arg, &(struct failover_proxy_status){
                  .proxy = run->facts.proxies[index].name,
                  .database = cell(rows, row, "database"),
                  .shard = cell(rows, row, "shard"),
                  .node = node,
                  .role = cell(rows, row, "role"),
                  .state = cell(rows, row, "state"),
                  .primary = cell(rows, row, "primary")[0] == 't',
                  .lag_ms = cell(rows, row, "lag_ms"),
                  .held_ms = cell(rows, row, "held_ms"),
              });
}

bool consoles_tell_nodes(struct run *run,
                         void (*tell)(void *arg, const struct failover_proxy_status *status),
                         void *arg)
{
    bool good = true;
    for (int i = 0; i < run->facts.nproxies; i++) {
        const struct proxy_facts *proxy = &run->facts.proxies[i];
        PGresult *rows = run->proxies[i]
                             ? db_query(run->proxies[i], RUN_QUERY_MS, &run->error, "SHOW NODES", 0)
                             : NULL;
        for (int row = 0; rows && row < PQntuples(rows); row++)
            tell_row(run, i, rows, row, tell, arg);
        if (!rows)
            tell(arg,
                 &(struct failover_proxy_status){
                     .proxy = proxy->name, .error = proxy->why ? proxy->why : run->error.text});
        good &= rows != NULL;
        PQclear(rows);
    }
    return good;
}
