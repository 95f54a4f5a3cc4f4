/*
 * fuzz_config.c: any text as a configuration file: it is accepted, or refused with an error that names
 * a place; what is accepted can be shown, looked up and compared.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/config_internal.h"
#include "pgshunt/config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* libconfig itself forgets a string token where a syntax error follows it: one per refused file. */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void)
{
    return "leak:libconfig_yylex\nleak:strbuf_append\n";
}

static void require(bool condition)
{
    if (!condition)
        abort();
}

static void use(const struct config *config)
{
    char text[256], restart[256];
    require(config->ndatabases > 0 && config->workers > 0);
    for (int i = 0; i < settings_count(); i++)
        settings_value(config, i, text, sizeof text);
    for (int i = 0; i < config->ndatabases; i++) {
        const struct database_config *database = &config->databases[i];
        require(config_database(config, database->name) == database);
        require(database->nshards > 0 && database->catalog[0] && database->shards[0].dbname[0]);
    }
    for (int i = 0; i < config->nusers; i++)
        require(config_user(config, config->users[i].name) == &config->users[i]);
    require(config_restart_needed(config, config, restart, sizeof restart)[0] == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct config_error error;
    log_configure(LOG_ERROR, LOG_FORMAT_LOGFMT);
    /* in /nonexistent, so that @include and users_file find nothing but by an absolute path */
    struct config *config =
        config_load_text("/nonexistent/fuzz.conf", (const char *)data, size, &error);
    if (config) {
        use(config);
    } else {
        require(strlen(error.text) < sizeof error.text);
        require(strncmp(error.text, "/", 1) == 0 && strstr(error.text, ": "));
    }
    config_free(config);
    return 0;
}
