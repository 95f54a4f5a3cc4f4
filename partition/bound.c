/* bound.c: boundaries printed and read for every kind of column that tables are partitioned by. */
#include "partition/bound.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* No moment is further from 2000: about 290,000 years, so that sums with an epoch fit. */
#define MOMENT_MOST (INT64_MAX - INT64_C(100000000000000000))
/* From 1970 to 2000. */
#define EPOCH_USECS (INT64_C(946684800) * 1000000)

static const struct {
    const char *name;
    bool instant;
    int64_t unit; /* of integers: microseconds; 0: it is none */
} controls[CONTROLS] = {
    [CONTROL_TIMESTAMPTZ] = {"timestamptz", true, 0},
    [CONTROL_TIMESTAMP] = {"timestamp", false, 0},
    [CONTROL_DATE] = {"date", false, 0},
    [CONTROL_ID] = {"id", false, 0},
    [CONTROL_SECONDS] = {"seconds", true, 1000000},
    [CONTROL_MILLISECONDS] = {"milliseconds", true, 1000},
    [CONTROL_MICROSECONDS] = {"microseconds", true, 1},
    [CONTROL_UUID7] = {"uuid7", true, 0},
    [CONTROL_ULID] = {"ulid", true, 0},
    [CONTROL_TEXT] = {"text", false, 0},
};

const char *control_name(enum control control)
{
    return controls[control].name;
}

bool control_by_name(const char *name, enum control *control)
{
    for (int i = 0; i < CONTROLS; i++)
        if (strcmp(controls[i].name, name) == 0) {
            *control = (enum control)i;
            return true;
        }
    return false;
}

static bool is_one_of(const char *word, const char *const *words)
{
    while (*words && strcmp(*words, word) != 0)
        words++;
    return *words != NULL;
}

/* Of types that may be several: what is said, or the usual one. */
static bool choose(const char *said, const char *const *allowed, enum control usual,
                   enum control *control)
{
    *control = usual;
    return !said || (is_one_of(said, allowed) && control_by_name(said, control));
}

bool control_of_type(const char *type, const char *said, enum control *control)
{
    static const char *const integers[] = {"smallint", "integer", "bigint", NULL};
    static const char *const texts[] = {"text", "character varying", NULL};
    static const char *const numbers[] = {"id", "seconds", "milliseconds", "microseconds", NULL};
    static const char *const words[] = {"text", "ulid", NULL};
    if (is_one_of(type, integers))
        return choose(said, numbers, CONTROL_ID, control);
    if (is_one_of(type, texts))
        return choose(said, words, CONTROL_TEXT, control);
    *control = strcmp(type, "timestamp with time zone") == 0      ? CONTROL_TIMESTAMPTZ
               : strcmp(type, "timestamp without time zone") == 0 ? CONTROL_TIMESTAMP
               : strcmp(type, "date") == 0                        ? CONTROL_DATE
               : strcmp(type, "uuid") == 0                        ? CONTROL_UUID7
                                                                  : CONTROL_ID;
    return *control != CONTROL_ID && (!said || strcmp(said, controls[*control].name) == 0);
}

bool control_is_instant(enum control control)
{
    return controls[control].instant;
}

const char *control_refuses(enum control control, const struct interval *interval)
{
    bool number = interval->unit == UNIT_NUMBER;
    if (control == CONTROL_ID)
        return number ? NULL : "the column has numbers: partitions are so many numbers wide";
    if (number)
        return "the column has times: an interval has a unit, as in 1month";
    if (interval_is_fixed(interval) && control == CONTROL_DATE)
        return "the column has dates: an interval is one day or longer";
    if (interval_is_fixed(interval) && control == CONTROL_TEXT)
        return "text is told apart by its date: an interval is one day or longer";
    return NULL;
}

/* ---- printing ---- */

static bool print_integer(int width, int64_t value, char text[BOUND_TEXT])
{
    if ((width == 2 && value != (int16_t)value) || (width == 4 && value != (int32_t)value))
        return false;
    snprintf(text, BOUND_TEXT, "%lld", (long long)value);
    return true;
}

/* Milliseconds since 1970, 48 bits of them. */
static bool stamp_of(int64_t point, uint64_t *stamp)
{
    int64_t value = (point + EPOCH_USECS) / 1000;
    *stamp = (uint64_t)value;
    return point >= -EPOCH_USECS && value < INT64_C(1) << 48;
}

static const char crockford[] = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";
#define ULID_STAMP 10 /* characters */
#define ULID_REST 16

static void print_ulid(uint64_t stamp, char *text)
{
    for (int i = ULID_STAMP - 1; i >= 0; i--, stamp >>= 5)
        text[i] = crockford[stamp & 31];
    memset(text + ULID_STAMP, '0', ULID_REST);
    text[ULID_STAMP + ULID_REST] = '\0';
}

/* The least value that has this time: the rest of its bits is zero. */
static bool print_stamp(enum control control, int64_t point, char text[BOUND_TEXT])
{
    uint64_t stamp;
    if (!stamp_of(point, &stamp))
        return false;
    if (control == CONTROL_ULID)
        print_ulid(stamp, text);
    else
        snprintf(text, BOUND_TEXT, "%08llx-%04llx-0000-0000-000000000000",
                 (unsigned long long)(stamp >> 16), (unsigned long long)(stamp & 0xffff));
    return true;
}

bool bound_print(enum control control, int width, int64_t point, char text[BOUND_TEXT])
{
    char civil[CIVIL_TEXT];
    if (control == CONTROL_ID)
        return print_integer(width, point, text);
    if (point < -MOMENT_MOST || point > MOMENT_MOST)
        return false;
    if (controls[control].unit)
        return print_integer(width, (point + EPOCH_USECS) / controls[control].unit, text);
    if (control == CONTROL_UUID7 || control == CONTROL_ULID)
        return print_stamp(control, point, text);
    bool day = control == CONTROL_DATE || control == CONTROL_TEXT;
    snprintf(text, BOUND_TEXT, "%.*s%s", day ? 10 : CIVIL_TEXT, civil_print(point, civil),
             control == CONTROL_TIMESTAMPTZ ? "+00" : "");
    struct civil parts = civil_of(point);
    return parts.year >= 1 && parts.year <= (day ? 9999 : 294275);
}

/* ---- reading ---- */

static bool read_integer(const char *text, int64_t *value)
{
    char *end;
    errno = 0;
    *value = strtoll(text, &end, 10);
    return end != text && !*end && errno == 0;
}

static bool read_epoch(enum control control, const char *text, int64_t *point)
{
    int64_t value;
    if (!read_integer(text, &value) || __builtin_mul_overflow(value, controls[control].unit, point))
        return false;
    return !__builtin_sub_overflow(*point, EPOCH_USECS, point);
}

static bool read_uuid(const char *text, int64_t *point)
{
    uint64_t stamp = 0;
    int digits = 0;
    for (const char *at = text; *at && digits < 12; at++) {
        if (*at == '-')
            continue;
        if (!isxdigit((unsigned char)*at))
            return false;
        int digit =
            isdigit((unsigned char)*at) ? *at - '0' : tolower((unsigned char)*at) - 'a' + 10;
        stamp = stamp << 4 | (unsigned)digit;
        digits++;
    }
    *point = (int64_t)stamp * 1000 - EPOCH_USECS;
    return digits == 12;
}

static bool read_ulid(const char *text, int64_t *point)
{
    uint64_t stamp = 0;
    for (int i = 0; i < ULID_STAMP; i++) {
        const char *digit = text[i] ? strchr(crockford, toupper((unsigned char)text[i])) : NULL;
        if (!digit)
            return false;
        stamp = stamp << 5 | (uint64_t)(digit - crockford);
    }
    *point = (int64_t)(stamp & ((UINT64_C(1) << 48) - 1)) * 1000 - EPOCH_USECS;
    return true;
}

static bool read_time(enum control control, const char *text, int64_t *point)
{
    const char *rest;
    if (strcmp(text, "infinity") == 0 || strcmp(text, "-infinity") == 0) {
        *point = *text == '-' ? BOUND_LEAST : BOUND_MOST;
        return true;
    }
    if (!civil_read(text, point, &rest))
        return false;
    if (control == CONTROL_TIMESTAMPTZ && strcmp(rest, "+00") == 0)
        rest += 3;
    return !*rest || control == CONTROL_TEXT;
}

bool bound_read(enum control control, const char *text, int64_t *point)
{
    if (control == CONTROL_ID)
        return read_integer(text, point);
    if (controls[control].unit)
        return read_epoch(control, text, point);
    if (control == CONTROL_UUID7)
        return read_uuid(text, point);
    if (control == CONTROL_ULID)
        return read_ulid(text, point);
    return read_time(control, text, point);
}

static bool take(const char **at, const char *word)
{
    size_t length = strlen(word);
    if (strncmp(*at, word, length) != 0)
        return false;
    *at += length;
    return true;
}

/* MINVALUE, 'quoted', or a bare number, up to the parenthesis. */
static bool read_datum(enum control control, const char **at, int64_t *point)
{
    char value[BOUND_TEXT * 2];
    size_t length = 0;
    if (take(at, "MINVALUE")) {
        *point = BOUND_LEAST;
        return take(at, ")");
    }
    if (take(at, "MAXVALUE")) {
        *point = BOUND_MOST;
        return take(at, ")");
    }
    bool quoted = take(at, "'");
    while (**at && **at != (quoted ? '\'' : ')') && length < sizeof value - 1)
        value[length++] = *(*at)++;
    value[length] = '\0';
    return (!quoted || take(at, "'")) && take(at, ")") && bound_read(control, value, point);
}

bool bound_read_range(enum control control, const char *text, struct bound_range *range)
{
    const char *at = text;
    return take(&at, "FOR VALUES FROM (") && read_datum(control, &at, &range->from) &&
           take(&at, " TO (") && read_datum(control, &at, &range->to) && !*at;
}
