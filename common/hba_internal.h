/*
 * hba_internal.h: a pg_hba.conf as tokens, between hba_read.c (text to tokens) and hba.c (tokens to
 * rules). Everything lives in the arena, in the order of the file.
 */
#ifndef PGSHUNT_HBA_INTERNAL_H
#define PGSHUNT_HBA_INTERNAL_H

#include "pgshunt/hba.h"

struct hba_token {
    struct hba_token *next;
    const char *text;
    bool quoted; /* began with a quote: never a keyword */
};

/* Tokens with commas between them. */
struct hba_field {
    struct hba_field *next;
    struct hba_token *tokens; /* at least one */
};

/* One line, continuation lines included. */
struct hba_line {
    struct hba_line *next;
    const char *file;
    int line;
    struct hba_field *fields; /* at least one */
};

struct hba_reader {
    struct arena *arena;
    char *error;
    size_t error_size;
    int tokens; /* read so far, in all files */
    struct hba_line *first, **last;
};

/* Appends the lines of a text, and of the files it includes. False: `error` says why. */
bool hba_read_text(struct hba_reader *reader, const char *path, const char *text, size_t length,
                   int depth);
bool hba_read_file(struct hba_reader *reader, const char *path, int depth);
/* Puts the names that an "@file" stands for in the place of each such token. */
bool hba_expand_names(struct hba_reader *reader, const struct hba_line *at,
                      struct hba_field *field);
/* Whether the role is one of `roles` (of struct hba_visitor, not NULL). */
bool hba_is_member(const char *roles, const char *role);
/* Writes "file:line: " and the message; always false. */
bool hba_refuse(struct hba_reader *reader, const char *file, int line, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

#endif
