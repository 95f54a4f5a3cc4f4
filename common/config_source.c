/*
 * config_source.c: a configuration file and what it includes as one text that remembers where each line
 * came from.
 *
 * libconfig could read files itself, but it wraps integers that do not fit around without a word, ends
 * the process when an included name is a folder, and stops at a NUL byte. So the text is walked here
 * first: includes are put in place, and numbers, strings and comments are looked at just closely enough
 * to refuse those. Everything else is left to libconfig.
 */
#include "config_internal.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define INCLUDE_DEPTH_MAX 10
#define SOURCE_BYTES_MAX (64 << 20)

/* A file being walked. */
struct walk {
    struct config_source *source;
    struct config_error *error;
    const char *file;
    const char *at;
    const char *end;
    int line;
    int depth;
    bool line_start; /* only blanks so far on this line */
};

static bool walk_text(struct walk *walk);

static bool refuse(const struct walk *walk, int line, const char *text)
{
    snprintf(walk->error->text, sizeof walk->error->text, "%s:%d: %s", walk->file, line, text);
    return false;
}

const char *config_relative_path(struct arena *arena, const char *path, const char *name)
{
    const char *slash = strrchr(path, '/');
    if (name[0] == '/' || !slash)
        return arena_strdup(arena, name);
    return arena_printf(arena, "%.*s/%s", (int)(slash - path), path, name);
}

int config_read_whole(const char *path, struct buffer *out)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return errno;
    int failure = 0;
    for (;;) {
        ssize_t got = read(fd, buffer_reserve(out, 16384), 16384);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            failure = errno;
        if (got <= 0)
            break;
        out->end += (size_t)got;
        if (buffer_length(out) > SOURCE_BYTES_MAX) {
            failure = EFBIG;
            break;
        }
    }
    close(fd);
    return failure;
}

static void add_line(struct walk *walk)
{
    struct config_source *source = walk->source;
    if (source->count == source->capacity) {
        source->capacity = source->capacity ? source->capacity * 2 : 64;
        source->lines =
            mem_realloc(source->lines, (size_t)source->capacity * sizeof *source->lines);
    }
    source->lines[source->count++] = (struct config_source_line){walk->file, walk->line};
}

/* Copies `length` characters, keeping the line map. */
static void copy(struct walk *walk, size_t length)
{
    buffer_append(&walk->source->text, walk->at, length);
    for (size_t i = 0; i < length; i++, walk->at++) {
        if (*walk->at == '\n') {
            walk->line++;
            walk->line_start = true;
            add_line(walk);
        } else if (*walk->at != ' ' && *walk->at != '\t') {
            walk->line_start = false;
        }
    }
}

static size_t left(const struct walk *walk)
{
    return (size_t)(walk->end - walk->at);
}

static bool starts_with(const struct walk *walk, const char *word)
{
    size_t length = strlen(word);
    return left(walk) >= length && memcmp(walk->at, word, length) == 0;
}

static bool take_string(struct walk *walk)
{
    const char *p = walk->at + 1;
    while (p < walk->end && *p != '"')
        p += *p == '\\' && p + 1 < walk->end ? 2 : 1;
    if (p >= walk->end)
        return refuse(
            walk, walk->line,
            "found a string that never ends; allowed: \"...\" (inside, \" is written \\\")");
    copy(walk, (size_t)(p + 1 - walk->at));
    return true;
}

static bool take_block_comment(struct walk *walk)
{
    const char *close = memmem(walk->at + 2, left(walk) - 2, "*/", 2);
    if (!close)
        return refuse(walk, walk->line, "found a comment that never ends; allowed: /* ... */");
    copy(walk, (size_t)(close + 2 - walk->at));
    return true;
}

static void take_line_comment(struct walk *walk)
{
    const char *newline = memchr(walk->at, '\n', left(walk));
    copy(walk, newline ? (size_t)(newline - walk->at) : left(walk));
}

static size_t span(const struct walk *walk, const char *extra)
{
    const char *p = walk->at;
    while (p < walk->end && *p && (isalnum((unsigned char)*p) || strchr(extra, *p)))
        p++;
    return (size_t)(p - walk->at);
}

/*
 * What is wrong with a number token, NULL if nothing: libconfig reads integers into an int, or into an
 * int64 with an L. "1e+5" comes as "1e", because + is no part of a token.
 */
static const char *number_fault(const char *token)
{
    char *end, *float_end;
    bool hex = token[0] == '0' && (token[1] == 'x' || token[1] == 'X');
    errno = 0;
    long long value = strtoll(token, &end, hex ? 16 : 10);
    bool wide = *end == 'L';
    if ((errno != 0 || (!wide && value > INT_MAX)) && (!*end || wide))
        return "too large";
    if (!*end || strcmp(end, "L") == 0 || strcmp(end, "LL") == 0)
        return NULL;
    strtod(token, &float_end);
    bool is_float = !hex && (!*float_end || strcasecmp(float_end, "e") == 0);
    return is_float ? NULL : "not quoted";
}

static bool take_number(struct walk *walk)
{
    char token[64], text[200];
    size_t length = span(walk, ".");
    snprintf(token, sizeof token, "%.*s", (int)length, walk->at);
    const char *fault = number_fault(token);
    if (!fault) {
        copy(walk, length);
        return true;
    }
    if (strcmp(fault, "not quoted") == 0)
        snprintf(text, sizeof text, "found %s without quotes; allowed: \"%s\"", token, token);
    else
        snprintf(text, sizeof text,
                 "found the number %s, too large; allowed: integers up to %d (sizes and durations "
                 "are text with a unit, like \"8GB\")",
                 token, INT_MAX);
    return refuse(walk, walk->line, text);
}

/* The text of an included file goes where its directive stood. */
static bool include_file(struct walk *walk, const char *name)
{
    char text[600];
    struct buffer content = {0};
    const char *path = config_relative_path(walk->source->arena, walk->file, name);
    struct walk inner = {.source = walk->source,
                         .error = walk->error,
                         .file = path,
                         .line = 1,
                         .depth = walk->depth + 1,
                         .line_start = true};
    if (inner.depth > INCLUDE_DEPTH_MAX)
        return refuse(walk, walk->line,
                      "found @include nested more than 10 deep; allowed: files that do not include "
                      "each other in a circle");
    int failure = config_read_whole(path, &content);
    if (failure) {
        snprintf(text, sizeof text, "found @include of %.400s (%s); allowed: a readable file", path,
                 strerror(failure));
        buffer_release(&content);
        return refuse(walk, walk->line, text);
    }
    inner.at = content.data;
    inner.end = content.data + buffer_length(&content);
    bool ok = walk_text(&inner);
    buffer_release(&content);
    return ok;
}

/* `@include "file"` at the start of a line. */
static bool take_include(struct walk *walk)
{
    const char *p = walk->at + strlen("@include");
    while (p < walk->end && (*p == ' ' || *p == '\t'))
        p++;
    const char *name = p + 1;
    const char *quote =
        p < walk->end && *p == '"' ? memchr(name, '"', (size_t)(walk->end - name)) : NULL;
    if (!quote || quote == name || memchr(name, '\n', (size_t)(quote - name)))
        return refuse(walk, walk->line,
                      "found @include without a file; allowed: @include \"file\"");
    if (!include_file(walk, arena_strndup(walk->source->arena, name, (size_t)(quote - name))))
        return false;
    walk->at = quote + 1;
    walk->line_start = false;
    /* what stands behind the directive is on a line of this file again */
    buffer_append(&walk->source->text, "\n", 1);
    add_line(walk);
    return true;
}

static bool take_token(struct walk *walk)
{
    unsigned char c = (unsigned char)*walk->at;
    if (c == '"')
        return take_string(walk);
    if (starts_with(walk, "/*"))
        return take_block_comment(walk);
    if (c == '@' && walk->line_start && starts_with(walk, "@include"))
        return take_include(walk);
    if (isdigit(c))
        return take_number(walk);
    if (c == '#' || starts_with(walk, "//"))
        take_line_comment(walk);
    else if (isalpha(c) || c == '*')
        copy(walk, span(walk, "-_*"));
    else
        copy(walk, 1);
    return true;
}

static bool walk_text(struct walk *walk)
{
    size_t total = buffer_length(&walk->source->text) + left(walk);
    const char *nul = left(walk) ? memchr(walk->at, 0, left(walk)) : NULL;
    if (nul) {
        int line = walk->line;
        for (const char *p = walk->at; p < nul; p++)
            line += *p == '\n';
        return refuse(walk, line, "found a NUL byte; allowed: text in UTF-8");
    }
    if (total > SOURCE_BYTES_MAX)
        return refuse(walk, walk->line, "found more than 64MB of configuration; allowed: less");
    if (walk->depth > 0) { /* the first line of an included file begins on a line of its own */
        buffer_append(&walk->source->text, "\n", 1);
    }
    add_line(walk);
    while (walk->at < walk->end)
        if (!take_token(walk))
            return false;
    return true;
}

bool config_source_text(struct config_source *source, struct arena *arena, const char *path,
                        const char *text, size_t length, struct config_error *error)
{
    struct walk walk = {.source = source,
                        .error = error,
                        .file = path,
                        .at = text,
                        .end = text + length,
                        .line = 1,
                        .line_start = true};
    *source = (struct config_source){.arena = arena};
    bool ok = walk_text(&walk);
    *buffer_reserve(&source->text, 1) = 0;
    return ok;
}

bool config_source_read(struct config_source *source, struct arena *arena, const char *path,
                        struct config_error *error)
{
    struct buffer content = {0};
    bool ok = false;
    *source = (struct config_source){.arena = arena};
    int failure = config_read_whole(path, &content);
    if (failure)
        snprintf(error->text, sizeof error->text, "%.800s: found %s; allowed: a readable file",
                 path,
                 failure == ENOENT   ? "no such file"
                 : failure == EISDIR ? "a directory"
                                     : strerror(failure));
    else
        ok = config_source_text(source, arena, path, content.data ? content.data : "",
                                buffer_length(&content), error);
    buffer_release(&content);
    return ok;
}

void config_source_free(struct config_source *source)
{
    buffer_release(&source->text);
    free(source->lines);
    *source = (struct config_source){0};
}
