/* replication.c: replication sessions: a server of their own, and everything passed through. */
#include "proxy/replication.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pgshunt/arena.h"
#include "pgshunt/log.h"
#include "pgshunt/wire.h"
#include "proxy/client_login.h"
#include "proxy/pins.h"
#include "proxy/pool.h"
#include "proxy/reported.h"
#include "proxy/session.h"

/* Bytes one side has not taken yet before the other is read no more. */
#define AHEAD_MAX 65536

/* Where one direction stands: in a header (so many bytes of it are here), or in a body. */
struct frames {
    size_t left; /* bytes of the body still to come */
    int have;
    char header[WIRE_HEADER];
};

struct replication {
    struct buffer packet; /* the client's startup packet, for its settings */
    const char *mode;     /* value of `replication`; points into the packet */
    bool logical;         /* replication=database */
    bool counted;         /* in daemon->replications */
    bool streaming;       /* CopyBoth: START_REPLICATION */
    struct frames from_client, from_server;
    char last; /* type of the last message begun by the server */
};

struct replication *replication_new(const struct startup *startup, const char *packet, size_t len)
{
    struct replication *replication = mem_alloc(sizeof *replication);
    buffer_append(&replication->packet, packet, len);
    replication->mode = buffer_head(&replication->packet) + (startup->replication - packet);
    replication->logical = strcmp(replication->mode, "database") == 0;
    return replication;
}

void replication_free(struct client *client)
{
    struct replication *replication = client->replication;
    if (!replication)
        return;
    list_remove(&client->waiting);
    if (replication->counted)
        atomic_fetch_sub(&client->worker->daemon->replications, 1);
    buffer_release(&replication->packet);
    free(replication);
    client->replication = NULL;
}

const char *replication_name(const struct client *client)
{
    if (!client || !client->replication)
        return "none";
    return client->replication->logical ? "logical" : "physical";
}

static bool between_messages(const struct frames *frames)
{
    return !frames->left && !frames->have;
}

bool replication_may_end(const struct client *client)
{
    const struct replication *replication = client->replication;
    bool busy = client->nparticipants && client->participants[0]->expect_count;
    return between_messages(&replication->from_server) && (!busy || replication->streaming);
}

/* ---- which database, which shard ---- */

/* A pgshunt.* setting of the startup packet, as plain text in the request's buffer; NULL: none. */
static const char *own_setting(const struct client *client, const char *name, struct buffer *text)
{
    const char *value = guc_set_get(client->startup, name);
    size_t len = value ? strlen(value) : 0;
    if (len < 2 || value[0] != '\'')
        return NULL;
    buffer_append(text, value + 1, len - 2);
    buffer_append(text, "", 1);
    return buffer_head(text);
}

bool replication_find_database(struct client *client)
{
    const struct topology *topology = client->worker->topology;
    struct buffer text = {0};
    const char *named = own_setting(client, "pgshunt.database", &text), *found = NULL;
    if (named)
        found = named;
    else if (client->replication->logical || topology_database(topology, client->database_name))
        found = client->database_name;
    else if (topology->ndatabases == 1)
        found = topology->databases[0].name;
    if (found && found != client->database_name) {
        char *name = mem_strdup(found);
        free(client->database_name);
        client->database_name = name;
    }
    buffer_release(&text);
    if (!found)
        client_fatal(client, "3D000",
                     "there are several databases, and which one's server is to be replicated was "
                     "not said",
                     "Name one in the connection string: options='-c pgshunt.database=NAME'.");
    return found != NULL;
}

static void list_shards(const struct client *client, struct buffer *hint)
{
    const struct database *database = client->database;
    buffer_printf(hint,
                  "Name one in the connection string: options='-c pgshunt.shard=NAME'. There are");
    for (int i = 0; i < database->nshards && buffer_length(hint) < 400; i++)
        buffer_printf(hint, "%s %s", i ? "," : "", database->shards[i].name);
    buffer_append(hint, ".", 2);
}

static void refuse_shard(struct client *client, const char *named)
{
    struct buffer hint = {0};
    char message[200];
    list_shards(client, &hint);
    if (named)
        snprintf(message, sizeof message, "there is no shard \"%.100s\"", named);
    else
        snprintf(message, sizeof message,
                 "database \"%.100s\" has several shards to replicate from", client->database_name);
    client_fatal(client, named ? "22023" : "0A000", message, buffer_head(&hint));
    buffer_release(&hint);
}

/* NULL: the client was refused. */
static struct shard *choose_shard(struct client *client)
{
    const struct database *database = client->database;
    struct buffer text = {0};
    const char *named = own_setting(client, "pgshunt.shard", &text);
    int index = named                    ? shardmap_shard_by_name(database->map, named)
                : database->nshards == 1 ? 0
                                         : -1;
    if (index < 0)
        refuse_shard(client, named);
    buffer_release(&text);
    return index < 0 ? NULL : &database->shards[index];
}

/* ---- start ---- */

/* False: the limit is reached, the client was told. */
static bool count(struct client *client)
{
    struct daemon *daemon = client->worker->daemon;
    if (atomic_fetch_add(&daemon->replications, 1) >= client->topology->config->max_replication) {
        atomic_fetch_sub(&daemon->replications, 1);
        client_fatal(
            client, "53300", "too many replication connections (limits.max_replication)",
            "Raise limits.max_replication; each takes a connection to a server that is not "
            "counted in pool.size.");
        return false;
    }
    client->replication->counted = true;
    return true;
}

void replication_start(struct client *client)
{
    struct shard *shard = choose_shard(client);
    struct node *node = shard ? shard_primary(shard) : NULL;
    if (!shard)
        return;
    if (!node) {
        client_fatal(client, "08006", "no primary is known to replicate from",
                     "SHOW NODES on the admin console tells which servers answer.");
        return;
    }
    if (!count(client))
        return;
    struct pool *pool = pool_private(client->account, node);
    struct server *server = server_start(pool);
    if (!server) {
        pool_private_free(pool);
        client_fatal(client, "08006", "cannot connect to the primary", NULL);
        return;
    }
    server->dedicated = server->discard = server->pinned = true;
    client->state = CLIENT_GREETING;
    list_push_back(&pool->waiting, &client->waiting); /* whose keys may open the server */
    client_attach(client, server, (unsigned)shard->index);
}

/* ---- the server's login ---- */

/* The client's own settings go with the login: a walsender takes no SET. */
static void put_settings(const struct replication *replication, struct buffer *out)
{
    struct wire_reader reader =
        wire_reader(buffer_head(&replication->packet), buffer_length(&replication->packet));
    wire_read32(&reader);
    for (;;) {
        const char *name = wire_read_cstring(&reader);
        if (reader.bad || !*name)
            return;
        const char *value = wire_read_cstring(&reader);
        if (strcmp(name, "user") == 0 || strcmp(name, "database") == 0 ||
            strncmp(name, "_pq_.", 5) == 0)
            continue;
        wire_put_cstring(out, name);
        wire_put_cstring(out, value);
    }
}

void replication_put_startup(const struct server *server, struct buffer *out)
{
    const struct replication *replication = server->client->replication;
    size_t begin = wire_begin(out, 0);
    wire_put32(out, WIRE_PROTOCOL_3_0);
    wire_put_cstring(out, "user");
    wire_put_cstring(out, server->pool->account->server_user);
    wire_put_cstring(out, "database");
    wire_put_cstring(out, replication->logical ? server->pool->node->dbname : "replication");
    put_settings(replication, out);
    wire_put8(out, 0);
    wire_end(out, begin);
}

void replication_login_failed(struct server *server, const char *sqlstate, const char *message)
{
    struct client *client = server->client;
    const struct node *node = server->pool->node;
    char text[512], state[6];
    log_event(LOG_WARNING, "login to server for replication failed", LOG_S("host", node->host),
              LOG_I("port", node->port), LOG_S("user", server->pool->account->server_user),
              LOG_S("sqlstate", sqlstate), LOG_S("reason", message));
    snprintf(text, sizeof text, "cannot replicate from %s:%d: %.300s", node->host, node->port,
             message);
    snprintf(state, sizeof state, "%s", sqlstate);
    if (client)
        list_remove(&client->waiting);
    server_drop(server, "login failed");
    if (client)
        client_fatal(client, state, text,
                     "The server must let this user in for replication, from pgshunt's address "
                     "(pg_hba.conf).");
}

void replication_server_ready(struct server *server)
{
    struct client *client = server->client;
    struct buffer parameters = {0};
    list_remove(&client->waiting);
    server->state = SERVER_ACTIVE;
    reported_tell(client, server, &parameters);
    client_login_greet(client, &parameters);
    buffer_release(&parameters);
    client->state = CLIENT_REPLICATING;
    pin(client, server, PIN_REPLICATION);
    struct buffer in = client->in;
    client->in = (struct buffer){0};
    if (buffer_length(&in))
        replication_input(client, buffer_head(&in), buffer_length(&in));
    buffer_release(&in);
}

/* ---- bytes ---- */

/* Follows the frames over what has come; `begun` hears of each message. False: a length is impossible. */
static bool follow(struct client *client, struct frames *frames, const char *data, size_t len,
                   void (*begun)(struct client *, char type))
{
    while (len) {
        size_t n = frames->left < len ? frames->left : len;
        if (!n) {
            frames->header[frames->have++] = *data;
            n = 1;
        } else {
            frames->left -= n;
        }
        data += n;
        len -= n;
        if (frames->have < WIRE_HEADER)
            continue;
        uint32_t length = wire_get32(frames->header + 1);
        if (length < 4 || length > WIRE_MESSAGE_MAX)
            return false;
        frames->have = 0;
        frames->left = length - 4;
        begun(client, frames->header[0]);
    }
    return true;
}

static void client_message(struct client *client, char type)
{
    if (type == 'Q' || type == 'F' || type == 'S')
        server_expect(client->participants[0], EXPECT_SYNC);
}

static void server_message(struct client *client, char type)
{
    struct replication *replication = client->replication;
    struct server *server = client->participants[0];
    replication->last = type;
    if (type == 'W')
        replication->streaming = true;
    if (type != 'Z')
        return;
    replication->streaming = false;
    if (server->expect_count)
        server_expect_pop(server);
}

void replication_input(struct client *client, const char *data, size_t len)
{
    if (!follow(client, &client->replication->from_client, data, len, client_message)) {
        client_fatal(client, "08P01", "invalid message length", NULL);
        return;
    }
    conn_send(&client->participants[0]->conn, data, len);
}

void replication_readable(struct server *server)
{
    struct client *client = server->client;
    ssize_t n = conn_recv(&server->conn, server->worker->io, IO_BUFFER_SIZE);
    if (n < 0) {
        server_close(server, "the server closed the connection");
        return;
    }
    if (n == 0)
        return;
    if (!follow(client, &client->replication->from_server, server->worker->io, (size_t)n,
                server_message)) {
        server_close(server, "the server sent a message of an impossible length");
        return;
    }
    client_send(client, server->worker->io, (size_t)n);
    if (conn_queued(&client->conn) > AHEAD_MAX)
        conn_set_reading(&server->conn, false);
}

/* What the server said last (why it ends, if it did) has been passed on already. */
void replication_lost_server(struct client *client, const char *reason)
{
    const struct replication *replication = client->replication;
    bool told = replication->last == 'E' || !between_messages(&replication->from_server);
    if (!told)
        client_fatal(client, "08006", reason, "Connect again.");
    else
        client_finish(client, reason);
}
