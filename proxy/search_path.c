/* search_path.c: the search_path that a client's statements have, as SHOW would tell it. */
#include "proxy/search_path.h"

#include <string.h>

#include "pgshunt/schema.h"
#include "proxy/guc.h"
#include "proxy/pool.h"
#include "proxy/session.h"
#include "proxy/topology.h"

/* The setting's value in SQL; NULL: its default. Changes of a transaction count before it ends. */
static const char *setting(const struct client *client, const char *name)
{
    const struct guc_pending *pending = client->tx ? &client->tx->settings : NULL;
    for (int i = pending ? pending->count : 0; i-- > 0;) {
        const struct guc_change *change = &pending->items[i];
        if (change->kind == GUC_SET && strcmp(change->name, name) != 0)
            continue;
        if (change->kind == GUC_RESET_ALL && strcmp(name, "search_path") != 0)
            continue; /* it leaves alone who one is */
        return change->kind == GUC_SET && change->value ? change->value
                                                        : guc_set_get(client->startup, name);
    }
    return guc_set_get(client->guc, name);
}

/* One string constant from *at on, ' or E' in front; its text. */
static char *take_string(const char **at, struct arena *arena)
{
    const char *p = *at;
    p += *p == ' ';
    bool escapes = *p == 'E';
    p += escapes;
    if (*p != '\'')
        return NULL;
    char *out = arena_alloc(arena, strlen(p) + 1), *to = out;
    for (p++; *p; p++) {
        if (*p == '\'' && p[1] != '\'')
            break;
        p += *p == '\'' || (escapes && *p == '\\' && p[1]);
        *to++ = *p;
    }
    *to = '\0';
    *at = *p ? p + 1 : p;
    return out;
}

/* Each constant of SET is a name as it stands; what set_config() has set is a list itself. */
static const char *list_of(const char *value, struct arena *arena)
{
    struct buffer out = {0};
    bool list = *value == '\1';
    value += list;
    for (const char *name; (name = take_string(&value, arena));) {
        if (list) {
            buffer_release(&out);
            return name;
        }
        buffer_printf(&out, "%s", buffer_length(&out) ? ", " : "");
        guc_append_identifier(&out, name);
        value += strspn(value, ",");
    }
    const char *text = arena_strndup(arena, buffer_head(&out), buffer_length(&out));
    buffer_release(&out);
    return text;
}

const char *search_path_user(const struct client *client, struct arena *arena)
{
    const char *role = setting(client, "role");
    const char *user = role ? role : setting(client, "session_authorization");
    const char *name = user ? take_string(&user, arena) : NULL;
    return name && strcmp(name, "none") != 0 ? name : client->account->server_user;
}

const char *search_path_of(const struct client *client, struct arena *arena)
{
    const char *value = setting(client, "search_path");
    if (value)
        return list_of(value, arena);
    const char *known =
        client->schema ? schema_search_path(client->schema->schema, client->account->server_user)
                       : NULL;
    return known ? known : "\"$user\", public";
}
