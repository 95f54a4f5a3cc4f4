/* client_auth.c: methods, secrets and answers of clients that log in. */
#include "proxy/client_auth.h"

#include <netdb.h>
#include <openssl/crypto.h>
#include <openssl/rand.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pgshunt/arena.h"
#include "pgshunt/log.h"
#include "proxy/client_hba.h"
#include "proxy/client_login.h"
#include "proxy/client_tls.h"
#include "proxy/console.h"
#include "proxy/credentials.h"
#include "proxy/replication.h"

#define FRESH_US 1000000 /* a look-up so young is not repeated for a wrong password */

static void ask_for_password(struct client *client);
static void check_answer(struct client *client, const char *answer);
static void begin(struct client *client);

static const struct config *config_of(const struct client *client)
{
    return client->worker->topology->config;
}

static bool is_scram(const char *secret)
{
    return secret && strncmp(secret, "SCRAM-SHA-256$", 14) == 0;
}

/* ---- end ---- */

void client_auth_free(struct client *client)
{
    struct client_auth *auth = client->auth;
    if (!auth)
        return;
    client->auth = NULL;
    list_remove(&auth->refused);
    free(auth->database);
    free(auth->roles);
    free(auth->host);
    credential_free_secret(auth->secret);
    credential_free_secret(auth->answer);
    free(auth);
}

bool client_auth_is_waiting(const struct client *client)
{
    return client->auth && (client->auth->waiting || client->auth->refuse_at);
}

static void accept_client(struct client *client)
{
    client_auth_free(client);
    client_login_accept(client);
}

/* What the servers of this account can be answered with from now on. */
static struct credential *credential_of(struct client *client)
{
    return credential_get(&client->worker->daemon->credentials, client->database_name,
                          client->user);
}

/* `keys`: what the answer has proven, if anything. Keys of a secret that was made here, of a plain
 * password, have a salt that no server has: then it is the password that is kept. */
static void accept_proven(struct client *client, const struct scram_keys *keys)
{
    const struct client_auth *auth = client->auth;
    if (!console_is_name(client->database_name)) {
        if (is_scram(auth->secret) && keys->present)
            credential_prove(credential_of(client), keys);
        if (auth->looked_up)
            credential_keep_secret(credential_of(client),
                                   is_scram(auth->secret) ? NULL : auth->secret);
    }
    accept_client(client);
}

static void say_refused(struct client *client)
{
    char message[256];
    snprintf(message, sizeof message, "password authentication failed for user \"%.100s\"",
             client->user);
    client_fatal(client, "28P01", message, NULL);
}

/* For the log alone: the client must not learn whether the user exists. */
static const char *refusal_reason(const struct client_auth *auth)
{
    if (!auth->secret)
        return "the user is unknown or has no password";
    if (auth->method == AUTH_SCRAM && md5_is_secret(auth->secret))
        return "the method is scram-sha-256 and the user's secret is an md5 one";
    return "the password does not match";
}

void client_auth_refuse(struct client *client)
{
    struct client_auth *auth = client->auth;
    int64_t delay = config_of(client)->failure_delay;
    log_event(LOG_WARNING, "password authentication failed", LOG_S("user", client->user),
              LOG_S("database", client->database_name), LOG_S("reason", refusal_reason(auth)));
    if (auth->looked_up && auth->fetched_at + FRESH_US < clock_us())
        auth_query_forget(client->worker->daemon->auth_query, auth->database, client->user);
    if (!delay) {
        say_refused(client);
        return;
    }
    auth->refuse_at = clock_us() + delay * 1000;
    list_push_back(&client->worker->refused, &auth->refused);
}

void client_auth_tick(struct worker *worker, int64_t now)
{
    list_each(at, following, &worker->refused)
    {
        struct client_auth *auth = list_entry(at, struct client_auth, refused);
        if (auth->refuse_at > now)
            continue;
        list_remove(&auth->refused);
        say_refused(auth->client);
    }
}

/* ---- the secret ---- */

/* Where the user is looked up: in the database asked for, else (console, no such database) the first
 * that users are looked up in. NULL: nowhere. */
static const struct database_config *look_up_database(const struct client *client)
{
    const struct config *config = config_of(client);
    const struct database_config *database = config_database(config, client->database_name);
    if (database)
        return auth_query_applies(config, database) ? database : NULL;
    for (int i = 0; i < config->ndatabases; i++)
        if (auth_query_applies(config, &config->databases[i]))
            return &config->databases[i];
    return NULL;
}

static void say_look_up_failed(struct client *client)
{
    char message[256];
    snprintf(message, sizeof message,
             "cannot check the %s of user \"%.100s\": the look-up of users failed",
             client->auth->wants == LOOK_UP_ROLES ? "roles" : "password", client->user);
    client_fatal(client, "08006", message,
                 "The servers that auth.query is sent to do not answer or refuse it; pgshunt's log "
                 "tells why. Users in auth.users_file can log in meanwhile.");
}

static void take_secret(struct client *client, const struct looked_up *found)
{
    struct client_auth *auth = client->auth;
    credential_free_secret(auth->secret);
    auth->secret = found->outcome == LOOK_UP_FOUND ? mem_strdup(found->secret) : NULL;
    auth->fetched_at = found->fetched_at;
    auth->looked_up = true;
    auth->waiting = false;
}

/* What the rules of a pg_hba.conf ask for. */
static void take_fact(struct client_auth *auth, const struct looked_up *found)
{
    char **fact = auth->wants == LOOK_UP_ROLES ? &auth->roles : &auth->host;
    free(*fact);
    *fact = mem_strdup(found->outcome == LOOK_UP_FOUND ? found->secret : "");
    auth->waiting = false;
}

/* The look-up has an outcome. */
static void go_on(struct client *client, const struct looked_up *found)
{
    struct client_auth *auth = client->auth;
    if (found->outcome == LOOK_UP_FAILED) {
        say_look_up_failed(client);
        return;
    }
    if (auth->wants != LOOK_UP_SECRET) {
        take_fact(auth, found);
        begin(client);
        return;
    }
    take_secret(client, found);
    if (!auth->answer) {
        ask_for_password(client);
        return;
    }
    char *answer = auth->answer;
    auth->answer = NULL;
    check_answer(client, answer);
    credential_free_secret(answer);
}

static void look_up(struct client *client, enum look_up_kind kind, int64_t newer_than)
{
    char address[NI_MAXHOST];
    static atomic_uint_fast64_t tickets;
    struct client_auth *auth = client->auth;
    struct looked_up found;
    auth->wants = kind;
    client_hba_address(client, address, sizeof address);
    auth->ticket = atomic_fetch_add(&tickets, 1) + 1;
    auth_query_find(client->worker->daemon->auth_query, client->worker, client->cancel_pid,
                    auth->ticket, kind, kind == LOOK_UP_HOST ? "" : auth->database,
                    kind == LOOK_UP_HOST ? address : client->user, newer_than, &found);
    if (found.outcome == LOOK_UP_WAITING)
        auth->waiting = true;
    else
        go_on(client, &found);
    looked_up_release(&found);
}

void client_auth_looked_up(struct worker *worker, int32_t pid, uint64_t ticket,
                           const struct looked_up *found)
{
    struct client *client;
    HASH_FIND_INT(worker->by_id, &pid, client);
    if (!client || !client->auth || !client->auth->waiting || client->auth->ticket != ticket)
        return;
    go_on(client, found);
    client_login_resume(client);
}

/* False: the user is looked up nowhere. */
static bool find_look_up(struct client *client)
{
    struct client_auth *auth = client->auth;
    const struct database_config *database = look_up_database(client);
    free(auth->database);
    auth->database = database ? mem_strdup(database->name) : NULL;
    return database;
}

static void find_secret(struct client *client)
{
    const struct user_config *user = config_user(config_of(client), client->user);
    if (user && user->secret[0]) {
        client->auth->secret = mem_strdup(user->secret);
        ask_for_password(client);
    } else if (find_look_up(client)) {
        look_up(client, LOOK_UP_SECRET, 0);
    } else {
        ask_for_password(client);
    }
}

/* ---- asking ---- */

static void ask_for_password(struct client *client)
{
    struct client_auth *auth = client->auth;
    if (auth->method == AUTH_PASSWORD) {
        client_login_ask(client, 3, NULL, 0);
    } else if (auth->method == AUTH_SCRAM || !auth->secret || is_scram(auth->secret)) {
        struct user_config user = {.name = client->user, .secret = auth->secret};
        client_login_start_scram(client, auth->secret ? &user : NULL);
    } else {
        RAND_bytes(client->salt, sizeof client->salt);
        client_login_ask(client, 5, client->salt, sizeof client->salt);
    }
}

/* The servers know which roles the user is a member of. */
static void find_roles(struct client *client)
{
    client->auth->wants = LOOK_UP_ROLES;
    if (find_look_up(client))
        look_up(client, LOOK_UP_ROLES, 0);
    else
        say_look_up_failed(client); /* this database has no auth_user */
}

/* False: the client was refused, or waits. */
static bool choose_method(struct client *client, enum auth_method *method)
{
    *method = config_of(client)->auth_method;
    if (*method != AUTH_HBA)
        return true;
    const struct client_auth *auth = client->auth;
    enum hba_outcome outcome = client_hba_method(client, auth->roles, auth->host, method);
    if (outcome == HBA_WANTS_ROLES)
        find_roles(client);
    if (outcome == HBA_WANTS_HOST)
        look_up(client, LOOK_UP_HOST, 0);
    return outcome == HBA_CHOSEN;
}

static void begin(struct client *client)
{
    enum auth_method method;
    if (!choose_method(client, &method))
        return;
    client->auth->method = method;
    if (method == AUTH_TRUST)
        accept_client(client);
    else if (method == AUTH_CERT && client_tls_proves_user(client))
        accept_client(client);
    else if (method == AUTH_CERT)
        client_tls_refuse(client);
    else
        find_secret(client);
}

void client_auth_begin(struct client *client)
{
    if (client->replication && !replication_find_database(client))
        return;
    struct client_auth *auth = mem_alloc(sizeof *auth);
    client->auth = auth;
    client->state = CLIENT_AUTH;
    auth->client = client;
    auth->method = AUTH_HBA;
    list_init(&auth->refused);
    begin(client);
}

/* ---- answers ---- */

void client_auth_scram_passed(struct client *client, const struct scram_keys *keys)
{
    accept_proven(client, keys);
}

/* A wrong password, or a right one that was changed since the look-up. */
static void refuse_or_look_again(struct client *client, const char *answer)
{
    struct client_auth *auth = client->auth;
    if (!auth->looked_up || auth->looked_up_anew || auth->fetched_at + FRESH_US >= clock_us()) {
        client_auth_refuse(client);
        return;
    }
    auth->looked_up_anew = true;
    auth->answer = mem_strdup(answer);
    look_up(client, LOOK_UP_SECRET, auth->fetched_at);
}

static bool same_text(const char *a, const char *b)
{
    return strlen(a) == strlen(b) && CRYPTO_memcmp(a, b, strlen(a)) == 0;
}

static bool answers_md5(const struct client *client, const char *answer)
{
    char expected[MD5_SECRET_LENGTH + 1];
    const char *secret = client->auth->secret;
    return secret && !is_scram(secret) &&
           md5_response(secret, client->user, client->salt, expected) &&
           same_text(expected, answer);
}

/* The answer to a request for the password itself. */
static bool is_password(const struct client *client, const char *answer, struct scram_keys *keys)
{
    struct scram_secret scram;
    const char *secret = client->auth->secret;
    char md5[MD5_SECRET_LENGTH + 1];
    if (!secret || !*answer)
        return false;
    if (is_scram(secret))
        return scram_secret_parse(secret, &scram) && scram_secret_verify(&scram, answer, keys);
    if (md5_is_secret(secret))
        return md5_secret(answer, client->user, md5) && same_text(md5, secret);
    return same_text(answer, secret);
}

static void check_answer(struct client *client, const char *answer)
{
    struct scram_keys keys = {.present = false};
    bool clear = client->auth->method == AUTH_PASSWORD;
    if (!(clear ? is_password(client, answer, &keys) : answers_md5(client, answer)))
        refuse_or_look_again(client, answer);
    else
        accept_proven(client, &keys);
    OPENSSL_cleanse(&keys, sizeof keys);
}

void client_auth_message(struct client *client, const char *body, size_t len)
{
    if (client->scram)
        client_login_scram_message(client, body, len);
    else if (!len || memchr(body, 0, len) != body + len - 1)
        client_fatal(client, "08P01", "malformed password message", NULL);
    else
        check_answer(client, body);
}
