/* client_hba.c: matches clients with the rules of auth.hba_file and words the refusals. */
#include "proxy/client_hba.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <pwd.h>
#include <stdio.h>
#include <string.h>

#include "pgshunt/hba.h"
#include "pgshunt/log.h"
#include "proxy/client_tls.h"
#include "proxy/replication.h"
#include "proxy/tls.h"

static bool is_encrypted(const struct client *client)
{
    return tls_is_open(&client->conn);
}

static bool is_physical(const struct client *client)
{
    return client->replication && strcmp(replication_name(client), "physical") == 0;
}

void client_hba_address(const struct client *client, char *out, size_t size)
{
    struct sockaddr_storage address;
    socklen_t length = peer_address(&client->peer, &address);
    snprintf(out, size, "[local]");
    if (!peer_is_local(&client->peer))
        getnameinfo((const struct sockaddr *)&address, length, out, (socklen_t)size, NULL, 0,
                    NI_NUMERICHOST);
}

/* The same words as Postgres', which people search for. */
static void refuse(struct client *client, const struct hba_rule *rule)
{
    char host[NI_MAXHOST], message[1600], database[200] = "";
    const char *tls = is_encrypted(client) ? "SSL encryption" : "no encryption";
    const char *what = is_physical(client) ? "replication connection" : "connection";
    char begin[80];
    if (rule)
        snprintf(begin, sizeof begin, "pg_hba.conf rejects %s for", what);
    else
        snprintf(begin, sizeof begin, "no pg_hba.conf entry for%s",
                 is_physical(client) ? " replication connection from" : "");
    client_hba_address(client, host, sizeof host);
    if (!is_physical(client))
        snprintf(database, sizeof database, "database \"%.100s\", ", client->database_name);
    snprintf(message, sizeof message, "%s host \"%s\", user \"%.100s\", %s%s", begin, host,
             client->user, database, tls);
    log_event(LOG_WARNING, "client refused by the rules", LOG_S("user", client->user),
              LOG_S("database", client->database_name), LOG_S("host", host),
              LOG_S("file", rule ? rule->file : ""), LOG_I("line", rule ? rule->line : 0));
    client_fatal(client, "28000", message,
                 "The rules are in the file that auth.hba_file names; the first that fits counts.");
}

static enum auth_method method_of(const struct hba_rule *rule)
{
    switch (rule->method) {
    case HBA_TRUST:
    case HBA_PEER: /* checked already */
        return AUTH_TRUST;
    case HBA_PASSWORD:
        return AUTH_PASSWORD;
    case HBA_MD5:
        return AUTH_MD5;
    case HBA_CERT:
        return rule->map ? AUTH_TRUST : AUTH_CERT; /* with a map: checked already */
    case HBA_SCRAM:
    case HBA_REJECT:
        break;
    }
    return AUTH_SCRAM;
}

/* What the rule's clientcert asks for, besides the method. */
static bool check_certificate(struct client *client, const struct hba_rule *rule)
{
    if (rule->clientcert && !tls_has_peer(&client->conn)) {
        client_fatal(
            client, "28000", "connection requires a valid client certificate",
            "Give sslcert and sslkey in the connection string; the certificate must be one "
            "that client_tls.ca_file vouches for.");
        return false;
    }
    if (rule->clientcert == HBA_CLIENTCERT_VERIFY_FULL && !rule->map &&
        !client_tls_proves_user(client)) {
        client_tls_refuse(client);
        return false;
    }
    return true;
}

/* Whether the name that another system vouches for may connect as this user. */
static enum ident_answer may_be_user(const struct client *client, const struct hba_rule *rule,
                                     const char *system, const char *roles)
{
    const struct ident *ident = client->worker->topology->config->ident;
    if (!rule->map)
        return strcmp(system, client->user) == 0 ? IDENT_YES : IDENT_NO;
    enum ident_answer answer = ident_match(ident, rule->map, system, client->user, roles);
    if (answer == IDENT_FAILED)
        log_event(
            LOG_WARNING, "a pattern of auth.ident_file cannot be matched, which refuses a client",
            LOG_S("map", rule->map), LOG_S("system_name", system), LOG_S("user", client->user));
    return answer;
}

/* By the name in the operating system: the kernel says who is at the other end of a unix socket. */
static enum ident_answer is_peer(const struct client *client, const struct hba_rule *rule,
                                 const char *roles, uid_t *uid)
{
    struct ucred peer = {.uid = (uid_t)-1};
    socklen_t length = sizeof peer;
    struct passwd entry, *found = NULL;
    char space[4096];
    bool known = getsockopt(client->conn.fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) == 0;
    *uid = peer.uid;
    if (!known || getpwuid_r(peer.uid, &entry, space, sizeof space, &found) != 0 || !found)
        return IDENT_NO;
    return may_be_user(client, rule, found->pw_name, roles);
}

static void refuse_peer(struct client *client, const struct hba_rule *rule, uid_t uid)
{
    char message[256];
    snprintf(message, sizeof message, "Peer authentication failed for user \"%.100s\"",
             client->user);
    log_event(LOG_WARNING, "peer authentication failed", LOG_S("user", client->user),
              LOG_S("database", client->database_name), LOG_I("uid", uid),
              LOG_S("file", rule->file), LOG_I("line", rule->line));
    client_fatal(
        client, "28000", message,
        rule->map ? "The map of auth.ident_file that the rule names has no line for the operating "
                    "system's user and this one."
                  : "The method peer lets in who has the same name in the operating system. "
                    "Connect as that user, or over TCP (-h 127.0.0.1).");
}

static enum hba_outcome check_peer(struct client *client, const struct hba_rule *rule,
                                   const char *roles)
{
    uid_t uid;
    enum ident_answer answer = is_peer(client, rule, roles, &uid);
    if (answer == IDENT_YES)
        return HBA_CHOSEN;
    if (answer == IDENT_NEEDS_ROLES)
        return HBA_WANTS_ROLES;
    refuse_peer(client, rule, uid);
    return HBA_REFUSED;
}

/* The method cert with a map: by the common name, as in Postgres. */
static enum hba_outcome check_mapped_certificate(struct client *client, const struct hba_rule *rule,
                                                 const char *roles)
{
    char name[256];
    enum ident_answer answer = tls_peer_common_name(&client->conn, name, sizeof name)
                                   ? may_be_user(client, rule, name, roles)
                                   : IDENT_NO;
    if (answer == IDENT_YES)
        return HBA_CHOSEN;
    if (answer == IDENT_NEEDS_ROLES)
        return HBA_WANTS_ROLES;
    client_tls_refuse(client);
    return HBA_REFUSED;
}

static enum hba_outcome check(struct client *client, const struct hba_rule *rule, const char *roles)
{
    enum hba_outcome outcome = HBA_CHOSEN;
    if (rule->method == HBA_PEER)
        outcome = check_peer(client, rule, roles);
    else if (rule->method == HBA_CERT && rule->map)
        outcome = check_mapped_certificate(client, rule, roles);
    if (outcome == HBA_CHOSEN && !check_certificate(client, rule))
        outcome = HBA_REFUSED;
    return outcome;
}

enum hba_outcome client_hba_method(struct client *client, const char *roles, const char *host,
                                   enum auth_method *method)
{
    struct sockaddr_storage address;
    enum hba_doubt doubt;
    peer_address(&client->peer, &address);
    struct hba_visitor visitor = {
        .user = client->user,
        .database = client->database_name,
        .address = (const struct sockaddr *)&address,
        .tls = is_encrypted(client),
        .replication = is_physical(client),
        .roles = roles,
        .host = host,
    };
    const struct hba_rule *rule =
        hba_match(client->worker->topology->config->hba, &visitor, &doubt);
    if (doubt == HBA_NEEDS_ROLES)
        return HBA_WANTS_ROLES;
    if (doubt == HBA_NEEDS_HOST)
        return HBA_WANTS_HOST;
    if (doubt == HBA_TOO_LONG)
        log_event(LOG_WARNING, "a pattern of auth.hba_file takes too long, which refuses a client",
                  LOG_S("file", rule->file), LOG_I("line", rule->line));
    if (doubt == HBA_TOO_LONG || !rule || rule->method == HBA_REJECT) {
        refuse(client, rule);
        return HBA_REFUSED;
    }
    *method = method_of(rule);
    return check(client, rule, roles);
}
