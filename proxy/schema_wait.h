/*
 * schema_wait.h: statements that wait for a fresh schema.
 *
 * A plan may hang on a relation that the schema snapshot does not know: a table made a moment ago, or
 * a view over sharded tables. Such a statement asks the monitor to read the catalog again and is
 * planned anew when that has happened. Where the snapshot is fresh enough nothing waits: the relation
 * is unknown to the server too, or temporary. It waits as long as for a server (query_wait_timeout), and is refused
 * then: never planned by a schema that may be another now.
 */
#ifndef PGSHUNT_PROXY_SCHEMA_WAIT_H
#define PGSHUNT_PROXY_SCHEMA_WAIT_H

#include "pgshunt/error.h"
#include "proxy/client.h"

/* The plan says that it needs to know more. True: the client waits (state WAITING) and its session
 * goes on by itself; false: nothing newer is to be had, the plan stands as it is. */
COLD bool schema_wait(struct client *client, enum schema_need need);
void schema_wait_cancel(struct client *client); /* also when it does not wait */

#endif
