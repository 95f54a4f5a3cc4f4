/* client_hba.h: which method the rules of auth.hba_file give a client. */
#ifndef PGSHUNT_PROXY_CLIENT_HBA_H
#define PGSHUNT_PROXY_CLIENT_HBA_H

#include "proxy/client.h"

enum hba_outcome {
    HBA_CHOSEN,
    HBA_REFUSED,     /* the rules do not let the client in; it was told so, in Postgres' words */
    HBA_WANTS_ROLES, /* they speak of members of roles, and `roles` is NULL */
    HBA_WANTS_HOST   /* ... of hosts' names, and `host` */
};

/* `roles`, `host`: as struct hba_visitor has them; NULL: not known yet. */
enum hba_outcome client_hba_method(struct client *client, const char *roles, const char *host,
                                   enum auth_method *method);

/* The client's IP address as text; "[local]" for a unix socket. */
void client_hba_address(const struct client *client, char *out, size_t size);

#endif
