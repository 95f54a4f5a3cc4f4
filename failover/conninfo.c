/* conninfo.c: takes primary_conninfo and synchronous_standby_names apart. */
#include "failover/conninfo.h"

#include <ctype.h>
#include <libpq-fe.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "pgshunt/buffer.h"

/* ---- primary_conninfo ---- */

static bool is_place(const char *keyword)
{
    return strcmp(keyword, "host") == 0 || strcmp(keyword, "port") == 0 ||
           strcmp(keyword, "hostaddr") == 0;
}

static void put(struct buffer *out, const char *keyword, const char *value)
{
    buffer_printf(out, "%s%s='", buffer_length(out) ? " " : "", keyword);
    for (const char *p = value; *p; p++)
        buffer_printf(out, *p == '\'' || *p == '\\' ? "\\%c" : "%c", *p);
    buffer_printf(out, "'");
}

const char *conninfo_redirect(struct arena *arena, const char *conninfo, const char *host, int port)
{
    char number[16];
    struct buffer out = {0};
    PQconninfoOption *options = PQconninfoParse(conninfo, NULL);
    if (!options)
        return NULL;
    snprintf(number, sizeof number, "%d", port);
    put(&out, "host", host);
    put(&out, "port", number);
    for (const PQconninfoOption *option = options; option->keyword; option++)
        if (option->val && !is_place(option->keyword))
            put(&out, option->keyword, option->val);
    PQconninfoFree(options);
    const char *text = arena_strndup(arena, buffer_head(&out), buffer_length(&out));
    buffer_release(&out);
    return text;
}

const char *conninfo_value(struct arena *arena, const char *conninfo, const char *keyword)
{
    const char *value = "";
    PQconninfoOption *options = PQconninfoParse(conninfo, NULL);
    for (const PQconninfoOption *option = options; option && option->keyword; option++)
        if (option->val && strcmp(option->keyword, keyword) == 0)
            value = arena_strdup(arena, option->val);
    PQconninfoFree(options);
    return value;
}

bool conninfo_leads_to(const char *conninfo, const char *host, int port)
{
    struct arena arena;
    arena_init(&arena);
    const char *its_port = conninfo_value(&arena, conninfo, "port");
    bool same = strcmp(conninfo_value(&arena, conninfo, "host"), host) == 0 &&
                (*its_port ? atoi(its_port) : 5432) == port;
    arena_free(&arena);
    return same;
}

/* ---- synchronous_standby_names ---- */

static void skip_blank(const char **at)
{
    while (isspace((unsigned char)**at))
        (*at)++;
}

static bool is_name_byte(char c)
{
    return isalnum((unsigned char)c) || c == '_' || c == '$' || c == '*' ||
           (unsigned char)c >= 0x80;
}

/* The next name or number, without its quotes; NULL: none. */
static const char *take_name(const char **at, struct arena *arena)
{
    skip_blank(at);
    struct buffer out = {0};
    const char *p = *at;
    if (*p == '"') {
        for (p++; *p && (p[0] != '"' || p[1] == '"'); p += p[0] == '"' ? 2 : 1)
            buffer_append(&out, p, 1);
        if (*p != '"') {
            buffer_release(&out);
            return NULL;
        }
        p++;
    } else {
        for (; is_name_byte(*p); p++)
            buffer_append(&out, p, 1);
    }
    const char *name =
        buffer_length(&out) ? arena_strndup(arena, buffer_head(&out), buffer_length(&out)) : NULL;
    buffer_release(&out);
    *at = p;
    return name;
}

static bool take_list(const char **at, struct arena *arena, struct sync_names *names)
{
    int room = (int)strlen(*at) / 2 + 1;
    names->names = arena_array(arena, const char *, room);
    do {
        const char *name = take_name(at, arena);
        if (!name || names->count == room)
            return false;
        names->all |= strcmp(name, "*") == 0;
        names->names[names->count++] = name;
        skip_blank(at);
    } while (*(*at)++ == ',');
    (*at)--;
    return true;
}

/* "FIRST n (", "ANY n (" or "n (": moves behind it. Else it is a plain list. */
static bool take_head(const char **at, struct arena *arena, struct sync_names *names)
{
    const char *p = *at, *word = take_name(&p, arena);
    if (!word)
        return false;
    bool keyword = strcasecmp(word, "FIRST") == 0 || strcasecmp(word, "ANY") == 0;
    bool any = strcasecmp(word, "ANY") == 0;
    const char *number = keyword ? take_name(&p, arena) : word;
    skip_blank(&p);
    if (!number || *p != '(' || strspn(number, "0123456789") != strlen(number))
        return false;
    names->any = any;
    names->needed = atoi(number);
    *at = p + 1;
    return true;
}

struct sync_names sync_names_parse(struct arena *arena, const char *text)
{
    struct sync_names names = {.needed = 1};
    skip_blank(&text);
    if (!*text)
        return (struct sync_names){.needed = 0};
    bool bracket = take_head(&text, arena, &names);
    names.bad = !take_list(&text, arena, &names);
    skip_blank(&text);
    if (bracket)
        names.bad |= *text++ != ')';
    if (!names.bad)
        skip_blank(&text);
    names.bad |= !names.bad && *text;
    return names;
}

bool sync_names_has(const struct sync_names *names, const char *standby)
{
    for (int i = 0; i < names->count; i++)
        if (names->all || strcasecmp(names->names[i], standby) == 0)
            return true;
    return false;
}
