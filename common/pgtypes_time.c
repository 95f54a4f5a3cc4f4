/* pgtypes_time.c: dates, times and intervals in wire form to numbers that order as Postgres does. */
#include "common/pgtypes_internal.h"

#include <stdlib.h>
#include <string.h>

#define USECS_PER_SEC INT64_C(1000000)
#define USECS_PER_DAY (86400 * USECS_PER_SEC)
#define EPOCH_DAYS 10957 /* from 1970-01-01 to 2000-01-01, Postgres' day 0 */
#define DATE_MAX_YEAR 5874897
#define TIMESTAMP_MAX_YEAR 294276
#define INTERVAL_TEXT_MAX 100

/* Reading text: each step consumes what it recognizes and says whether it was there. */
struct cursor {
    const char *at;
    const char *end;
};

static bool take(struct cursor *in, const char *word)
{
    size_t len = strlen(word);
    if ((size_t)(in->end - in->at) < len || memcmp(in->at, word, len) != 0)
        return false;
    in->at += len;
    return true;
}

/* `least` to `most` digits, at most 18. */
static bool take_digits(struct cursor *in, int least, int most, int64_t *value)
{
    int count = 0;
    *value = 0;
    while (in->at < in->end && count < most && *in->at >= '0' && *in->at <= '9') {
        *value = *value * 10 + (*in->at++ - '0');
        count++;
    }
    return count >= least;
}

/* Days from 2000-01-01 in the proleptic Gregorian calendar; year 0 is 1 BC. */
static int64_t civil_days(int64_t year, int64_t month, int64_t day)
{
    year -= month <= 2;
    int64_t era = (year >= 0 ? year : year - 399) / 400;
    int64_t year_of_era = year - era * 400;
    int64_t day_of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;
    int64_t day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    return era * 146097 + day_of_era - 719468 - EPOCH_DAYS;
}

struct date_parts {
    int64_t year, month, day;
};

/* ISO only: four or more digits of year first. Every other DateStyle starts differently. */
static bool take_date(struct cursor *in, struct date_parts *date)
{
    return take_digits(in, 4, 7, &date->year) && take(in, "-") &&
           take_digits(in, 2, 2, &date->month) && take(in, "-") &&
           take_digits(in, 2, 2, &date->day) && date->year >= 1 && date->month >= 1 &&
           date->month <= 12 && date->day >= 1 && date->day <= 31;
}

/* hours:minutes:seconds[.fraction] as microseconds. */
static bool take_clock(struct cursor *in, int hour_digits, __int128 *usecs)
{
    int64_t hour, minute, second, fraction = 0;
    if (!take_digits(in, 2, hour_digits, &hour) || !take(in, ":") ||
        !take_digits(in, 2, 2, &minute) || !take(in, ":") || !take_digits(in, 2, 2, &second) ||
        minute > 59 || second > 59)
        return false;
    if (take(in, ".")) {
        const char *start = in->at;
        if (!take_digits(in, 1, 6, &fraction))
            return false;
        for (ptrdiff_t i = in->at - start; i < 6; i++)
            fraction *= 10;
    }
    *usecs = (__int128)((hour * 60 + minute) * 60 + second) * USECS_PER_SEC + fraction;
    return true;
}

static bool take_time_of_day(struct cursor *in, int64_t *usecs)
{
    __int128 wide;
    if (!take_clock(in, 2, &wide) || wide > USECS_PER_DAY)
        return false;
    *usecs = (int64_t)wide;
    return true;
}

static bool fits(__int128 wide, int64_t *value)
{
    *value = (int64_t)wide;
    return *value == wide;
}

/* +HH[:MM[:SS]] as seconds east of UTC. */
static bool take_offset(struct cursor *in, int64_t *seconds)
{
    int64_t hours, minutes = 0, rest = 0;
    bool west = take(in, "-");
    if (!west && !take(in, "+"))
        return false;
    if (!take_digits(in, 2, 2, &hours) || (take(in, ":") && !take_digits(in, 2, 2, &minutes)) ||
        (take(in, ":") && !take_digits(in, 2, 2, &rest)))
        return false;
    *seconds = (hours * 60 + minutes) * 60 + rest;
    if (west)
        *seconds = -*seconds;
    return true;
}

static bool infinity(const char *bytes, int32_t length, struct pg_key *key)
{
    if (length == 8 && memcmp(bytes, "infinity", 8) == 0)
        key->integer = INT64_MAX;
    else if (length == 9 && memcmp(bytes, "-infinity", 9) == 0)
        key->integer = INT64_MIN;
    else
        return false;
    return true;
}

bool decode_date_text(const char *bytes, int32_t length, struct pg_key *key)
{
    struct cursor in = {bytes, bytes + length};
    struct date_parts date;
    if (infinity(bytes, length, key))
        return true;
    if (!take_date(&in, &date) || date.year > DATE_MAX_YEAR)
        return false;
    if (take(&in, " BC"))
        date.year = 1 - date.year;
    key->integer = civil_days(date.year, date.month, date.day);
    return in.at == in.end;
}

bool decode_date_binary(const char *bytes, int32_t length, struct pg_key *key)
{
    if (length != 4)
        return false;
    int32_t days = (int32_t)wire_get32(bytes);
    key->integer = days == INT32_MAX ? INT64_MAX : days == INT32_MIN ? INT64_MIN : days;
    return true;
}

bool decode_time_text(const char *bytes, int32_t length, struct pg_key *key)
{
    struct cursor in = {bytes, bytes + length};
    return take_time_of_day(&in, &key->integer) && in.at == in.end;
}

/* Ordered by the instant, then by the zone, where west is greater. */
static void set_timetz(struct pg_key *key, int64_t usecs, int64_t seconds_west)
{
    key->wide =
        ((__int128)usecs + seconds_west * USECS_PER_SEC) * ((__int128)1 << 32) + seconds_west;
}

bool decode_timetz_text(const char *bytes, int32_t length, struct pg_key *key)
{
    struct cursor in = {bytes, bytes + length};
    int64_t usecs, east;
    if (!take_time_of_day(&in, &usecs) || !take_offset(&in, &east) || in.at != in.end)
        return false;
    set_timetz(key, usecs, -east);
    return true;
}

bool decode_timetz_binary(const char *bytes, int32_t length, struct pg_key *key)
{
    if (length != 12)
        return false;
    set_timetz(key, get64(bytes), (int32_t)wire_get32(bytes + 8));
    return true;
}

static bool decode_instant(const char *bytes, int32_t length, bool with_zone, struct pg_key *key)
{
    struct cursor in = {bytes, bytes + length};
    struct date_parts date;
    int64_t usecs, east = 0;
    if (infinity(bytes, length, key))
        return true;
    if (!take_date(&in, &date) || date.year > TIMESTAMP_MAX_YEAR + 1 || !take(&in, " ") ||
        !take_time_of_day(&in, &usecs) || (with_zone && !take_offset(&in, &east)))
        return false;
    if (take(&in, " BC"))
        date.year = 1 - date.year;
    int64_t days = civil_days(date.year, date.month, date.day);
    __int128 instant = (__int128)days * USECS_PER_DAY + usecs - east * USECS_PER_SEC;
    return in.at == in.end && fits(instant, &key->integer);
}

bool decode_timestamp_text(const char *bytes, int32_t length, struct pg_key *key)
{
    return decode_instant(bytes, length, false, key);
}

bool decode_timestamptz_text(const char *bytes, int32_t length, struct pg_key *key)
{
    return decode_instant(bytes, length, true, key);
}

/* ---- intervals, IntervalStyle postgres: [N years] [N mons] [N days] [[-]HH:MM:SS[.f]] ---- */

static bool take_sign(struct cursor *in)
{
    bool negative = take(in, "-");
    if (!negative)
        take(in, "+");
    return negative;
}

static bool take_unit(struct cursor *in, const char *unit)
{
    if (!take(in, unit))
        return false;
    take(in, "s");
    return in->at == in->end || *in->at == ' ';
}

/* One number with its unit, added to the months or days. */
static bool take_interval_part(struct cursor *in, int64_t *months, int64_t *days)
{
    bool negative = take_sign(in);
    int64_t number;
    if (!take_digits(in, 1, 10, &number) || !take(in, " "))
        return false;
    if (negative)
        number = -number;
    if (take_unit(in, "year"))
        *months += number * 12;
    else if (take_unit(in, "mon"))
        *months += number;
    else if (take_unit(in, "day"))
        *days += number;
    else
        return false;
    return true;
}

static bool take_interval_time(struct cursor *in, int64_t *usecs)
{
    struct cursor saved = *in;
    bool negative = take_sign(in);
    __int128 wide;
    if (take_clock(in, 10, &wide) && fits(negative ? -wide : wide, usecs) && in->at == in->end)
        return true;
    *in = saved;
    return false;
}

static bool interval_parse(const char *bytes, int32_t length, struct interval *value)
{
    struct cursor in = {bytes, bytes + length};
    int64_t months = 0, days = 0;
    value->time = 0;
    if (!length || length > INTERVAL_TEXT_MAX)
        return false;
    while (in.at < in.end) {
        if (in.at > bytes && !take(&in, " "))
            return false;
        if (take_interval_time(&in, &value->time))
            break;
        if (!take_interval_part(&in, &months, &days))
            return false;
    }
    value->months = (int32_t)months;
    value->days = (int32_t)days;
    return value->months == months && value->days == days;
}

bool interval_read(int format, const char *bytes, int32_t length, struct interval *value)
{
    if (!format)
        return interval_parse(bytes, length, value);
    if (length != 16)
        return false;
    value->time = get64(bytes);
    value->days = (int32_t)wire_get32(bytes + 8);
    value->months = (int32_t)wire_get32(bytes + 12);
    return true;
}

/* A nonzero part and its unit. A plus is written after a negative part, so that signs are clear. */
static void format_part(struct buffer *out, int value, const char *unit, bool *first,
                        bool *negative)
{
    if (!value)
        return;
    buffer_printf(out, "%s%s%d %s%s", *first ? "" : " ", *negative && value > 0 ? "+" : "", value,
                  unit, value == 1 ? "" : "s");
    *negative = value < 0;
    *first = false;
}

void interval_format(const struct interval *value, struct buffer *out)
{
    bool first = true, negative = false;
    format_part(out, value->months / 12, "year", &first, &negative);
    format_part(out, value->months % 12, "mon", &first, &negative);
    format_part(out, value->days, "day", &first, &negative);
    if (!first && !value->time)
        return;
    uint64_t usecs = value->time < 0 ? -(uint64_t)value->time : (uint64_t)value->time;
    uint64_t seconds = usecs / 1000000, fraction = usecs % 1000000;
    const char *sign = value->time < 0 ? "-" : negative ? "+" : "";
    buffer_printf(out, "%s%s%02llu:%02d:%02d", first ? "" : " ", sign,
                  (unsigned long long)(seconds / 3600), (int)(seconds / 60 % 60),
                  (int)(seconds % 60));
    if (!fraction)
        return;
    char digits[8];
    int count = 6;
    for (int i = 5; i >= 0; i--, fraction /= 10)
        digits[i] = (char)('0' + fraction % 10);
    while (digits[count - 1] == '0')
        count--;
    buffer_append(out, ".", 1);
    buffer_append(out, digits, (size_t)count);
}

/* As Postgres compares: a month is 30 days, a day 24 hours. */
static void set_interval(struct pg_key *key, const struct interval *value)
{
    int64_t days = (int64_t)value->months * 30 + value->days;
    key->wide = (__int128)days * USECS_PER_DAY + value->time;
}

bool decode_interval_text(const char *bytes, int32_t length, struct pg_key *key)
{
    struct interval value;
    if (!interval_parse(bytes, length, &value))
        return false;
    set_interval(key, &value);
    return true;
}

bool decode_interval_binary(const char *bytes, int32_t length, struct pg_key *key)
{
    struct interval value;
    if (!interval_read(1, bytes, length, &value))
        return false;
    set_interval(key, &value);
    return true;
}
