/* pins.c: why a server connection stays with its client, and when it need not any more. */
#include "proxy/pins.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "pgshunt/log.h"
#include "pgshunt/session_function.h"
#include "pgshunt/wire.h"
#include "proxy/client.h"
#include "proxy/server.h"

#define BIT(reason) (1u << (reason))

/* Reasons that a server can be asked about (see probe_sql). */
#define ASKABLE (BIT(PIN_TEMPORARY) | BIT(PIN_LOCK) | BIT(PIN_CURSOR))

static const struct {
    const char *name;
    bool outlives_discard; /* DISCARD ALL does not undo it: the connection cannot be used again */
} reasons[PIN_REASONS] = {
    [PIN_TEMPORARY] = {"temporary table", false},
    [PIN_LOCK] = {"session advisory lock", false},
    [PIN_CURSOR] = {"WITH HOLD cursor", false},
    [PIN_LISTEN] = {"LISTEN", false},
    [PIN_PREPARE] = {"SQL-level PREPARE", false},
    [PIN_SEQUENCE] = {"sequence state", false},
    [PIN_SEED] = {"setseed()", false},
    [PIN_SET_CONFIG] = {"set_config()", false},
    [PIN_LOAD] = {"LOAD", true},
    [PIN_DBLINK] = {"dblink connection", true},
    [PIN_ORIGIN] = {"replication origin", true},
    [PIN_FUNCTION] = {"function of pool.pin_functions", true},
    [PIN_REPLICATION] = {"replication", true},
};

const char *pin_reason_name(enum pin_reason reason)
{
    return reasons[reason].name;
}

const char *pins_describe(uint32_t pins, char *out, int size)
{
    int used = 0;
    out[0] = '\0';
    for (int i = 0; i < PIN_REASONS; i++)
        if (pins & BIT(i) && used < size)
            used += snprintf(out + used, (size_t)(size - used), "%s%s", used ? ", " : "",
                             reasons[i].name);
    return out;
}

uint32_t pins_of(const struct client *client)
{
    uint32_t pins = 0;
    for (int i = 0; i < client->nparticipants; i++)
        pins |= client->participants[i]->pins;
    return pins;
}

bool pins_can_be_reset(const struct server *server)
{
    for (int i = 0; i < PIN_REASONS; i++)
        if (server->pins & BIT(i) && reasons[i].outlives_discard)
            return false;
    return true;
}

/* ---- pinning ---- */

void pin(struct client *client, struct server *server, enum pin_reason reason)
{
    server->doubtful_pins &= ~BIT(reason);
    server->new_pins |= BIT(reason);
    if (server->pins & BIT(reason))
        return;
    log_event(LOG_DEBUG, "server pinned", LOG_I("client", client->id), LOG_I("server", server->id),
              LOG_S("reason", reasons[reason].name));
    server->pins |= BIT(reason);
    server->pinned = true;
    if (client_keeps_servers(client))
        return; /* it would have stayed anyway */
    client->pins_told |= BIT(reason);
    client->worker->pins[reason]++;
}

static void keep_only(struct server *server, uint32_t pins)
{
    server->pins &= pins;
    server->new_pins &= pins;
    server->doubtful_pins &= pins;
    server->pinned = server->pins != 0;
}

void unpin(struct server *server, enum pin_reason reason)
{
    keep_only(server, ~BIT(reason));
}

void unpin_all(struct server *server)
{
    keep_only(server, 0);
}

/* ---- statements ---- */

static void follow_function(struct client *client, struct server *server, const char *name)
{
    switch (session_function(name)) {
    case SESSION_LOCK:
        pin(client, server, PIN_LOCK);
        break;
    case SESSION_UNLOCK:
        server->doubtful_pins |= server->pins & BIT(PIN_LOCK);
        break;
    case SESSION_UNLOCK_ALL:
        unpin(server, PIN_LOCK);
        break;
    case SESSION_SEED:
        pin(client, server, PIN_SEED);
        break;
    case SESSION_DBLINK:
        pin(client, server, PIN_DBLINK);
        break;
    case SESSION_ORIGIN:
        pin(client, server, PIN_ORIGIN);
        break;
    case SESSION_NOTHING:
    case SESSION_SET_CONFIG:
    case SESSION_SEQUENCE:
    case SESSION_CURRVAL:
    case SESSION_LISTENING:
        break;
    }
}

static bool is_called(const struct function_ref *call, const char *listed, size_t len)
{
    const char *dot = memchr(listed, '.', len);
    size_t schema = dot ? (size_t)(dot - listed) : 0, skip = dot ? schema + 1 : 0;
    if (strlen(call->name) != len - skip || strncmp(call->name, listed + skip, len - skip) != 0)
        return false;
    return !dot || !call->schema ||
           (strlen(call->schema) == schema && strncmp(call->schema, listed, schema) == 0);
}

static bool is_listed(const char *list, const struct function_ref *call)
{
    while (*(list += strspn(list, ", \t"))) {
        size_t len = strcspn(list, ", \t");
        if (is_called(call, list, len))
            return true;
        list += len;
    }
    return false;
}

static void follow_functions(struct client *client, struct server *server,
                             const struct statement *statement)
{
    const char *listed = client->topology->config->pin_functions;
    for (int i = 0; statement->facts & FACT_SESSION && i < statement->nfunctions; i++)
        follow_function(client, server, statement->functions[i].name);
    for (int i = 0; listed[0] && i < statement->nfunctions; i++)
        if (is_listed(listed, &statement->functions[i]))
            pin(client, server, PIN_FUNCTION);
}

static void created(struct client *client, struct server *server, const struct statement *statement)
{
    if (!statement->create_temp || strncmp(statement->tag, "DROP", 4) == 0) {
        /* DROP, and what takes a temporary object along */
        server->doubtful_pins |= server->pins & BIT(PIN_TEMPORARY);
        return;
    }
    pin(client, server, PIN_TEMPORARY);
    if (strcasestr(statement->text, "drop")) /* ON COMMIT DROP */
        server->doubtful_pins |= BIT(PIN_TEMPORARY);
}

static void discarded(struct server *server, const char *what)
{
    if (strcmp(what, "ALL") == 0)
        unpin_all(server);
    else if (strcmp(what, "TEMP") == 0)
        unpin(server, PIN_TEMPORARY);
    else if (strcmp(what, "SEQUENCES") == 0)
        unpin(server, PIN_SEQUENCE);
}

void pins_follow(struct client *client, struct server *server, const struct statement *statement)
{
    switch ((int)statement->kind) {
    case STMT_QUERY:
        if (statement->facts & FACT_INTO && statement->create_temp)
            pin(client, server, PIN_TEMPORARY);
        break;
    case STMT_CREATE_TABLE:
    case STMT_CREATE_TABLE_AS:
    case STMT_DDL:
        created(client, server, statement);
        break;
    case STMT_LISTEN:
        pin(client, server, PIN_LISTEN);
        break;
    case STMT_UNLISTEN:
        if (!statement->name)
            unpin(server, PIN_LISTEN);
        break;
    case STMT_PREPARE:
        pin(client, server, PIN_PREPARE);
        break;
    case STMT_DECLARE_CURSOR:
        if (statement->cursor_hold)
            pin(client, server, PIN_CURSOR);
        break;
    case STMT_CLOSE_CURSOR:
        if (!statement->name)
            unpin(server, PIN_CURSOR);
        else
            server->doubtful_pins |= server->pins & BIT(PIN_CURSOR);
        break;
    case STMT_LOAD:
        pin(client, server, PIN_LOAD);
        break;
    case STMT_DISCARD:
        discarded(server, statement->name);
        break;
    default:
        break;
    }
    if (statement->nfunctions)
        follow_functions(client, server, statement);
}

/* What the transaction made is gone; locks stay, they are the session's. */
void pins_rolled_back(struct server *server)
{
    server->doubtful_pins |= server->new_pins & (BIT(PIN_TEMPORARY) | BIT(PIN_CURSOR));
    server->new_pins = 0;
}

void pins_committed(struct server *server)
{
    server->new_pins = 0;
}

/* ---- asking ---- */

/* The number of rows of the answer is the set of bits: no row has to be looked at. */
static const char probe_sql[] =
    "SELECT FROM pg_catalog.generate_series(1, CASE WHEN EXISTS (SELECT FROM pg_catalog.pg_class "
    "WHERE relnamespace OPERATOR(pg_catalog.=) pg_catalog.pg_my_temp_schema()) OR EXISTS (SELECT "
    "FROM pg_catalog.pg_proc WHERE pronamespace OPERATOR(pg_catalog.=) "
    "pg_catalog.pg_my_temp_schema()) OR EXISTS (SELECT FROM pg_catalog.pg_type WHERE typnamespace "
    "OPERATOR(pg_catalog.=) pg_catalog.pg_my_temp_schema()) THEN 1 ELSE 0 END "
    "OPERATOR(pg_catalog.+) CASE WHEN EXISTS (SELECT FROM pg_catalog.pg_locks WHERE locktype "
    "OPERATOR(pg_catalog.=) 'advisory' AND pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid()) "
    "THEN 2 ELSE 0 END OPERATOR(pg_catalog.+) CASE WHEN EXISTS (SELECT FROM pg_catalog.pg_cursors "
    "WHERE is_holdable) THEN 4 ELSE 0 END)";

_Static_assert(BIT(PIN_TEMPORARY) == 1 && BIT(PIN_LOCK) == 2 && BIT(PIN_CURSOR) == 4,
               "the probe's answer is in bits of these reasons");

void pins_probe(struct client *client, struct server *server)
{
    struct buffer out = {0};
    (void)client;
    server->probing = true;
    server->doubtful_pins = 0;
    wire_put_query(&out, probe_sql);
    struct expect *expect = server_expect(server, EXPECT_QUERY);
    expect->swallow = expect->probe = true;
    server->unnamed = (struct prepared_key){0};
    conn_send(&server->conn, buffer_head(&out), buffer_length(&out));
    buffer_release(&out);
}

void pins_probed(struct server *server, int64_t holding)
{
    /* What a statement sent behind the probe has pinned is not answered yet. */
    if (holding >= 0)
        keep_only(server, ~ASKABLE | (uint32_t)holding);
}

/* ---- telling ---- */

void pins_notice(struct client *client)
{
    char names[200], message[300];
    struct buffer out = {0};
    uint32_t pins = client->pins_told;
    client->pins_told = 0;
    if (client->pin_noticed || !client->topology->config->pin_notice)
        return;
    client->pin_noticed = true;
    snprintf(message, sizeof message, "this session keeps its server connection for itself (%s)",
             pins_describe(pins, names, sizeof names));
    struct pg_error notice = {.severity = "NOTICE",
                              .sqlstate = "00000",
                              .message = message,
                              .hint = "In transaction pooling each such session takes a connection "
                                      "out of the pool until the reason ends."};
    wire_put_notice(&out, &notice);
    client_send_buffer(client, &out);
}
