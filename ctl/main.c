/* main.c: pgshuntctl: finds the command and lets it run. */
#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ctl/ctl.h"
#include "pgshunt/arena.h"

#define DEFAULT_CONFIG "/etc/pgshunt/pgshunt.conf"
#define COUNT(rows) ((int)(sizeof(rows) / sizeof(rows)[0]))

volatile sig_atomic_t ctl_stop;

/* clang-format off */
static const struct command commands[] = {
    {"explain", "SQL", "how a statement would be carried out; asks no server",
     cmd_explain_help, cmd_explain, false},
    {"failover", "SHARD [--to HOST:PORT]", "make a replica the primary of its shard",
     cmd_failover_help, cmd_failover, true},
    {"lookup", "VERB DATABASE [TABLE.COLUMN]", "find shards by other columns than the key",
     cmd_lookup_help, cmd_lookup, true},
    {"map", "show|record [DB]", "which shard has which buckets, and which proxies know",
     cmd_map_help, cmd_map, true},
    {"move-table", "VERB [NAME]", "bring tables into a keyspace, or out of it, while they are used",
     cmd_move_table_help, cmd_move_table, true},
    {"partition", "VERB [TABLE]", "partitions by time: made ahead, taken away in time",
     cmd_partition_help, cmd_partition, true},
    {"reference", "check|repair DB [TABLE]", "copies of reference tables: alike, and made so",
     cmd_reference_help, cmd_reference, true},
    {"reshard", "VERB [NAME]", "move live data between shards, and back",
     cmd_reshard_help, cmd_reshard, true},
    {"schema", "diff DB", "what is not alike in the schemas of shards",
     cmd_schema_help, cmd_schema, false},
    {"sequences", "setup|check|show DB", "ids that are unique over all shards",
     cmd_sequences_help, cmd_sequences, true},
    {"status", "", "every server and proxy: role, state, lag",
     cmd_status_help, cmd_status, false},
};
/* clang-format on */

/* ---- help ---- */

static void print_help(void)
{
    puts("pgshuntctl operates clusters behind pgshunt.\n\n"
         "Usage: pgshuntctl [-c FILE] COMMAND [ARGUMENTS]\n\nCommands:");
    for (int i = 0; i < COUNT(commands); i++) {
        char call[80];
        snprintf(call, sizeof call, "%s %s", commands[i].name, commands[i].arguments);
        printf("  %-32s %s\n", call, commands[i].summary);
    }
    puts("\nOptions of all commands:\n"
         "  -c, --config FILE   pgshunt's configuration file\n"
         "                      (default: " DEFAULT_CONFIG ")\n"
         "      --json          print JSON\n"
         "      --dry-run       only say what would be done, and what is in the way\n"
         "  -h, --help          print help, of a command when behind one, and exit\n"
         "  -V, --version       print the version, and exit\n\n"
         "Exit status: 0 done, 1 failed and nothing has changed, 2 the command line is wrong,\n"
         "3 refused because something is in the way, 4 done in part, 5 a look has found\n"
         "something wrong, 130 interrupted.");
}

static void print_command_help(const struct command *command)
{
    printf("Usage: pgshuntctl [-c FILE] %s%s%s [OPTIONS]\n\n%s: %s.\n\n%s", command->name,
           *command->arguments ? " " : "", command->arguments, command->name, command->summary,
           command->help);
}

static int usage_hint(const struct ctl *ctl)
{
    fprintf(stderr, "Try \"pgshuntctl %s%s--help\".\n", ctl->command ? ctl->command->name : "",
            ctl->command ? " " : "");
    return CTL_USAGE;
}

int ctl_usage(const struct ctl *ctl, const char *format, ...)
{
    va_list arguments;
    fputs("pgshuntctl: ", stderr);
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    return usage_hint(ctl);
}

/* ---- options ---- */

enum { OPTION_JSON = 1000, OPTION_DRY_RUN };

static const struct option common[] = {
    {"config", required_argument, NULL, 'c'},
    {"json", no_argument, NULL, OPTION_JSON},
    {"dry-run", no_argument, NULL, OPTION_DRY_RUN},
    {"help", no_argument, NULL, 'h'},
    {"version", no_argument, NULL, 'V'},
    {NULL, 0, NULL, 0},
};

/* Takes a common option. False: it is not one. */
static bool take_common(struct ctl *ctl, int option, int *status)
{
    switch (option) {
    case 'c':
        ctl->config_path = optarg;
        return true;
    case OPTION_JSON:
        ctl->json = true;
        return true;
    case OPTION_DRY_RUN:
        ctl->dry_run = true;
        return true;
    case 'h':
        if (ctl->command)
            print_command_help(ctl->command);
        else
            print_help();
        *status = CTL_DONE;
        return true;
    case 'V':
        puts("pgshuntctl " PGSHUNT_VERSION);
        *status = CTL_DONE;
        return true;
    default:
        return false;
    }
}

int ctl_option(struct ctl *ctl, int argc, char **argv, const char *letters,
               const struct option *options, int *status)
{
    struct option all[64];
    char short_options[64];
    int count = 0, option;
    for (; options && options[count].name && count < 48; count++)
        all[count] = options[count];
    memcpy(&all[count], common, sizeof common);
    snprintf(short_options, sizeof short_options, "%sc:hV", letters);
    *status = -1;
    while ((option = getopt_long(argc, argv, short_options, all, NULL)) != -1) {
        if (option == '?') {
            *status = usage_hint(ctl);
            return CTL_OPTION_EXIT;
        }
        if (!take_common(ctl, option, status))
            return option;
        if (*status >= 0)
            return CTL_OPTION_EXIT;
    }
    if (!ctl->dry_run || !ctl->command || ctl->command->changes)
        return -1;
    *status = ctl_usage(ctl, "%s changes nothing, so there is no --dry-run", ctl->command->name);
    return CTL_OPTION_EXIT;
}

bool ctl_load_config(struct ctl *ctl)
{
    if (ctl->config)
        return true;
    struct config_error error;
    ctl->config = config_load(ctl->config_path, &error);
    if (!ctl->config)
        fprintf(stderr, "pgshuntctl: %s\nName the configuration file of pgshunt with -c FILE.\n",
                error.text);
    return ctl->config != NULL;
}

int64_t ctl_duration(const char *text)
{
    static const struct {
        const char *name;
        int64_t factor;
    } units[] = {{"ms", 1}, {"s", 1000}, {"min", 60000}};
    char *end;
    errno = 0;
    long long number = strtoll(text, &end, 10);
    if (end == text || errno || number < 0 || number > 3600000 || !isdigit((unsigned char)*text))
        return -1;
    for (int i = 0; i < COUNT(units); i++)
        if (strcmp(end, units[i].name) == 0)
            return number * units[i].factor <= 3600000 ? number * units[i].factor : -1;
    return -1;
}

int64_t ctl_size(const char *text)
{
    static const struct {
        const char *name;
        int64_t factor;
    } units[] = {{"kB", 1 << 10}, {"MB", 1 << 20}, {"GB", 1 << 30}, {"TB", INT64_C(1) << 40}};
    char *end;
    errno = 0;
    long long number = strtoll(text, &end, 10);
    if (end == text || errno || number < 0 || !isdigit((unsigned char)*text))
        return -1;
    for (int i = 0; i < COUNT(units); i++) {
        size_t length = strlen(units[i].name);
        if (strncmp(end, units[i].name, length) == 0 &&
            (!end[length] || strcmp(end + length, "/s") == 0))
            return number <= INT64_MAX / units[i].factor ? number * units[i].factor : -1;
    }
    return -1;
}

char *ctl_address(const char *text, int *port)
{
    const char *colon = strrchr(text, ':');
    char *end, *host;
    long number = colon ? strtol(colon + 1, &end, 10) : 0;
    if (!colon || colon == text || !isdigit((unsigned char)colon[1]) || *end || number < 1 ||
        number > 65535)
        return NULL;
    size_t length = (size_t)(colon - text);
    bool brackets = text[0] == '[' && length > 2 && colon[-1] == ']';
    host = mem_strdup(text + brackets);
    host[length - 2 * (size_t)brackets] = '\0';
    *port = (int)number;
    return host;
}

/* ---- the start ---- */

static void on_signal(int number)
{
    (void)number;
    ctl_stop = 1;
}

/* The first one lets a command stop where it may; it is not restarted, so that waits end. A pipe that
 * nobody reads any more must not end a failover in its middle. */
static void catch_signals(void)
{
    struct sigaction action = {.sa_handler = on_signal};
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGHUP, &action, NULL);
    signal(SIGPIPE, SIG_IGN);
}

static const struct command *find_command(const char *name)
{
    for (int i = 0; i < COUNT(commands); i++)
        if (strcmp(commands[i].name, name) == 0)
            return &commands[i];
    return NULL;
}

/* Options ahead of the command. Returns -1 to go on, else the exit code. */
static int take_leading(struct ctl *ctl, int argc, char **argv)
{
    int status;
    optind = 0;
    while (ctl_option(ctl, argc, argv, "+", NULL, &status) == CTL_OPTION_EXIT)
        return status;
    if (optind >= argc)
        return ctl_usage(ctl, "which command? \"pgshuntctl help\" lists them");
    if (strcmp(argv[optind], "help") == 0) {
        const struct command *about = optind + 1 < argc ? find_command(argv[optind + 1]) : NULL;
        if (about)
            print_command_help(about);
        else
            print_help();
        return CTL_DONE;
    }
    ctl->command = find_command(argv[optind]);
    return ctl->command ? -1 : ctl_usage(ctl, "there is no command \"%s\"", argv[optind]);
}

int main(int argc, char **argv)
{
    struct ctl ctl = {.config_path = DEFAULT_CONFIG};
    int status = take_leading(&ctl, argc, argv);
    if (status >= 0)
        return status;
    int first = optind;
    optind = 0; /* glibc: start over */
    catch_signals();
    status = ctl.command->run(&ctl, argc - first, argv + first);
    if (ctl.config)
        config_free(ctl.config);
    if (fflush(stdout) != 0 && status == CTL_DONE && errno != EPIPE)
        status = CTL_FAILED;
    return status;
}
