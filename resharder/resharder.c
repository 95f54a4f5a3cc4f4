/* resharder.c: what all of the engine's functions begin and end with: the job's database, sessions, telling. */
#include "resharder/resharder.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "pgshunt/catalog.h"

#define SLEEP_PIECE_US 10000 /* then the stop flag is looked at */

/* ---- telling ---- */

void reshard_tell(struct reshard *reshard, enum reshard_event_kind kind, const char *shard,
                  const char *object, const char *text, const char *mend)
{
    struct reshard_event event = {
        .kind = kind, .shard = shard, .object = object, .text = text, .mend = mend};
    reshard->request->tell(reshard->request->arg, &event);
}

enum reshard_outcome reshard_fails(struct reshard *reshard, const char *shard, const char *what)
{
    if (reshard_stopped(reshard))
        return RESHARD_STOPPED;
    reshard_tell(reshard, RESHARD_FAILED, shard, NULL,
                 RESHARD_TEXT(reshard, "%s: %s", what, reshard->error.text),
                 reshard->error.hint[0] ? RESHARD_TEXT(reshard, "%s", reshard->error.hint) : NULL);
    return RESHARD_UNFINISHED;
}

bool reshard_stopped(const struct reshard *reshard)
{
    return reshard->request->stop && *reshard->request->stop;
}

void reshard_sleep(const struct reshard *reshard, int64_t us)
{
    while (us > 0) {
        int64_t piece = us < SLEEP_PIECE_US ? us : SLEEP_PIECE_US;
        nanosleep(&(struct timespec){.tv_nsec = (long)piece * 1000}, NULL);
        us -= piece;
        if (reshard && reshard_stopped(reshard))
            return;
    }
}

/* ---- sessions ---- */

/* What a server's or a role's own settings must not do to the engine: each is asked for by nobody else. */
static const char session_settings[] =
    "SELECT set_config('idle_in_transaction_session_timeout', '0', false),"
    " set_config('statement_timeout', '0', false), set_config('lock_timeout', '0', false),"
    " set_config('default_transaction_isolation', 'read committed', false),"
    " set_config('default_transaction_read_only', 'off', false),"
    " set_config('intervalstyle', 'postgres', false), set_config('timezone', 'UTC', false),"
    " set_config('extra_float_digits', '3', false), set_config('bytea_output', 'hex', false)";

static struct primary_login login_of(const struct reshard *reshard)
{
    return (struct primary_login){
        .config = reshard->request->config,
        .database = reshard->database,
        .user = reshard->request->user,
        .application = "pgshunt reshard",
        .stop = reshard->request->stop,
    };
}

struct db *reshard_open(struct reshard *reshard, unsigned shard, struct db_error *error)
{
    struct primary_login login = login_of(reshard);
    struct db *db = primary_open(&login, &reshard->database->shards[shard], error);
    if (db && !db_run(db, RESHARD_QUERY_MS, error, session_settings, 0)) {
        db_close(db);
        return NULL;
    }
    return db;
}

struct db *reshard_open_node(struct reshard *reshard, unsigned shard,
                             const struct node_config *node, struct db_error *error)
{
    struct primary_login login = login_of(reshard);
    struct db_target target;
    primary_target(&login, &reshard->database->shards[shard], node, &target);
    struct db *db = db_open(&target, PRIMARY_CONNECT_MS, error);
    if (db && !db_run(db, RESHARD_QUERY_MS, error, session_settings, 0)) {
        db_close(db);
        return NULL;
    }
    return db;
}

struct db *reshard_primary(struct reshard *reshard, unsigned shard)
{
    struct db **kept = &reshard->primaries[shard];
    if (*kept && !db_is_open(*kept)) {
        db_close(*kept);
        *kept = NULL;
    }
    if (!*kept)
        *kept = reshard_open(reshard, shard, &reshard->error);
    return *kept;
}

struct db *reshard_catalog(struct reshard *reshard)
{
    return reshard_primary(reshard, reshard->catalog);
}

bool reshard_parameters(struct reshard *reshard, unsigned shard, struct db_parameters *parameters,
                        struct db_error *error)
{
    struct primary_login login = login_of(reshard);
    const struct shard_config *config = &reshard->database->shards[shard];
    const struct node_config *node = reshard->replicas && config->nnodes == 1
                                         ? &config->nodes[0]
                                         : primary_node(&login, config, error);
    struct db_target target;
    if (!node)
        return false;
    primary_target(&login, config, node, &target);
    *parameters = (struct db_parameters){.count = 0};
    db_put(parameters, "host", target.host);
    db_put(parameters, "port", RESHARD_TEXT(reshard, "%d", target.port));
    db_put(parameters, "dbname", target.dbname);
    db_put(parameters, "user", target.user);
    if (target.password && *target.password && !getenv("PGPASSWORD"))
        db_put(parameters, "password", target.password);
    db_put(parameters, "application_name", target.application);
    db_put(parameters, "client_encoding", "UTF8");
    db_put(parameters, "gssencmode", "disable");
    db_put(parameters, "replication", "database");
    if (target.tls)
        db_put_tls(parameters, target.tls);
    return true;
}

/* ---- beginning and end ---- */

static bool find_catalog(struct reshard *reshard)
{
    for (int i = 0; i < reshard->database->nshards; i++)
        if (strcmp(reshard->database->shards[i].name, reshard->database->catalog) == 0)
            reshard->catalog = (unsigned)i;
    struct db *catalog = reshard_catalog(reshard);
    bool writes = !reshard->request->dry_run;
    return catalog && (!writes || catalog_prepare(catalog, &reshard->error)) &&
           (!writes || catalog_record_map(catalog, reshard->database, &reshard->error)) &&
           catalog_read_map(catalog, reshard->database, &reshard->map, &reshard->error);
}

bool reshard_begin(struct reshard *reshard, const struct reshard_request *request)
{
    *reshard = (struct reshard){.request = request};
    arena_init(&reshard->arena);
    reshard->database = config_database(request->config, request->database);
    if (!reshard->database) {
        reshard_tell(
            reshard, RESHARD_FAILED, NULL, NULL,
            RESHARD_TEXT(reshard, "the configuration has no database \"%s\"", request->database),
            NULL);
        return false;
    }
    reshard->primaries =
        arena_array(&reshard->arena, struct db *, (size_t)reshard->database->nshards);
    if (find_catalog(reshard))
        return true;
    reshard_fails(reshard, reshard->database->catalog, "cannot read the catalog");
    return false;
}

void reshard_end(struct reshard *reshard)
{
    for (int i = 0; reshard->primaries && i < reshard->database->nshards; i++)
        db_close(reshard->primaries[i]);
    if (reshard->map)
        shardmap_free(reshard->map);
    arena_free(&reshard->arena);
}
