/* hba_pattern.c: regular expressions that names are compared with. */
#include "hba_pattern.h"

#include <ctype.h>
#include <regex.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Nodes of a compiled pattern, and groups in groups. */
#define COST_MAX 10000
#define COST_DEPTH 32

/* Escapes that PostgreSQL knows and the C library does not; what both know alike is w, W, s, S. */
static const char *foreign_escape(const char *pattern)
{
    for (const char *at = strchr(pattern, '\\'); at && at[1]; at = strchr(at + 2, '\\'))
        if (isalnum((unsigned char)at[1]) && !strchr("wWsS", at[1]))
            return at;
    return strstr(pattern, "(?");
}

/* Where a bracket expression that begins at `at` ends: behind its last ']'. */
static const char *bracket_end(const char *at)
{
    at += at[1] == '^' ? 2 : 1;
    at += *at == ']';
    while (*at && *at != ']') {
        char class = at[0] == '[' && at[1] && strchr(".=:", at[1]) ? at[1] : '\0';
        const char end[] = {class, ']', '\0'};
        const char *close = class ? strstr(at + 2, end) : NULL;
        at = close ? close + 2 : at + 1;
    }
    return *at ? at + 1 : at;
}

/* How often what stands before a quantifier is repeated in the compiled pattern; *end: behind the quantifier.
 * 0: there is none at `at`. */
static size_t quantifier(const char *at, const char **end)
{
    char *after;
    *end = at + 1;
    if (*at == '*' || *at == '?')
        return 1;
    if (*at == '+')
        return 2;
    if (*at != '{' || !isdigit((unsigned char)at[at[1] == ',' ? 2 : 1]))
        return 0;
    unsigned long times = strtoul(at + 1, &after, 10);
    if (*after == ',' && isdigit((unsigned char)after[1])) {
        unsigned long most = strtoul(after + 1, &after, 10);
        times = most > times ? most : times;
    }
    *end = *after == ',' ? after + 2 : after + 1;
    return *after && times < COST_MAX ? times + 1 : COST_MAX;
}

/*
 * How many nodes the C library will make of a pattern: it copies what is repeated, and so a few nested
 * repetitions take all memory there is. NULL: few enough; else what is wrong. A quantifier behind another is
 * refused, as by PostgreSQL (but for its lazy ones, which the C library reads differently).
 */
static const char *too_costly(const char *pattern)
{
    size_t sums[COST_DEPTH] = {0},
           atom = 0; /* of each open group; of what a quantifier would repeat */
    unsigned depth = 0;
    for (const char *at = pattern, *end; *at; at = end) {
        size_t times = quantifier(at, &end);
        if (times) {
            sums[depth] += atom * (times - 1);
            if (*end && strchr("*+?{", *end))
                return "a quantifier follows another";
        } else if (*at == '(') {
            if (++depth == COST_DEPTH)
                return "it has too many nested groups";
            sums[depth] = 0;
        } else {
            atom = *at == ')' && depth ? sums[depth--] : 1;
            sums[depth] += atom;
            end = *at == '[' ? bracket_end(at) : *at == '\\' && at[1] ? at + 2 : at + 1;
        }
        if (sums[depth] > COST_MAX)
            return "it repeats too much";
    }
    return NULL;
}

bool pattern_check(const char *pattern, bool *has_group, char *why, size_t size)
{
    regex_t compiled;
    const char *foreign = foreign_escape(pattern);
    if (foreign) {
        snprintf(why, size, "%.2s is not supported", foreign);
        return false;
    }
    const char *costly = too_costly(pattern);
    if (costly) {
        snprintf(why, size, "%s", costly);
        return false;
    }
    int error = regcomp(&compiled, pattern, REG_EXTENDED);
    if (error) {
        regerror(error, &compiled, why, size);
        return false;
    }
    *has_group = compiled.re_nsub > 0;
    regfree(&compiled);
    return true;
}

bool pattern_matches(const char *pattern, const char *text, char *group)
{
    regex_t compiled;
    regmatch_t found[2];
    if (regcomp(&compiled, pattern, REG_EXTENDED) != 0)
        return false;
    bool matches = regexec(&compiled, text, 2, found, 0) == 0;
    if (matches && group) {
        size_t length = found[1].rm_so < 0 ? 0 : (size_t)(found[1].rm_eo - found[1].rm_so);
        matches = length < PATTERN_GROUP_MAX;
        if (matches && length)
            memcpy(group, text + found[1].rm_so, length);
        group[matches ? length : 0] = '\0';
    }
    regfree(&compiled);
    return matches;
}
