/* name.c: names of partitions made from their table's name and their first moment. */
#include "partition/name.h"

#include <stdio.h>
#include <string.h>
#include <xxhash.h>

#define SUFFIX_MAX 40
#define HASH_LENGTH 9 /* _ and 8 digits */
#define STEPS 800     /* over two years of days: all that a format could take for the same */

const char *name_usual_format(const struct interval *interval)
{
    if (interval->unit == UNIT_NUMBER)
        return "_p%i";
    return interval_is_fixed(interval) ? "_p%Y%m%d_%H%M" : "_p%Y%m%d";
}

/* What a letter of the format stands for. False: it is none. */
static bool print_token(char token, const struct interval *interval, int64_t begin, char *text,
                        size_t size)
{
    int year, week;
    struct civil civil = civil_of(begin);
    if (token == 'i')
        return snprintf(text, size, "%s%llu", begin < 0 ? "m" : "",
                        begin < 0 ? 0 - (unsigned long long)begin : (unsigned long long)begin) > 0;
    if (token == '%')
        return snprintf(text, size, "%%") > 0;
    if (interval->unit == UNIT_NUMBER)
        return false;
    civil_week(begin, &year, &week);
    int number = token == 'Y'   ? civil.year
                 : token == 'm' ? civil.month
                 : token == 'd' ? civil.day
                 : token == 'H' ? civil.hour
                 : token == 'M' ? civil.minute
                 : token == 'G' ? year
                 : token == 'V' ? week
                 : token == 'q' ? (civil.month + 2) / 3
                                : -1;
    bool long_year = token == 'Y' || token == 'G';
    return number >= 0 && snprintf(text, size, "%0*d",
                                   long_year      ? 4
                                   : token == 'q' ? 1
                                                  : 2,
                                   number) > 0;
}

/* False: the format has something unknown, or is too long. */
static bool print_suffix(const char *format, const struct interval *interval, int64_t begin,
                         char suffix[SUFFIX_MAX])
{
    size_t length = 0;
    for (const char *at = format; *at; at++) {
        char piece[24] = {*at};
        if (*at == '%' && !print_token(*++at, interval, begin, piece, sizeof piece))
            return false;
        size_t more = strlen(piece);
        if (length + more >= SUFFIX_MAX)
            return false;
        memcpy(suffix + length, piece, more);
        length += more;
    }
    suffix[length] = '\0';
    return length > 0;
}

const char *name_refuses(const char *format, const struct interval *interval)
{
    char before[SUFFIX_MAX], suffix[SUFFIX_MAX];
    int64_t at = interval->unit == UNIT_NUMBER ? -interval->count
                                               : interval_floor(interval, INTERVAL_ANCHOR, 0);
    if (!print_suffix(format, interval, at, before))
        return "it takes %Y %m %d %H %M, %G %V (ISO week), %q (quarter), %i (number), and is short";
    for (int i = 0; i < STEPS; i++) {
        at = interval_step(interval, at, 1);
        if (!print_suffix(format, interval, at, suffix) || strcmp(suffix, before) == 0)
            return "partitions that follow each other would have the same name";
        strcpy(before, suffix);
    }
    return NULL;
}

/* Not in the middle of a character. */
static size_t cut_at(const char *text, size_t most)
{
    size_t length = most;
    while (length > 0 && ((unsigned char)text[length] & 0xc0) == 0x80)
        length--;
    return length;
}

void name_of(const char *table, const char *format, const struct interval *interval, int64_t begin,
             char name[NAME_SIZE])
{
    char suffix[SUFFIX_MAX] = "";
    size_t length = strlen(table);
    if (!print_suffix(format, interval, begin, suffix))
        suffix[0] = '\0';
    size_t room = NAME_SIZE - 1 - strlen(suffix);
    if (length <= room) {
        snprintf(name, NAME_SIZE, "%s%s", table, suffix);
        return;
    }
    snprintf(name, NAME_SIZE, "%.*s_%08x%s", (int)cut_at(table, room - HASH_LENGTH), table,
             (unsigned)XXH32(table, length, 0), suffix);
}
