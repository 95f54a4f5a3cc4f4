/* options.c: parses the daemon's command line and answers the options that only print. */
#include "proxy/options.h"

#include <getopt.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "pgshunt/config.h"
#include "proxy/tls_context.h"

#define EXIT_DONE 0
#define EXIT_BAD_CONFIG 1
#define EXIT_BAD_USAGE 2

enum action {
    ACTION_RUN,
    ACTION_CHECK,
    ACTION_HELP,
    ACTION_VERSION,
    ACTION_SETTINGS,
    ACTION_MARKDOWN
};

/* Values of the long options that have no letter. */
enum { OPTION_CHECK_CONFIG = 256, OPTION_HELP_CONFIG, OPTION_TAKEOVER, OPTION_RESTART };

static const struct option long_options[] = {
    {"config", required_argument, NULL, 'c'},
    {"check-config", no_argument, NULL, OPTION_CHECK_CONFIG},
    {"help", no_argument, NULL, 'h'},
    {"help-config", optional_argument, NULL, OPTION_HELP_CONFIG},
    {"restart", no_argument, NULL, OPTION_RESTART},
    {"takeover", no_argument, NULL, OPTION_TAKEOVER},
    {"version", no_argument, NULL, 'V'},
    {NULL, 0, NULL, 0},
};

static void print_help(void)
{
    puts(
        "pgshunt is a sharding and read/write-routing proxy for PostgreSQL.\n"
        "\n"
        "Usage: pgshunt [-c FILE] [--takeover]\n"
        "       pgshunt [-c FILE] --restart\n"
        "       pgshunt [-c FILE] --check-config\n"
        "\n"
        "  -c, --config FILE         configuration file\n"
        "                            (default: " OPTIONS_DEFAULT_CONFIG ")\n"
        "      --takeover            if a pgshunt listens there, go on in its place: it finishes\n"
        "                            its clients' transactions, and no connection is refused\n"
        "      --restart             tell the running pgshunt to start the program anew in its\n"
        "                            place (by --takeover), wait until it serves, and exit\n"
        "      --check-config        say whether the configuration is good, and exit\n"
        "      --help-config         list all settings with their defaults, and exit\n"
        "      --help-config=markdown\n"
        "                            the same as a markdown page\n"
        "  -h, --help                print this, and exit\n"
        "  -V, --version             print the version, and exit\n"
        "\n"
        "pgshunt stays in the foreground and logs to standard error. Signals:\n"
        "  SIGHUP                    load the configuration again; a bad one is refused, and the\n"
        "                            old one stays in force\n"
        "  SIGTERM                   let running transactions finish (up to shutdown_timeout),\n"
        "                            then exit\n"
        "  SIGUSR2                   take no new clients, exit when the last one has left\n"
        "  SIGINT                    disconnect all clients (their transactions are rolled back),\n"
        "                            then exit\n"
        "  SIGQUIT                   exit at once\n"
        "\n"
        "Exit status: 0 done, 1 the configuration is bad or the start failed, 2 the command line\n"
        "is wrong.\n"
        "\n"
        "To look inside a running proxy, connect to its console as a user with admin = true:\n"
        "  psql -h 127.0.0.1 -p 6432 -U USER pgshunt -c 'SHOW NODES'");
}

static void count(char *out, size_t size, int number, const char *noun)
{
    size_t used = strlen(out);
    snprintf(out + used, size - used, "%s%d %s%s", used ? ", " : "", number, noun,
             number == 1 ? "" : "s");
}

/* "etc/pgshunt.conf: ok (1 database, 2 shards, 4 nodes, 3 users)" */
static int check_config(const char *path)
{
    char counts[200] = "";
    int shards = 0, nodes = 0;
    struct config_error error;
    struct config *config = config_load(path, &error);
    if (!config) {
        fprintf(stderr, "%s\n", error.text);
        return EXIT_BAD_CONFIG;
    }
    struct tls_setup *tls = tls_setup_new(config, error.text, sizeof error.text);
    if (!tls) {
        fprintf(stderr, "%s: %s\n", path, error.text);
        config_free(config);
        return EXIT_BAD_CONFIG;
    }
    tls_setup_unref(tls);
    for (int i = 0; i < config->ndatabases; i++) {
        shards += config->databases[i].nshards;
        for (int j = 0; j < config->databases[i].nshards; j++)
            nodes += config->databases[i].shards[j].nnodes;
    }
    count(counts, sizeof counts, config->ndatabases, "database");
    count(counts, sizeof counts, shards, "shard");
    count(counts, sizeof counts, nodes, "node");
    count(counts, sizeof counts, config->nusers, "user");
    printf("%s: ok (%s)\n", path, counts);
    config_free(config);
    return EXIT_DONE;
}

static int usage_error(const char *text, const char *word)
{
    fprintf(stderr, "pgshunt: %s%s\nTry \"pgshunt --help\".\n", text, word);
    return EXIT_BAD_USAGE;
}

/* One option. False: it is wrong, and said so (getopt_long, or here). */
static bool take_option(int option, struct options *options, enum action *action)
{
    switch (option) {
    case 'c':
        options->config_path = optarg;
        return true;
    case 'h':
        *action = ACTION_HELP;
        return true;
    case 'V':
        *action = ACTION_VERSION;
        return true;
    case OPTION_TAKEOVER:
        options->takeover = true;
        return true;
    case OPTION_RESTART:
        options->restart = true;
        return true;
    case OPTION_CHECK_CONFIG:
        *action = ACTION_CHECK;
        return true;
    case OPTION_HELP_CONFIG:
        *action = optarg && strcmp(optarg, "markdown") == 0 ? ACTION_MARKDOWN : ACTION_SETTINGS;
        if (!optarg || strcmp(optarg, "markdown") == 0 || strcmp(optarg, "text") == 0)
            return true;
        usage_error("--help-config takes markdown or nothing, not ", optarg);
        return false;
    default:
        fputs("Try \"pgshunt --help\".\n", stderr);
        return false;
    }
}

static int perform(enum action action, const struct options *options)
{
    switch (action) {
    case ACTION_CHECK:
        return check_config(options->config_path);
    case ACTION_HELP:
        print_help();
        return EXIT_DONE;
    case ACTION_VERSION:
        puts("pgshunt " PGSHUNT_VERSION);
        return EXIT_DONE;
    case ACTION_SETTINGS:
        settings_print_help(stdout);
        return EXIT_DONE;
    case ACTION_MARKDOWN:
        settings_print_markdown(stdout);
        return EXIT_DONE;
    case ACTION_RUN:
        break;
    }
    return OPTIONS_GO_ON;
}

int options_parse(struct options *options, int argc, char **argv)
{
    enum action action = ACTION_RUN;
    int option;
    *options = (struct options){.config_path = OPTIONS_DEFAULT_CONFIG};
    optind = 0; /* glibc: start over, also when called a second time */
    while ((option = getopt_long(argc, argv, "c:hV", long_options, NULL)) != -1)
        if (!take_option(option, options, &action))
            return EXIT_BAD_USAGE;
    if (optind < argc)
        return usage_error("unexpected argument: ", argv[optind]);
    if (options->takeover && options->restart)
        return usage_error("--restart makes the running pgshunt start a successor, which is given ",
                           "--takeover: leave that out here");
    return perform(action, options);
}
