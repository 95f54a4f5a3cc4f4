/*
 * client_auth.h: who a client is: which method applies to it, where its secret comes from, and what
 * follows from its answer.
 *
 *   begin --rules of a pg_hba.conf speak of roles or hosts --> look-up (waiting) --> begin
 *     |  '--trust, cert----------------------------------------------------> accepted
 *     '--> secret: users file, else look-up (waiting) --> asked --> answer --> accepted
 *                                                            |          '----> looked up anew, once
 *                                                            '------> refused (after a delay)
 *
 * Users who do not exist go through the same steps as others and fail at the end.
 */
#ifndef PGSHUNT_PROXY_CLIENT_AUTH_H
#define PGSHUNT_PROXY_CLIENT_AUTH_H

#include "proxy/auth_query.h"
#include "proxy/client.h"

/* Exists from the startup packet to the end of the authentication. */
struct client_auth {
    struct client *client;
    enum auth_method method;  /* HBA until a rule is chosen */
    char *database;           /* owned: where the user is looked up; NULL: nowhere */
    char *secret;             /* owned; NULL: the user has none */
    bool looked_up;           /* it came from auth.query */
    bool looked_up_anew;      /* ... a second time, because the answer did not fit */
    enum look_up_kind wants;  /* what is looked up */
    char *roles;              /* owned: as struct hba_visitor has it; NULL: not asked for so far */
    char *host;               /* owned: likewise */
    bool waiting;             /* for a look-up: nothing is read meanwhile */
    uint64_t ticket;          /* of that look-up */
    int64_t fetched_at;       /* when the server was asked */
    char *answer;             /* owned: the client's, while its secret is looked up anew */
    int64_t refuse_at;        /* clock_us; 0: is not being refused */
    struct list_node refused; /* worker->refused */
};

/* The startup packet is there: asks the client for what its method wants. */
void client_auth_begin(struct client *client);
/* A PasswordMessage or SASL message. */
void client_auth_message(struct client *client, const char *body, size_t len);
/* A look-up that some client waited for has come to an end. */
void client_auth_looked_up(struct worker *worker, int32_t client, uint64_t ticket,
                           const struct looked_up *found);
/* The SCRAM exchange ended well; `keys` are what it has proven. */
void client_auth_scram_passed(struct client *client, const struct scram_keys *keys);
/* Wrong password: says so, after auth.failure_delay. */
void client_auth_refuse(struct client *client);
/* Whether nothing of the client is to be read now: it waits for us. */
bool client_auth_is_waiting(const struct client *client);
void client_auth_free(struct client *client);
/* Ten times a second: refusals whose delay is over. */
void client_auth_tick(struct worker *worker, int64_t now);

#endif
