/* config_tls.c: what must hold between the TLS settings, and which of them count for which server. */
#include <stdio.h>
#include <string.h>

#include "config_internal.h"

/* Where a setting was written, or its group, or NULL. */
static const config_setting_t *written(struct config_reader *reader, const char *group,
                                       const char *name)
{
    char path[80];
    snprintf(path, sizeof path, "%s.%s", group, name);
    const config_setting_t *at = config_lookup(&reader->tree, path);
    return at ? at : config_lookup(&reader->tree, group);
}

static const char *file_path(struct config *config, const char *name)
{
    return name[0] ? config_relative_path(&config->arena, config->path, name) : name;
}

static void find_files(struct config *config, struct tls_config *tls)
{
    tls->cert_file = file_path(config, tls->cert_file);
    tls->key_file = file_path(config, tls->key_file);
    tls->ca_file = file_path(config, tls->ca_file);
}

/* What certificate and versions of either side must be. `at` NULL: wherever `group` stands. */
static bool check_common(struct config_reader *reader, const struct tls_config *tls,
                         const config_setting_t *at, const char *group)
{
    if (!tls->cert_file[0] != !tls->key_file[0])
        return config_refuse(reader, at ? at : written(reader, group, "cert_file"),
                             "found %s.%s_file without %s.%s_file; allowed: both or neither", group,
                             tls->cert_file[0] ? "cert" : "key", group,
                             tls->cert_file[0] ? "key" : "cert");
    if (tls->min_version > tls->max_version)
        return config_refuse(reader, at ? at : written(reader, group, "min_version"),
                             "found %s.min_version above %s.max_version; allowed: min_version = "
                             "\"1.2\" or max_version = \"1.3\"",
                             group, group);
    return true;
}

static bool check_client(struct config_reader *reader, const struct config *config)
{
    const struct tls_config *tls = &config->client_tls;
    const config_setting_t *mode = written(reader, "client_tls", "mode");
    if (config->client_tls_mode != CLIENT_TLS_DISABLE && !tls->cert_file[0])
        return config_refuse(reader, mode,
                             "found client_tls.mode without client_tls.cert_file; allowed: "
                             "cert_file and key_file, or mode = \"disable\"");
    if (config->client_tls_mode >= CLIENT_TLS_VERIFY_CA && !tls->ca_file[0])
        return config_refuse(reader, mode,
                             "found client_tls.mode = \"verify-...\" without client_tls.ca_file; "
                             "allowed: ca_file = \"ca.crt\" with the certificates that vouch for "
                             "clients");
    if (config->auth_method == AUTH_CERT &&
        (config->client_tls_mode < CLIENT_TLS_REQUIRE || !tls->ca_file[0]))
        return config_refuse(reader, written(reader, "auth", "method"),
                             "found auth.method = \"cert\" without TLS that asks clients for a "
                             "certificate; allowed: client_tls.mode = \"require\" or more, with "
                             "client_tls.ca_file");
    return check_common(reader, tls, NULL, "client_tls");
}

/* `at`: a shard's group, or NULL for the general settings. */
static bool check_server(struct config_reader *reader, const struct server_tls_config *server,
                         const config_setting_t *at)
{
    if (server->mode >= SERVER_TLS_VERIFY_CA && !server->tls.ca_file[0])
        return config_refuse(reader, at ? at : written(reader, "server_tls", "mode"),
                             "found server_tls.mode = \"verify-...\" without server_tls.ca_file; "
                             "allowed: ca_file = \"ca.crt\" with the certificates that vouch for "
                             "servers");
    if (server->channel_binding == CHANNEL_BINDING_REQUIRE && server->mode < SERVER_TLS_REQUIRE)
        return config_refuse(reader, at ? at : written(reader, "server_tls", "channel_binding"),
                             "found server_tls.channel_binding = \"require\" without TLS; allowed: "
                             "server_tls.mode = \"require\" or more");
    return check_common(reader, &server->tls, at, "server_tls");
}

/* A shard's own settings are laid over the general ones. */
static void inherit(struct config *config, struct server_tls_config *own)
{
    struct server_tls_config whole = config->server_tls;
    if (own->mode != SERVER_TLS_INHERIT)
        whole.mode = own->mode;
    if (own->tls.ca_file)
        whole.tls.ca_file = file_path(config, own->tls.ca_file);
    if (own->tls.cert_file)
        whole.tls.cert_file = file_path(config, own->tls.cert_file);
    if (own->tls.key_file)
        whole.tls.key_file = file_path(config, own->tls.key_file);
    *own = whole;
}

static bool check_shards(struct config_reader *reader, struct config *config)
{
    char path[60];
    for (int i = 0; i < config->ndatabases; i++) {
        for (int j = 0; j < config->databases[i].nshards; j++) {
            struct server_tls_config *own = &config->databases[i].shards[j].server_tls;
            inherit(config, own);
            snprintf(path, sizeof path, "databases.[%d].shards.[%d]", i, j);
            if (!check_server(reader, own, config_lookup(&reader->tree, path)))
                return false;
        }
    }
    return true;
}

bool config_check_tls(struct config_reader *reader, struct config *config)
{
    find_files(config, &config->client_tls);
    find_files(config, &config->server_tls.tls);
    return check_client(reader, config) && check_server(reader, &config->server_tls, NULL) &&
           check_shards(reader, config);
}

static bool has_node(const struct shard_config *shard, const char *host, int port,
                     const char *dbname)
{
    for (int i = 0; i < shard->nnodes && strcmp(shard->dbname, dbname) == 0; i++)
        if (shard->nodes[i].port == port && strcmp(shard->nodes[i].host, host) == 0)
            return true;
    return false;
}

const struct server_tls_config *config_server_tls(const struct config *config, const char *database,
                                                  const char *host, int port, const char *dbname)
{
    for (int i = 0; i < config->ndatabases; i++) {
        const struct database_config *db = &config->databases[i];
        for (int j = 0; j < db->nshards && (!database || strcmp(db->name, database) == 0); j++)
            if (has_node(&db->shards[j], host, port, dbname))
                return &db->shards[j].server_tls;
    }
    return &config->server_tls;
}
