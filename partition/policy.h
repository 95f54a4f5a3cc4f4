/* policy.h: policies as the catalog has them: read, checked, recorded. */
#ifndef PGSHUNT_PARTITION_POLICY_H
#define PGSHUNT_PARTITION_POLICY_H

#include "partition/bound.h"
#include "partition/name.h"
#include "partition/sub.h"
#include "partition/work.h"

enum expiry { EXPIRY_DETACH, EXPIRY_DROP, EXPIRY_ARCHIVE, EXPIRY_EXPORT };

struct policy {
    const char *schema, *table;
    const char *quoted; /* "schema"."table" */
    const char *shown;  /* schema.table, for people */
    const char *column;
    enum control control;
    struct interval every, keep;
    bool keeps; /* else: forever */
    int ahead;
    enum expiry expiry;
    const char *archive;       /* EXPIRY_ARCHIVE: the schema; EXPIRY_EXPORT: the directory */
    const char *export_format; /* EXPIRY_EXPORT: "csv", "binary" */
    bool keep_table;           /* EXPIRY_EXPORT: it is not dropped then */
    const char *start;         /* NULL: none */
    const char *timezone;
    bool has_default;
    const char *template; /* quoted; NULL: none */
    const char *format;   /* of names */
    const char *
        sub_text; /* how partitions are divided again, as sub_parse() takes it; NULL: they are not */
    struct sub sub; /* ... and as it has read it */
};

#define POLICY_AHEAD_MAX 1000

/* Makes the tables where they are missing. False: work->error. */
MUST_CHECK bool policy_prepare(struct work *work);
/* Whether we have the rights for policy_write(). False: told. */
bool policy_may_write(struct work *work, const char *shown);
/* All of the database, or the one of work->call->table; in the arena, by name. False: work->error. */
MUST_CHECK bool policy_read(struct work *work, struct policy **policies, int *count);
/*
 * Lays a wish over a policy (of which schema, table and column's type are known). Everything that is wrong is told as a problem,
 * with what mends it. False: something was.
 */
MUST_CHECK bool policy_apply(struct work *work, const struct partition_wish *wish,
                             struct policy *policy);
/* Records it, instead of one that is there. */
MUST_CHECK bool policy_write(struct work *work, const struct policy *policy);
MUST_CHECK bool policy_remove(struct work *work, const struct policy *policy);
/* The word for it in the catalog, and back. */
const char *expiry_name(enum expiry expiry);
MUST_CHECK bool expiry_by_name(const char *name, enum expiry *expiry);
/* As --on-expiry takes it. */
const char *policy_expiry_text(struct arena *arena, const struct policy *policy);
/* The table's name, taken apart and quoted; of "a.b" or "b". */
void policy_name(struct work *work, const char *table, struct policy *policy);

#endif
