/*
 * copyencode.h: rows of a merged result as COPY TO STDOUT gives them: text, csv or binary. Pure.
 */
#ifndef PGSHUNT_COPYENCODE_H
#define PGSHUNT_COPYENCODE_H

#include <stddef.h>

#include "pgshunt/buffer.h"
#include "pgshunt/copysplit.h"

struct copy_encode;

/* `rows` has to outlive it. */
struct copy_encode *copy_encode_new(const struct copy_rows *rows);
void copy_encode_free(struct copy_encode *encode);
/* Takes whole messages off `from`, a RowDescription first, then DataRows (binary ones for binary), and appends
 * CopyOutResponse and CopyData. */
void copy_encode_put(struct copy_encode *encode, struct buffer *from, struct buffer *out);
/* All rows are there. */
void copy_encode_end(const struct copy_encode *encode, struct buffer *out);

#endif
