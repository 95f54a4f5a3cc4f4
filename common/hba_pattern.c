/* hba_pattern.c: regular expressions that names are compared with. */
#include "hba_pattern.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

/* Of a pattern: its bytes, its groups in groups, the times of one repetition (PostgreSQL's figure). */
#define PATTERN_MAX 1000
#define DEPTH_MAX 32
#define TIMES_MAX 255
/* Of one match: steps, a millisecond or so; steps to go back to; KiB. */
#define STEPS_MAX 20000
#define BACKTRACK_MAX 5000
#define HEAP_MAX 2048

struct pattern {
    pcre2_code *code;
    bool has_group;
};

/* ---- what PostgreSQL and Perl agree upon ---- */

enum group_kind { GROUP_PLAIN, GROUP_CAPTURES, GROUP_LOOKS };

struct scan {
    const char *at;
    bool can_repeat; /* what stands before `at` is an atom */
    unsigned depth, captures, looks;
    enum group_kind kinds[DEPTH_MAX];
    unsigned numbers[DEPTH_MAX]; /* of groups that capture */
    bool closed[10];             /* groups that \1 to \9 may speak of */
    char *why;
    size_t size;
};

#define WRONG(scan, ...) (snprintf((scan)->why, (scan)->size, __VA_ARGS__), false)

static bool is_beyond_ascii(char byte)
{
    return (unsigned char)byte >= 0x80;
}

static bool scan_escape(struct scan *scan, bool in_brackets)
{
    const char letter = scan->at[1];
    if (!letter)
        return WRONG(scan, "\\ at the end of the pattern");
    bool is_reference = letter >= '1' && letter <= '9' && !in_brackets;
    if (is_reference &&
        (scan->looks || isdigit((unsigned char)scan->at[2]) || !scan->closed[letter - '0']))
        return WRONG(scan, "\\%c has no group before it", letter);
    if (isalnum((unsigned char)letter) && !is_reference &&
        !strchr(in_brackets ? "dDsSwWaefnrt" : "dDsSwWaefnrtA", letter))
        return WRONG(scan, "\\%c is not supported", letter);
    scan->can_repeat = letter != 'A';
    scan->at += 2;
    return true;
}

/* [:alpha:] and the like, within brackets. */
static bool scan_class(struct scan *scan)
{
    static const char *const names[] = {"alnum", "alpha", "blank", "cntrl", "digit",
                                        "graph", "lower", "print", "punct", "space",
                                        "upper", "word",  "xdigit"};
    const char *name = scan->at + 2;
    for (size_t i = 0; scan->at[1] == ':' && i < sizeof names / sizeof names[0]; i++) {
        size_t length = strlen(names[i]);
        if (strncmp(name, names[i], length) == 0 && strncmp(name + length, ":]", 2) == 0) {
            scan->at = name + length + 2;
            return true;
        }
    }
    return WRONG(scan, "[%c in brackets begins no class", scan->at[1]);
}

static bool scan_in_brackets(struct scan *scan)
{
    if (*scan->at == '\\')
        return scan_escape(scan, true);
    if (*scan->at == '[' && scan->at[1] && strchr(".=:", scan->at[1]))
        return scan_class(scan);
    if (is_beyond_ascii(*scan->at))
        return WRONG(scan, "brackets hold single bytes, and this letter has several");
    scan->at++;
    return true;
}

static bool scan_brackets(struct scan *scan)
{
    scan->at += scan->at[1] == '^' ? 2 : 1;
    scan->at += *scan->at == ']';
    while (*scan->at != ']') {
        if (!*scan->at)
            return WRONG(scan, "unmatched [");
        if (!scan_in_brackets(scan))
            return false;
    }
    scan->at++;
    return scan->can_repeat = true;
}

static bool scan_open(struct scan *scan)
{
    static const struct {
        const char *text;
        enum group_kind kind;
    } kinds[] = {{"(?:", GROUP_PLAIN},  {"(?=", GROUP_LOOKS},  {"(?!", GROUP_LOOKS},
                 {"(?<=", GROUP_LOOKS}, {"(?<!", GROUP_LOOKS}, {"(", GROUP_CAPTURES}};
    size_t kind = 0;
    while (strncmp(scan->at, kinds[kind].text, strlen(kinds[kind].text)) != 0)
        kind++;
    if (kinds[kind].kind == GROUP_CAPTURES && scan->at[1] == '?')
        return WRONG(scan, "%.3s is not supported", scan->at);
    if (kinds[kind].kind == GROUP_CAPTURES && scan->looks)
        return WRONG(scan, "a group in a lookaround must be (?:...)");
    if (scan->depth == DEPTH_MAX)
        return WRONG(scan, "it has too many nested groups");
    scan->looks += kinds[kind].kind == GROUP_LOOKS;
    scan->numbers[scan->depth] = kinds[kind].kind == GROUP_CAPTURES ? ++scan->captures : 0;
    scan->kinds[scan->depth++] = kinds[kind].kind;
    scan->at += strlen(kinds[kind].text);
    scan->can_repeat = false;
    return true;
}

static bool scan_close(struct scan *scan)
{
    if (scan->depth == 0)
        return WRONG(scan, "unmatched )");
    unsigned number = scan->numbers[--scan->depth];
    bool looks = scan->kinds[scan->depth] == GROUP_LOOKS;
    scan->looks -= looks;
    if (number < sizeof scan->closed)
        scan->closed[number] = true;
    scan->can_repeat = !looks;
    scan->at++;
    return true;
}

/* {3}, {3,} or {3,5} */
static bool scan_times(struct scan *scan)
{
    char *end;
    unsigned long least = strtoul(scan->at + 1, &end, 10), most = least;
    if (*end == ',' && isdigit((unsigned char)*++end))
        most = strtoul(end, &end, 10);
    if (!isdigit((unsigned char)scan->at[1]) || *end != '}')
        return WRONG(scan, "{ begins no {m}, {m,} or {m,n}; write \\{ for a brace");
    if (least > TIMES_MAX || most > TIMES_MAX || most < least)
        return WRONG(scan, "{} takes 0 to %d, the smaller one first", TIMES_MAX);
    scan->at = end + 1;
    return true;
}

static bool scan_quantifier(struct scan *scan)
{
    if (!scan->can_repeat)
        return WRONG(scan, "%c repeats nothing", *scan->at);
    if (is_beyond_ascii(scan->at[-1]))
        return WRONG(scan, "%c repeats a single byte; write (?:...) around the letter", *scan->at);
    if (*scan->at != '{')
        scan->at++;
    else if (!scan_times(scan))
        return false;
    scan->at += *scan->at == '?'; /* the shortest match */
    scan->can_repeat = false;     /* nor is there a possessive one, as Perl's a++ */
    return true;
}

static bool scan_plain(struct scan *scan)
{
    scan->can_repeat = !strchr("^$|", *scan->at);
    scan->at++;
    return true;
}

static bool scan_one(struct scan *scan)
{
    switch (*scan->at) {
    case '\\':
        return scan_escape(scan, false);
    case '[':
        return scan_brackets(scan);
    case '(':
        return scan_open(scan);
    case ')':
        return scan_close(scan);
    case '*':
    case '+':
    case '?':
    case '{':
        return scan_quantifier(scan);
    default:
        return scan_plain(scan);
    }
}

static bool is_common(const char *text, char *why, size_t size)
{
    struct scan scan = {.at = text, .why = why, .size = size};
    while (*scan.at)
        if (!scan_one(&scan))
            return false;
    return !scan.depth || WRONG(&scan, "unmatched (");
}

/* ---- compiling ---- */

static void *take_arena(size_t size, void *arena)
{
    return arena_alloc(arena, size);
}

/* The arena frees it all. */
static void give_arena(void *memory, void *arena)
{
    (void)memory;
    (void)arena;
}

struct pattern *pattern_compile(struct arena *arena, const char *text, char *why, size_t size)
{
    const uint32_t options =
        PCRE2_DOTALL | PCRE2_DOLLAR_ENDONLY | PCRE2_NEVER_UTF | PCRE2_NEVER_UCP;
    uint32_t groups = 0;
    int error;
    size_t where;
    if (!is_common(text, why, size))
        return NULL;
    pcre2_general_context *memory = pcre2_general_context_create(take_arena, give_arena, arena);
    pcre2_compile_context *limits = pcre2_compile_context_create(memory);
    pcre2_set_max_pattern_length(limits, PATTERN_MAX);
    pcre2_set_parens_nest_limit(limits, DEPTH_MAX);
    struct pattern *pattern = arena_new(arena, struct pattern);
    pattern->code =
        pcre2_compile((PCRE2_SPTR)text, PCRE2_ZERO_TERMINATED, options, &error, &where, limits);
    if (!pattern->code) {
        pcre2_get_error_message(error, (PCRE2_UCHAR *)why, size);
        return NULL;
    }
    pcre2_pattern_info(pattern->code, PCRE2_INFO_CAPTURECOUNT, &groups);
    pattern->has_group = groups > 0;
    return pattern;
}

bool pattern_has_group(const struct pattern *pattern)
{
    return pattern->has_group;
}

/* ---- matching ---- */

static void *take_heap(size_t size, void *unused)
{
    (void)unused;
    return mem_alloc(size);
}

static void give_heap(void *memory, void *unused)
{
    (void)unused;
    free(memory);
}

/* False: the group took no part, or is too long. */
static bool copy_group(pcre2_match_data *found, char *group)
{
    size_t length = PATTERN_GROUP_MAX;
    return pcre2_substring_copy_bynumber(found, 1, (PCRE2_UCHAR *)group, &length) == 0;
}

static pcre2_match_context *new_limits(pcre2_general_context *memory)
{
    pcre2_match_context *limits = pcre2_match_context_create(memory);
    pcre2_set_match_limit(limits, STEPS_MAX);
    pcre2_set_depth_limit(limits, BACKTRACK_MAX);
    pcre2_set_heap_limit(limits, HEAP_MAX);
    return limits;
}

enum pattern_answer pattern_match(const struct pattern *pattern, const char *text, char *group)
{
    enum pattern_answer answer = PATTERN_FAILED;
    /* Not the arena, which belongs to the thread that reads the file. */
    pcre2_general_context *memory = pcre2_general_context_create(take_heap, give_heap, NULL);
    pcre2_match_data *found = pcre2_match_data_create_from_pattern(pattern->code, memory);
    pcre2_match_context *limits = new_limits(memory);
    int count =
        pcre2_match(pattern->code, (PCRE2_SPTR)text, PCRE2_ZERO_TERMINATED, 0, 0, found, limits);
    if (group)
        group[0] = '\0';
    if (count == PCRE2_ERROR_NOMATCH)
        answer = PATTERN_NO;
    else if (count > 0 && (!group || !pattern->has_group || copy_group(found, group)))
        answer = PATTERN_YES;
    pcre2_match_context_free(limits);
    pcre2_match_data_free(found);
    pcre2_general_context_free(memory);
    return answer;
}
