/* fuzz_pgoutput.c: frames and messages of logical replication, any bytes: what is read lies within them. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "resharder/pgoutput.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void expect(bool truth)
{
    if (!truth)
        abort();
}

static void within(const char *bytes, size_t length, const char *all, size_t size)
{
    expect(bytes >= all && length <= size && (size_t)(bytes - all) <= size - length);
}

static void check_tuple(const struct pgoutput_tuple *tuple, const char *all, size_t size)
{
    expect(tuple->count >= 0 && (size_t)tuple->count <= size);
    for (int i = 0; i < tuple->count; i++) {
        const struct pgoutput_value *value = &tuple->values[i];
        bool has_bytes = value->kind == PGOUTPUT_TEXT || value->kind == PGOUTPUT_BINARY;
        expect(has_bytes == (value->bytes != NULL));
        if (has_bytes)
            within(value->bytes, value->length, all, size);
    }
}

static void fuzz_message(struct pgoutput_parser *parser, const char *bytes, size_t size,
                         bool streamed)
{
    struct pgoutput_message message;
    if (pgoutput_read(parser, bytes, size, streamed, &message))
        return;
    check_tuple(&message.old, bytes, size);
    check_tuple(&message.new, bytes, size);
    expect(strlen(message.schema) + strlen(message.name) <= size);
    for (int i = 0; i < message.ncolumns; i++)
        within(message.columns[i].name, strlen(message.columns[i].name) + 1, bytes, size);
    expect(message.nrelations >= 0 && (size_t)message.nrelations <= size / 4);
    if (message.content)
        within(message.content, message.content_length, bytes, size);
}

/* A copy of exactly this size, so that reading one byte behind it is seen. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct pgoutput_parser parser = {0};
    struct replication_frame frame;
    char *bytes = malloc(size + !size);
    expect(bytes != NULL);
    if (size)
        memcpy(bytes, data, size);
    fuzz_message(&parser, bytes, size, false);
    fuzz_message(&parser, bytes, size, true);
    if (replication_read_frame(bytes, size, &frame) && frame.kind == 'w')
        fuzz_message(&parser, frame.data, frame.length, false);
    pgoutput_release(&parser);
    free(bytes);
    return 0;
}
