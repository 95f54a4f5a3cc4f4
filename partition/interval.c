/* interval.c: intervals read and printed, boundaries of their grid, and the calendar behind it. */
#include "partition/interval.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define MONTHS_MAX (1000 * 12)
#define DAYS_MAX INT64_C(365243)
#define EPOCH_DAYS 10957 /* from 1970-01-01 to 2000-01-01 */
#define YEAR_MAX 200000  /* its microseconds fit, with room for an interval */

/* ---- the calendar: days from 2000-01-01, proleptic Gregorian ---- */

/* Rounds down, also below zero. */
static int64_t floor_div(int64_t value, int64_t by)
{
    return value / by - (value % by < 0);
}

static int64_t days_of(int64_t year, int64_t month, int64_t day)
{
    year -= month <= 2;
    int64_t era = floor_div(year, 400);
    int64_t year_of_era = year - era * 400;
    int64_t day_of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;
    int64_t day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    return era * 146097 + day_of_era - 719468 - EPOCH_DAYS;
}

static void date_of(int64_t days, struct civil *civil)
{
    days += 719468 + EPOCH_DAYS;
    int64_t era = floor_div(days, 146097);
    int64_t day_of_era = days - era * 146097;
    int64_t year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146096) / 365;
    int64_t day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    int64_t shifted = (5 * day_of_year + 2) / 153;
    civil->day = (int)(day_of_year - (153 * shifted + 2) / 5 + 1);
    civil->month = (int)(shifted < 10 ? shifted + 3 : shifted - 9);
    civil->year = (int)(year_of_era + era * 400 + (civil->month <= 2));
}

struct civil civil_of(int64_t local)
{
    struct civil civil;
    int64_t days = floor_div(local, USECS_OF_DAY);
    int64_t clock = (local % USECS_OF_DAY + USECS_OF_DAY) % USECS_OF_DAY;
    date_of(days, &civil);
    civil.hour = (int)(clock / USECS_OF_HOUR);
    civil.minute = (int)(clock / USECS_OF_MINUTE % 60);
    civil.second = (int)(clock / 1000000 % 60);
    civil.usec = (int)(clock % 1000000);
    return civil;
}

int64_t civil_local(const struct civil *civil)
{
    return days_of(civil->year, civil->month, civil->day) * USECS_OF_DAY +
           civil->hour * USECS_OF_HOUR + civil->minute * USECS_OF_MINUTE +
           civil->second * INT64_C(1000000) + civil->usec;
}

/* A week is of the year that its Thursday is in. */
void civil_week(int64_t local, int *year, int *week)
{
    int64_t days = floor_div(local, USECS_OF_DAY);
    int64_t thursday = days - ((days + 5) % 7 + 7) % 7 + 3;
    struct civil civil;
    date_of(thursday, &civil);
    *year = civil.year;
    *week = (int)((thursday - days_of(civil.year, 1, 1)) / 7 + 1);
}

static bool take_digits(const char **at, int least, int most, int *value)
{
    int digits = 0;
    for (*value = 0; digits < most && isdigit((unsigned char)**at); digits++)
        *value = *value * 10 + (*(*at)++ - '0');
    return digits >= least;
}

static bool take_char(const char **at, char wanted)
{
    if (**at != wanted)
        return false;
    (*at)++;
    return true;
}

static bool take_clock(const char **at, struct civil *civil)
{
    if (!take_digits(at, 2, 2, &civil->hour) || !take_char(at, ':') ||
        !take_digits(at, 2, 2, &civil->minute))
        return false;
    if (take_char(at, ':') && !take_digits(at, 2, 2, &civil->second))
        return false;
    if (take_char(at, '.')) {
        const char *begin = *at;
        if (!take_digits(at, 1, 6, &civil->usec))
            return false;
        for (long digits = *at - begin; digits < 6; digits++)
            civil->usec *= 10;
    }
    return civil->hour < 24 && civil->minute < 60 && civil->second < 60;
}

/* That day is in the calendar. */
static bool is_day(const struct civil *civil)
{
    if (civil->year < 1 || civil->year > YEAR_MAX || civil->month < 1 || civil->month > 12 ||
        civil->day < 1)
        return false;
    struct civil back = civil_of(civil_local(
        &(struct civil){.year = civil->year, .month = civil->month, .day = civil->day}));
    return back.month == civil->month && back.day == civil->day;
}

bool civil_read(const char *text, int64_t *local, const char **rest)
{
    struct civil civil = {.year = 0};
    const char *at = text;
    if (!take_digits(&at, 4, 6, &civil.year) || !take_char(&at, '-') ||
        !take_digits(&at, 2, 2, &civil.month) || !take_char(&at, '-') ||
        !take_digits(&at, 2, 2, &civil.day) || !is_day(&civil))
        return false;
    if ((*at == ' ' || *at == 'T') && isdigit((unsigned char)at[1])) {
        at++;
        if (!take_clock(&at, &civil))
            return false;
    }
    if (!rest && *at)
        return false;
    if (rest)
        *rest = at;
    *local = civil_local(&civil);
    return true;
}

const char *civil_print(int64_t local, char text[CIVIL_TEXT])
{
    struct civil civil = civil_of(local);
    text[0] = '\0';
    if (civil.year < 1)
        return text;
    int length = snprintf(text, CIVIL_TEXT, "%04d-%02d-%02d %02d:%02d:%02d", civil.year,
                          civil.month, civil.day, civil.hour, civil.minute, civil.second);
    if (civil.usec)
        snprintf(text + length, (size_t)(CIVIL_TEXT - length), ".%06d", civil.usec);
    return text;
}

/* ---- intervals ---- */

static const struct unit_word {
    const char *name, *letters; /* singular; abbreviations */
    enum interval_unit unit;
    int64_t times;
} words[] = {
    {"year", "y yr yrs", UNIT_MONTH, 12},
    {"quarter", "q qtr", UNIT_MONTH, 3},
    {"month", "mon mons", UNIT_MONTH, 1},
    {"week", "w", UNIT_DAY, 7},
    {"day", "d", UNIT_DAY, 1},
    {"hour", "h hr hrs", UNIT_HOUR, 1},
    {"minute", "min mins", UNIT_MINUTE, 1},
};
#define WORDS (sizeof words / sizeof *words)

static bool is_abbreviation(const char *letters, const char *word)
{
    char padded[64], wanted[64];
    snprintf(padded, sizeof padded, " %s ", letters);
    snprintf(wanted, sizeof wanted, " %s ", word);
    return strcasestr(padded, wanted) != NULL;
}

/* "month", "months", "mon". */
static const struct unit_word *find_word(const char *text)
{
    size_t length = strlen(text);
    for (size_t i = 0; i < WORDS; i++) {
        size_t named = strlen(words[i].name);
        bool plural = length == named + 1 && tolower((unsigned char)text[named]) == 's';
        if ((length == named || plural) && strncasecmp(text, words[i].name, named) == 0)
            return &words[i];
        if (length < 8 && is_abbreviation(words[i].letters, text))
            return &words[i];
    }
    return NULL;
}

static int64_t most_of(enum interval_unit unit)
{
    switch (unit) {
    case UNIT_NUMBER:
        return INT64_C(1000000000000000);
    case UNIT_MINUTE:
        return DAYS_MAX * 24 * 60;
    case UNIT_HOUR:
        return DAYS_MAX * 24;
    case UNIT_DAY:
        return DAYS_MAX;
    case UNIT_MONTH:
        return MONTHS_MAX;
    }
    return 0;
}

bool interval_parse(const char *text, struct interval *interval)
{
    char *end;
    if (!isdigit((unsigned char)*text))
        return false;
    long long count = strtoll(text, &end, 10);
    while (*end == ' ')
        end++;
    const struct unit_word *word = *end ? find_word(end) : NULL;
    if (*end && !word)
        return false;
    interval->unit = word ? word->unit : UNIT_NUMBER;
    if (count < 1 || count > most_of(interval->unit))
        return false;
    interval->count = count * (word ? word->times : 1);
    return interval->count <= most_of(interval->unit);
}

const char *interval_print(const struct interval *interval, char text[INTERVAL_TEXT])
{
    if (interval->unit == UNIT_NUMBER)
        snprintf(text, INTERVAL_TEXT, "%lld", (long long)interval->count);
    for (size_t i = 0; i < WORDS && interval->unit != UNIT_NUMBER; i++) {
        if (words[i].unit != interval->unit || interval->count % words[i].times)
            continue;
        long long count = interval->count / words[i].times;
        snprintf(text, INTERVAL_TEXT, "%lld %s%s", count, words[i].name, count == 1 ? "" : "s");
        break;
    }
    return text;
}

bool interval_is_fixed(const struct interval *interval)
{
    return interval->unit == UNIT_MINUTE || interval->unit == UNIT_HOUR;
}

/* Of all but months. */
static int64_t length_of(const struct interval *interval)
{
    int64_t one = interval->unit == UNIT_MINUTE ? USECS_OF_MINUTE
                  : interval->unit == UNIT_HOUR ? USECS_OF_HOUR
                  : interval->unit == UNIT_DAY  ? USECS_OF_DAY
                                                : 1;
    return one * interval->count;
}

/* Months from 2000-01. */
static int64_t months_of(int64_t local)
{
    struct civil civil = civil_of(local);
    return (civil.year - INT64_C(2000)) * 12 + civil.month - 1;
}

static int64_t month_begin(int64_t months)
{
    int64_t year = 2000 + floor_div(months, 12);
    return days_of(year, months - floor_div(months, 12) * 12 + 1, 1) * USECS_OF_DAY;
}

int64_t interval_floor(const struct interval *interval, int64_t anchor, int64_t value)
{
    if (interval->unit == UNIT_MONTH)
        return month_begin(floor_div(months_of(value), interval->count) * interval->count);
    int64_t length = length_of(interval);
    int64_t from = interval->unit == UNIT_DAY ? INTERVAL_ANCHOR : anchor;
    return from + floor_div(value - from, length) * length;
}

int64_t interval_step(const struct interval *interval, int64_t from, int64_t steps)
{
    if (interval->unit == UNIT_MONTH)
        return month_begin(months_of(from) + steps * interval->count);
    return from + steps * length_of(interval);
}

int64_t interval_before(const struct interval *interval, int64_t value)
{
    if (interval->unit != UNIT_MONTH)
        return value - length_of(interval);
    struct civil civil = civil_of(value);
    int64_t first = month_begin(months_of(value) - interval->count);
    int64_t next = month_begin(months_of(first) + 1);
    int64_t day = civil.day - 1, last = (next - first) / USECS_OF_DAY - 1;
    return first + (day < last ? day : last) * USECS_OF_DAY +
           (value - floor_div(value, USECS_OF_DAY) * USECS_OF_DAY);
}

bool interval_shorter(const struct interval *a, const struct interval *b)
{
    int64_t month = 30 * USECS_OF_DAY + 10 * USECS_OF_HOUR;
    int64_t of_a = a->unit == UNIT_MONTH ? a->count * month : length_of(a);
    int64_t of_b = b->unit == UNIT_MONTH ? b->count * month : length_of(b);
    return of_a < of_b;
}
