/*
 * config_internal.h: what the files behind config.h share: the settings tables' shape, the source text
 * with its line map, and the reader that fills structs from libconfig groups by table.
 *
 *   file --config_source--> one text + (file, line) of each line --libconfig--> tree of settings
 *        --config_read_object, by table--> struct config --check functions--> accepted
 */
#ifndef PGSHUNT_CONFIG_INTERNAL_H
#define PGSHUNT_CONFIG_INTERNAL_H

#include <libconfig.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "pgshunt/arena.h"
#include "pgshunt/buffer.h"
#include "pgshunt/config.h"

/* ---- settings tables (settings.c) ---- */

enum setting_kind {
    SETTING_INTEGER,  /* int or int64_t, by width */
    SETTING_DURATION, /* int64_t milliseconds */
    SETTING_SIZE,     /* int64_t bytes */
    SETTING_BOOLEAN,
    SETTING_STRING,  /* const char *, in the arena; the range counts bytes */
    SETTING_CHOICE,  /* enum: the position in `choices` is the value */
    SETTING_STRINGS, /* list of strings: const char ** and an int counting them */
    SETTING_OBJECTS, /* list of groups: array of `objects` and an int counting them */
};

struct setting_table;

struct setting_row {
    struct setting_info info; /* initial is NULL where required */
    enum setting_kind kind;
    size_t offset;       /* of the value in the object the table describes */
    size_t width;        /* sizeof the value */
    size_t count_offset; /* lists: of the int */
    const char *low;     /* range as written in the file: same units, same parser */
    const char *high;
    const char *choices;       /* "trust | md5": in the order of the enum */
    const char *truth[2];      /* choices for those who write false or true; NULL: none */
    const char *later;         /* words of later versions, refused with a friendlier text */
    const char *without_group; /* default when the whole group is absent, NULL: initial */
    bool required;
    bool secret;
    bool
        inherits; /* left out: SETTING_INHERIT or NULL; `initial` names the setting that counts then */
    const struct setting_table *objects;
};

struct config_reader;

/* One kind of object: its settings and what more must hold. */
struct setting_table {
    const char *noun;    /* "shard" */
    const char *purpose; /* one sentence for the reference page */
    const struct setting_row *rows;
    int count;
    size_t size;         /* of the object */
    int64_t line_offset; /* of its `int line`, -1: none */
    int64_t name_offset; /* of its name, unique in a list, -1: none */
    /* Called with the object read and the group it was read from. NULL: nothing to check. */
    bool (*check)(struct config_reader *reader, config_setting_t *group, void *object);
};

extern const struct setting_table settings_main;  /* struct config */
extern const struct setting_table settings_users; /* struct config: the users file */

/* Text of a row's current value, as one would write it. */
void settings_row_value(const struct setting_row *row, const void *object, char *out, size_t size);

/* ---- values (config_value.c) ---- */

/* Number of `kind` from its text ("10min", "64MB", "42"). False: not one, or it overflows. */
bool config_number_parse(enum setting_kind kind, const char *text, int64_t *value);
/* The shortest exact text: 600000 is "10min". */
void config_number_format(enum setting_kind kind, int64_t value, char *out, size_t size);
/* "ms, s, min, h, d" */
const char *config_unit_names(enum setting_kind kind);
/* Position of `word` in "a | b | c", -1 if it is none of them. choices may be NULL. */
int config_choice_index(const char *choices, const char *word);
void config_choice_name(const char *choices, int index, char *out, size_t size);
/*
 * How far two names are apart: single-letter edits (swapping neighbours is one), not counting case; a
 * name that begins with the other is 1. INT_MAX: too far apart to be a slip of the pen.
 */
int config_distance(const char *a, const char *b);

/* ---- source text (config_source.c) ---- */

struct config_source {
    struct arena *arena; /* file names are allocated here */
    struct buffer text;  /* NUL-terminated, included files in place */
    struct config_source_line {
        const char *file;
        int line;
    } * lines; /* of each line of text */
    int count;
    int capacity;
};

/* Reads a file and what it includes. False: `error` says why and where. */
bool config_source_read(struct config_source *source, struct arena *arena, const char *path,
                        struct config_error *error);
/* The same from memory, as if it stood in `path`. */
bool config_source_text(struct config_source *source, struct arena *arena, const char *path,
                        const char *text, size_t length, struct config_error *error);
void config_source_free(struct config_source *source);
/* Appends all of a file; 0 or an errno. */
int config_read_whole(const char *path, struct buffer *out);
/* `name` as seen from the folder of `path`. */
const char *config_relative_path(struct arena *arena, const char *path, const char *name);

/* ---- reader (config_read.c) ---- */

struct config_reader {
    struct config *config; /* being filled */
    struct config_error *error;
    const char *path;
    struct config_source source;
    config_t tree;
};

/* Parses source into tree, which the caller destroys after true or false. */
bool config_reader_parse(struct config_reader *reader);
bool config_read_object(struct config_reader *reader, config_setting_t *group,
                        const struct setting_table *table, void *object);
/* Writes "file:line: " and the message into error; always false. */
bool config_refuse(struct config_reader *reader, const config_setting_t *at, const char *format,
                   ...) __attribute__((format(printf, 3, 4)));

struct config_named {
    const char *name;
    const config_setting_t *at;
};
/* Refuses the second of two equal names. Sorts `items`. */
bool config_names_unique(struct config_reader *reader, struct config_named *items, int count,
                         const char *noun, const char *allowed);

/* ---- checks (config_check.c), called through the tables ---- */

/* Keyspaces by list and range of a database whose shards are read. */
bool config_check_maps(struct config_reader *reader, config_setting_t *group,
                       const struct database_config *database);
/* Every lookup is of a table of its keyspace, of another column than the key, and there once. */
bool config_check_lookups(struct config_reader *reader, config_setting_t *group,
                          const struct database_config *database); /* config_map.c */
/* enum key_type, or -1. */
int config_key_type(const char *word);
bool config_check_keys(struct config_reader *reader, config_setting_t *group,
                       const struct database_config *database);
bool config_check_table(struct config_reader *reader, config_setting_t *group, void *object);
bool config_check_database(struct config_reader *reader, config_setting_t *group, void *object);
bool config_check_shard(struct config_reader *reader, config_setting_t *group, void *object);
bool config_check_user(struct config_reader *reader, config_setting_t *group, void *object);
/* Whether any user of any database is looked up in a server. */
bool config_looks_users_up(const struct config *config);
bool config_check_tls(struct config_reader *reader, struct config *config); /* config_tls.c */
bool config_check_main(struct config_reader *reader, config_setting_t *group, void *object);

/* ---- loading (config.c) ---- */

/* config_load with the main file's text given; the users file is still read from disk. */
struct config *config_load_text(const char *path, const char *text, size_t length,
                                struct config_error *error);

#endif
