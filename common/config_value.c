/* config_value.c: values of settings as text: numbers with units, choices, and how alike two names are. */
#include "config_internal.h"

#include <ctype.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

struct unit {
    const char *name;
    int64_t factor;
};

/* Largest first, so that formatting takes the first that divides. */
static const struct unit durations[] = {
    {"d", 86400000}, {"h", 3600000}, {"min", 60000}, {"s", 1000}, {"ms", 1}, {NULL, 0},
};
static const struct unit sizes[] = {
    {"TB", 1LL << 40}, {"GB", 1LL << 30}, {"MB", 1LL << 20}, {"kB", 1LL << 10}, {"B", 1}, {NULL, 0},
};
static const struct unit plain[] = {{"", 1}, {NULL, 0}};

static const struct unit *units_of(enum setting_kind kind)
{
    if (kind == SETTING_DURATION)
        return durations;
    return kind == SETTING_SIZE ? sizes : plain;
}

const char *config_unit_names(enum setting_kind kind)
{
    if (kind == SETTING_DURATION)
        return "ms, s, min, h, d";
    return kind == SETTING_SIZE ? "B, kB, MB, GB, TB" : "";
}

/* Digits at *text, which is moved behind them. */
static bool parse_digits(const char **text, int64_t *value)
{
    const char *p = *text;
    *value = 0;
    if (!isdigit((unsigned char)*p))
        return false;
    for (; isdigit((unsigned char)*p); p++)
        if (__builtin_mul_overflow(*value, 10, value) ||
            __builtin_add_overflow(*value, *p - '0', value))
            return false;
    *text = p;
    return true;
}

bool config_number_parse(enum setting_kind kind, const char *text, int64_t *value)
{
    bool negative = *text == '-';
    text += negative;
    if (!parse_digits(&text, value))
        return false;
    while (*text == ' ')
        text++;
    for (const struct unit *unit = units_of(kind); unit->name; unit++)
        if (strcmp(unit->name, text) == 0)
            return !__builtin_mul_overflow(*value, negative ? -unit->factor : unit->factor, value);
    return false;
}

void config_number_format(enum setting_kind kind, int64_t value, char *out, size_t size)
{
    const struct unit *unit = units_of(kind);
    /* zero is divisible by everything, but nobody writes "0d" */
    const char *zero = kind == SETTING_DURATION ? "0s" : kind == SETTING_SIZE ? "0B" : "0";
    if (value == 0) {
        snprintf(out, size, "%s", zero);
        return;
    }
    while (value % unit->factor != 0)
        unit++;
    snprintf(out, size, "%lld%s", (long long)(value / unit->factor), unit->name);
}

/* Next word of "a | b | c" at *list, which is moved behind it. NULL at the end. */
static const char *next_choice(const char **list, size_t *length)
{
    const char *word = *list;
    if (!word || !*word)
        return NULL;
    const char *bar = strstr(word, " | ");
    *length = bar ? (size_t)(bar - word) : strlen(word);
    *list = bar ? bar + 3 : word + *length;
    return word;
}

int config_choice_index(const char *choices, const char *word)
{
    const char *choice;
    size_t length;
    for (int i = 0; (choice = next_choice(&choices, &length)); i++)
        if (strlen(word) == length && memcmp(choice, word, length) == 0)
            return i;
    return -1;
}

void config_choice_name(const char *choices, int index, char *out, size_t size)
{
    const char *choice;
    size_t length;
    snprintf(out, size, "%s", "");
    for (int i = 0; (choice = next_choice(&choices, &length)); i++)
        if (i == index)
            snprintf(out, size, "%.*s", (int)length, choice);
}

#define NAME_MAX_COMPARED 48

static int least(int a, int b, int c)
{
    int ab = a < b ? a : b;
    return ab < c ? ab : c;
}

/* Optimal string alignment: the textbook table, one row per letter of `a`. */
static int edits(const char *a, int la, const char *b, int lb)
{
    int cost[NAME_MAX_COMPARED + 1][NAME_MAX_COMPARED + 1];
    for (int i = 0; i <= la; i++)
        cost[i][0] = i;
    for (int j = 0; j <= lb; j++)
        cost[0][j] = j;
    for (int i = 1; i <= la; i++) {
        for (int j = 1; j <= lb; j++) {
            int x = tolower((unsigned char)a[i - 1]), y = tolower((unsigned char)b[j - 1]);
            cost[i][j] =
                least(cost[i - 1][j] + 1, cost[i][j - 1] + 1, cost[i - 1][j - 1] + (x != y));
            if (i > 1 && j > 1 && x == tolower((unsigned char)b[j - 2]) &&
                y == tolower((unsigned char)a[i - 2]) && cost[i - 2][j - 2] + 1 < cost[i][j])
                cost[i][j] = cost[i - 2][j - 2] + 1;
        }
    }
    return cost[la][lb];
}

int config_distance(const char *a, const char *b)
{
    size_t la = strlen(a), lb = strlen(b);
    size_t shorter = la < lb ? la : lb, longer = la < lb ? lb : la;
    if (shorter == 0 || longer > NAME_MAX_COMPARED)
        return INT_MAX;
    int distance = edits(a, (int)la, b, (int)lb);
    if (distance <= (longer > 4 ? 2 : 1))
        return distance;
    return shorter >= 3 && strncasecmp(a, b, shorter) == 0 ? 1 : INT_MAX;
}
