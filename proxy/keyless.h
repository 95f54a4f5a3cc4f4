/* keyless.h: fan-outs without a key that require_key warns of or refuses: counted, told, logged. */
#ifndef PGSHUNT_PROXY_KEYLESS_H
#define PGSHUNT_PROXY_KEYLESS_H

#include "pgshunt/error.h"

struct client;
struct plan;
struct statement;

/* The client's statement runs, or is refused, as this plan has it. `statement` NULL: not known. */
COLD void keyless_planned(struct client *client, const struct plan *plan,
                          const struct statement *statement);

#endif
