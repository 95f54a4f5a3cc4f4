/* credentials.c: keys and secrets for logins to servers, shared by all workers. */
#include "proxy/credentials.h"

#include <openssl/crypto.h>
#include <stdlib.h>
#include <string.h>
#include <uthash.h>

#include "pgshunt/arena.h"

struct credential {
    pthread_mutex_t lock;
    struct scram_keys keys; /* guarded; not present: none */
    char *secret;           /* guarded, owned; NULL: none */
    atomic_uint version;
    atomic_bool asks_last_value;
    UT_hash_handle hh; /* credentials->all, by key */
    char key[];        /* "database\0user\0" */
};

void credentials_init(struct credentials *credentials)
{
    credentials->all = NULL;
    pthread_mutex_init(&credentials->lock, NULL);
}

void credential_free_secret(char *secret)
{
    if (secret)
        OPENSSL_cleanse(secret, strlen(secret));
    free(secret);
}

void credentials_free(struct credentials *credentials)
{
    struct credential *credential, *next;
    HASH_ITER(hh, credentials->all, credential, next)
    {
        HASH_DEL(credentials->all, credential);
        credential_free_secret(credential->secret);
        pthread_mutex_destroy(&credential->lock);
        OPENSSL_cleanse(credential, sizeof *credential);
        free(credential);
    }
    pthread_mutex_destroy(&credentials->lock);
}

struct credential *credential_get(struct credentials *credentials, const char *database,
                                  const char *user)
{
    size_t head = strlen(database) + 1, size = head + strlen(user) + 1;
    struct credential *fresh = mem_alloc(sizeof *fresh + size), *credential;
    memcpy(fresh->key, database, head);
    memcpy(fresh->key + head, user, size - head);
    pthread_mutex_lock(&credentials->lock);
    HASH_FIND(hh, credentials->all, fresh->key, size, credential);
    if (!credential) {
        credential = fresh;
        fresh = NULL;
        pthread_mutex_init(&credential->lock, NULL);
        HASH_ADD(hh, credentials->all, key, size, credential);
    }
    pthread_mutex_unlock(&credentials->lock);
    free(fresh);
    return credential;
}

/* Enough to tell two sets apart: the client key is made from salt and iterations too. */
static bool same_keys(const struct scram_keys *a, const struct scram_keys *b)
{
    return a->present && b->present &&
           CRYPTO_memcmp(a->client_key, b->client_key, SCRAM_KEY_LENGTH) == 0;
}

void credential_prove(struct credential *credential, const struct scram_keys *keys)
{
    pthread_mutex_lock(&credential->lock);
    if (!same_keys(&credential->keys, keys)) {
        credential->keys = *keys;
        atomic_fetch_add(&credential->version, 1);
    }
    pthread_mutex_unlock(&credential->lock);
}

bool credential_keys(struct credential *credential, struct scram_keys *keys)
{
    pthread_mutex_lock(&credential->lock);
    *keys = credential->keys;
    pthread_mutex_unlock(&credential->lock);
    return keys->present;
}

static bool same_secret(const char *a, const char *b)
{
    return a && b ? strcmp(a, b) == 0 : a == b;
}

void credential_keep_secret(struct credential *credential, const char *secret)
{
    pthread_mutex_lock(&credential->lock);
    if (!same_secret(credential->secret, secret)) {
        credential_free_secret(credential->secret);
        credential->secret = secret ? mem_strdup(secret) : NULL;
        atomic_fetch_add(&credential->version, 1);
    }
    pthread_mutex_unlock(&credential->lock);
}

char *credential_secret(struct credential *credential)
{
    pthread_mutex_lock(&credential->lock);
    char *secret = credential->secret ? mem_strdup(credential->secret) : NULL;
    pthread_mutex_unlock(&credential->lock);
    return secret;
}

unsigned credential_version(const struct credential *credential)
{
    return atomic_load(&credential->version);
}

void credential_note_last_value(struct credential *credential)
{
    if (!credential_asks_last_value(credential))
        atomic_store(&credential->asks_last_value, true);
}

bool credential_asks_last_value(const struct credential *credential)
{
    return atomic_load_explicit(&credential->asks_last_value, memory_order_relaxed);
}
