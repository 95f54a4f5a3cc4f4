/*
 * config.h: the configuration file as one immutable value.
 *
 * common/settings.c holds the settings table (one row per setting: name, type, default, range,
 * reloadable, help); parsing, SHOW CONFIG, --help-config and docs/reference/settings.md come from it
 * alone. A struct config owns all its strings (one arena) and never changes after loading; a reload
 * loads a new one. Durations are milliseconds, sizes bytes.
 */
#ifndef PGSHUNT_CONFIG_H
#define PGSHUNT_CONFIG_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "pgshunt/arena.h"
#include "pgshunt/log.h"
#include "pgshunt/shardkey.h"

enum auth_method { AUTH_TRUST, AUTH_MD5, AUTH_SCRAM };
enum pool_mode { POOL_TRANSACTION, POOL_SESSION, POOL_STATEMENT };

struct node_config {
    const char *host;
    int port;
    const char *region; /* "" if none */
    int weight;         /* share of reads among the replicas of a shard; default 1 */
    int line;
};

struct shard_config {
    const char *name;
    const char *dbname;
    int weight;
    struct node_config *nodes;
    int nnodes;
    int line;
};

struct table_config {
    const char *name;
    const char *key;
    int line;
};

struct keyspace_config {
    const char *name;
    enum key_type type;
    enum key_hash hash;
    struct table_config *tables;
    int ntables;
    int line;
};

struct database_config {
    const char *name;
    const char *catalog;  /* name of the catalog shard; default: the first */
    const char *user;     /* log in to the servers as this user; "": as the client's user */
    const char *password; /* for `user`; "": from the users file */
    int pool_size;        /* 0: pool.size */
    struct shard_config *shards;
    int nshards;
    struct keyspace_config *keyspaces;
    int nkeyspaces;
    const char **reference;
    int nreference;
    int line;
};

struct user_config {
    const char *name;
    const char *secret; /* plain password, "SCRAM-SHA-256$..." or "md5..." ; "" none */
    bool admin;         /* may connect to the console */
    int line;
};

struct config {
    struct arena arena;
    const char *path;
    const char *listen_address;
    int listen_port;
    int listen_backlog;
    const char *http_address;
    int http_port; /* 0: no HTTP */
    int workers;   /* resolved: at least 1 */
    enum auth_method auth_method;
    const char *users_file; /* resolved relative to the configuration file; "" none */
    enum pool_mode pool_mode;
    int pool_size;
    int64_t server_idle_timeout;
    int64_t server_lifetime;
    int64_t connect_timeout;
    int64_t query_wait_timeout;
    int64_t login_timeout;
    int64_t shutdown_timeout;
    int64_t max_lag;
    bool read_your_writes;
    bool read_write_split; /* false: everything goes to the primary */
    int64_t lag_check_interval;
    int64_t check_timeout;
    const char *monitor_user;     /* whom the monitor logs in as */
    const char *monitor_password; /* "": from the users file */
    int max_clients;
    int64_t max_message; /* largest Query/Parse/Bind taken, bytes */
    int64_t max_groups;  /* groups a cross-shard GROUP BY may hold */
    enum log_level log_level;
    enum log_format log_format;
    bool log_connections;
    struct database_config *databases;
    int ndatabases;
    struct user_config *users;
    int nusers;
};

/* What is wrong with a configuration: "file:line: what was found; what is allowed". */
struct config_error {
    char text[1024];
};

/* Loads file and users file. NULL: `error` says why. */
struct config *config_load(const char *path, struct config_error *error);
void config_free(struct config *config);
const struct database_config *config_database(const struct config *config, const char *name);
const struct user_config *config_user(const struct config *config, const char *name);
/* Names of settings whose value differs but that need a restart, separated by ", ". "" if none. */
const char *config_restart_needed(const struct config *old, const struct config *next, char *out,
                                  size_t size);

/* One scalar setting, for SHOW CONFIG and the reference page. */
struct setting_info {
    const char *name;    /* "pool.size" */
    const char *type;    /* "duration", "size", "integer", "boolean", "string", "one of a | b" */
    const char *initial; /* default, as one would write it */
    const char *range;   /* "1 .. 65535", "" if any */
    bool reloadable;
    const char *help;
};
int settings_count(void);
const struct setting_info *settings_info(int index);
/* Current value as one would write it, into out. Secrets come as "***". */
void settings_value(const struct config *config, int index, char *out, size_t size);
void settings_print_help(FILE *out);     /* --help-config */
void settings_print_markdown(FILE *out); /* docs/reference/settings.md */

#endif
