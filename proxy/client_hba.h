/* client_hba.h: which method the rules of auth.hba_file give a client. */
#ifndef PGSHUNT_PROXY_CLIENT_HBA_H
#define PGSHUNT_PROXY_CLIENT_HBA_H

#include "proxy/client.h"

/* False: the rules do not let the client in; it was told so, in Postgres' words. */
MUST_CHECK bool client_hba_method(struct client *client, enum auth_method *method);

#endif
