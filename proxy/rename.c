/* rename.c: puts the client's names of statements, and places in its text, into what servers say of theirs. */
#include "proxy/rename.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pgshunt/wire.h"
#include "proxy/session.h"

/* A name of ours, and the client's own for the same. */
struct renaming {
    const char *ours, *name;
};

/* A text with the client's own names where the server's stand. */
static void put_renamed(struct buffer *out, const char *text, const struct renaming *names,
                        int count)
{
    for (;;) {
        const struct renaming *first = NULL;
        const char *at = NULL;
        for (int i = 0; i < count; i++) {
            const char *found = strstr(text, names[i].ours);
            if (found && (!at || found < at)) {
                at = found;
                first = &names[i];
            }
        }
        if (!first)
            break;
        wire_put_bytes(out, text, (size_t)(at - text));
        wire_put_bytes(out, first->name, strlen(first->name));
        text = at + strlen(first->ours);
    }
    wire_put_cstring(out, text);
}

/* Those that occur in the error. */
static int add_renaming(struct renaming *names, int count, const struct client *client,
                        const struct prepared *prepared, uint32_t called, const char *body,
                        size_t len)
{
    const char *ours = prepared->server_name;
    const char *name =
        memmem(body, len, ours, strlen(ours)) ? extended_name_of(client, prepared, called) : NULL;
    if (!name)
        return count;
    names[count] = (struct renaming){ours, name};
    return count + 1;
}

long rename_position(const struct client *client, long position)
{
    const struct sql_names *names = client->request.names;
    long own = position;
    if (names && names->in_place)
        return 0;
    for (int i = 0; names && i < names->nshifts; i++)
        if (position > names->shifts[i].behind)
            own -= names->shifts[i].less;
    return own > 0 ? own : 1;
}

static void put_position(struct buffer *out, const struct client *client, const char *text)
{
    char position[24];
    long own = rename_position(client, strtol(text, NULL, 10));
    if (!own)
        return;
    snprintf(position, sizeof position, "%ld", own);
    wire_put8(out, 'P');
    wire_put_cstring(out, position);
}

bool rename_error(const struct client *client, const struct prepared *prepared, uint32_t called,
                  const char *body, size_t len, struct buffer *out)
{
    struct renaming names[2];
    const struct sql_names *texts = client->request.names;
    bool shifted = texts && (texts->nshifts || texts->in_place);
    int count = prepared ? add_renaming(names, 0, client, prepared, called, body, len) : 0;
    if (prepared && prepared->uses) /* its own text has that name */
        count = add_renaming(names, count, client, prepared->uses, 0, body, len);
    if (!count && !shifted)
        return false;
    struct wire_reader reader = wire_reader(body, len);
    size_t begin = wire_begin(out, 'E');
    for (int field; (field = wire_read8(&reader)) && !reader.bad;) {
        const char *text = wire_read_cstring(&reader);
        if (field == 'P' && shifted) {
            put_position(out, client, text);
            continue;
        }
        wire_put8(out, field);
        put_renamed(out, text, names, count);
    }
    wire_put8(out, 0);
    wire_end(out, begin);
    return true;
}
