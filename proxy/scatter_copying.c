/* scatter_copying.c: COPY among a fan-out's messages: the shards', and the client's rows. */
#include "proxy/scatter_copy.h"

#include <string.h>

#include "pgshunt/wire.h"
#include "proxy/scatter_internal.h"

void scatter_put_no_data(struct scatter *scatter)
{
    if (scatter->ask.prepared && scatter->ask.describe && !scatter->described)
        wire_put_simple(&scatter->out, 'n');
    scatter->described = true;
}

void scatter_copying_message(struct scatter *scatter, struct part *part, int index, char type,
                             const char *body, size_t len)
{
    if (!scatter->copy || scatter->failed || part->cancelled)
        return;
    bool out = scatter_copy_is_out(scatter->copy);
    if (out != (type == 'H' || type == 'd'))
        return;
    scatter_put_no_data(scatter);
    if (out)
        scatter_copy_out(scatter->copy, index, type, body, len, &scatter->out);
    else if (scatter_copy_opened(scatter->copy, body, len, &scatter->out))
        client_answer(scatter->client, &scatter->out);
}

bool scatter_takes_copy(const struct client *client)
{
    const struct scatter *scatter = client->scatter;
    return scatter && scatter->copy && scatter_copy_streams(scatter->copy);
}

/* Deferred constraints are checked everywhere before anything is committed anywhere. */
static void copy_done(struct scatter *scatter)
{
    const struct pg_error *error = NULL;
    struct buffer out = {0};
    if (!scatter_copy_done(scatter->copy, &error)) {
        scatter_fail(scatter, error, NULL);
        return;
    }
    if (scatter->ends_itself)
        wire_put_query(&out, COMMIT_CHECK);
    for (int i = 0; scatter->ends_itself && i < scatter->nparts; i++) {
        struct part *part = &scatter->parts[i];
        if (!part->server)
            continue;
        scatter_await(scatter, part);
        conn_send(&part->server->conn, buffer_head(&out), buffer_length(&out));
    }
    buffer_release(&out);
}

static void copy_given_up(struct scatter *scatter, const char *reason, size_t len)
{
    struct pg_error error = {
        .sqlstate = "57014",
        .message = arena_printf(&scatter->arena, "COPY from stdin failed: %.*s",
                                (int)strnlen(reason, len), reason),
    };
    scatter_fail(scatter, &error, NULL);
}

static void copy_rows(struct client *client, const char *bytes, size_t len)
{
    struct scatter *scatter = client->scatter;
    const struct pg_error *error = NULL;
    client->copy_left -= len;
    if (!scatter_copy_rows(scatter->copy, bytes, len, &error))
        scatter_fail(scatter, error, NULL);
}

/* One whole message that is no CopyData. */
static void copy_control(struct client *client, char type, const char *body, size_t len)
{
    switch (type) {
    case 'c':
        copy_done(client->scatter);
        break;
    case 'f':
        copy_given_up(client->scatter, body, len);
        break;
    case 'H': /* Postgres ignores Flush and Sync while it copies in */
    case 'S':
        break;
    default:
        session_copy_refuse(client, type);
        break;
    }
}

size_t scatter_copy_input(struct client *client, const char *data, size_t len)
{
    size_t used = 0;
    while (used < len && scatter_takes_copy(client) && !client->terminate) {
        const char *at = data + used;
        size_t left = len - used;
        if (client->copy_left) {
            left = left < client->copy_left ? left : client->copy_left;
            copy_rows(client, at, left);
            used += left;
            continue;
        }
        uint32_t length = left < WIRE_HEADER ? 0 : wire_get32(at + 1);
        if (left < WIRE_HEADER || session_refuse_length(client, at[0], length))
            break;
        if (at[0] == 'd') {
            client->copy_left = length - 4;
            used += WIRE_HEADER;
            continue;
        }
        if (left < 1 + (size_t)length)
            break;
        copy_control(client, at[0], at + WIRE_HEADER, length - 4);
        used += 1 + (size_t)length;
    }
    if (client->scatter && client->scatter->copy)
        scatter_copy_send(client->scatter->copy);
    return used;
}
