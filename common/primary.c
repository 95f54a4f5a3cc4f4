/* primary.c: the primary of a shard, found among its nodes. */
#include "pgshunt/primary.h"

#include <stdlib.h>
#include <string.h>

/* A stored SCRAM or md5 secret proves a password, it is none. */
static const char *plain(const char *secret)
{
    bool stored = !secret || strncmp(secret, "SCRAM-SHA-256$", 14) == 0 ||
                  (strncmp(secret, "md5", 3) == 0 && strlen(secret) == 35);
    return stored ? "" : secret;
}

static const char *login_name(const struct primary_login *login)
{
    const char *environment = getenv("PGUSER");
    return login->user ? login->user : environment ? environment : login->config->monitor_user;
}

static const char *login_password(const struct config *config, const char *user)
{
    const struct user_config *known = config_user(config, user);
    if (strcmp(user, config->monitor_user) == 0 && config->monitor_password[0])
        return config->monitor_password;
    return plain(known ? known->secret : NULL);
}

void primary_target(const struct primary_login *login, const struct shard_config *shard,
                    const struct node_config *node, struct db_target *target)
{
    const char *user = login_name(login);
    *target = (struct db_target){
        .host = node->host,
        .port = node->port,
        .dbname = shard->dbname,
        .user = user,
        .password = login_password(login->config, user),
        .application = login->application,
        .tls = config_server_tls(login->config, login->database->name, node->host, node->port,
                                 shard->dbname),
        .stop = login->stop,
    };
}

static bool is_primary(struct db *db, struct db_error *error)
{
    PGresult *rows = db_query(db, PRIMARY_CONNECT_MS, error, "SELECT pg_is_in_recovery()", 0);
    bool primary = rows && PQgetvalue(rows, 0, 0)[0] == 'f';
    if (rows && !primary)
        *error = (struct db_error){.text = "none of its nodes is a primary"};
    PQclear(rows);
    return primary;
}

static struct db *open_node(const struct primary_login *login, const struct shard_config *shard,
                            const struct node_config *node, struct db_error *error)
{
    struct db_target target;
    primary_target(login, shard, node, &target);
    struct db *db = db_open(&target, PRIMARY_CONNECT_MS, error);
    if (db && is_primary(db, error))
        return db;
    db_close(db);
    return NULL;
}

struct db *primary_open(const struct primary_login *login, const struct shard_config *shard,
                        struct db_error *error)
{
    struct db *db = NULL;
    for (int i = 0; i < shard->nnodes && !db; i++)
        db = open_node(login, shard, &shard->nodes[i], error);
    return db;
}

const struct node_config *primary_node(const struct primary_login *login,
                                       const struct shard_config *shard, struct db_error *error)
{
    for (int i = 0; i < shard->nnodes; i++) {
        struct db *db = open_node(login, shard, &shard->nodes[i], error);
        db_close(db);
        if (db)
            return &shard->nodes[i];
    }
    return NULL;
}
