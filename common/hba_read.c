/* hba_read.c: takes pg_hba.conf and the files it names apart into lines, fields and tokens. */
#include "hba_internal.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "config_internal.h"
#include "pgshunt/buffer.h"

#define DEPTH_MAX 10
#define TOKENS_MAX 1000000

/* A logical line while it is taken apart. */
struct cursor {
    const char *at;
    const char *file;
    int line;
};

bool hba_refuse(struct hba_reader *reader, const char *file, int line, const char *format, ...)
{
    char what[500];
    va_list args;
    va_start(args, format);
    vsnprintf(what, sizeof what, format, args);
    va_end(args);
    snprintf(reader->error, reader->error_size, "%.400s:%d: %s", file, line, what);
    return false;
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n' || c == '\f' || c == '\v';
}

/* ---- tokens ---- */

static void skip_blanks(struct cursor *cursor, bool commas_too)
{
    while (is_blank(*cursor->at) || (commas_too && *cursor->at == ','))
        cursor->at++;
    if (*cursor->at == '#')
        cursor->at += strlen(cursor->at);
}

/* Takes characters up to a blank, a comma or a comment; inside quotes they are a part of the token, and
 * a doubled quote is one. */
static bool take_text(struct hba_reader *reader, struct cursor *cursor, struct buffer *text)
{
    bool in_quotes = false;
    for (; *cursor->at; cursor->at++) {
        char c = *cursor->at;
        if (!in_quotes && (is_blank(c) || c == ',' || c == '#'))
            break;
        if (c != '"')
            buffer_append(text, &c, 1);
        else if (in_quotes && cursor->at[1] == '"')
            buffer_append(text, cursor->at++, 1);
        else
            in_quotes = !in_quotes;
    }
    if (in_quotes)
        return hba_refuse(reader, cursor->file, cursor->line,
                          "found a quote that never ends; allowed: \"...\" on one line");
    return true;
}

/* NULL: refused. The cursor stands on a token. */
static struct hba_token *take_token(struct hba_reader *reader, struct cursor *cursor)
{
    struct hba_token *token = arena_alloc(reader->arena, sizeof *token);
    struct buffer text = {0};
    *token = (struct hba_token){.quoted = *cursor->at == '"'};
    bool ok = take_text(reader, cursor, &text);
    token->text = arena_strndup(reader->arena, buffer_length(&text) ? buffer_head(&text) : "",
                                buffer_length(&text));
    buffer_release(&text);
    if (ok && ++reader->tokens > TOKENS_MAX)
        ok = hba_refuse(reader, cursor->file, cursor->line,
                        "found more than %d names; allowed: less", TOKENS_MAX);
    return ok ? token : NULL;
}

/* Tokens with commas between them; blanks may follow a comma. */
static struct hba_field *take_field(struct hba_reader *reader, struct cursor *cursor)
{
    struct hba_field *field = arena_alloc(reader->arena, sizeof *field);
    struct hba_token **last = &field->tokens;
    *field = (struct hba_field){0};
    for (;;) {
        if (!(*last = take_token(reader, cursor)))
            return NULL;
        last = &(*last)->next;
        if (*cursor->at != ',')
            return field;
        skip_blanks(cursor, true);
        if (!*cursor->at)
            return field;
    }
}

/* ---- lines ---- */

static bool add_line(struct hba_reader *reader, struct cursor *cursor)
{
    struct hba_line *line = arena_alloc(reader->arena, sizeof *line);
    struct hba_field **last = &line->fields;
    *line = (struct hba_line){.file = cursor->file, .line = cursor->line};
    while (*cursor->at) {
        if (!(*last = take_field(reader, cursor)))
            return false;
        last = &(*last)->next;
        skip_blanks(cursor, true);
    }
    *reader->last = line;
    reader->last = &line->next;
    return true;
}

static bool is_word(const struct cursor *cursor, const char *word)
{
    size_t length = strlen(word);
    return strncmp(cursor->at, word, length) == 0 &&
           (is_blank(cursor->at[length]) || !cursor->at[length]);
}

static bool include(struct hba_reader *reader, struct cursor *cursor, int depth)
{
    bool if_exists = is_word(cursor, "include_if_exists");
    while (*cursor->at && !is_blank(*cursor->at))
        cursor->at++;
    skip_blanks(cursor, false);
    if (!*cursor->at)
        return hba_refuse(reader, cursor->file, cursor->line,
                          "found include without a file; allowed: include FILE");
    const struct hba_token *name = take_token(reader, cursor);
    if (!name)
        return false;
    const char *path = config_relative_path(reader->arena, cursor->file, name->text);
    struct buffer content = {0};
    int failure = config_read_whole(path, &content);
    bool ok = true;
    if (failure && !(if_exists && failure == ENOENT))
        ok = hba_refuse(reader, cursor->file, cursor->line,
                        "found include of %.300s (%s); allowed: a readable file", path,
                        strerror(failure));
    else if (!failure)
        ok = hba_read_text(reader, path, content.data ? content.data : "", buffer_length(&content),
                           depth + 1);
    buffer_release(&content);
    return ok;
}

static bool take_line(struct hba_reader *reader, struct cursor *cursor, int depth)
{
    skip_blanks(cursor, true);
    if (!*cursor->at)
        return true;
    if (is_word(cursor, "include_dir"))
        return hba_refuse(reader, cursor->file, cursor->line,
                          "found include_dir, which is not supported; allowed: include FILE");
    if (is_word(cursor, "include") || is_word(cursor, "include_if_exists"))
        return include(reader, cursor, depth);
    return add_line(reader, cursor);
}

/* A line with those that a backslash at the end makes part of it, as one text. Returns how many lines
 * of the file that were; *at moves behind them. */
static int join_lines(const char **at, const char *end, struct buffer *line)
{
    for (int count = 1;; count++) {
        const char *newline = memchr(*at, '\n', (size_t)(end - *at));
        size_t length = (size_t)((newline ? newline : end) - *at);
        size_t text = length && (*at)[length - 1] == '\r' ? length - 1 : length;
        bool more = newline && text && (*at)[text - 1] == '\\';
        buffer_append(line, *at, text - more);
        *at += length + (newline != NULL);
        if (!more || *at >= end) {
            buffer_append(line, "", 1);
            return count;
        }
    }
}

bool hba_read_text(struct hba_reader *reader, const char *path, const char *text, size_t length,
                   int depth)
{
    const char *at = text, *end = text + length;
    bool ok = true;
    if (depth > DEPTH_MAX)
        return hba_refuse(
            reader, path, 1,
            "found files nested more than %d deep; allowed: files that do not include "
            "each other in a circle",
            DEPTH_MAX);
    if (length && memchr(text, 0, length))
        return hba_refuse(reader, path, 1, "found a NUL byte; allowed: text");
    for (int number = 1; ok && at < end;) {
        struct buffer line = {0};
        int count = join_lines(&at, end, &line);
        struct cursor cursor = {buffer_head(&line), path, number};
        ok = take_line(reader, &cursor, depth);
        number += count;
        buffer_release(&line);
    }
    return ok;
}

bool hba_read_file(struct hba_reader *reader, const char *path, int depth)
{
    struct buffer content = {0};
    int failure = config_read_whole(path, &content);
    bool ok = failure ? hba_refuse(reader, path, 0, "found %s; allowed: a readable file",
                                   strerror(failure))
                      : hba_read_text(reader, path, content.data ? content.data : "",
                                      buffer_length(&content), depth);
    buffer_release(&content);
    return ok;
}

/* ---- files of names ---- */

static bool expand(struct hba_reader *reader, const char *file, int line, struct hba_token **first,
                   int depth);

/* All tokens of a file, in one list. */
static bool read_names(struct hba_reader *reader, const char *path, const struct buffer *content,
                       struct hba_token **names)
{
    const char *at = buffer_head(content), *end = at + buffer_length(content);
    bool ok = true;
    for (int number = 1; ok && at < end;) {
        struct buffer line = {0};
        int count = join_lines(&at, end, &line);
        struct cursor cursor = {buffer_head(&line), path, number};
        for (skip_blanks(&cursor, true); ok && *cursor.at; skip_blanks(&cursor, true)) {
            ok = (*names = take_token(reader, &cursor)) != NULL;
            if (ok)
                names = &(*names)->next;
        }
        number += count;
        buffer_release(&line);
    }
    return ok;
}

static bool load_names(struct hba_reader *reader, const char *file, int line, const char *name,
                       struct hba_token **names, int depth)
{
    const char *path = config_relative_path(reader->arena, file, name);
    struct buffer content = {0};
    bool ok = false;
    int failure = depth > DEPTH_MAX ? ELOOP : config_read_whole(path, &content);
    *names = NULL;
    if (failure)
        hba_refuse(reader, file, line, "found @%.300s (%s); allowed: a readable file of names",
                   path, strerror(failure));
    else if (buffer_length(&content) && memchr(buffer_head(&content), 0, buffer_length(&content)))
        hba_refuse(reader, path, 1, "found a NUL byte; allowed: text");
    else
        ok = (!buffer_length(&content) || read_names(reader, path, &content, names)) &&
             expand(reader, path, 1, names, depth + 1);
    buffer_release(&content);
    return ok;
}

static bool expand(struct hba_reader *reader, const char *file, int line, struct hba_token **first,
                   int depth)
{
    while (*first) {
        struct hba_token *token = *first, *names;
        if (token->quoted || token->text[0] != '@' || !token->text[1]) {
            first = &token->next;
            continue;
        }
        if (!load_names(reader, file, line, token->text + 1, &names, depth))
            return false;
        *first = names;
        while (*first)
            first = &(*first)->next;
        *first = token->next;
    }
    return true;
}

bool hba_expand_names(struct hba_reader *reader, const struct hba_line *at, struct hba_field *field)
{
    return expand(reader, at->file, at->line, &field->tokens, 1);
}
