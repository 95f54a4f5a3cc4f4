/*
 * scram.h: SCRAM-SHA-256 (RFC 5802, RFC 7677; PostgreSQL documentation "SASL Authentication"), both
 * roles, and Postgres' md5 passwords. No I/O: messages in, messages out.
 */
#ifndef PGSHUNT_SCRAM_H
#define PGSHUNT_SCRAM_H

#include <stdbool.h>
#include <stddef.h>

#include "pgshunt/buffer.h"
#include "pgshunt/error.h"

#define SCRAM_KEY_LENGTH 32
#define SCRAM_BINDING_MAX 64 /* channel binding data: a hash, SHA-512 at most */
#define MD5_SECRET_LENGTH 35 /* "md5" and 32 hex digits */

/* A user's stored secret: SCRAM-SHA-256$iterations:salt$StoredKey:ServerKey. */
struct scram_secret {
    int iterations;
    unsigned char salt[64];
    int salt_length;
    unsigned char stored_key[SCRAM_KEY_LENGTH];
    unsigned char server_key[SCRAM_KEY_LENGTH];
};

/* Client keys that let the proxy log in to a server with the same secret without a password. */
struct scram_keys {
    bool present;
    unsigned char client_key[SCRAM_KEY_LENGTH];
    unsigned char server_key[SCRAM_KEY_LENGTH];
    int iterations;
    unsigned char salt[64];
    int salt_length;
};

MUST_CHECK bool scram_secret_parse(const char *text, struct scram_secret *secret);
/* Secret of a plain password with a fresh random salt (4096 iterations). */
MUST_CHECK bool scram_secret_make(const char *password, struct scram_secret *secret);
/* Whether a plain password is the secret's; if so, `keys` are what a login with it would have proven. */
MUST_CHECK bool scram_secret_verify(const struct scram_secret *secret, const char *password,
                                    struct scram_keys *keys);
/* A secret for a user who does not exist, the same every time for the same name, so that the exchange
 * looks alike (as Postgres' mock authentication). */
void scram_secret_mock(const char *user, struct scram_secret *secret);

/* ---- server role: authenticates a client ---- */

struct scram_server;
/* `doomed`: go through all steps and fail at the end. Copies the secret. */
struct scram_server *scram_server_new(const struct scram_secret *secret, bool doomed);
void scram_server_free(struct scram_server *server);
/* The exchange runs on TLS and SCRAM-SHA-256-PLUS was offered, with this tls-server-end-point data
 *. */
void scram_server_bind(struct scram_server *server, const unsigned char *data, size_t len);
/* Which mechanism the client took, said before its first message. */
void scram_server_choose(struct scram_server *server, bool plus);
/* After SCRAM_MALFORMED: what is wrong in words for the client, or NULL: nothing more is known. */
const char *scram_server_problem(const struct scram_server *server);
enum scram_result { SCRAM_CONTINUE, SCRAM_OK, SCRAM_FAILED, SCRAM_MALFORMED };
/* First call: client-first-message; second: client-final-message. The reply to send is appended. */
MUST_CHECK enum scram_result scram_server_step(struct scram_server *server, const char *message,
                                               size_t len, struct buffer *reply);
/* After SCRAM_OK: the keys recovered from the client's proof. */
void scram_server_keys(const struct scram_server *server, struct scram_keys *keys);

/* ---- client role: logs in to a server ---- */

struct scram_client;
/* With a password, or (password NULL) with keys; keys work only if salt and iterations agree. */
struct scram_client *scram_client_new(const char *password, const struct scram_keys *keys);
void scram_client_free(struct scram_client *client);
/* On TLS, with its tls-server-end-point data. `offered`: the server offers SCRAM-SHA-256-PLUS, and this
 * exchange is one; else the server is told that we could (so that it notices a list cut short). */
void scram_client_bind(struct scram_client *client, const unsigned char *data, size_t len,
                       bool offered);
void scram_client_first(struct scram_client *client, struct buffer *out);
/* After verifying: whether it was an exchange with channel binding. */
bool scram_client_is_bound(const struct scram_client *client);
/* server-first-message in, client-final-message out. False: malformed, or the keys do not fit. */
MUST_CHECK bool scram_client_final(struct scram_client *client, const char *message, size_t len,
                                   struct buffer *out);
/* Checks server-final-message: the server knows the secret too. */
MUST_CHECK bool scram_client_verify(struct scram_client *client, const char *message, size_t len);

/* ---- md5 ---- */

/* "md5" and 32 lower-case hex digits, as pg_authid has it. */
bool md5_is_secret(const char *text);
/* The secret of a plain password, into out[MD5_SECRET_LENGTH + 1]. */
MUST_CHECK bool md5_secret(const char *password, const char *user, char *out);
/* "md5" + hex(md5(hex(md5(password user)) salt)) into out[MD5_SECRET_LENGTH + 1]. `secret` is a plain
 * password or an "md5..." secret. */
MUST_CHECK bool md5_response(const char *secret, const char *user, const unsigned char salt[4],
                             char *out);

#endif
