/* test_settings.c: the settings table, its units, defaults, ranges and pages; the command line. */
#include <limits.h>

#include "proxy/options.h"
#include "tests/unit/config_support.h"

/* ---- numbers ---- */

struct number_case {
    enum setting_kind kind;
    const char *text;
    int64_t value;
    const char *formatted; /* NULL: the text is refused */
};

static const struct number_case numbers[] = {
    {SETTING_DURATION, "250ms", 250, "250ms"},
    {SETTING_DURATION, "1s", 1000, "1s"},
    {SETTING_DURATION, "1000ms", 1000, "1s"},
    {SETTING_DURATION, "90s", 90000, "90s"},
    {SETTING_DURATION, "10min", 600000, "10min"},
    {SETTING_DURATION, "10 min", 600000, "10min"},
    {SETTING_DURATION, "60min", 3600000, "1h"},
    {SETTING_DURATION, "24h", 86400000, "1d"},
    {SETTING_DURATION, "0s", 0, "0s"},
    {SETTING_DURATION, "0d", 0, "0s"},
    {SETTING_DURATION, "-1s", -1000, "-1s"},
    {SETTING_DURATION, "1", 0, NULL},
    {SETTING_DURATION, "0", 0, NULL},
    {SETTING_DURATION, "", 0, NULL},
    {SETTING_DURATION, "s", 0, NULL},
    {SETTING_DURATION, "-", 0, NULL},
    {SETTING_DURATION, " 1s", 0, NULL},
    {SETTING_DURATION, "1s ", 0, NULL},
    {SETTING_DURATION, "1.5s", 0, NULL},
    {SETTING_DURATION, "1S", 0, NULL},
    {SETTING_DURATION, "1sec", 0, NULL},
    {SETTING_DURATION, "1MB", 0, NULL},
    {SETTING_DURATION, "+1s", 0, NULL},
    {SETTING_DURATION, "106751991168d", 0, NULL},
    {SETTING_DURATION, "106751991167d", 106751991167 * 86400000, "106751991167d"},
    {SETTING_DURATION, "9223372036854775808ms", 0, NULL},
    {SETTING_DURATION, "99999999999999999999ms", 0, NULL},
    {SETTING_SIZE, "64MB", 64 << 20, "64MB"},
    {SETTING_SIZE, "1B", 1, "1B"},
    {SETTING_SIZE, "1024B", 1024, "1kB"},
    {SETTING_SIZE, "1025B", 1025, "1025B"},
    {SETTING_SIZE, "1024kB", 1 << 20, "1MB"},
    {SETTING_SIZE, "2GB", 2LL << 30, "2GB"},
    {SETTING_SIZE, "3TB", 3LL << 40, "3TB"},
    {SETTING_SIZE, "0B", 0, "0B"},
    {SETTING_SIZE, "64mb", 0, NULL},
    {SETTING_SIZE, "64M", 0, NULL},
    {SETTING_SIZE, "64", 0, NULL},
    {SETTING_SIZE, "8388608TB", 0, NULL},
    {SETTING_INTEGER, "42", 42, "42"},
    {SETTING_INTEGER, "0", 0, "0"},
    {SETTING_INTEGER, "-42", -42, "-42"},
    {SETTING_INTEGER, "42ms", 0, NULL},
};

static void test_numbers(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        const struct number_case *c = &numbers[i];
        int64_t value = 0;
        char text[40];
        bool ok = config_number_parse(c->kind, c->text, &value);
        if (ok != (c->formatted != NULL))
            fail_msg("\"%s\" was %s", c->text, ok ? "taken" : "refused");
        if (!ok)
            continue;
        assert_int_equal(value, c->value);
        config_number_format(c->kind, value, text, sizeof text);
        assert_string_equal(text, c->formatted);
    }
}

static void test_distance(void **state)
{
    (void)state;
    assert_int_equal(config_distance("port", "port"), 0);
    assert_int_equal(config_distance("prot", "port"), 1);
    assert_int_equal(config_distance("PORT", "port"), 0);
    assert_int_equal(config_distance("max-lag", "max_lag"), 1);
    assert_int_equal(config_distance("databse", "databases"), 2);
    assert_int_equal(config_distance("scram", "scram-sha-256"), 1);
    assert_int_equal(config_distance("port", "size"), INT_MAX);
    assert_int_equal(config_distance("", "a"), INT_MAX);
    assert_int_equal(config_distance("xy", "ab"), INT_MAX);
    char longer[200];
    memset(longer, 'a', sizeof longer - 1);
    longer[sizeof longer - 1] = 0;
    assert_int_equal(config_distance(longer, longer), INT_MAX);
}

/* ---- the table ---- */

static void test_table_is_complete(void **state)
{
    (void)state;
    assert_true(settings_count() > 25);
    for (int i = 0; i < settings_count(); i++) {
        const struct setting_info *info = settings_info(i);
        assert_non_null(info->name);
        assert_non_null(info->type);
        assert_non_null(info->initial);
        assert_non_null(info->range);
        assert_true(strlen(info->help) > 10);
        for (int j = 0; j < i; j++)
            assert_string_not_equal(info->name, settings_info(j)->name);
    }
}

/* A configuration with one setting written out. */
static void text_with(const char *name, const char *value, char *out, size_t size)
{
    const char *dot = strchr(name, '.');
    bool auth = strncmp(name, "auth.", 5) == 0;
    if (auth)
        snprintf(out, size, "auth = { method = \"trust\"; %s = %s; };\n" DATABASE, dot + 1, value);
    else if (dot)
        snprintf(out, size, TRUST "%.*s = { %s = %s; };\n" DATABASE, (int)(dot - name), name,
                 dot + 1, value);
    else
        snprintf(out, size, TRUST "%s = %s;\n" DATABASE, name, value);
}

static void written(const struct setting_info *info, const char *value, char *out, size_t size)
{
    bool bare = strcmp(info->type, "integer") == 0 || strcmp(info->type, "boolean") == 0;
    snprintf(out, size, bare ? "%s" : "\"%s\"", value);
}

/* Each default is in force when nothing is written, and can be written. */
static void test_defaults(void **state)
{
    (void)state;
    struct config *bare = load_text(TRUST DATABASE);
    for (int i = 0; i < settings_count(); i++) {
        const struct setting_info *info = settings_info(i);
        char text[2000], value[200];
        if (strcmp(info->name, "auth.method") == 0)
            continue;
        if (strcmp(info->name, "workers") != 0 && strcmp(info->name, "http.port") != 0)
            check_value(bare, info->name, info->initial);
        written(info, info->initial, value, sizeof value);
        text_with(info->name, value, text, sizeof text);
        struct config *config = load_text(text);
        if (strcmp(info->name, "workers") != 0)
            check_value(config, info->name, info->initial);
        config_free(config);
    }
    assert_int_equal(bare->http_port, 0);
    assert_string_equal(bare->http_address, "127.0.0.1");
    config_free(bare);
}

/* Both ends of each range are taken, one beyond is not. */
static void test_ranges(void **state)
{
    (void)state;
    const enum setting_kind kinds[] = {SETTING_INTEGER, SETTING_DURATION, SETTING_SIZE};
    const char *const names[] = {"integer", "duration", "size"};
    int checked = 0;
    for (int i = 0; i < settings_count(); i++) {
        const struct setting_info *info = settings_info(i);
        for (int k = 0; k < 3; k++) {
            char low[40], high[40], beyond[40], value[60], text[2000];
            int64_t number;
            struct config_error error;
            if (strcmp(info->type, names[k]) != 0)
                continue;
            assert_int_equal(sscanf(info->range, "%39s .. %39s", low, high), 2);
            written(info, low, value, sizeof value);
            text_with(info->name, value, text, sizeof text);
            config_free(load_text(text));
            written(info, high, value, sizeof value);
            text_with(info->name, value, text, sizeof text);
            struct config *config = load_text(text);
            check_value(config, info->name, high);
            config_free(config);
            assert_true(config_number_parse(kinds[k], high, &number));
            config_number_format(kinds[k], number + 1, beyond, sizeof beyond);
            written(info, beyond, value, sizeof value);
            text_with(info->name, value, text, sizeof text);
            assert_null(config_load_text("test.conf", text, strlen(text), &error));
            assert_non_null(strstr(error.text, info->range));
            checked++;
        }
    }
    assert_true(checked >= 15);
}

/* ---- what ships ---- */

static void test_shipped_example(void **state)
{
    (void)state;
    struct config_error error;
    char *text = captured_out, wanted[200];
    log_configure(LOG_ERROR, LOG_FORMAT_LOGFMT);
    struct config *config = config_load("etc/pgshunt.conf", &error);
    log_configure(LOG_INFO, LOG_FORMAT_LOGFMT);
    if (!config)
        fail_msg("%s", error.text);
    assert_string_equal(config->users_file, "etc/users.conf");
    assert_true(config_user(config, "ops")->admin);
    /* every setting is in it, with its default where it is not written for the example's sake */
    slurp("etc/pgshunt.conf", text, sizeof captured_out);
    for (int i = 0; i < settings_count(); i++) {
        const struct setting_info *info = settings_info(i);
        const char *dot = strchr(info->name, '.');
        char value[100];
        written(info, info->initial, value, sizeof value);
        if (strcmp(info->name, "auth.users_file") == 0)
            snprintf(value, sizeof value, "\"users.conf\"");
        snprintf(wanted, sizeof wanted, " %s = %s;", dot ? dot + 1 : info->name, value);
        if (!strstr(text, wanted))
            fail_msg("etc/pgshunt.conf does not have%s", wanted);
        if (strcmp(info->name, "auth.users_file") != 0 && strcmp(info->name, "workers") != 0)
            check_value(config, info->name, info->initial);
    }
    config_free(config);
}

static void test_reference_page_is_current(void **state)
{
    (void)state;
    char *made = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&made, &size);
    settings_print_markdown(out);
    fclose(out);
    slurp("docs/reference/settings.md", captured_out, sizeof captured_out);
    if (strcmp(captured_out, made) != 0)
        fail_msg("docs/reference/settings.md is old: write it anew with pgshunt "
                 "--help-config=markdown");
    free(made);
}

static void test_help_lists_everything(void **state)
{
    (void)state;
    char *made = NULL, wanted[100];
    size_t size = 0;
    FILE *out = open_memstream(&made, &size);
    settings_print_help(out);
    fclose(out);
    for (int i = 0; i < settings_count(); i++) {
        snprintf(wanted, sizeof wanted, "\n  %s = ", settings_info(i)->name);
        assert_non_null(strstr(made, wanted));
    }
    assert_non_null(strstr(made, "\ndatabases.shards.nodes = ( { ... }, ... )\n"));
    assert_non_null(strstr(made, "\n  host = required\n"));
    assert_non_null(strstr(made, "\nusers = ( { ... }, ... )\n"));
    for (const char *line = made; *line; line += strcspn(line, "\n") + 1)
        assert_true(strcspn(line, "\n") <= 100);
    free(made);
}

/* ---- command line ---- */

struct command {
    const char *arguments[6];
    int status;
    const char *config_path; /* with OPTIONS_GO_ON */
    const char *out;         /* beginning of standard output */
    const char *err;         /* somewhere in standard error */
};

struct command_run {
    const struct command *command;
    struct options options;
    int status;
};

static void run_command(void *context)
{
    struct command_run *run = context;
    char *argv[8] = {(char[]){"pgshunt"}};
    int argc = 1;
    for (; argc < 7 && run->command->arguments[argc - 1]; argc++)
        argv[argc] = strdup(run->command->arguments[argc - 1]);
    run->status = options_parse(&run->options, argc, argv);
    /* config_path points into argv: keep it for the check */
    for (int i = 1; i < argc; i++)
        if (run->options.config_path != argv[i])
            free(argv[i]);
}

static const struct command commands[] = {
    {{NULL}, OPTIONS_GO_ON, "/etc/pgshunt/pgshunt.conf", "", ""},
    {{"-c", "x.conf"}, OPTIONS_GO_ON, "x.conf", "", ""},
    {{"--config", "x.conf"}, OPTIONS_GO_ON, "x.conf", "", ""},
    {{"--takeover"}, OPTIONS_GO_ON, "/etc/pgshunt/pgshunt.conf", "", ""},
    {{"-c", "x.conf", "--restart"}, OPTIONS_GO_ON, "x.conf", "", ""},
    {{"--restart", "--takeover"}, 2, NULL, "", "--restart makes the running pgshunt"},
    {{"--help"}, 0, NULL, "pgshunt is a sharding and read/write-routing proxy", ""},
    {{"-h"}, 0, NULL, "pgshunt is a sharding and read/write-routing proxy", ""},
    {{"--version"}, 0, NULL, "pgshunt " PGSHUNT_VERSION "\n", ""},
    {{"-V"}, 0, NULL, "pgshunt " PGSHUNT_VERSION "\n", ""},
    {{"--help-config"}, 0, NULL, "Settings of the configuration file", ""},
    {{"--help-config=text"}, 0, NULL, "Settings of the configuration file", ""},
    {{"--help-config=markdown"}, 0, NULL, "# Settings\n", ""},
    {{"--help-config=html"}, 2, NULL, "", "--help-config takes markdown or nothing, not html"},
    {{"-c", "etc/pgshunt.conf", "--check-config"},
     0,
     "etc/pgshunt.conf",
     "etc/pgshunt.conf: ok (2 databases, 3 shards, 5 nodes, 3 users)\n",
     ""},
    {{"--check-config", "-c", "/nonexistent.conf"},
     1,
     "/nonexistent.conf",
     "",
     "/nonexistent.conf: found no such file; allowed: a readable file\n"},
    {{"--nonsense"}, 2, NULL, "", "Try \"pgshunt --help\""},
    {{"-c"}, 2, NULL, "", "Try \"pgshunt --help\""},
    {{"start"}, 2, NULL, "", "unexpected argument: start"},
};

static bool has_argument(const struct command *command, const char *word)
{
    for (int i = 0; command->arguments[i]; i++)
        if (strcmp(command->arguments[i], word) == 0)
            return true;
    return false;
}

static void test_command_line(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++) {
        struct command_run run = {.command = &commands[i]};
        capture(run_command, &run);
        assert_int_equal(run.status, commands[i].status);
        if (run.status == OPTIONS_GO_ON) {
            assert_int_equal(run.options.takeover, has_argument(&commands[i], "--takeover"));
            assert_int_equal(run.options.restart, has_argument(&commands[i], "--restart"));
        }
        assert_memory_equal(captured_out, commands[i].out, strlen(commands[i].out));
        if (!commands[i].out[0])
            assert_string_equal(captured_out, "");
        assert_non_null(strstr(captured_err, commands[i].err));
        if (commands[i].config_path)
            assert_string_equal(run.options.config_path, commands[i].config_path);
        if (run.options.config_path && strcmp(run.options.config_path, OPTIONS_DEFAULT_CONFIG) != 0)
            free((char *)run.options.config_path);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_numbers),
        cmocka_unit_test(test_distance),
        cmocka_unit_test(test_table_is_complete),
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_ranges),
        cmocka_unit_test(test_shipped_example),
        cmocka_unit_test(test_reference_page_is_current),
        cmocka_unit_test(test_help_lists_everything),
        cmocka_unit_test(test_command_line),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
