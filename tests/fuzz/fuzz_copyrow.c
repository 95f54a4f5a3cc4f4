/*
 * fuzz_copyrow.c: hostile streams into the walker of COPY TO's rows.
 *
 * The input's first byte chooses format, columns and the size of the pieces. Cut in pieces and fed whole, a
 * stream gives each taker the same bytes and the same number of rows, or the same error.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "resharder/copyrow.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct result {
    struct buffer bytes[2];
    int64_t rows, ends;
    const char *error;
};

static int choose(void *arg, const struct move_value *key)
{
    unsigned sum = 0;
    (void)arg;
    for (size_t i = 0; key->bytes && i < key->length; i++)
        sum += (unsigned char)key->bytes[i];
    return key->bytes ? (int)(sum % 3) - 1 : COPYROW_NOBODY;
}

static void take(void *arg, int who, const char *bytes, size_t length)
{
    buffer_append(&((struct result *)arg)->bytes[who], bytes, length);
}

static void end(void *arg, int who)
{
    (void)who;
    ((struct result *)arg)->ends++;
}

static void run(struct result *result, uint8_t choice, const char *bytes, size_t size, size_t piece)
{
    struct copyrow_taker taker = {choose, take, end, result};
    unsigned ncolumns = 1 + (choice >> 1) % 4, nkey = 1 + (choice >> 3) % 2;
    struct copyrow row;
    *result = (struct result){.rows = 0};
    copyrow_begin(&row, &taker, choice & 1, nkey > ncolumns ? ncolumns : nkey, ncolumns);
    bool good = true;
    for (size_t at = 0; at < size && good; at += piece)
        good = copyrow_feed(&row, bytes + at, size - at < piece ? size - at : piece);
    if (good && !copyrow_finish(&row) && !row.error)
        abort();
    result->rows = row.rows;
    result->error = row.error;
    copyrow_release(&row);
}

static void check(bool holds)
{
    if (!holds)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2)
        return 0;
    struct result whole, cut;
    const char *bytes = (const char *)data + 2;
    run(&whole, data[0], bytes, size - 2, size);
    run(&cut, data[0], bytes, size - 2, 1 + data[1] % 61);
    check(whole.rows == cut.rows && whole.ends == cut.ends);
    check(whole.error == cut.error ||
          (whole.error && cut.error && !strcmp(whole.error, cut.error)));
    for (int i = 0; i < 2; i++) {
        size_t length = buffer_length(&whole.bytes[i]);
        if (!whole.error)
            check(length == buffer_length(&cut.bytes[i]) &&
                  (!length ||
                   !memcmp(buffer_head(&whole.bytes[i]), buffer_head(&cut.bytes[i]), length)));
        buffer_release(&whole.bytes[i]);
        buffer_release(&cut.bytes[i]);
    }
    return 0;
}
