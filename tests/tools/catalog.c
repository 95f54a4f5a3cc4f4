/* catalog.c: calls the functions of common/catalog on a server, for tests: catalog HOST PORT DBNAME COMMAND ARGUMENTS... */
#include "pgshunt/catalog.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX 16

struct call {
    struct db *db;
    char **args;
    int count;
    struct db_error error;
};

static int64_t number(const char *text)
{
    return strtoll(text, NULL, 10);
}

/* "users/0-99" */
static struct catalog_range read_range(char *text)
{
    char *slash = strchr(text, '/'), *dash = slash ? strchr(slash, '-') : NULL;
    if (!dash)
        exit(2);
    *slash = '\0';
    return (struct catalog_range){text, (unsigned)number(slash + 1), (unsigned)number(dash + 1)};
}

/* record CONFIG DATABASE */
static bool record(struct call *call)
{
    struct config_error problem;
    struct config *config = config_load(call->args[0], &problem);
    if (!config) {
        snprintf(call->error.text, sizeof call->error.text, "%.400s", problem.text);
        return false;
    }
    bool done = false;
    for (int i = 0; i < config->ndatabases; i++)
        if (strcmp(config->databases[i].name, call->args[1]) == 0)
            done = catalog_record_map(call->db, &config->databases[i], &call->error);
    config_free(config);
    return done;
}

/* hold DATABASE JOB LEASE_MS RANGE... */
static bool hold(struct call *call)
{
    struct catalog_range ranges[MAX];
    int64_t id = 0;
    int count = 0;
    for (int i = 3; i < call->count && count < MAX; i++)
        ranges[count++] = read_range(call->args[i]);
    bool done = catalog_hold(call->db, call->args[0], call->args[1], ranges, count,
                             number(call->args[2]), &id, &call->error);
    if (done)
        printf("%lld\n", (long long)id);
    return done;
}

/* extend ID LEASE_MS 0|1 */
static bool extend(struct call *call)
{
    return catalog_hold_extend(call->db, number(call->args[0]), number(call->args[1]),
                               number(call->args[2]), &call->error);
}

/* release ID */
static bool release(struct call *call)
{
    return catalog_release(call->db, number(call->args[0]), &call->error);
}

/* flip DATABASE JOB ATTEMPT HOLD EPOCH STATE {RANGE SOURCE TARGET}... */
static bool flip(struct call *call)
{
    struct catalog_move moves[MAX];
    int count = 0;
    for (int i = 6; i + 2 < call->count && count < MAX; i += 3)
        moves[count++] =
            (struct catalog_move){read_range(call->args[i]), call->args[i + 1], call->args[i + 2]};
    return catalog_flip(call->db, call->args[0], call->args[1], call->args[2],
                        number(call->args[3]), moves, count, number(call->args[4]), call->args[5],
                        &call->error);
}

/* abort DATABASE JOB ATTEMPT EPOCH STATE */
static bool abort_switch(struct call *call)
{
    return catalog_abort(call->db, call->args[0], call->args[1], call->args[2],
                         number(call->args[3]), call->args[4], &call->error);
}

/* ghost DATABASE KEYSPACE SHARD JOB 0|1 */
static bool ghost(struct call *call)
{
    return catalog_set_ghost(call->db, call->args[0], call->args[1], call->args[2], call->args[3],
                             number(call->args[4]), &call->error);
}

static bool prepare(struct call *call)
{
    return catalog_prepare(call->db, &call->error);
}

static const struct {
    const char *name;
    int args;
    bool (*run)(struct call *call);
} commands[] = {
    {"prepare", 0, prepare}, {"record", 2, record}, {"hold", 4, hold}, {"extend", 3, extend},
    {"release", 1, release}, {"ghost", 5, ghost},   {"flip", 9, flip}, {"abort", 5, abort_switch},
};

int main(int argc, char **argv)
{
    struct call call = {.args = argv + 5, .count = argc - 5};
    if (argc < 5)
        return 2;
    struct db_target target = {.host = argv[1],
                               .port = (int)number(argv[2]),
                               .dbname = argv[3],
                               .user = "postgres",
                               .application = "pgshunt tests"};
    call.db = db_open(&target, 10000, &call.error);
    bool done = false;
    for (size_t i = 0; call.db && i < sizeof commands / sizeof *commands; i++)
        if (strcmp(commands[i].name, argv[4]) == 0 && call.count >= commands[i].args)
            done = commands[i].run(&call);
    db_close(call.db);
    if (!done)
        fprintf(stderr, "%s %s\n", call.error.sqlstate, call.error.text);
    return done ? 0 : 1;
}
