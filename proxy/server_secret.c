/* server_secret.c: finds the secret for a login to a server and words the advice for a refused one. */
#include "proxy/server_secret.h"

#include <openssl/crypto.h>
#include <stdlib.h>
#include <string.h>

#include "pgshunt/arena.h"
#include "proxy/auth_query.h"
#include "proxy/credentials.h"
#include "proxy/pool.h"
#include "proxy/worker.h"

static bool is_scram(const char *secret)
{
    return strncmp(secret, "SCRAM-SHA-256$", 14) == 0;
}

/* What opens something by itself. */
static bool take(struct server_secret *secret, enum secret_source source, const char *text)
{
    if (!text || !*text || is_scram(text))
        return false;
    secret->source = source;
    secret->text = mem_strdup(text);
    return true;
}

static bool take_looked_up(struct server_secret *secret, struct credential *credential)
{
    char *found = credential_secret(credential);
    bool taken = take(secret, SECRET_LOOK_UP, found);
    credential_free_secret(found);
    return taken;
}

void server_secret_find(const struct server *server, struct server_secret *secret)
{
    const struct account *account = server->pool->account;
    const struct config *config = server->worker->topology->config;
    const struct database_config *db = config_database(config, account->database);
    const struct user_config *user = config_user(config, account->server_user);
    *secret = (struct server_secret){.source = SECRET_NONE};
    if (db && db->user[0] && take(secret, SECRET_DATABASE, db->password))
        return;
    if (take(secret, SECRET_USERS_FILE, user ? user->secret : NULL))
        return;
    /* What clients have proven is theirs: it opens no other user's session. */
    if (strcmp(account->server_user, account->user) != 0 ||
        take_looked_up(secret, account->credential))
        return;
    if (credential_keys(account->credential, &secret->keys))
        secret->source = SECRET_PROVEN;
}

void server_secret_release(struct server_secret *secret)
{
    credential_free_secret(secret->text);
    OPENSSL_cleanse(secret, sizeof *secret);
}

bool server_secret_is_plain(const struct server_secret *secret)
{
    return secret->text && !md5_is_secret(secret->text);
}

/* "invalid password", "invalid authorization": the server does not take what we have. */
static bool is_about_the_secret(const char *sqlstate)
{
    return strcmp(sqlstate, "28P01") == 0 || strcmp(sqlstate, "28000") == 0;
}

void server_secret_refused(const struct server *server, const char *sqlstate)
{
    const struct account *account = server->pool->account;
    bool may_be_old =
        server->secret_source == SECRET_PROVEN || server->secret_source == SECRET_LOOK_UP;
    if (may_be_old && is_about_the_secret(sqlstate))
        auth_query_forget(server->worker->daemon->auth_query, account->database, account->user);
}

static const char *hint_by_source(const struct server *server)
{
    switch ((enum secret_source)server->secret_source) {
    case SECRET_DATABASE:
        return "Correct user and password of the database in pgshunt's configuration, then RELOAD.";
    case SECRET_USERS_FILE:
        return "The password in auth.users_file is not the one the server has: correct it there, "
               "then "
               "RELOAD.";
    case SECRET_LOOK_UP:
        return "The secret that auth.query found is not the one this server has; it may have just "
               "been "
               "changed: log in again.";
    case SECRET_PROVEN:
        return "The server's secret for this user is not the one pgshunt checked the password with "
               "(it "
               "must be the same, salt and iterations included, on every server). If the password "
               "was "
               "changed, log in again; a users file needs the new rolpassword of pg_authid and a "
               "RELOAD.";
    case SECRET_NONE:
        break;
    }
    return "pgshunt has nothing to answer the server with: put the user's password or SCRAM secret "
           "into "
           "auth.users_file, set auth.query_user, or set user and password of the database.";
}

const char *server_secret_hint(const struct server *server, const char *sqlstate)
{
    if (strcmp(sqlstate, "3D000") == 0)
        return "Correct name or dbname of the shard's database in pgshunt's configuration.";
    if (strcmp(sqlstate, "53300") == 0)
        return "Lower pool.size, or raise max_connections on the server.";
    if (strcmp(sqlstate, "28000") == 0)
        return "The role must exist and be allowed to log in (LOGIN), and the server's pg_hba.conf "
               "has to "
               "let "
               "pgshunt's address in.";
    if (is_about_the_secret(sqlstate))
        return hint_by_source(server);
    return NULL;
}
