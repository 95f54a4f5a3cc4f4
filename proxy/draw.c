/* draw.c: values that the defaults of an INSERT's columns give, asked for ahead of it. */
#include "proxy/draw.h"

#include <stdlib.h>

#include "pgshunt/arena.h"
#include "pgshunt/wire.h"
#include "proxy/session.h"

struct draw {
    struct arena arena; /* the request's may be emptied between two messages of a batch */
    struct drawn_values values;
    const char **items; /* = values.items */
    int room;
};

static struct draw *draw_of(struct client *client)
{
    if (!client->request.draw) {
        client->request.draw = mem_alloc(sizeof *client->request.draw);
        arena_init(&client->request.draw->arena);
    }
    return client->request.draw;
}

static void add(struct draw *draw, const char *value)
{
    if (draw->values.count == draw->room) {
        draw->room = draw->room ? 2 * draw->room : 4;
        draw->items = mem_realloc(draw->items, sizeof *draw->items * (size_t)draw->room);
        draw->values.items = draw->items;
    }
    draw->items[draw->values.count++] = value;
}

bool draw_take_row(struct client *client, const char *body, size_t len)
{
    struct draw *draw = draw_of(client);
    struct wire_reader reader = wire_reader(body, len);
    int count = wire_read16(&reader);
    for (int i = 0; i < count && !reader.bad; i++) {
        int32_t length = wire_read32(&reader);
        const char *bytes = length >= 0 ? wire_read_bytes(&reader, (size_t)length) : NULL;
        if (!reader.bad)
            add(draw, bytes ? arena_strndup(&draw->arena, bytes, (size_t)length) : NULL);
    }
    return !reader.bad;
}

void draw_done(struct client *client, bool extended)
{
    session_release_servers(client); /* outside of a transaction another may be wanted */
    if (extended)
        extended_scatter_done(client, false);
    else
        simple_replan(client);
}

const struct drawn_values *draw_values(const struct client *client)
{
    return client->request.draw ? &client->request.draw->values : NULL;
}

void draw_drop(struct client *client)
{
    struct draw *draw = client->request.draw;
    if (!draw)
        return;
    arena_free(&draw->arena);
    free(draw->items);
    free(draw);
    client->request.draw = NULL;
}
