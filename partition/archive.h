/*
 * archive.h: a file of rows, compressed, that is there as a whole or not at all, with a small manifest beside it.
 *
 *   DIRECTORY/FOLDER/.NAME.EXTENSION.tmp --written, fsynced, read back, compared--> DIRECTORY/FOLDER/NAME.EXTENSION
 *                                                                            with DIRECTORY/FOLDER/NAME.json
 *
 * What a killed process has left is overwritten by the next one that archives the same thing. An archive of something else that
 * has the same name stays: the new one gets _2 behind its name. One process at a time writes in a folder.
 */
#ifndef PGSHUNT_PARTITION_ARCHIVE_H
#define PGSHUNT_PARTITION_ARCHIVE_H

#include <jansson.h>
#include <openssl/evp.h>
#include <zstd.h>

#include "pgshunt/arena.h"
#include "pgshunt/db.h"
#include "pgshunt/error.h"

struct archive {
    struct arena *arena;  /* names are in it */
    const char *path;     /* of the folder, for people */
    const char *identity; /* of what is archived: nothing else has it */
    const char *file, *temporary, *manifest, *manifest_temporary;
    int folder, fd; /* -1: not open */
    ZSTD_CCtx *packer;
    EVP_MD_CTX *digest; /* of the bytes as they are put */
    char *packed;       /* what the packer has made, on its way to the file */
    size_t packed_size;
    int64_t bytes; /* that were put */
};

/* Whether something can be archived there: makes the folder where it is missing, but not the directory. */
MUST_CHECK bool archive_probe(const char *directory, const char *folder, struct db_error *error);
/* Begins NAME.EXTENSION. In any case to be given to archive_end(). False: error. */
MUST_CHECK bool archive_begin(struct archive *archive, struct arena *arena, const char *directory,
                              const char *folder, const char *name, const char *extension,
                              const char *identity, struct db_error *error);
MUST_CHECK bool archive_put(struct archive *archive, const char *bytes, size_t length,
                            struct db_error *error);
/*
 * Brings everything to the disk, reads it back, and gives it its name. `manifest` gets the file's name, sizes and checksum.
 * True: it is there, whatever happens from now on.
 */
MUST_CHECK bool archive_finish(struct archive *archive, json_t *manifest, struct db_error *error);
/* Removes what is not finished. */
void archive_end(struct archive *archive);

#endif
