/* startup.c: takes a startup packet apart. */
#include "proxy/startup.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "pgshunt/arena.h"
#include "pgshunt/wire.h"

static bool fail(struct pg_error *error, const char *sqlstate, const char *message,
                 const char *hint)
{
    *error = (struct pg_error){
        .severity = "FATAL", .sqlstate = sqlstate, .message = message, .hint = hint};
    return false;
}

void startup_put_setting(struct guc_set **settings, const char *name, const char *value)
{
    char *lower = mem_strdup(name);
    for (char *p = lower; *p; p++)
        *p = (char)tolower((unsigned char)*p);
    if (*lower)
        guc_set_put_text(settings, lower, value);
    free(lower);
}

static bool is_one_of(const char *value, const char *const words[4])
{
    for (int i = 0; i < 4; i++)
        if (strcasecmp(value, words[i]) == 0)
            return true;
    return false;
}

static bool take_replication(const char *value, struct startup *startup, struct pg_error *error)
{
    static const char *const yes[4] = {"true", "on", "yes", "1"};
    static const char *const no[4] = {"false", "off", "no", "0"};
    if (strcmp(value, "database") == 0 || is_one_of(value, yes))
        startup->replication = value;
    else if (!is_one_of(value, no))
        return fail(error, "22023", "invalid value for parameter \"replication\"",
                    "Valid values are: \"false\", 0, \"true\", 1, \"database\".");
    return true;
}

static bool take_pair(const char *name, const char *value, struct guc_set **settings,
                      struct startup *startup, struct pg_error *error)
{
    if (strcmp(name, "user") == 0)
        startup->user = value;
    else if (strcmp(name, "database") == 0)
        startup->database = value;
    else if (strcmp(name, "options") == 0)
        startup->options = value;
    else if (strncmp(name, "_pq_.", 5) == 0)
        startup->negotiate = true;
    else if (strcmp(name, "replication") != 0)
        startup_put_setting(settings, name, value);
    else
        return take_replication(value, startup, error);
    return true;
}

/* As if they came first: the packet's other parameters count more, whatever their order. */
static bool take_options(struct guc_set **settings, struct startup *startup, struct pg_error *error)
{
    struct guc_set *merged = NULL;
    bool ok = startup_take_options(startup->options, startup, &merged, error);
    for (int i = 0; ok && i < guc_set_count(*settings); i++)
        guc_set_put(&merged, (*settings)->items[i].name, (*settings)->items[i].value);
    if (ok)
        guc_set_assign(settings, merged);
    guc_set_release(&merged);
    return ok;
}

bool startup_parse(const char *body, size_t len, struct guc_set **settings, struct startup *startup,
                   struct pg_error *error)
{
    struct wire_reader reader = wire_reader(body, len);
    int32_t version = wire_read32(&reader);
    *startup = (struct startup){0};
    if (reader.bad)
        return fail(error, "08P01", "malformed startup packet", NULL);
    startup->protocol = (uint32_t)version;
    if (startup->protocol >> 16 != 3)
        return fail(error, "0A000", "unsupported frontend protocol: pgshunt supports 3.0 to 3.2",
                    NULL);
    startup->negotiate = startup->protocol > WIRE_PROTOCOL_3_2;
    if (startup->negotiate)
        startup->protocol = WIRE_PROTOCOL_3_2;
    for (;;) {
        const char *name = wire_read_cstring(&reader);
        if (!reader.bad && !*name)
            break;
        const char *value = wire_read_cstring(&reader);
        if (reader.bad)
            return fail(error, "08P01", "malformed startup packet", NULL);
        if (!take_pair(name, value, settings, startup, error))
            return false;
    }
    if (startup->options && !take_options(settings, startup, error))
        return false;
    if (wire_left(&reader))
        return fail(error, "08P01", "malformed startup packet: bytes after its end", NULL);
    if (!startup->user || !*startup->user)
        return fail(error, "28000", "no PostgreSQL user name specified in startup packet", NULL);
    if (!startup->database || !*startup->database)
        startup->database = startup->user;
    if (strlen(startup->user) > 63 || strlen(startup->database) > 63)
        return fail(error, "42622", "user and database names have at most 63 bytes", NULL);
    return true;
}

void startup_put_negotiation(struct buffer *out, const char *body, size_t len)
{
    struct wire_reader reader = wire_reader(body, len);
    struct buffer options = {0};
    int count = 0;
    uint32_t version = (uint32_t)wire_read32(&reader);
    for (;;) {
        const char *name = wire_read_cstring(&reader);
        if (reader.bad || !*name)
            break;
        wire_read_cstring(&reader);
        if (strncmp(name, "_pq_.", 5) != 0)
            continue;
        wire_put_cstring(&options, name);
        count++;
    }
    size_t begin = wire_begin(out, 'v');
    wire_put32(out, version < WIRE_PROTOCOL_3_2 ? version : WIRE_PROTOCOL_3_2);
    wire_put32(out, count);
    wire_put_bytes(out, buffer_head(&options), buffer_length(&options));
    wire_end(out, begin);
    buffer_release(&options);
}
