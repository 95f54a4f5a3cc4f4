/*
 * welcome.h: the greeting of a client: the parameters its sessions have (ParameterStatus messages).
 *
 * They depend on the database, the user and the settings of the startup packet. The first client of a
 * kind is greeted after a server was asked (which also judges the settings); the greeting is kept, so
 * that later ones need no server to connect.
 */
#ifndef PGSHUNT_PROXY_WELCOME_H
#define PGSHUNT_PROXY_WELCOME_H

#include "pgshunt/buffer.h"
#include "proxy/client.h"

struct welcome;

/* The greeting's ParameterStatus messages, or NULL: not known yet. The client counts as told. */
const struct buffer *welcome_find(struct worker *worker, struct client *client);
/* Learns it from a server that carries the client's settings. */
const struct buffer *welcome_learn(struct worker *worker, struct client *client,
                                   struct server *server);
void welcomes_forget(struct worker *worker);

#endif
