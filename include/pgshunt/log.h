/*
 * log.h: structured log lines, logfmt or JSON by setting, to standard error.
 *
 *   log_event(LOG_INFO, "server connected", LOG_S("node", name), LOG_I("pid", pid));
 *   -> time=2026-01-02T03:04:05.678Z level=info thread="worker 1" msg="server connected" node=... pid=...
 *
 * Thread-safe: a line is one write(2). Values are quoted as the format needs; bytes that are not
 * printable are escaped. Never log a password or a parameter value.
 */
#ifndef PGSHUNT_LOG_H
#define PGSHUNT_LOG_H

#include <stdbool.h>
#include <stdint.h>

#include "pgshunt/error.h"

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARNING, LOG_ERROR };
enum log_format { LOG_FORMAT_LOGFMT, LOG_FORMAT_JSON };

struct log_field {
    const char *name;
    const char *text; /* NULL: number is the value */
    int64_t number;
};

#define LOG_S(field, value) ((struct log_field){.name = (field), .text = (value)})
#define LOG_I(field, value) ((struct log_field){.name = (field), .number = (int64_t)(value)})

void log_configure(enum log_level level, enum log_format format);
/* Name shown in the lines of this thread ("worker 1", "monitor"). */
void log_thread_name(const char *name);
bool log_enabled(enum log_level level);
COLD void log_write(enum log_level level, const char *message, const struct log_field *fields,
                    int count);

#define log_event(level, message, ...)                                                             \
    do {                                                                                           \
        if (log_enabled(level)) {                                                                  \
            const struct log_field log_fields_[] = {{0}, ##__VA_ARGS__};                           \
            log_write((level), (message), log_fields_ + 1,                                         \
                      (int)(sizeof log_fields_ / sizeof log_fields_[0]) - 1);                      \
        }                                                                                          \
    } while (0)

#endif
