/* scatter_explain.c: EXPLAIN of a fan-out: pgshunt's own plan, and each shard's; in other formats as one document. */
#include <ctype.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "pgshunt/wire.h"
#include "proxy/scatter_internal.h"

enum { TYPE_TEXT = 25, TYPE_JSON = 114, TYPE_XML = 142 };

static bool is_format(const struct scatter *scatter, const char *name)
{
    const char *format = scatter->statement->explain_format;
    return format && strcmp(format, name) == 0;
}

/* The value of a shard's only row. */
static const char *document_of(struct scatter *scatter, const struct part *part)
{
    struct wire_reader reader = wire_reader(buffer_head(&part->rows), buffer_length(&part->rows));
    wire_read_bytes(&reader, WIRE_HEADER);
    wire_read16(&reader);
    int32_t length = wire_read32(&reader);
    const char *bytes = length > 0 ? wire_read_bytes(&reader, (size_t)length) : NULL;
    return bytes && !reader.bad ? arena_strndup(&scatter->arena, bytes, (size_t)length) : "";
}

/* A string of JSON, which is one of YAML, too. */
static void put_string(struct buffer *out, const char *text)
{
    json_t *string = json_string(text);
    char *quoted = string ? json_dumps(string, JSON_ENCODE_ANY) : NULL;
    buffer_printf(out, "%s", quoted ? quoted : "\"\"");
    free(quoted);
    json_decref(string);
}

static void put_escaped(struct buffer *out, const char *text)
{
    for (; *text; text++) {
        const char *escape = *text == '&'   ? "&amp;"
                             : *text == '<' ? "&lt;"
                             : *text == '>' ? "&gt;"
                             : *text == '"' ? "&quot;"
                                            : NULL;
        if (escape)
            buffer_append(out, escape, strlen(escape));
        else
            buffer_append(out, text, 1);
    }
}

static void put_indented(struct buffer *out, const char *text, int depth)
{
    while (*text) {
        size_t line = strcspn(text, "\n");
        buffer_printf(out, "\n%*s%.*s", depth, "", (int)line, text);
        text += line + (text[line] == '\n');
    }
}

static void put_json(struct scatter *scatter, const char *const *lines, int nlines,
                     struct buffer *out)
{
    buffer_printf(out, "[\n  {\n    \"pgshunt\": [");
    for (int i = 0; i < nlines; i++) {
        buffer_printf(out, "%s\n      ", i ? "," : "");
        put_string(out, lines[i]);
    }
    buffer_printf(out, "\n    ],\n    \"Shards\": [");
    for (int i = 0; i < scatter->nparts; i++) {
        const char *document = document_of(scatter, &scatter->parts[i]);
        buffer_printf(out, "%s\n      {\n        \"Shard\": ", i ? "," : "");
        put_string(out, scatter->parts[i].shard_name);
        buffer_printf(out, ",\n        \"Explain\":");
        put_indented(out, *document ? document : "[]", 8);
        buffer_printf(out, "\n      }");
    }
    buffer_printf(out, "\n    ]\n  }\n]");
}

static void put_yaml(struct scatter *scatter, const char *const *lines, int nlines,
                     struct buffer *out)
{
    buffer_printf(out, "- pgshunt:");
    for (int i = 0; i < nlines; i++) {
        buffer_printf(out, "\n    - ");
        put_string(out, lines[i]);
    }
    buffer_printf(out, "\n  Shards:");
    for (int i = 0; i < scatter->nparts; i++) {
        buffer_printf(out, "\n    - Shard: ");
        put_string(out, scatter->parts[i].shard_name);
        buffer_printf(out, "\n      Explain:");
        put_indented(out, document_of(scatter, &scatter->parts[i]), 8);
    }
}

static void put_xml(struct scatter *scatter, const char *const *lines, int nlines,
                    struct buffer *out)
{
    buffer_printf(out, "<pgshunt>");
    for (int i = 0; i < nlines; i++) {
        buffer_printf(out, "\n  <line>");
        put_escaped(out, lines[i]);
        buffer_printf(out, "</line>");
    }
    for (int i = 0; i < scatter->nparts; i++) {
        buffer_printf(out, "\n  <shard name=\"");
        put_escaped(out, scatter->parts[i].shard_name);
        buffer_printf(out, "\">");
        put_indented(out, document_of(scatter, &scatter->parts[i]), 4);
        buffer_printf(out, "\n  </shard>");
    }
    buffer_printf(out, "\n</pgshunt>");
}

static void put_document(struct scatter *scatter)
{
    struct buffer text = {0};
    const char **lines;
    int nlines =
        router_explain(scatter->plan, scatter->client->database->map, &scatter->arena, &lines);
    if (is_format(scatter, "json"))
        put_json(scatter, lines, nlines, &text);
    else if (is_format(scatter, "yaml"))
        put_yaml(scatter, lines, nlines, &text);
    else
        put_xml(scatter, lines, nlines, &text);
    buffer_append(&text, "", 1);
    const char *value = buffer_head(&text);
    wire_put_text_row(&scatter->out, &value, 1);
    buffer_release(&text);
}

static void put_rows(struct scatter *scatter)
{
    statement_explain_rows(scatter->client, scatter->statement, scatter->plan, &scatter->out);
    for (int i = 0; i < scatter->nparts; i++) {
        const struct part *part = &scatter->parts[i];
        const char *line = arena_printf(&scatter->arena, "shard %s:", part->shard_name);
        wire_put_text_row(&scatter->out, &line, 1);
        buffer_append(&scatter->out, buffer_head(&part->rows), buffer_length(&part->rows));
    }
}

void scatter_put_explain(struct scatter *scatter)
{
    uint32_t type = is_format(scatter, "json")  ? TYPE_JSON
                    : is_format(scatter, "xml") ? TYPE_XML
                                                : TYPE_TEXT;
    struct wire_column column = {"QUERY PLAN", type};
    if (scatter->ask.describe)
        wire_put_row_description(&scatter->out, &column, 1);
    if (scatter->statement->explain_format)
        put_document(scatter);
    else
        put_rows(scatter);
}
