/*
 * parse_scan.c: a small SQL lexer for what the parse tree does not keep: comments and inner texts.
 *
 * It knows what hides other text (strings, dollar quotes, quoted identifiers, nested comments) and
 * nothing else. Every step moves forward, so it is linear and ends on any input.
 */
#include "router/parse_internal.h"

#include <string.h>
#include <strings.h>

#define HINT_MARK "pgshunt:"

static bool is_space(char ch)
{
    return ch == ' ' || (ch >= '\t' && ch <= '\r');
}

static bool is_digit(char ch)
{
    return ch >= '0' && ch <= '9';
}

static bool is_word_start(char ch)
{
    return (ch >= 'a' && ch <= 'z') || (ch >= 'A' && ch <= 'Z') || ch == '_' || (ch & 0x80);
}

static bool is_word(char ch)
{
    return is_word_start(ch) || is_digit(ch) || ch == '$';
}

static char peek(const struct scan *scan, size_t ahead)
{
    return ahead < scan->end - scan->at ? scan->text[scan->at + ahead] : '\0';
}

static void skip_line(struct scan *scan)
{
    while (scan->at < scan->end && scan->text[scan->at] != '\n' && scan->text[scan->at] != '\r')
        scan->at++;
}

static void skip_block_comment(struct scan *scan)
{
    int depth = 0;
    while (scan->at < scan->end) {
        if (peek(scan, 0) == '/' && peek(scan, 1) == '*') {
            depth++;
            scan->at += 2;
        } else if (peek(scan, 0) == '*' && peek(scan, 1) == '/') {
            scan->at += 2;
            if (--depth == 0)
                return;
        } else {
            scan->at++;
        }
    }
}

/* From an opening quote to behind the closing one; a doubled quote does not close. */
static void skip_quoted(struct scan *scan, char quote, bool escapes)
{
    scan->at++;
    while (scan->at < scan->end) {
        char ch = scan->text[scan->at];
        if (escapes && ch == '\\' && scan->at + 1 < scan->end) {
            scan->at += 2;
        } else if (ch != quote) {
            scan->at++;
        } else if (peek(scan, 1) == quote) {
            scan->at += 2;
        } else {
            scan->at++;
            return;
        }
    }
}

/* A string goes on in the next line: white space with a newline in it, then another quote. */
static bool string_continues(struct scan *scan)
{
    struct scan ahead = *scan;
    bool newline = false;
    for (;;) {
        if (newline && peek(&ahead, 0) == '-' && peek(&ahead, 1) == '-')
            skip_line(&ahead);
        else if (is_space(peek(&ahead, 0)))
            newline |= peek(&ahead, 0) == '\n' || peek(&ahead, 0) == '\r', ahead.at++;
        else
            break;
    }
    if (!newline || peek(&ahead, 0) != '\'')
        return false;
    *scan = ahead;
    return true;
}

static void skip_string(struct scan *scan, bool escapes)
{
    do {
        skip_quoted(scan, '\'', escapes);
    } while (string_continues(scan));
}

/* $tag$ ... $tag$; false: this dollar sign opens no string. */
static bool skip_dollar_quoted(struct scan *scan)
{
    size_t tag = 1;
    if (is_word_start(peek(scan, tag))) {
        while (peek(scan, tag) != '$' && is_word(peek(scan, tag)))
            tag++;
    }
    if (peek(scan, tag) != '$')
        return false;
    tag++;
    const char *open = scan->text + scan->at, *body = open + tag;
    const char *close = memmem(body, scan->end - scan->at - tag, open, tag);
    scan->at = close ? (size_t)(close - scan->text) + tag : scan->end;
    return true;
}

static enum scan_kind skip_word(struct scan *scan)
{
    char first = scan->text[scan->at];
    size_t start = scan->at;
    while (scan->at < scan->end && is_word(scan->text[scan->at]))
        scan->at++;
    bool prefix = scan->at - start == 1 && peek(scan, 0) == '\'' && strchr("eEbBxXnN", first);
    if (!prefix)
        return SCAN_WORD;
    skip_string(scan, first == 'e' || first == 'E');
    return SCAN_STRING;
}

static enum scan_kind skip_token(struct scan *scan)
{
    char ch = scan->text[scan->at], next = peek(scan, 1);
    if (ch == '-' && next == '-')
        return skip_line(scan), SCAN_COMMENT;
    if (ch == '/' && next == '*')
        return skip_block_comment(scan), SCAN_COMMENT;
    if (ch == '\'')
        return skip_string(scan, false), SCAN_STRING;
    if (ch == '"')
        return skip_quoted(scan, '"', false), SCAN_QUOTED;
    if (ch == '$' && skip_dollar_quoted(scan))
        return SCAN_STRING;
    if (is_word_start(ch))
        return skip_word(scan);
    if (is_digit(ch)) {
        while (is_word(peek(scan, 0)) && peek(scan, 0) != '$')
            scan->at++;
        return SCAN_OTHER;
    }
    scan->at++;
    return SCAN_OTHER;
}

struct token scan_next(struct scan *scan)
{
    while (scan->at < scan->end && is_space(scan->text[scan->at]))
        scan->at++;
    struct token token = {SCAN_END, scan->at, scan->at};
    if (scan->at < scan->end)
        token.kind = skip_token(scan);
    token.end = scan->at;
    return token;
}

struct token scan_next_word(struct scan *scan)
{
    struct token token;
    do {
        token = scan_next(scan);
    } while (token.kind == SCAN_COMMENT);
    return token;
}

bool scan_is(const struct scan *scan, const struct token *token, const char *upper_word)
{
    size_t length = strlen(upper_word);
    return (token->kind == SCAN_WORD || token->kind == SCAN_OTHER) &&
           token->end - token->start == length &&
           !strncasecmp(scan->text + token->start, upper_word, length);
}

/* ---- hints ---- */

static bool is_hint_name(char ch)
{
    return is_word(ch) || ch == '-' || ch == '.';
}

static void add_hint(struct arena *arena, struct statement *statement, const char *name,
                     size_t name_length, const char *value)
{
    statement->hints =
        parse_grow(arena, statement->hints, statement->nhints, sizeof *statement->hints);
    char *copy = arena_strndup(arena, name, name_length);
    for (char *p = copy; *p; p++) {
        if (*p >= 'A' && *p <= 'Z')
            *p += 'a' - 'A';
    }
    statement->hints[statement->nhints++] = (struct hint){.name = copy, .value = value};
}

/* Without the quotes around, and with doubled ones made single. */
static char *unquote(const char *text, size_t length, struct arena *arena)
{
    char quote = text[0], *out = arena_alloc(arena, length + 1);
    size_t n = 0;
    for (size_t i = 1; i < length; i++) {
        if (text[i] == quote) {
            if (i + 1 >= length || text[i + 1] != quote)
                break;
            i++;
        }
        out[n++] = text[i];
    }
    out[n] = '\0';
    return out;
}

static const char *hint_value(struct scan *scan, struct arena *arena)
{
    size_t start = scan->at;
    char first = peek(scan, 0);
    if (first == '\'' || first == '"') {
        skip_quoted(scan, first, false);
        return unquote(scan->text + start, scan->at - start, arena);
    }
    while (scan->at < scan->end && !is_space(peek(scan, 0)) && !strchr(",;", peek(scan, 0)))
        scan->at++;
    return arena_strndup(arena, scan->text + start, scan->at - start);
}

/* `scan` is over what stands between the mark and the end of a comment. */
static void hints_of_comment(struct scan *scan, struct arena *arena, struct statement *statement)
{
    while (scan->at < scan->end) {
        size_t start = scan->at;
        while (is_hint_name(peek(scan, 0)))
            scan->at++;
        size_t length = scan->at - start;
        if (!length) {
            scan->at++;
            continue;
        }
        const char *value = NULL;
        if (peek(scan, 0) == '=') {
            scan->at++;
            value = hint_value(scan, arena);
        }
        add_hint(arena, statement, scan->text + start, length, value);
    }
}

void scan_hints(const char *text, size_t length, struct arena *arena, struct statement *statement)
{
    if (!memmem(text, length, HINT_MARK, strlen(HINT_MARK)))
        return;
    struct scan scan = {text, 0, length};
    for (;;) {
        struct token token = scan_next(&scan);
        if (token.kind == SCAN_END)
            return;
        if (token.kind != SCAN_COMMENT)
            continue;
        size_t end = token.end;
        if (text[token.start] == '/' && end - token.start >= 4 && text[end - 1] == '/')
            end -= 2;
        struct scan inside = {text, token.start + 2, end};
        while (is_space(peek(&inside, 0)))
            inside.at++;
        size_t mark = strlen(HINT_MARK);
        if (inside.at + mark > end || memcmp(text + inside.at, HINT_MARK, mark) != 0)
            continue;
        inside.at += mark;
        hints_of_comment(&inside, arena, statement);
    }
}

/* ---- inner statements ---- */

/* Goes from behind an opening parenthesis to behind its closing one. */
static void skip_parentheses(struct scan *scan)
{
    for (int depth = 1; depth > 0;) {
        struct token token = scan_next_word(scan);
        if (token.kind == SCAN_END)
            return;
        if (scan_is(scan, &token, "("))
            depth++;
        else if (scan_is(scan, &token, ")"))
            depth--;
    }
}

/* Goes behind the first `word` outside parentheses. */
static bool skip_to_word(struct scan *scan, const char *word)
{
    for (;;) {
        struct token token = scan_next_word(scan);
        if (token.kind == SCAN_END)
            return false;
        if (scan_is(scan, &token, word))
            return true;
        if (scan_is(scan, &token, "("))
            skip_parentheses(scan);
    }
}

static bool starts_query(const struct scan *scan, const struct token *token)
{
    return scan_is(scan, token, "SELECT") || scan_is(scan, token, "VALUES") ||
           scan_is(scan, token, "WITH") || scan_is(scan, token, "TABLE");
}

/* EXPLAIN (options) query, EXPLAIN ANALYZE VERBOSE query, EXPLAIN (query) UNION ... */
static bool skip_explain(struct scan *scan)
{
    scan_next_word(scan);
    size_t start = scan->at;
    struct token token = scan_next_word(scan);
    if (scan_is(scan, &token, "(")) {
        while (scan_is(scan, &token, "("))
            token = scan_next_word(scan);
        bool is_query = starts_query(scan, &token);
        scan->at = start;
        if (is_query)
            return true;
        scan_next_word(scan);
        skip_parentheses(scan);
        return true;
    }
    while (scan_is(scan, &token, "ANALYZE") || scan_is(scan, &token, "ANALYSE") ||
           scan_is(scan, &token, "VERBOSE")) {
        start = scan->at;
        token = scan_next_word(scan);
    }
    scan->at = start;
    return true;
}

/* Where the query of CREATE ... AS ends: before WITH [NO] DATA. */
static size_t before_with_data(struct scan scan)
{
    struct token last[3] = {{SCAN_END, 0, 0}, {SCAN_END, 0, 0}, {SCAN_END, 0, 0}};
    for (struct token token = scan_next_word(&scan); token.kind != SCAN_END;
         token = scan_next_word(&scan)) {
        last[0] = last[1];
        last[1] = last[2];
        last[2] = token;
    }
    if (scan_is(&scan, &last[2], "DATA")) {
        if (scan_is(&scan, &last[1], "WITH"))
            return last[1].start;
        if (scan_is(&scan, &last[1], "NO") && scan_is(&scan, &last[0], "WITH"))
            return last[0].start;
    }
    return scan.end;
}

static bool scan_copy_query(struct scan *scan, size_t *end)
{
    scan_next_word(scan);
    struct token open = scan_next_word(scan);
    if (!scan_is(scan, &open, "("))
        return false;
    struct scan closing = *scan;
    skip_parentheses(&closing);
    if (closing.at <= scan->at || closing.text[closing.at - 1] != ')')
        return false;
    *end = closing.at - 1;
    return true;
}

bool scan_inner(enum statement_kind kind, const char *text, size_t length, size_t *start,
                size_t *end)
{
    struct scan scan = {text, 0, length};
    bool found;
    *end = length;
    if (kind == STMT_EXPLAIN)
        found = skip_explain(&scan);
    else if (kind == STMT_COPY_TO)
        found = scan_copy_query(&scan, end);
    else if (kind == STMT_DECLARE_CURSOR)
        found = skip_to_word(&scan, "FOR");
    else
        found = skip_to_word(&scan, "AS");
    if (found && kind == STMT_CREATE_TABLE_AS)
        *end = before_with_data(scan);
    while (scan.at < *end && is_space(text[scan.at]))
        scan.at++;
    while (*end > scan.at && is_space(text[*end - 1]))
        --*end;
    *start = scan.at;
    return found && *start < *end;
}

/* ---- words ---- */

/* Words between the verb and the kind of object that do not name it. */
static bool is_modifier(const struct scan *scan, const struct token *token)
{
    static const char *words[] = {"OR",      "REPLACE", "TEMP",      "TEMPORARY", "UNLOGGED",
                                  "UNIQUE",  "GLOBAL",  "LOCAL",     "RECURSIVE", "CONSTRAINT",
                                  "TRUSTED", "DEFAULT", "PROCEDURAL"};
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        if (scan_is(scan, token, words[i]))
            return true;
    }
    return false;
}

/* Object kinds of two words or more begin with one of these. */
static bool is_first_of_two(const struct scan *scan, const struct token *token)
{
    static const char *words[] = {"MATERIALIZED", "FOREIGN", "EVENT", "TEXT",
                                  "ACCESS",       "USER",    "LARGE", "SECURITY"};
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        if (scan_is(scan, token, words[i]))
            return true;
    }
    return false;
}

static bool names_an_object(const struct scan *scan, const struct token *verb)
{
    return scan_is(scan, verb, "CREATE") || scan_is(scan, verb, "ALTER") ||
           scan_is(scan, verb, "DROP") || scan_is(scan, verb, "REFRESH") ||
           scan_is(scan, verb, "IMPORT") || scan_is(scan, verb, "SECURITY") ||
           scan_is(scan, verb, "REASSIGN");
}

const char *scan_tag(const char *text, size_t length, struct arena *arena)
{
    struct scan scan = {text, 0, length};
    struct token parts[3] = {scan_next_word(&scan)};
    int count = 1;
    if (parts[0].kind != SCAN_WORD)
        return "";
    if (names_an_object(&scan, &parts[0])) {
        do {
            parts[1] = scan_next_word(&scan);
        } while (is_modifier(&scan, &parts[1]));
        count += parts[1].kind == SCAN_WORD;
        if (count == 2 && is_first_of_two(&scan, &parts[1])) {
            parts[2] = scan_next_word(&scan);
            count += parts[2].kind == SCAN_WORD &&
                     (!scan_is(&scan, &parts[1], "USER") || scan_is(&scan, &parts[2], "MAPPING"));
        }
    }
    size_t size = 0, n = 0;
    for (int i = 0; i < count; i++)
        size += parts[i].end - parts[i].start + 1;
    char *tag = arena_alloc(arena, size);
    for (int i = 0; i < count; i++) {
        if (i)
            tag[n++] = ' ';
        for (size_t at = parts[i].start; at < parts[i].end; at++) {
            char ch = text[at];
            tag[n++] = ch >= 'a' && ch <= 'z' ? (char)(ch - 'a' + 'A') : ch;
        }
    }
    return tag;
}

char *scan_quote(const char *text, struct arena *arena)
{
    size_t length = strlen(text), n = 0;
    char *out = arena_alloc(arena, length * 2 + 4);
    if (memchr(text, '\\', length))
        out[n++] = 'E';
    out[n++] = '\'';
    for (size_t i = 0; i < length; i++) {
        if (text[i] == '\'' || text[i] == '\\')
            out[n++] = text[i];
        out[n++] = text[i];
    }
    out[n++] = '\'';
    out[n] = '\0';
    return out;
}
