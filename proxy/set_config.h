/*
 * set_config.h: what a statement's calls of set_config() set, found from its text and parameters, so
 * that they are tracked as SET is. Pure.
 */
#ifndef PGSHUNT_PROXY_SET_CONFIG_H
#define PGSHUNT_PROXY_SET_CONFIG_H

#include "pgshunt/plan.h"
#include "proxy/guc.h"

/*
 * Appends to `changes` what the statement sets if it gives rows (a result of no rows sets nothing).
 * params NULL: there are none. False: some call sets for the session what cannot be told from outside
 * (a computed name or value); then nothing is known.
 */
bool set_config_changes(const struct statement *statement, const struct params *params,
                        struct guc_pending *changes);

#endif
