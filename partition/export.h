/*
 * export.h: a detached partition brought to a file, compared, and only then dropped.
 *
 * One transaction, on a session of its own: a lock that keeps writers away, the rows counted, copied to the file, the file read
 * back from the disk and named; then the table is dropped and the record of its leaving struck out, or it is left as it is. Whatever
 * fails or is killed before leaves the table and the record: the next run begins the export anew.
 */
#ifndef PGSHUNT_PARTITION_EXPORT_H
#define PGSHUNT_PARTITION_EXPORT_H

#include "partition/work.h"

struct exporting {
    const char *shown; /* its table, for people */
    const char *schema, *name, *quoted, *oid;
    const char *bound;     /* what it was attached for; NULL: not known */
    const char *directory; /* on this host */
    const char *format;    /* "csv", "binary" */
    bool keep_table;
    const char *oids; /* what its DROP wants locks on */
    const char *file; /* filled in: where it is */
    int64_t rows;     /* filled in */
};

/* Whether the shard's partitions can be archived in the directory, as far as that can be told. False: the shard's error. */
MUST_CHECK bool export_probe(struct shard_work *shard, const char *directory);
/* False: the shard's error; the table is there. */
MUST_CHECK bool export_partition(struct shard_work *shard, struct exporting *exporting);

#endif
