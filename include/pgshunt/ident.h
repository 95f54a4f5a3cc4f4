/*
 * ident.h: a pg_ident.conf: which name of another system (a certificate's, the operating system's) may connect
 * as which user. The syntax is PostgreSQL's ("User Name Maps" in its documentation): MAP SYSTEM-NAME USER, the
 * system's name maybe a regular expression (/...) whose first group may stand in the user as \1; the user maybe
 * `all`, a regular expression, or the members of a role (+ROLE).
 */
#ifndef PGSHUNT_IDENT_H
#define PGSHUNT_IDENT_H

#include <stdbool.h>
#include <stddef.h>

#include "pgshunt/arena.h"

struct ident;

/* Everything is in the arena. NULL: `error` has "file:line: what was found; what is allowed". */
struct ident *ident_load(struct arena *arena, const char *path, char *error, size_t size);
/* The same from memory, as if it stood in `path`. */
struct ident *ident_parse(struct arena *arena, const char *path, const char *text, size_t length,
                          char *error, size_t size);
bool ident_has_map(const struct ident *ident, const char *map);
/* Whether the map has a line about members of a role. */
bool ident_wants_roles(const struct ident *ident, const char *map);

enum ident_answer {
    IDENT_NO,
    IDENT_YES,
    IDENT_FAILED, /* no, and since a regular expression takes too long with these names, or its group is in no
                   * part of them */
    IDENT_NEEDS_ROLES, /* `roles` is NULL, and a line that might fit has +ROLE */
};

/* Whether a line of the map lets the system's name in as this user, who is a member of `roles` (in the form of
 * struct hba_visitor's; NULL: not known yet). */
enum ident_answer ident_match(const struct ident *ident, const char *map, const char *system,
                              const char *user, const char *roles);

#endif
