/* fuzz_wire.c: each reader of the wire codec on any bytes, and what it reads written again. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "pgshunt/wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define FIELDS_MAX 64

static void expect(bool truth)
{
    if (!truth)
        abort();
}

/* Whatever the order of reads, the cursor stays inside and a bad reader stays bad. */
static void fuzz_reader(const char *body, size_t len)
{
    struct wire_reader reader = wire_reader(body, len);
    for (int step = 0; step < 64; step++) {
        bool was_bad = reader.bad;
        const char *bytes;
        size_t want;
        switch (wire_read8(&reader) % 6) {
        case 0:
            (void)wire_read16(&reader);
            break;
        case 1:
            (void)wire_read32(&reader);
            break;
        case 2:
            (void)wire_read64(&reader);
            break;
        case 3:
            expect(strlen(wire_read_cstring(&reader)) <= len);
            break;
        default:
            want = (size_t)wire_read32(&reader); /* negative: near SIZE_MAX */
            bytes = wire_read_bytes(&reader, want);
            expect(!bytes == reader.bad);
            expect(!bytes || (size_t)(body + len - bytes) >= want);
        }
        expect(!was_bad || reader.bad);
        expect(wire_left(&reader) <= len);
    }
}

static void fuzz_error(const char *body, size_t len)
{
    struct pg_error error, again;
    struct buffer buf = {0};
    wire_read_error(body, len, &error);
    expect(strlen(error.sqlstate) == 5 && error.severity && error.message && error.position >= 0);
    wire_put_error(&buf, &error);
    wire_read_error(buffer_head(&buf) + WIRE_HEADER, buffer_length(&buf) - WIRE_HEADER, &again);
    expect(!strcmp(error.severity, again.severity) && !strcmp(error.sqlstate, again.sqlstate) &&
           !strcmp(error.message, again.message) && error.position == again.position);
    buffer_release(&buf);
}

static void fuzz_row_description(const char *body, size_t len)
{
    struct wire_field fields[FIELDS_MAX];
    size_t names = 0;
    int count = wire_read_row_description(body, len, fields, FIELDS_MAX);
    expect(count >= -1 && count <= FIELDS_MAX);
    for (int i = 0; i < count; i++)
        names += strlen(fields[i].name) + 1;
    expect(count < 0 || names + 2 + 18 * (size_t)count == len);
}

static void fuzz_bind(const char *body, size_t len)
{
    struct wire_bind bind;
    if (!wire_read_bind(body, len, &bind))
        return;
    expect(strlen(bind.portal) + strlen(bind.statement) < len);
    struct wire_reader params = wire_reader(bind.params, (size_t)(bind.results - bind.params));
    for (int i = 0; i < bind.nparams; i++) {
        int32_t value = wire_read32(&params);
        expect(value >= -1 && (value < 0 || wire_read_bytes(&params, (size_t)value)));
        (void)wire_bind_format(&bind, i);
    }
    expect(!params.bad && !wire_left(&params));
    expect(bind.results + bind.results_len == body + len);
    expect(bind.results_len == 2 + 2 * (size_t)wire_get16(bind.results));
}

static void fuzz_tag(const char *body, size_t len)
{
    char *tag = strndup(len ? body : "", len);
    expect(tag && wire_tag_rows(tag) >= -1);
    free(tag);
}

/* A copy of exactly this size, so that reading one byte behind it is seen. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *body = malloc(size + !size);
    expect(body != NULL);
    if (size)
        memcpy(body, data, size);
    fuzz_reader(body, size);
    fuzz_error(body, size);
    fuzz_row_description(body, size);
    fuzz_bind(body, size);
    fuzz_tag(body, size);
    free(body);
    return 0;
}
