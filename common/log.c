/*
 * log.c: structured log lines (logfmt or JSON), each written to standard error with one write(2).
 *
 * A line is built in a buffer on the stack; one too long for it is cut after a whole field, and says so
 * with truncated=true, so that a line stays a line whatever a client puts into it.
 */
#include "pgshunt/log.h"

#include <errno.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* PIPE_BUF is 4096 on Linux: up to that a write to a pipe is never mixed with another thread's or
 * process' bytes. */
#define LOG_LINE_MAX 4096
/* Kept free behind the fields for the truncation mark and the line's end. */
#define LOG_LINE_TAIL 32

static atomic_int log_level_now = LOG_INFO;
static atomic_int log_format_now = LOG_FORMAT_LOGFMT;
static _Thread_local char thread_name[32] = "main";

struct line {
    enum log_format format;
    size_t length;
    bool full; /* something did not fit: nothing more is taken */
    char bytes[LOG_LINE_MAX];
};

void log_configure(enum log_level level, enum log_format format)
{
    atomic_store_explicit(&log_level_now, (int)level, memory_order_relaxed);
    atomic_store_explicit(&log_format_now, (int)format, memory_order_relaxed);
}

void log_thread_name(const char *name)
{
    snprintf(thread_name, sizeof thread_name, "%s", name);
}

bool log_enabled(enum log_level level)
{
    return (int)level >= atomic_load_explicit(&log_level_now, memory_order_relaxed);
}

static const char *level_name(enum log_level level)
{
    static const char *const names[] = {"debug", "info", "warning", "error"};
    size_t index = (size_t)level;
    return index < sizeof names / sizeof names[0] ? names[index] : "unknown";
}

static void line_add(struct line *line, const char *bytes, size_t length)
{
    if (line->full || length > sizeof line->bytes - LOG_LINE_TAIL - line->length) {
        line->full = true;
        return;
    }
    memcpy(line->bytes + line->length, bytes, length);
    line->length += length;
}

static void line_text(struct line *line, const char *text)
{
    line_add(line, text, strlen(text));
}

/*
 * Length of the well-formed UTF-8 character at `p` (1 for ASCII), 0 if there is none: overlong forms,
 * surrogates, values over U+10FFFF and cut sequences are not characters. The terminating NUL ends any
 * sequence, because it is no continuation byte.
 */
static int utf8_length(const unsigned char *p)
{
    unsigned char low = 0x80, high = 0xBF;
    int length;
    if (p[0] < 0x80)
        return 1;
    if (p[0] >= 0xC2 && p[0] <= 0xDF) {
        length = 2;
    } else if (p[0] >= 0xE0 && p[0] <= 0xEF) {
        length = 3;
        low = p[0] == 0xE0 ? 0xA0 : low;
        high = p[0] == 0xED ? 0x9F : high;
    } else if (p[0] >= 0xF0 && p[0] <= 0xF4) {
        length = 4;
        low = p[0] == 0xF0 ? 0x90 : low;
        high = p[0] == 0xF4 ? 0x8F : high;
    } else {
        return 0;
    }
    if (p[1] < low || p[1] > high)
        return 0;
    for (int i = 2; i < length; i++)
        if ((p[i] & 0xC0) != 0x80)
            return 0;
    return length;
}

/* Controls of both ranges (C0, DEL, C1) and the line separators: what could move a terminal's cursor
 * or end the line for a reader of it. */
static bool is_control(const unsigned char *p, int length)
{
    if (length == 1)
        return p[0] < 0x20 || p[0] == 0x7F;
    if (length == 2)
        return p[0] == 0xC2 && p[1] < 0xA0;
    return length == 3 && p[0] == 0xE2 && p[1] == 0x80 && (p[2] == 0xA8 || p[2] == 0xA9);
}

/* A character's number, for \u escapes; `length` as utf8_length says, at most 3. */
static unsigned code_point(const unsigned char *p, int length)
{
    if (length == 1)
        return p[0];
    if (length == 2)
        return (unsigned)(p[0] & 0x1F) << 6 | (p[1] & 0x3F);
    return (unsigned)(p[0] & 0x0F) << 12 | (unsigned)(p[1] & 0x3F) << 6 | (p[2] & 0x3F);
}

/*
 * One character or stray byte of a quoted value. A byte that is not UTF-8 is shown as the four
 * characters \xHH; JSON has no such escape, so there the backslash is a literal one ("\\xHH").
 * Returns how many bytes of `p` it has dealt with.
 */
static int line_character(struct line *line, const unsigned char *p)
{
    char escape[16];
    int length = utf8_length(p);
    if (length == 0) {
        const char *form = line->format == LOG_FORMAT_JSON ? "\\\\x" : "\\x";
        snprintf(escape, sizeof escape, "%s%02x", form, p[0]);
        line_text(line, escape);
        return 1;
    }
    if (*p == '"' || *p == '\\')
        snprintf(escape, sizeof escape, "\\%c", *p);
    else if (*p == '\n')
        snprintf(escape, sizeof escape, "\\n");
    else if (*p == '\r')
        snprintf(escape, sizeof escape, "\\r");
    else if (*p == '\t')
        snprintf(escape, sizeof escape, "\\t");
    else if (is_control(p, length))
        snprintf(escape, sizeof escape, "\\u%04x", code_point(p, length));
    else {
        line_add(line, (const char *)p, (size_t)length);
        return length;
    }
    line_text(line, escape);
    return length;
}

static void line_quoted(struct line *line, const char *text)
{
    const unsigned char *p = (const unsigned char *)text;
    line_text(line, "\"");
    while (*p && !line->full)
        p += line_character(line, p);
    line_text(line, "\"");
}

/* Whether logfmt can show the value bare: not empty, printable ASCII or UTF-8, no space, quote, backslash
 * or equals sign. */
static bool is_bare(const char *text)
{
    const unsigned char *p = (const unsigned char *)text;
    if (!*p)
        return false;
    while (*p) {
        int length = utf8_length(p);
        if (length == 0 || is_control(p, length) || strchr(" =\"\\", *p))
            return false;
        p += length;
    }
    return true;
}

static void line_value(struct line *line, const char *text)
{
    if (line->format == LOG_FORMAT_LOGFMT && is_bare(text))
        line_text(line, text);
    else
        line_quoted(line, text);
}

static void line_name(struct line *line, const char *name)
{
    if (line->format == LOG_FORMAT_JSON) {
        line_text(line, line->length > 1 ? "," : "");
        line_quoted(line, name);
        line_text(line, ":");
    } else {
        line_text(line, line->length > 0 ? " " : "");
        line_text(line, name);
        line_text(line, "=");
    }
}

/* One name and value, whole or not at all. `text` NULL: `number` is the value. */
static void line_field(struct line *line, const char *name, const char *text, int64_t number)
{
    size_t before = line->length;
    line_name(line, name);
    if (text) {
        line_value(line, text);
    } else {
        char digits[24];
        snprintf(digits, sizeof digits, "%lld", (long long)number);
        line_text(line, digits);
    }
    if (line->full)
        line->length = before;
}

/*
 * A text that may be long (a message, a value with SQL in it): where it does not fit, as much of it as
 * does is shown. Escapes grow at most sixfold, so a sixth of what is left always fits.
 */
static void line_long_field(struct line *line, const char *name, const char *text)
{
    char head[LOG_LINE_MAX / 6];
    size_t before = line->length;
    bool was_full = line->full;
    line_field(line, name, text, 0);
    if (was_full || !line->full)
        return;
    size_t room = (sizeof line->bytes - LOG_LINE_TAIL - before) / 6;
    size_t overhead = strlen(name) + 8;
    if (room <= overhead)
        return;
    snprintf(head, room - overhead < sizeof head ? room - overhead : sizeof head, "%s", text);
    line->full = false;
    line_field(line, name, head, 0);
    line->full = true;
}

/* "2026-01-02T03:04:05.678Z" */
static void time_text(char *out, size_t size)
{
    struct timespec now;
    struct tm parts;
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &parts);
    size_t used = strftime(out, size, "%Y-%m-%dT%H:%M:%S", &parts);
    snprintf(out + used, size - used, ".%03dZ", (int)(now.tv_nsec / 1000000));
}

/* The mark of a cut line and the end of any; LOG_LINE_TAIL bytes were kept for it. */
static void line_end(struct line *line)
{
    bool json = line->format == LOG_FORMAT_JSON;
    const char *mark = json ? ",\"truncated\":true" : " truncated=true";
    const char *end = json ? "}\n" : "\n";
    int written =
        snprintf(line->bytes + line->length, LOG_LINE_TAIL, "%s%s", line->full ? mark : "", end);
    line->length += (size_t)written;
}

/* One write(2); what a full pipe or a signal refused of it is lost on purpose, because a log must
 * never block or stop the proxy. */
static void line_write(const struct line *line)
{
    ssize_t written;
    do
        written = write(STDERR_FILENO, line->bytes, line->length);
    while (written < 0 && errno == EINTR);
}

void log_write(enum log_level level, const char *message, const struct log_field *fields, int count)
{
    struct line line; /* bytes are left as they are: only `length` of them count */
    char now[40];
    int saved = errno; /* a log call must not change what its caller is about to report */

    line.format = (enum log_format)atomic_load_explicit(&log_format_now, memory_order_relaxed);
    line.length = 0;
    line.full = false;
    time_text(now, sizeof now);
    if (line.format == LOG_FORMAT_JSON)
        line_text(&line, "{");
    line_field(&line, "time", now, 0);
    line_field(&line, "level", level_name(level), 0);
    line_field(&line, "thread", thread_name, 0);
    line_long_field(&line, "msg", message ? message : "");
    for (int i = 0; i < count; i++) {
        if (fields[i].text)
            line_long_field(&line, fields[i].name, fields[i].text);
        else
            line_field(&line, fields[i].name, NULL, fields[i].number);
    }
    line_end(&line);
    line_write(&line);
    errno = saved;
}
