/* plan_array.c: the elements of a one-dimensional array value, in text or binary form. */
#include "pgshunt/wire.h"
#include "router/plan_internal.h"

static bool open_binary(struct array_reader *reader)
{
    struct wire_reader in = wire_reader(reader->at, (size_t)(reader->end - reader->at));
    int dimensions = wire_read32(&in);
    wire_read32(&in); /* has NULLs: the elements tell */
    reader->type = (uint32_t)wire_read32(&in);
    if (in.bad || dimensions < 0 || dimensions > 1)
        return false;
    if (dimensions == 1) {
        reader->left = wire_read32(&in);
        wire_read32(&in); /* lower bound */
    }
    reader->at = in.at;
    return !in.bad && reader->left >= 0;
}

static void skip_blanks(struct array_reader *reader)
{
    while (reader->at < reader->end &&
           (*reader->at == ' ' || (*reader->at >= '\t' && *reader->at <= '\r')))
        reader->at++;
}

/* "{...}": array_in's form without dimensions in front. */
static bool open_text(struct array_reader *reader)
{
    skip_blanks(reader);
    if (reader->at == reader->end || *reader->at != '{')
        return false;
    reader->at++;
    const char *end = reader->end;
    while (end > reader->at && (end[-1] == ' ' || (end[-1] >= '\t' && end[-1] <= '\r')))
        end--;
    if (end == reader->at || end[-1] != '}')
        return false;
    reader->end = end - 1;
    skip_blanks(reader);
    reader->left = reader->at < reader->end;
    return true;
}

bool array_open(struct array_reader *reader, const char *bytes, size_t length, bool binary,
                struct arena *arena)
{
    *reader = (struct array_reader){.at = bytes, .end = bytes + length, .binary = binary};
    if (!binary)
        reader->out = arena_alloc(arena, length + 1); /* no element is longer unescaped */
    return binary ? open_binary(reader) : open_text(reader);
}

static bool next_binary(struct array_reader *reader, const char **bytes, size_t *length)
{
    if (!reader->left)
        return false;
    struct wire_reader in = wire_reader(reader->at, (size_t)(reader->end - reader->at));
    int32_t size = wire_read32(&in);
    *bytes = size < 0 ? NULL : wire_read_bytes(&in, (size_t)size);
    *length = size < 0 ? 0 : (size_t)size;
    reader->item = reader->at;
    reader->item_length = 4 + *length;
    reader->bad = in.bad || size < -1;
    reader->at = in.at;
    reader->left--;
    return !reader->bad;
}

static bool is_null_word(const char *text, size_t length)
{
    return length == 4 && strncasecmp(text, "null", 4) == 0;
}

/* One element, its escapes taken out. Nested arrays are not understood. */
static bool next_text(struct array_reader *reader, const char **bytes, size_t *length)
{
    if (!reader->left)
        return false;
    skip_blanks(reader);
    reader->item = reader->at;
    char *out = reader->out;
    size_t n = 0, keep = 0; /* keep: blanks before this came from quotes or escapes */
    bool quoted = false, inside = false;
    for (; reader->at < reader->end && (inside || *reader->at != ','); reader->at++) {
        char c = *reader->at;
        if (c == '"') {
            inside = !inside;
            quoted = true;
            keep = n;
            continue;
        }
        if (!inside && (c == '{' || c == '}'))
            reader->bad = true;
        bool escaped = c == '\\' && reader->at + 1 < reader->end;
        if (escaped)
            c = *++reader->at;
        out[n++] = c;
        if (inside || escaped)
            keep = n;
        quoted |= escaped;
    }
    while (n > keep && (out[n - 1] == ' ' || (out[n - 1] >= '\t' && out[n - 1] <= '\r')))
        n--;
    reader->item_length = (size_t)(reader->at - reader->item);
    reader->bad |= inside || (n == 0 && !quoted);
    reader->left = reader->at < reader->end;
    reader->at += reader->left;
    *bytes = !quoted && is_null_word(out, n) ? NULL : out;
    *length = n;
    reader->out += n;
    return !reader->bad;
}

bool array_next(struct array_reader *reader, const char **bytes, size_t *length)
{
    return reader->binary ? next_binary(reader, bytes, length) : next_text(reader, bytes, length);
}
