/*
 * server_secret.h: which secret a login to a server uses, and what to do where the server refuses it.
 *
 * In this order: password of the database's `user`; the users file's secret of the user; the secret a
 * look-up (auth_query) found; the keys that the account's clients have proven. A stored SCRAM secret
 * opens nothing by itself, so with one of those only the keys do.
 */
#ifndef PGSHUNT_PROXY_SERVER_SECRET_H
#define PGSHUNT_PROXY_SERVER_SECRET_H

#include "pgshunt/scram.h"
#include "proxy/server.h"

enum secret_source {
    SECRET_NONE,
    SECRET_DATABASE,   /* databases[].password */
    SECRET_USERS_FILE, /* plain or md5 */
    SECRET_LOOK_UP,    /* plain or md5 */
    SECRET_PROVEN,     /* keys */
};

struct server_secret {
    enum secret_source source;
    char *text;             /* owned; plain or md5; NULL with PROVEN and NONE */
    struct scram_keys keys; /* PROVEN */
};

/* Fills `secret`; release it with server_secret_release(). */
void server_secret_find(const struct server *server, struct server_secret *secret);
void server_secret_release(struct server_secret *secret);
bool server_secret_is_plain(const struct server_secret *secret);

/* The server refused the login: what a look-up found may be out of date, and is not believed any more.
 * Proven keys stay, because another server may still take them; the next login replaces them. */
void server_secret_refused(const struct server *server, const char *sqlstate);
/* What to do about a refused login, by SQLSTATE: names the setting to change. Static text. */
const char *server_secret_hint(const struct server *server, const char *sqlstate);

#endif
