/*
 * options.h: the daemon's command line.
 *
 *   int status = options_parse(&options, argc, argv);
 *   if (status != OPTIONS_GO_ON)
 *       return status;
 */
#ifndef PGSHUNT_PROXY_OPTIONS_H
#define PGSHUNT_PROXY_OPTIONS_H

#include <stdbool.h>

#define OPTIONS_DEFAULT_CONFIG "/etc/pgshunt/pgshunt.conf"

/* Returned by options_parse: start the daemon. Exit codes are never negative. */
#define OPTIONS_GO_ON (-1)

struct options {
    const char *config_path; /* points into argv, or the default */
    bool takeover;           /* go on in place of the process that listens there */
    bool restart;            /* only tell that one to replace itself */
};

/*
 * Parses the command line. --help, --version, --help-config and --check-config do their work here
 * (on standard output; errors on standard error). Returns OPTIONS_GO_ON or the exit code: 0 done, 1 the
 * configuration is bad, 2 the command line is.
 */
int options_parse(struct options *options, int argc, char **argv);

#endif
