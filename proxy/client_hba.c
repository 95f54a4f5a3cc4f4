/* client_hba.c: matches clients with the rules of auth.hba_file and words the refusals. */
#include "proxy/client_hba.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>

#include "pgshunt/hba.h"
#include "pgshunt/log.h"
#include "proxy/client_tls.h"
#include "proxy/replication.h"
#include "proxy/tls.h"
#include "proxy/tls.h"

static bool is_encrypted(const struct client *client)
{
    return tls_is_open(&client->conn);
}

static bool is_physical(const struct client *client)
{
    return client->replication && strcmp(replication_name(client), "physical") == 0;
}

static void name_host(const struct client *client, char *out, size_t size)
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
    name_host(client, host, sizeof host);
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
        return AUTH_TRUST;
    case HBA_PASSWORD:
        return AUTH_PASSWORD;
    case HBA_MD5:
        return AUTH_MD5;
    case HBA_CERT:
        return AUTH_CERT;
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
    if (rule->clientcert == HBA_CLIENTCERT_VERIFY_FULL && !client_tls_proves_user(client)) {
        client_tls_refuse(client);
        return false;
    }
    return true;
}

bool client_hba_method(struct client *client, enum auth_method *method)
{
    struct sockaddr_storage address;
    peer_address(&client->peer, &address);
    struct hba_visitor visitor = {
        .user = client->user,
        .database = client->database_name,
        .address = (const struct sockaddr *)&address,
        .tls = is_encrypted(client),
        .replication = is_physical(client),
    };
    const struct hba_rule *rule = hba_match(client->worker->topology->config->hba, &visitor);
    if (!rule || rule->method == HBA_REJECT) {
        refuse(client, rule);
        return false;
    }
    *method = method_of(rule);
    return check_certificate(client, rule);
}
