/* cron.c: crontab's times parsed. */
#include "pgshunt/cron.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static const char *const months[] = {"jan", "feb", "mar", "apr", "may", "jun",
                                     "jul", "aug", "sep", "oct", "nov", "dec"};
static const char *const weekdays[] = {"sun", "mon", "tue", "wed", "thu", "fri", "sat"};

/* A field: what its numbers may be, and what names stand for them. */
struct field {
    int least, most;
    const char *const *names; /* NULL: none */
    int nnames, first;        /* the first one's number */
};

static bool take_value(const char **at, const struct field *field, int *value)
{
    for (int i = 0; i < field->nnames; i++)
        if (strncasecmp(*at, field->names[i], 3) == 0) {
            *at += 3;
            *value = field->first + i;
            return true;
        }
    if (!isdigit((unsigned char)**at))
        return false;
    *value = 0;
    while (isdigit((unsigned char)**at) && *value < 1000)
        *value = *value * 10 + *(*at)++ - '0';
    return *value >= field->least && *value <= field->most;
}

/* "*", "5", "1-5", each with a step behind it. */
static bool take_range(const char **at, const struct field *field, uint64_t *bits)
{
    int low = field->least, high = field->most, step = 1;
    if (**at == '*')
        (*at)++;
    else {
        if (!take_value(at, field, &low))
            return false;
        high = **at == '/' ? high : low;
        if (**at == '-' && ((*at)++, !take_value(at, field, &high)))
            return false;
    }
    if (**at == '/') {
        char *end;
        step = (int)strtol(*at + 1, &end, 10);
        if (end == *at + 1 || step < 1 || step > field->most)
            return false;
        *at = end;
    }
    for (int i = low; i <= high; i += step)
        *bits |= UINT64_C(1) << i;
    return low <= high;
}

static bool take_field(const char **at, const struct field *field, uint64_t *bits)
{
    *bits = 0;
    while (isspace((unsigned char)**at))
        (*at)++;
    do {
        if (!take_range(at, field, bits))
            return false;
    } while (**at == ',' && (*at)++);
    return !**at || isspace((unsigned char)**at);
}

static const char *shorthand(const char *text)
{
    static const char *const known[][2] = {
        {"@hourly", "0 * * * *"}, {"@daily", "0 0 * * *"},   {"@midnight", "0 0 * * *"},
        {"@weekly", "0 0 * * 0"}, {"@monthly", "0 0 1 * *"}, {"@yearly", "0 0 1 1 *"},
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strcmp(text, known[i][0]) == 0)
            return known[i][1];
    return text;
}

static bool begins_with_star(const char *at)
{
    while (isspace((unsigned char)*at))
        at++;
    return *at == '*';
}

bool cron_parse(const char *text, struct cron *cron)
{
    static const struct field minute = {0, 59, NULL, 0, 0}, hour = {0, 23, NULL, 0, 0},
                              day = {1, 31, NULL, 0, 0}, month = {1, 12, months, 12, 1},
                              weekday = {0, 7, weekdays, 7, 0};
    const char *at = shorthand(text);
    *cron = (struct cron){.minutes = 0};
    if (!take_field(&at, &minute, &cron->minutes) || !take_field(&at, &hour, &cron->hours))
        return false;
    cron->any_day = begins_with_star(at);
    if (!take_field(&at, &day, &cron->days) || !take_field(&at, &month, &cron->months))
        return false;
    cron->any_weekday = begins_with_star(at);
    if (!take_field(&at, &weekday, &cron->weekdays))
        return false;
    cron->weekdays |= cron->weekdays >> 7 & 1; /* 7 is Sunday, too */
    while (isspace((unsigned char)*at))
        at++;
    return !*at;
}
