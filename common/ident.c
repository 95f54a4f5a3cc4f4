/* ident.c: the lines of a pg_ident.conf, from their tokens, and which of them lets whom in. */
#include "pgshunt/ident.h"

#include <stdio.h>
#include <string.h>

#include "hba_internal.h"
#include "hba_pattern.h"

struct ident_line {
    struct ident_line *next;
    const char *map;
    const char *system;             /* a name */
    struct pattern *system_pattern; /* or a regular expression */
    const char *user;               /* likewise; NULL without a pattern: all */
    struct pattern *user_pattern;
    bool user_is_role;   /* `user` stands for its members */
    bool user_has_group; /* \1 in it is what the system's name has matched */
};

struct ident {
    struct ident_line *lines;
};

/* ---- reading ---- */

static bool take_field(struct hba_reader *reader, const struct hba_line *line,
                       struct hba_field **rest, const struct hba_token **token)
{
    struct hba_field *field = *rest;
    if (!field || field->tokens->next)
        return hba_refuse(reader, line->file, line->line,
                          "found %s; allowed: MAP SYSTEM-NAME USER, one of each",
                          field ? "several values in a column" : "the end of the line");
    *token = field->tokens;
    *rest = field->next;
    return true;
}

/* A name, or a pattern: in quotes, too, as in Postgres. */
static bool read_name(struct hba_reader *reader, const struct hba_line *line,
                      const struct hba_token *token, const char **name, struct pattern **pattern)
{
    char why[200];
    if (token->text[0] != '/') {
        *name = token->text;
        return true;
    }
    *pattern = pattern_compile(reader->arena, token->text + 1, why, sizeof why);
    return *pattern ||
           hba_refuse(reader, line->file, line->line,
                      "found \"%.80s\" (%s); allowed: a regular expression", token->text, why);
}

static bool read_user(struct hba_reader *reader, const struct hba_line *line,
                      const struct hba_token *system, const struct hba_token *token,
                      struct ident_line *ident)
{
    if (!token->quoted && strcmp(token->text, "all") == 0)
        return true;
    if (!read_name(reader, line, token, &ident->user, &ident->user_pattern))
        return false;
    ident->user_has_group = ident->system_pattern && ident->user && strstr(ident->user, "\\1");
    if (ident->user_has_group && !pattern_has_group(ident->system_pattern))
        return hba_refuse(reader, line->file, line->line,
                          "found \\1 in user \"%.60s\", but no group in \"%.60s\"; allowed: a "
                          "regular expression with (...)",
                          ident->user, system->text);
    /* With a group in it the text is a name, as in Postgres. */
    ident->user_is_role =
        ident->user && !ident->user_has_group && !token->quoted && ident->user[0] == '+';
    if (ident->user_is_role)
        ident->user++;
    if (ident->user_is_role && !ident->user[0])
        return hba_refuse(reader, line->file, line->line,
                          "found user \"+\"; allowed: a role's name behind the +");
    return true;
}

static bool read_line(struct hba_reader *reader, const struct hba_line *line,
                      struct ident_line *ident)
{
    const struct hba_token *map = NULL, *system = NULL, *user = NULL;
    struct hba_field *rest = line->fields;
    if (!take_field(reader, line, &rest, &map) || !take_field(reader, line, &rest, &system) ||
        !take_field(reader, line, &rest, &user))
        return false;
    if (rest)
        return hba_refuse(reader, line->file, line->line,
                          "found \"%.60s\" behind the user; allowed: MAP SYSTEM-NAME USER",
                          rest->tokens->text);
    *ident = (struct ident_line){.map = map->text};
    return read_name(reader, line, system, &ident->system, &ident->system_pattern) &&
           read_user(reader, line, system, user, ident);
}

static struct ident *make_lines(struct hba_reader *reader)
{
    struct ident *ident = arena_alloc(reader->arena, sizeof *ident);
    struct ident_line **last = &ident->lines;
    *ident = (struct ident){0};
    for (const struct hba_line *line = reader->first; line; line = line->next) {
        *last = arena_alloc(reader->arena, sizeof **last);
        if (!read_line(reader, line, *last))
            return NULL;
        last = &(*last)->next;
    }
    return ident;
}

struct ident *ident_parse(struct arena *arena, const char *path, const char *text, size_t length,
                          char *error, size_t size)
{
    struct hba_reader reader = {.arena = arena, .error = error, .error_size = size};
    error[0] = '\0';
    reader.last = &reader.first;
    return hba_read_text(&reader, path, text, length, 0) ? make_lines(&reader) : NULL;
}

struct ident *ident_load(struct arena *arena, const char *path, char *error, size_t size)
{
    struct hba_reader reader = {.arena = arena, .error = error, .error_size = size};
    error[0] = '\0';
    reader.last = &reader.first;
    return hba_read_file(&reader, path, 0) ? make_lines(&reader) : NULL;
}

/* ---- matching ---- */

bool ident_has_map(const struct ident *ident, const char *map)
{
    for (const struct ident_line *line = ident->lines; line; line = line->next)
        if (strcmp(line->map, map) == 0)
            return true;
    return false;
}

/* The user that the line names, with the group put in; only the first \1 is replaced, as in Postgres. */
static bool names_user(const struct ident_line *line, const char *group, const char *user)
{
    const char *at = strstr(line->user, "\\1");
    size_t before = (size_t)(at - line->user), length = strlen(group);
    return strncmp(user, line->user, before) == 0 && strncmp(user + before, group, length) == 0 &&
           strcmp(user + before + length, at + 2) == 0;
}

bool ident_wants_roles(const struct ident *ident, const char *map)
{
    for (const struct ident_line *line = ident->lines; line; line = line->next)
        if (line->user_is_role && strcmp(line->map, map) == 0)
            return true;
    return false;
}

static enum ident_answer yes_if(bool fits)
{
    return fits ? IDENT_YES : IDENT_NO;
}

static enum ident_answer answer_of(enum pattern_answer answer)
{
    return answer == PATTERN_FAILED ? IDENT_FAILED : yes_if(answer == PATTERN_YES);
}

static enum ident_answer fits_user(const struct ident_line *line, const char *group,
                                   const char *user, const char *roles)
{
    if (line->user_pattern)
        return answer_of(pattern_match(line->user_pattern, user, NULL));
    if (line->user_has_group)
        return yes_if(names_user(line, group, user));
    if (line->user_is_role)
        return roles ? yes_if(hba_is_member(roles, line->user)) : IDENT_NEEDS_ROLES;
    return yes_if(!line->user || strcmp(line->user, user) == 0);
}

static enum ident_answer fits(const struct ident_line *line, const char *system, const char *user,
                              const char *roles)
{
    char group[PATTERN_GROUP_MAX];
    enum ident_answer is_system =
        line->system_pattern ? answer_of(pattern_match(line->system_pattern, system,
                                                       line->user_has_group ? group : NULL))
                             : yes_if(strcmp(line->system, system) == 0);
    return is_system == IDENT_YES ? fits_user(line, group, user, roles) : is_system;
}

enum ident_answer ident_match(const struct ident *ident, const char *map, const char *system,
                              const char *user, const char *roles)
{
    enum ident_answer answer = IDENT_NO;
    for (const struct ident_line *line = ident->lines; line && answer == IDENT_NO;
         line = line->next)
        if (strcmp(line->map, map) == 0)
            answer = fits(line, system, user, roles);
    return answer;
}
