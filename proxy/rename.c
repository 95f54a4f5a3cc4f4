/* rename.c: puts the client's names of statements into what servers say of theirs. */
#include "proxy/rename.h"

#include <string.h>

#include "pgshunt/wire.h"
#include "proxy/session.h"

/* A text with the client's own name where the server's stands. */
static void put_renamed(struct buffer *out, const char *text, const char *ours, const char *name)
{
    const char *at;
    while ((at = strstr(text, ours))) {
        wire_put_bytes(out, text, (size_t)(at - text));
        wire_put_bytes(out, name, strlen(name));
        text = at + strlen(ours);
    }
    wire_put_cstring(out, text);
}

bool rename_error(const struct client *client, const struct prepared *prepared, uint32_t called,
                  const char *body, size_t len, struct buffer *out)
{
    const char *ours = prepared->uses ? prepared->uses->server_name : prepared->server_name;
    const char *name = extended_name_of(client, prepared, called);
    if (!name || !memmem(body, len, ours, strlen(ours)))
        return false;
    struct wire_reader reader = wire_reader(body, len);
    size_t begin = wire_begin(out, 'E');
    for (int field; (field = wire_read8(&reader)) && !reader.bad;) {
        wire_put8(out, field);
        put_renamed(out, wire_read_cstring(&reader), ours, name);
    }
    wire_put8(out, 0);
    wire_end(out, begin);
    return true;
}
