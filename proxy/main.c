/* main.c: command line in, daemon out. */
#include <stdio.h>

#include "pgshunt/config.h"
#include "proxy/daemon.h"
#include "proxy/options.h"
#include "proxy/takeover.h"

int main(int argc, char **argv)
{
    struct options options;
    struct config_error error;
    int status = options_parse(&options, argc, argv);
    if (status != OPTIONS_GO_ON)
        return status;
    struct config *config = config_load(options.config_path, &error);
    if (!config) {
        fprintf(stderr, "pgshunt: %s\n", error.text);
        return 1;
    }
    if (options.restart) {
        status = takeover_restart(config);
        config_free(config);
        return status;
    }
    return daemon_run(config, options.takeover);
}
