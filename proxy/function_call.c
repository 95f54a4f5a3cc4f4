/*
 * function_call.c: FunctionCall messages, the fast path by which libpq reads and writes large objects.
 *
 * The function is known by its number alone, so it is taken for one that may write anything: it is sent
 * where a SELECT of a volatile function goes, unchanged, and answered with FunctionCallResponse and
 * ReadyForQuery, like a Query.
 */
#include "proxy/session.h"

#include <string.h>

#include "pgshunt/arena.h"
#include "pgshunt/wire.h"
#include "proxy/console.h"
#include "proxy/pins.h"

/* The statement whose way every function call takes: a volatile function without a table. */
#define STAND_IN "SELECT pg_catalog.lo_creat(0)"

static void refuse_on_console(struct client *client)
{
    struct buffer out = {0};
    struct pg_error error = {.sqlstate = "0A000",
                             .message = "the admin console has no functions to call",
                             .hint = "SHOW HELP lists its commands."};
    wire_put_error(&out, &error);
    wire_put_ready(&out, 'I');
    client_send_buffer(client, &out);
}

/* The message may have to wait for a server, and its number is looked at again when it is answered. */
static void keep_message(struct request *request, const char *message, size_t len)
{
    char *copy = arena_alloc(request->arena, len);
    memcpy(copy, message, len);
    request->sql = copy;
    request->sql_kept = request->function_call = true;
}

void function_call(struct client *client, const char *message, size_t len)
{
    struct request *request = &client->request;
    struct buffer none = {0};
    struct pg_error error;
    if (client->console) {
        refuse_on_console(client);
        return;
    }
    session_begin_request(client);
    if (client->state != CLIENT_BUSY)
        return;
    keep_message(request, message, len);
    struct statement_list stand_in = statement_parse(STAND_IN, request->arena);
    if (statement_local(client, stand_in.items[0], &none, &error) == LOCAL_REFUSED) {
        session_refuse(client, &error); /* in a transaction that has failed here */
        return;
    }
    attach_route(client, stand_in.items[0], NULL, request->arena, &request->plan);
    request->planned = true;
    simple_continue(client);
}

/* ---- answered ---- */

/* Built-in functions (pg_proc.dat; their numbers never change) that leave something in the session. -1: none. */
static int pin_reason(uint32_t function)
{
    switch (function) {
    case 2880: /* pg_advisory_lock and its kin, with one key and with two */
    case 2881:
    case 2882:
    case 2883:
    case 2886:
    case 2887:
    case 2888:
    case 2889:
        return PIN_LOCK;
    case 1599:
        return PIN_SEED;
    case 2078:
        return PIN_SET_CONFIG;
    default:
        return -1;
    }
}

void function_call_completed(struct client *client, struct server *server)
{
    const struct request *request = &client->request;
    if (!request->function_call)
        return;
    struct wire_reader reader =
        wire_reader(request->sql + WIRE_HEADER, wire_get32(request->sql + 1) - 4);
    int reason = pin_reason((uint32_t)wire_read32(&reader));
    if (reason >= 0)
        pin(client, server, (enum pin_reason)reason);
    server->wrote = true;
    if (client->tx)
        client->tx->wrote = client->tx->ran = true;
}
