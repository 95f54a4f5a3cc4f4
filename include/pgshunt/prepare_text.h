/*
 * prepare_text.h: the texts of SQL's PREPARE and EXECUTE taken apart, so that statements prepared by one
 * name can be used under another, or with their values in place. Pure.
 *
 * Offsets and pointers go into the text of the statement given (struct statement.text).
 */
#ifndef PGSHUNT_PREPARE_TEXT_H
#define PGSHUNT_PREPARE_TEXT_H

#include <stdbool.h>
#include <stddef.h>

#include "pgshunt/arena.h"
#include "pgshunt/statement.h"

struct text_span {
    size_t start, end;
};

/* PREPARE name [(type, ...)] AS query; EXECUTE name [(value, ...)]; DEALLOCATE [PREPARE] name. */
struct prepare_text {
    struct text_span name;  /* as written: quoted or not */
    struct text_span *args; /* types or values, as written */
    int nargs;
    size_t end;        /* EXECUTE, DEALLOCATE: behind the last of it; comments may follow */
    const char *tail;  /* PREPARE: "(type, ...) AS query", NUL-terminated */
    const char *query; /* PREPARE: the query, NUL-terminated */
};

/* `statement` is a PREPARE, EXECUTE or DEALLOCATE. False: its text is written in a way we do not follow
 * (a name with Unicode escapes). */
MUST_CHECK bool prepare_text(const struct statement *statement, struct arena *arena,
                             struct prepare_text *out);
/*
 * The query with its $n replaced by "(value)", or "(value)::type" where PREPARE declared one. `types`
 * and `values` are texts; there are `ntypes` <= `nvalues` of them.
 */
const char *prepare_substitute(const char *query, const char *const *types, int ntypes,
                               const char *const *values, int nvalues, struct arena *arena);

#endif
