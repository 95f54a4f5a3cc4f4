/* config.c: loads a configuration and its users file, looks things up in it, compares two. */
#include "config_internal.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define WORKERS_MOST 128 /* as the setting's range */

/* Cores this process may run on (affinity and cgroup cpusets count, not what the machine has). */
static int available_cores(void)
{
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) != 0)
        return 1;
    int cores = CPU_COUNT(&set);
    return cores < 1 ? 1 : cores > WORKERS_MOST ? WORKERS_MOST : cores;
}

static void warn_if_readable(const char *path)
{
    struct stat status;
    if (stat(path, &status) == 0 && (status.st_mode & (S_IRGRP | S_IROTH)))
        log_event(LOG_WARNING, "file with passwords is readable by others than its owner",
                  LOG_S("file", path), LOG_S("hint", "chmod 600"));
}

static bool has_passwords(const struct config *config)
{
    bool found = config->monitor_password[0] || config->auth_query_password[0];
    for (int i = 0; i < config->ndatabases; i++)
        found = found || config->databases[i].password[0] ||
                config->databases[i].auth_query_password[0];
    return found;
}

static int compare_users(const void *a, const void *b)
{
    return strcmp(((const struct user_config *)a)->name, ((const struct user_config *)b)->name);
}

static bool read_users_file(struct config *config, struct config_error *error)
{
    struct config_reader reader = {.config = config, .error = error, .path = config->users_file};
    bool ok = config_source_read(&reader.source, &config->arena, reader.path, error);
    if (ok) {
        ok =
            config_reader_parse(&reader) &&
            config_read_object(&reader, config_root_setting(&reader.tree), &settings_users, config);
        config_destroy(&reader.tree);
    }
    config_source_free(&reader.source);
    return ok;
}

/* Users are kept sorted by name: config_user() is asked at each login. */
static bool load_users(struct config_reader *reader)
{
    struct config *config = reader->config;
    if (!config->users_file[0])
        return true;
    config->users_file = config_relative_path(&config->arena, config->path, config->users_file);
    if (access(config->users_file, R_OK) != 0)
        return config_refuse(reader, config_lookup(&reader->tree, "auth.users_file"),
                             "found auth.users_file = \"%s\" (%s); allowed: a readable file",
                             config->users_file, strerror(errno));
    if (!read_users_file(config, reader->error))
        return false;
    if (config->nusers > 1)
        qsort(config->users, (size_t)config->nusers, sizeof *config->users, compare_users);
    warn_if_readable(config->users_file);
    return true;
}

/* The maps that rules name have to be there. */
static bool load_ident(struct config_reader *reader)
{
    struct config *config = reader->config;
    struct config_error *error = reader->error;
    if (config->ident_file[0]) {
        config->ident_file = config_relative_path(&config->arena, config->path, config->ident_file);
        config->ident =
            ident_load(&config->arena, config->ident_file, error->text, sizeof error->text);
        if (!config->ident)
            return false;
    }
    const struct hba_rule *rule = hba_without_map(config->hba, config->ident);
    if (rule)
        snprintf(error->text, sizeof error->text,
                 "%.300s:%d: found map=%.60s, %s; allowed: the name of a map of auth.ident_file",
                 rule->file, rule->line, rule->map,
                 config->ident ? "of which auth.ident_file has no line"
                               : "without auth.ident_file");
    return !rule;
}

/* Servers alone know who is a member of what. */
static bool check_roles(struct config_reader *reader)
{
    const struct hba_rule *rule = hba_wants_roles(reader->config->hba);
    if (!rule || config_looks_users_up(reader->config))
        return true;
    snprintf(reader->error->text, sizeof reader->error->text,
             "%.400s:%d: found a rule for members of a role, without auth.query_user; allowed: "
             "query_user = \"...\" in auth, a user that asks the servers",
             rule->file, rule->line);
    return false;
}

static bool check_mapped_roles(struct config_reader *reader)
{
    const struct hba_rule *rule = hba_with_roles_in_map(reader->config->hba, reader->config->ident);
    if (!rule || config_looks_users_up(reader->config))
        return true;
    snprintf(reader->error->text, sizeof reader->error->text,
             "%.300s:%d: found map=%.60s, which has a line for members of a role, without "
             "auth.query_user; allowed: query_user = \"...\" in auth, a user that asks the servers",
             rule->file, rule->line, rule->map);
    return false;
}

static bool load_hba(struct config_reader *reader)
{
    struct config *config = reader->config;
    if (config->auth_method != AUTH_HBA)
        return true;
    config->hba_file = config_relative_path(&config->arena, config->path, config->hba_file);
    if (access(config->hba_file, R_OK) != 0)
        return config_refuse(reader, config_lookup(&reader->tree, "auth.hba_file"),
                             "found auth.hba_file = \"%s\" (%s); allowed: a readable file",
                             config->hba_file, strerror(errno));
    config->hba =
        hba_load(&config->arena, config->hba_file, reader->error->text, sizeof reader->error->text);
    const struct hba_rule *rule = config->hba ? hba_wants_certificates(config->hba) : NULL;
    if (!rule || config->client_tls.ca_file[0])
        return config->hba && check_roles(reader) && load_ident(reader) &&
               check_mapped_roles(reader);
    snprintf(
        reader->error->text, sizeof reader->error->text,
        "%.400s:%d: found a rule that wants a certificate, without client_tls.ca_file; allowed: "
        "ca_file = \"clients-ca.crt\" in client_tls, which vouches for clients",
        rule->file, rule->line);
    return false;
}

/* Reads `reader->source`, already there, into the configuration. */
static bool load_main(struct config_reader *reader)
{
    struct config *config = reader->config;
    bool ok =
        config_reader_parse(reader) &&
        config_read_object(reader, config_root_setting(&reader->tree), &settings_main, config) &&
        load_users(reader) && load_hba(reader);
    config_destroy(&reader->tree);
    if (!ok)
        return false;
    if (config->workers == 0)
        config->workers = available_cores();
    if (config->catalog_state_file[0])
        config->catalog_state_file =
            config_relative_path(&config->arena, config->path, config->catalog_state_file);
    if (config->pid_file[0])
        config->pid_file = config_relative_path(&config->arena, config->path, config->pid_file);
    if (has_passwords(config))
        warn_if_readable(config->path);
    return true;
}

/* `text` NULL: from the file. */
static struct config *load(const char *path, const char *text, size_t length,
                           struct config_error *error)
{
    struct config *config = mem_alloc(sizeof *config);
    arena_init(&config->arena);
    config->path = arena_strdup(&config->arena, path);
    struct config_reader reader = {.config = config, .error = error, .path = config->path};
    error->text[0] = 0;
    bool ok =
        text ? config_source_text(&reader.source, &config->arena, config->path, text, length, error)
             : config_source_read(&reader.source, &config->arena, config->path, error);
    ok = ok && load_main(&reader);
    config_source_free(&reader.source);
    if (ok)
        return config;
    config_free(config);
    return NULL;
}

struct config *config_load(const char *path, struct config_error *error)
{
    return load(path, NULL, 0, error);
}

struct config *config_load_text(const char *path, const char *text, size_t length,
                                struct config_error *error)
{
    return load(path, text, length, error);
}

void config_free(struct config *config)
{
    if (!config)
        return;
    arena_free(&config->arena);
    free(config);
}

const struct database_config *config_database(const struct config *config, const char *name)
{
    for (int i = 0; i < config->ndatabases; i++)
        if (strcmp(config->databases[i].name, name) == 0)
            return &config->databases[i];
    return NULL;
}

const struct user_config *config_user(const struct config *config, const char *name)
{
    struct user_config wanted = {.name = name};
    if (config->nusers == 0)
        return NULL;
    return bsearch(&wanted, config->users, (size_t)config->nusers, sizeof wanted, compare_users);
}

/* ---- what holds for one user of one database ---- */

static void lay_over(struct pool_settings *out, const struct pool_settings *own)
{
    int64_t *to = (int64_t *)out;
    const int64_t *from = (const int64_t *)own;
    for (size_t i = 0; i < sizeof *out / sizeof *to; i++)
        if (from[i] != SETTING_INHERIT)
            to[i] = from[i];
}

void config_pool_settings(const struct config *config, const char *database, const char *user,
                          struct pool_settings *out)
{
    const struct database_config *db = config_database(config, database);
    const struct user_config *who = config_user(config, user);
    *out = config->pool;
    if (db)
        lay_over(out, &db->pool);
    if (who)
        lay_over(out, &who->pool);
    if (out->min_size > out->size)
        out->min_size = out->size;
}

void config_route_wish(const struct config *config, const char *database, const char *user,
                       struct route_wish *out)
{
    const struct database_config *db = config_database(config, database);
    const struct user_config *who = config_user(config, user);
    struct pool_settings settings;
    config_pool_settings(config, database, user, &settings);
    *out = (struct route_wish){.route = (enum route)settings.route,
                               .region = config->region,
                               .max_lag_us = settings.max_lag * 1000,
                               .read_your_writes = settings.read_your_writes ? SAID_ON : SAID_OFF,
                               .monotonic_reads = settings.monotonic_reads ? SAID_ON : SAID_OFF,
                               .no_replica = (enum no_replica)settings.no_replica};
    if (db && db->region)
        out->region = db->region;
    if (who && who->region)
        out->region = who->region;
}

static int64_t own_or(int64_t own, int64_t otherwise)
{
    return own == SETTING_INHERIT ? otherwise : own;
}

int64_t config_database_connections(const struct config *config, const char *database)
{
    const struct database_config *db = config_database(config, database);
    return own_or(db ? db->max_connections : SETTING_INHERIT, config->max_database_connections);
}

int64_t config_user_connections(const struct config *config, const char *user)
{
    const struct user_config *who = config_user(config, user);
    return own_or(who ? who->max_connections : SETTING_INHERIT, config->max_user_connections);
}

int64_t config_database_clients(const struct config *config, const char *database)
{
    const struct database_config *db = config_database(config, database);
    return own_or(db ? db->max_clients : SETTING_INHERIT, config->max_database_clients);
}

int64_t config_user_clients(const struct config *config, const char *user)
{
    const struct user_config *who = config_user(config, user);
    return own_or(who ? who->max_clients : SETTING_INHERIT, config->max_user_clients);
}

/* ---- two of them ---- */

const char *config_restart_needed(const struct config *old, const struct config *next, char *out,
                                  size_t size)
{
    char before[300], after[300];
    size_t used = 0;
    out[0] = 0;
    for (int i = 0; i < settings_count(); i++) {
        const struct setting_info *info = settings_info(i);
        if (info->reloadable)
            continue;
        settings_value(old, i, before, sizeof before);
        settings_value(next, i, after, sizeof after);
        if (strcmp(before, after) != 0 && used < size) {
            int written = snprintf(out + used, size - used, "%s%s", used ? ", " : "", info->name);
            used += (size_t)written;
        }
    }
    return out;
}
