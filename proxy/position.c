/* position.c: places in the shards' WAL as text. */
#include "proxy/position.h"

#include <ctype.h>
#include <limits.h>
#include <stdbool.h>
#include <string.h>

static bool is_plain(char c)
{
    return isalnum((unsigned char)c) || (c && strchr("_-.", c));
}

void position_put(struct buffer *text, const char *shard, const struct position *position)
{
    if (buffer_length(text))
        buffer_printf(text, "+");
    for (const char *at = shard; *at; at++)
        buffer_printf(text, is_plain(*at) ? "%c" : "%%%02X", (unsigned char)*at);
    buffer_printf(text, ":%d:%X/%X", position->timeline, (unsigned)(position->lsn >> 32),
                  (unsigned)position->lsn);
}

static int hex_digit(char c)
{
    static const char digits[] = "0123456789abcdef";
    const char *found = c ? strchr(digits, tolower((unsigned char)c)) : NULL;
    return found ? (int)(found - digits) : -1;
}

/* One byte of a name; 0: none. */
static char take_byte(const char **at)
{
    const char *from = *at;
    if (is_plain(*from)) {
        ++*at;
        return *from;
    }
    if (*from != '%' || hex_digit(from[1]) < 0 || hex_digit(from[2]) < 0)
        return '\0';
    char byte = (char)(hex_digit(from[1]) * 16 + hex_digit(from[2]));
    *at += byte ? 3 : 0;
    return byte;
}

static bool take_name(const char **at, char *name, size_t size)
{
    size_t length = 0;
    char byte;
    while ((byte = take_byte(at))) {
        if (length + 1 >= size)
            return false;
        name[length++] = byte;
    }
    name[length] = '\0';
    return length > 0;
}

static bool take_char(const char **at, char wanted)
{
    if (**at != wanted)
        return false;
    ++*at;
    return true;
}

static bool take_timeline(const char **at, int *timeline)
{
    int64_t number = 0;
    while (**at >= '0' && **at <= '9' && number <= INT_MAX)
        number = number * 10 + (*(*at)++ - '0');
    *timeline = (int)number;
    return number > 0 && number <= INT_MAX;
}

/* Half of an LSN: one to eight digits. */
static bool take_half(const char **at, uint64_t *lsn)
{
    uint64_t half = 0;
    int digits = 0;
    for (; hex_digit(**at) >= 0 && digits <= 8; ++*at, digits++)
        half = half << 4 | (uint64_t)hex_digit(**at);
    *lsn = *lsn << 32 | half;
    return digits >= 1 && digits <= 8;
}

enum position_taken position_take(const char **text, char *name, size_t size,
                                  struct position *position)
{
    const char *at = *text;
    if (!*at)
        return POSITION_END;
    *position = (struct position){0};
    if (!take_name(&at, name, size) || !take_char(&at, ':') ||
        !take_timeline(&at, &position->timeline) || !take_char(&at, ':') ||
        !take_half(&at, &position->lsn) || !take_char(&at, '/') || !take_half(&at, &position->lsn))
        return POSITION_MALFORMED;
    if (*at && (!take_char(&at, '+') || !*at))
        return POSITION_MALFORMED;
    *text = at;
    return POSITION_TAKEN;
}
