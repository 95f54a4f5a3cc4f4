/*
 * config_support.h: what the tests of settings and configuration files share: snippets, a temporary
 * folder, captured output.
 */
#ifndef PGSHUNT_TESTS_CONFIG_SUPPORT_H
#define PGSHUNT_TESTS_CONFIG_SUPPORT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/config_internal.h"
#include "pgshunt/config.h"

#define TRUST "auth = { method = \"trust\"; };\n"
#define NODE "nodes = ( { host = \"h\"; } );"
#define SHARD "{ name = \"s0\"; " NODE " }"
#define DATABASE "databases = ( { name = \"app\"; shards = ( " SHARD " ); } );\n"

static char folder[] = "/tmp/pgshunt-settings-XXXXXX";

/* The same name gives the same pointer, good for the whole run. */
static inline const char *in_folder(const char *name)
{
    static char paths[16][200];
    char wanted[200];
    int i = 0;
    snprintf(wanted, sizeof wanted, "%s/%s", folder, name);
    while (paths[i][0] && strcmp(paths[i], wanted) != 0)
        assert_in_range(++i, 0, 15);
    return strcpy(paths[i], wanted);
}

static inline const char *write_file(const char *name, const char *text)
{
    const char *path = in_folder(name);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
    chmod(path, 0600);
    return path;
}

static inline struct config *load_text(const char *text)
{
    struct config_error error;
    struct config *config = config_load_text("test.conf", text, strlen(text), &error);
    if (!config)
        fail_msg("%s\nin: %s", error.text, text);
    return config;
}

static inline void check_refused(const char *text, const char *expected)
{
    struct config_error error;
    struct config *config = config_load_text("test.conf", text, strlen(text), &error);
    if (config)
        fail_msg("accepted, but should say: %s\nin: %s", expected, text);
    assert_string_equal(error.text, expected);
}

static inline int setting_index(const char *name)
{
    for (int i = 0; i < settings_count(); i++)
        if (strcmp(settings_info(i)->name, name) == 0)
            return i;
    fail_msg("no setting %s", name);
    return -1;
}

static inline void check_value(const struct config *config, const char *name, const char *expected)
{
    char value[300];
    settings_value(config, setting_index(name), value, sizeof value);
    assert_string_equal(value, expected);
}

/* Runs `action` with standard output and error going to files, and reads them. */
static char captured_out[65536], captured_err[4096];

static inline void slurp(const char *path, char *out, size_t size)
{
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    size_t length = fread(out, 1, size - 1, file);
    out[length] = 0;
    fclose(file);
}

static inline void capture(void (*action)(void *), void *context)
{
    int old_out = dup(1), old_err = dup(2);
    fflush(stdout);
    assert_non_null(freopen(in_folder("out"), "w", stdout));
    assert_non_null(freopen(in_folder("err"), "w", stderr));
    action(context);
    fflush(stdout);
    fflush(stderr);
    dup2(old_out, 1);
    dup2(old_err, 2);
    close(old_out);
    close(old_err);
    slurp(in_folder("out"), captured_out, sizeof captured_out);
    slurp(in_folder("err"), captured_err, sizeof captured_err);
}

static inline int make_folder(void **state)
{
    (void)state;
    return mkdtemp(folder) ? 0 : -1;
}

static inline int remove_folder(void **state)
{
    (void)state;
    static const char *const files[] = {"sub/deep.conf", "sub",       "inc.conf",   "main.conf",
                                        "shard.conf",    "list.conf", "users.conf", "u.conf",
                                        "out",           "err",       "o.conf",     "r.conf"};
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++)
        remove(in_folder(files[i]));
    return rmdir(folder);
}

#endif
