/* config_read.c: fills structs from libconfig groups by settings table, and words what is refused. */
#include "config_internal.h"

#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- where and what, in words ---- */

/* "file:line" of a setting; just the file for the top level itself. */
static void location(const struct config_reader *reader, const config_setting_t *at, char *out,
                     size_t size)
{
    unsigned line = at ? at->line : 0;
    if (line == 0 || line > (unsigned)reader->source.count)
        snprintf(out, size, "%.400s", reader->path);
    else
        snprintf(out, size, "%.400s:%d", reader->source.lines[line - 1].file,
                 reader->source.lines[line - 1].line);
}

static int line_of(const struct config_reader *reader, const config_setting_t *at)
{
    return at->line && at->line <= (unsigned)reader->source.count
               ? reader->source.lines[at->line - 1].line
               : 0;
}

bool config_refuse(struct config_reader *reader, const config_setting_t *at, const char *format,
                   ...)
{
    char where[450], what[900];
    va_list args;
    va_start(args, format);
    vsnprintf(what, sizeof what, format, args);
    va_end(args);
    location(reader, at, where, sizeof where);
    int used = snprintf(reader->error->text, sizeof reader->error->text, "%s: ", where);
    snprintf(reader->error->text + used, sizeof reader->error->text - (size_t)used, "%s", what);
    return false;
}

/* "databases[0].shards[1].weight" */
static void path_of(const config_setting_t *setting, char *out, size_t size)
{
    size_t used = 0;
    out[0] = 0;
    if (setting->parent && !config_setting_is_root(setting->parent)) {
        path_of(setting->parent, out, size);
        used = strlen(out);
    }
    if (setting->name)
        snprintf(out + used, size - used, "%s%.80s", used ? "." : "", setting->name);
    else
        snprintf(out + used, size - used, "[%d]", config_setting_index(setting));
}

static const char *type_words(const config_setting_t *setting)
{
    switch (config_setting_type(setting)) {
    case CONFIG_TYPE_INT:
    case CONFIG_TYPE_INT64:
        return "an integer";
    case CONFIG_TYPE_FLOAT:
        return "a fraction";
    case CONFIG_TYPE_STRING:
        return "a string";
    case CONFIG_TYPE_BOOL:
        return "a boolean";
    case CONFIG_TYPE_ARRAY:
        return "an array";
    case CONFIG_TYPE_LIST:
        return "a list";
    default:
        return "a group";
    }
}

/* A string for an error: one line, not too long, cut between characters. */
static void quote(const char *text, char *out, size_t size)
{
    size_t n = 0;
    out[n++] = '"';
    for (const char *p = text; *p && n + 6 < size; p++)
        out[n++] = (unsigned char)*p < 0x20 || *p == 0x7F ? '?' : *p;
    bool cut = n - 1 < strlen(text);
    while (cut && n > 1 && ((unsigned char)text[n - 1] & 0xC0) == 0x80)
        n--;
    snprintf(out + n, size - n, "%s\"", cut ? "..." : "");
}

/* The value as it stands in the file. */
static void value_of(const config_setting_t *setting, bool secret, char *out, size_t size)
{
    int type = config_setting_type(setting);
    if (secret)
        snprintf(out, size, "***");
    else if (type == CONFIG_TYPE_STRING)
        quote(config_setting_get_string(setting), out, size);
    else if (type == CONFIG_TYPE_BOOL)
        snprintf(out, size, "%s", config_setting_get_bool(setting) ? "true" : "false");
    else if (type == CONFIG_TYPE_INT || type == CONFIG_TYPE_INT64)
        snprintf(out, size, "%lld", config_setting_get_int64(setting));
    else if (type == CONFIG_TYPE_FLOAT)
        snprintf(out, size, "%g", config_setting_get_float(setting));
    else
        snprintf(out, size, "%s", type == CONFIG_TYPE_GROUP ? "{ ... }" : "( ... )");
}

/* What a setting takes. */
static void allowed_words(const struct setting_row *row, char *out, size_t size)
{
    const struct setting_info *info = &row->info;
    const char *comma = info->range[0] ? ", " : "";
    switch (row->kind) {
    case SETTING_DURATION:
    case SETTING_SIZE:
        snprintf(out, size, "%s in quotes with a unit (%s), like \"%s\"%s%s", info->type,
                 config_unit_names(row->kind), row->kind == SETTING_SIZE ? "64MB" : "250ms", comma,
                 info->range);
        break;
    case SETTING_BOOLEAN:
        snprintf(out, size, "true, false");
        break;
    case SETTING_CHOICE:
        snprintf(out, size, "%s", row->choices);
        break;
    case SETTING_STRINGS:
        snprintf(out, size, "a list of strings: ( \"a\", \"b\" )");
        break;
    case SETTING_OBJECTS:
        snprintf(out, size, "a list of groups: ( { ... }, { ... } )%s%s", comma, info->range);
        break;
    case SETTING_INTEGER:
    case SETTING_STRING:
        snprintf(out, size, "%s%s%s", info->type, comma, info->range);
        break;
    }
}

/* found X = V<note>; allowed: ... */
static bool refuse_value(struct config_reader *reader, const config_setting_t *at,
                         const struct setting_row *row, const char *note)
{
    char path[300], value[80], allowed[300];
    path_of(at, path, sizeof path);
    value_of(at, row->secret, value, sizeof value);
    allowed_words(row, allowed, sizeof allowed);
    return config_refuse(reader, at, "found %s = %s%s; allowed: %s", path, value, note, allowed);
}

static bool refuse_type(struct config_reader *reader, const config_setting_t *at,
                        const struct setting_row *row)
{
    char note[60];
    bool number = config_setting_is_number(at);
    bool unit = row->kind == SETTING_DURATION || row->kind == SETTING_SIZE;
    snprintf(note, sizeof note, ", %s%s", type_words(at), number && unit ? " without a unit" : "");
    return refuse_value(reader, at, row, note);
}

/* ---- single values ---- */

static void *member_of(void *object, size_t offset)
{
    return (char *)object + offset;
}

static void store_number(const struct setting_row *row, void *object, int64_t value)
{
    void *member = member_of(object, row->offset);
    if (row->width == sizeof(int64_t))
        *(int64_t *)member = value;
    else
        *(int *)member = (int)value; /* also the enums, whose width is an int's */
}

static bool in_range(const struct setting_row *row, int64_t value)
{
    int64_t low = INT64_MIN, high = INT64_MAX;
    enum setting_kind kind = row->kind == SETTING_STRING ? SETTING_INTEGER : row->kind;
    bool known = !row->low || (config_number_parse(kind, row->low, &low) &&
                               config_number_parse(kind, row->high, &high));
    return known && value >= low && value <= high;
}

static bool read_number(struct config_reader *reader, const config_setting_t *at,
                        const struct setting_row *row, void *object)
{
    int64_t value;
    int type = config_setting_type(at);
    if (row->kind == SETTING_INTEGER) {
        if (type != CONFIG_TYPE_INT && type != CONFIG_TYPE_INT64)
            return refuse_type(reader, at, row);
        value = config_setting_get_int64(at);
    } else {
        if (type != CONFIG_TYPE_STRING)
            return refuse_type(reader, at, row);
        if (!config_number_parse(row->kind, config_setting_get_string(at), &value))
            return refuse_value(reader, at, row, "");
    }
    if (!in_range(row, value))
        return refuse_value(reader, at, row, "");
    store_number(row, object, value);
    return true;
}

static bool read_choice(struct config_reader *reader, const config_setting_t *at,
                        const struct setting_row *row, void *object)
{
    char path[300], near[120] = "";
    bool truth = config_setting_type(at) == CONFIG_TYPE_BOOL && row->truth[0];
    if (config_setting_type(at) != CONFIG_TYPE_STRING && !truth)
        return refuse_type(reader, at, row);
    const char *word =
        truth ? row->truth[config_setting_get_bool(at) != 0] : config_setting_get_string(at);
    int index = config_choice_index(row->choices, word);
    if (index >= 0) {
        store_number(row, object, index);
        return true;
    }
    if (config_choice_index(row->later, word) >= 0) {
        path_of(at, path, sizeof path);
        bool several = strchr(row->choices, '|');
        return config_refuse(reader, at,
                             "found %s = \"%s\", which comes later; only %s %s available in this "
                             "version",
                             path, word, row->choices, several ? "are" : "is");
    }
    int best = INT_MAX;
    char name[60];
    for (int i = 0; config_choice_name(row->choices, i, name, sizeof name), name[0]; i++) {
        int distance = config_distance(word, name);
        if (distance < best) {
            best = distance;
            snprintf(near, sizeof near, " (did you mean \"%s\"?)", name);
        }
    }
    return refuse_value(reader, at, row, near);
}

static bool read_string(struct config_reader *reader, const config_setting_t *at,
                        const struct setting_row *row, void *object)
{
    if (config_setting_type(at) != CONFIG_TYPE_STRING)
        return refuse_type(reader, at, row);
    const char *text = config_setting_get_string(at);
    if (!in_range(row, (int64_t)strlen(text)))
        return refuse_value(reader, at, row, "");
    *(const char **)member_of(object, row->offset) = arena_strdup(&reader->config->arena, text);
    return true;
}

static bool read_boolean(struct config_reader *reader, const config_setting_t *at,
                         const struct setting_row *row, void *object)
{
    if (config_setting_type(at) != CONFIG_TYPE_BOOL)
        return refuse_type(reader, at, row);
    *(bool *)member_of(object, row->offset) = config_setting_get_bool(at);
    return true;
}

/* ---- lists ---- */

static int compare_named(const void *a, const void *b)
{
    const struct config_named *x = a, *y = b;
    int order = strcmp(x->name, y->name);
    return order ? order : (x->at->line > y->at->line) - (x->at->line < y->at->line);
}

bool config_names_unique(struct config_reader *reader, struct config_named *items, int count,
                         const char *noun, const char *allowed)
{
    char first[450];
    if (count > 1)
        qsort(items, (size_t)count, sizeof *items, compare_named);
    for (int i = 1; i < count; i++) {
        if (strcmp(items[i - 1].name, items[i].name) == 0) {
            location(reader, items[i - 1].at, first, sizeof first);
            return config_refuse(reader, items[i].at,
                                 "found a second %s \"%.100s\" (the first: %s); allowed: %s", noun,
                                 items[i].name, first, allowed);
        }
    }
    return true;
}

static bool check_names(struct config_reader *reader, config_setting_t *list,
                        const struct setting_table *table, const char *array, int count)
{
    char allowed[60];
    if (table->name_offset < 0)
        return true;
    struct config_named *items = mem_alloc(sizeof *items * (size_t)count);
    for (int i = 0; i < count; i++) {
        const char *object = array + (size_t)i * table->size;
        items[i].name = *(const char *const *)(object + table->name_offset);
        items[i].at = config_setting_get_elem(list, (unsigned)i);
    }
    snprintf(allowed, sizeof allowed, "each %s name once", table->noun);
    bool ok = config_names_unique(reader, items, count, table->noun, allowed);
    free(items);
    return ok;
}

static bool read_objects(struct config_reader *reader, config_setting_t *at,
                         const struct setting_row *row, void *object)
{
    const struct setting_table *table = row->objects;
    if (!config_setting_is_list(at))
        return refuse_type(reader, at, row);
    int count = config_setting_length(at);
    if (!in_range(row, count)) {
        char path[300];
        path_of(at, path, sizeof path);
        return config_refuse(reader, at, "found %d %ss in %s; allowed: %s", count, table->noun,
                             path, row->info.range);
    }
    char *array = arena_alloc(&reader->config->arena, table->size * (size_t)count);
    for (int i = 0; i < count; i++) {
        config_setting_t *element = config_setting_get_elem(at, (unsigned)i);
        if (!config_setting_is_group(element))
            return refuse_value(reader, element, row, "");
        if (!config_read_object(reader, element, table, array + (size_t)i * table->size))
            return false;
    }
    *(void **)member_of(object, row->offset) = array;
    *(int *)member_of(object, row->count_offset) = count;
    return check_names(reader, at, table, array, count);
}

static bool read_strings(struct config_reader *reader, config_setting_t *at,
                         const struct setting_row *row, void *object)
{
    bool one = config_setting_type(at) == CONFIG_TYPE_STRING &&
               strncmp(row->info.type, "string or", 9) == 0;
    if (!one && !config_setting_is_list(at) && !config_setting_is_array(at))
        return refuse_type(reader, at, row);
    int count = one ? 1 : config_setting_length(at);
    const char **array = arena_array(&reader->config->arena, const char *, count);
    for (int i = 0; i < count; i++) {
        const char *text =
            one ? config_setting_get_string(at) : config_setting_get_string_elem(at, i);
        if (!text || !text[0])
            return refuse_value(reader, one ? at : config_setting_get_elem(at, (unsigned)i), row,
                                "");
        array[i] = arena_strdup(&reader->config->arena, text);
    }
    *(const char ***)member_of(object, row->offset) = array;
    *(int *)member_of(object, row->count_offset) = count;
    return true;
}

/* ---- groups ---- */

/* "listen." if `name` is the group of a setting of this table: "listen.port". */
static bool is_group_of(const char *name, const char *group, size_t length)
{
    return strncmp(name, group, length) == 0 && name[length] == '.';
}

static const struct setting_row *find_row(const struct setting_table *table, const char *name)
{
    for (int i = 0; i < table->count; i++)
        if (strcmp(table->rows[i].info.name, name) == 0)
            return &table->rows[i];
    return NULL;
}

static bool is_group_name(const struct setting_table *table, const char *name)
{
    for (int i = 0; i < table->count; i++)
        if (is_group_of(table->rows[i].info.name, name, strlen(name)))
            return true;
    return false;
}

/*
 * The names one may write at one level of a table: below `prefix` ("" or "listen."), groups once.
 * Calls `take` with each.
 */
static void each_name(const struct setting_table *table, const char *prefix,
                      void (*take)(const char *name, void *context), void *context)
{
    size_t skip = strlen(prefix);
    char name[60], previous[60] = "";
    for (int i = 0; i < table->count; i++) {
        const char *full = table->rows[i].info.name;
        if (strncmp(full, prefix, skip) != 0)
            continue;
        snprintf(name, sizeof name, "%.*s", (int)strcspn(full + skip, "."), full + skip);
        if (strcmp(name, previous) != 0) /* rows of a group stand together */
            take(name, context);
        memcpy(previous, name, sizeof name);
    }
}

struct name_search {
    const char *wanted;
    char near[60];
    int distance;
    char all[900];
};

static void search_name(const char *name, void *context)
{
    struct name_search *search = context;
    size_t used = strlen(search->all);
    snprintf(search->all + used, sizeof search->all - used, "%s%s", used ? ", " : "", name);
    int distance = config_distance(search->wanted, name);
    if (distance < search->distance) {
        search->distance = distance;
        snprintf(search->near, sizeof search->near, "%s", name);
    }
}

/* The same name in another group ("pool.max_clients" is limits.max_clients), or "". */
static const char *name_elsewhere(const struct setting_table *table, const char *name)
{
    for (int i = 0; i < table->count; i++) {
        const char *dot = strrchr(table->rows[i].info.name, '.');
        const char *last = dot ? dot + 1 : table->rows[i].info.name;
        if (strcmp(last, name) == 0)
            return table->rows[i].info.name;
    }
    return "";
}

static bool refuse_unknown(struct config_reader *reader, const config_setting_t *at,
                           const struct setting_table *table, const char *prefix)
{
    char path[300], hint[100] = "";
    struct name_search search = {.wanted = at->name, .distance = INT_MAX};
    each_name(table, prefix, search_name, &search);
    const char *near = search.near[0] ? search.near : name_elsewhere(table, at->name);
    if (near[0])
        snprintf(hint, sizeof hint, " (did you mean \"%s\"?)", near);
    path_of(at, path, sizeof path);
    return config_refuse(reader, at, "found unknown setting %s%s; allowed here: %s", path, hint,
                         search.all);
}

/* Every name in the group is one of the table's. */
static bool check_known(struct config_reader *reader, config_setting_t *group,
                        const struct setting_table *table, const char *prefix)
{
    char full[160], path[300];
    for (int i = 0; i < config_setting_length(group); i++) {
        config_setting_t *member = config_setting_get_elem(group, (unsigned)i);
        snprintf(full, sizeof full, "%s%.80s", prefix, member->name);
        if (find_row(table, full))
            continue;
        if (!is_group_name(table, full))
            return refuse_unknown(reader, member, table, prefix);
        if (!config_setting_is_group(member)) {
            char value[80];
            path_of(member, path, sizeof path);
            value_of(member, false, value, sizeof value);
            return config_refuse(reader, member,
                                 "found %s = %s, %s; allowed: a group: %s = { ... }", path, value,
                                 type_words(member), path);
        }
        strcat(full, ".");
        if (!check_known(reader, member, table, full))
            return false;
    }
    return true;
}

/* Defaults are written as in the file and cannot be wrong: a unit test loads them all. */
static void store_default(const struct setting_row *row, void *object, bool group_present)
{
    int64_t value = 0;
    const char *text =
        !group_present && row->without_group ? row->without_group : row->info.initial;
    if (row->inherits && row->kind == SETTING_STRING)
        *(const char **)member_of(object, row->offset) = NULL;
    else if (row->inherits)
        store_number(row, object, SETTING_INHERIT);
    else if (row->kind == SETTING_STRING)
        *(const char **)member_of(object, row->offset) = text;
    else if (row->kind == SETTING_BOOLEAN)
        *(bool *)member_of(object, row->offset) = strcmp(text, "true") == 0;
    else if (row->kind == SETTING_CHOICE)
        store_number(row, object, config_choice_index(row->choices, text));
    else if (row->kind != SETTING_STRINGS && row->kind != SETTING_OBJECTS &&
             config_number_parse(row->kind, text, &value))
        store_number(row, object, value);
}

static bool read_present(struct config_reader *reader, config_setting_t *at,
                         const struct setting_row *row, void *object)
{
    switch (row->kind) {
    case SETTING_INTEGER:
    case SETTING_DURATION:
    case SETTING_SIZE:
        return read_number(reader, at, row, object);
    case SETTING_BOOLEAN:
        return read_boolean(reader, at, row, object);
    case SETTING_STRING:
        return read_string(reader, at, row, object);
    case SETTING_CHOICE:
        return read_choice(reader, at, row, object);
    case SETTING_STRINGS:
        return read_strings(reader, at, row, object);
    case SETTING_OBJECTS:
        return read_objects(reader, at, row, object);
    }
    return false;
}

static bool refuse_missing(struct config_reader *reader, const config_setting_t *group,
                           const struct setting_row *row)
{
    char path[300] = "no";
    bool top = config_setting_is_root(group);
    if (!top)
        path_of(group, path, sizeof path);
    return config_refuse(reader, group, "found %s%s%s; required: %s", path, top ? " " : " without ",
                         row->info.name, row->info.help);
}

static bool read_row(struct config_reader *reader, config_setting_t *group,
                     const struct setting_row *row, void *object)
{
    char group_name[60];
    const char *name = row->info.name;
    const char *dot = strchr(name, '.');
    config_setting_t *holder = group;
    if (dot) {
        snprintf(group_name, sizeof group_name, "%.*s", (int)(dot - name), name);
        holder = config_setting_get_member(group, group_name);
        name = dot + 1;
    }
    config_setting_t *at = holder ? config_setting_get_member(holder, name) : NULL;
    if (at)
        return read_present(reader, at, row, object);
    if (row->required)
        return refuse_missing(reader, group, row);
    store_default(row, object, holder != NULL);
    return true;
}

bool config_read_object(struct config_reader *reader, config_setting_t *group,
                        const struct setting_table *table, void *object)
{
    if (!check_known(reader, group, table, ""))
        return false;
    if (table->line_offset >= 0)
        *(int *)member_of(object, (size_t)table->line_offset) = line_of(reader, group);
    for (int i = 0; i < table->count; i++)
        if (!read_row(reader, group, &table->rows[i], object))
            return false;
    return !table->check || table->check(reader, group, object);
}

/* ---- parsing ---- */

/* libconfig's words for a syntax error, and what is allowed instead. */
static const char *syntax_allowed(const char *text)
{
    if (strstr(text, "duplicate"))
        return "each name once in a group";
    if (strstr(text, "mismatched"))
        return "values of one type in an [ array ]; a ( list ) takes any";
    return "name = value; name = { group }; name = ( list ); with strings in \"quotes\"";
}

bool config_reader_parse(struct config_reader *reader)
{
    config_init(&reader->tree);
    if (config_read_string(&reader->tree, reader->source.text.data))
        return true;
    const char *text = config_error_text(&reader->tree);
    config_setting_t at = {.line = (unsigned)config_error_line(&reader->tree)};
    return config_refuse(reader, &at, "found a %s; allowed: %s", text, syntax_allowed(text));
}
