/*
 * credentials.h: what pgshunt may log in to servers with on behalf of an account (database, user), as
 * far as it is not in the configuration: the keys that a client's SCRAM login has proven, and an md5 or
 * plain secret that a look-up (auth_query.h) has found.
 *
 * One credential for all workers: what one client has proven serves the pools of every other client of
 * the account, on every worker, also for connections opened after it has left. It never holds a
 * password that was not in the secret already, and is in memory only.
 *
 * `version` grows with each change, so that a pool that was refused with the old keys need not wait
 * before it tries the new ones.
 */
#ifndef PGSHUNT_PROXY_CREDENTIALS_H
#define PGSHUNT_PROXY_CREDENTIALS_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "pgshunt/scram.h"

struct credential;

/* All of the process. */
struct credentials {
    pthread_mutex_t lock;
    struct credential *all;
};

void credentials_init(struct credentials *credentials);
void credentials_free(struct credentials *credentials);

/* The account's, made on demand; stays valid until credentials_free(). Thread-safe, as all below. */
struct credential *credential_get(struct credentials *credentials, const char *database,
                                  const char *user);
/* A client has proven these keys: they take the place of others. Keys that one server has refused are
 * not thrown away for it, since another server may still take them; the next login replaces them. */
void credential_prove(struct credential *credential, const struct scram_keys *keys);
/* False: nobody has proven any. */
bool credential_keys(struct credential *credential, struct scram_keys *keys);
/* An md5 or plain secret, found by a look-up and good for the client's login. NULL: none any more. */
void credential_keep_secret(struct credential *credential, const char *secret);
/* To be freed by the caller with credential_free_secret(); NULL: none. */
char *credential_secret(struct credential *credential);
void credential_free_secret(char *secret);
unsigned credential_version(const struct credential *credential);
/* Clients of this user of this database ask for currval() or lastval() outside transactions (sequences.h). */
void credential_note_last_value(struct credential *credential);
bool credential_asks_last_value(const struct credential *credential);

#endif
