/* startup_options.c: the startup parameter "options": a server's command line, read as Postgres reads it. */
#include "proxy/startup.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pgshunt/arena.h"

/* Where the parse has come to: words are separated by blanks, a backslash takes the next byte as it is. */
struct words {
    const char *at;
    char *word; /* owned; as long as the whole text */
};

static bool next_word(struct words *words)
{
    char *out = words->word;
    while (isspace((unsigned char)*words->at))
        words->at++;
    if (!*words->at)
        return false;
    for (; *words->at && !isspace((unsigned char)*words->at); words->at++) {
        if (*words->at == '\\' && words->at[1])
            words->at++;
        *out++ = *words->at;
    }
    *out = '\0';
    return true;
}

static bool bad_option(struct startup *startup, struct pg_error *error, const char *before,
                       const char *word, const char *after, const char *hint)
{
    snprintf(startup->message, sizeof startup->message, "%s%.150s%s", before, word, after);
    *error = (struct pg_error){
        .severity = "FATAL", .sqlstate = "42601", .message = startup->message, .hint = hint};
    return false;
}

static bool invalid(struct startup *startup, struct pg_error *error, const char *word)
{
    return bad_option(startup, error, "invalid command-line argument for server process: ", word,
                      "", "Use -c name=value or --name=value.");
}

/* name=value, with '-' for '_' in names. */
static bool take_setting(const char *option, char *setting, struct startup *startup,
                         struct guc_set **settings, struct pg_error *error)
{
    char *equals = strchr(setting, '=');
    if (!equals || equals == setting)
        return bad_option(startup, error, *option == 'c' ? "-c " : "--", setting,
                          " requires a value", NULL);
    *equals = '\0';
    for (char *p = setting; *p; p++)
        if (*p == '-')
            *p = '_';
    startup_put_setting(settings, setting, equals + 1);
    return true;
}

/* Options that are short for a setting; with `value` NULL their argument is the value. */
static const struct option {
    char letter;
    const char *argument; /* NULL: any, or none if there is a value */
    const char *setting, *value;
} short_options[] = {
    {'B', NULL, "shared_buffers", NULL},
    {'e', NULL, "datestyle", "euro"},
    {'F', NULL, "fsync", "false"},
    {'f', "b", "enable_bitmapscan", "false"},
    {'f', "h", "enable_hashjoin", "false"},
    {'f', "i", "enable_indexscan", "false"},
    {'f', "m", "enable_mergejoin", "false"},
    {'f', "n", "enable_nestloop", "false"},
    {'f', "o", "enable_indexonlyscan", "false"},
    {'f', "s", "enable_seqscan", "false"},
    {'f', "t", "enable_tidscan", "false"},
    {'h', NULL, "listen_addresses", NULL},
    {'k', NULL, "unix_socket_directories", NULL},
    {'l', NULL, "ssl", "true"},
    {'N', NULL, "max_connections", NULL},
    {'O', NULL, "allow_system_table_mods", "true"},
    {'P', NULL, "ignore_system_indexes", "true"},
    {'p', NULL, "port", NULL},
    {'S', NULL, "work_mem", NULL},
    {'s', NULL, "log_statement_stats", "true"},
    {'t', "pa", "log_parser_stats", "true"},
    {'t', "pl", "log_planner_stats", "true"},
    {'t', "e", "log_executor_stats", "true"},
    {'W', NULL, "post_auth_delay", NULL},
};

static const struct option *find_option(char letter, const char *argument)
{
    for (size_t i = 0; i < sizeof short_options / sizeof short_options[0]; i++) {
        const struct option *option = &short_options[i];
        if (option->letter == letter &&
            (!option->argument || !argument ||
             strncmp(argument, option->argument, strlen(option->argument)) == 0))
            return option;
    }
    return NULL;
}

/* A word of short options: "-e", "-S64", "-eS 64". */
static bool take_letters(struct words *words, struct startup *startup, struct guc_set **settings,
                         struct pg_error *error)
{
    for (const char *at = words->word + 1; *at; at++) {
        const struct option *option = find_option(*at, NULL);
        if (!option && *at != 'c' && *at != '-')
            return invalid(startup, error, words->word);
        if (option && option->value && !option->argument) {
            startup_put_setting(settings, option->setting, option->value);
            continue;
        }
        char letter = *at;
        bool attached =
            at[1] != '\0'; /* else the argument is the next word, which takes this one's place */
        if (!attached && !next_word(words))
            return invalid(startup, error, words->word);
        char *argument = attached ? (char *)at + 1 : words->word;
        if (!option)
            return take_setting(letter == 'c' ? "c" : "-", argument, startup, settings, error);
        option = find_option(letter, argument);
        if (!option)
            return invalid(startup, error, words->word);
        startup_put_setting(settings, option->setting, option->value ? option->value : argument);
        return true;
    }
    return true;
}

bool startup_take_options(const char *options, struct startup *startup, struct guc_set **settings,
                          struct pg_error *error)
{
    struct words words = {options, mem_alloc(strlen(options) + 1)};
    bool ok = true;
    while (ok && next_word(&words)) {
        if (words.word[0] != '-' || !words.word[1] || strcmp(words.word, "--") == 0)
            ok = invalid(startup, error, words.word);
        else
            ok = take_letters(&words, startup, settings, error);
    }
    free(words.word);
    return ok;
}
