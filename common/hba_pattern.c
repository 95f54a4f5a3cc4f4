/* hba_pattern.c: regular expressions that names are compared with. */
#include "hba_pattern.h"

#include <ctype.h>
#include <regex.h>
#include <stdio.h>
#include <string.h>

/* Escapes that PostgreSQL knows and the C library does not; what both know alike is w, W, s, S. */
static const char *foreign_escape(const char *pattern)
{
    for (const char *at = strchr(pattern, '\\'); at && at[1]; at = strchr(at + 2, '\\'))
        if (isalnum((unsigned char)at[1]) && !strchr("wWsS", at[1]))
            return at;
    return strstr(pattern, "(?");
}

bool pattern_check(const char *pattern, bool *has_group, char *why, size_t size)
{
    regex_t compiled;
    const char *foreign = foreign_escape(pattern);
    if (foreign) {
        snprintf(why, size, "%.2s is not supported", foreign);
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
