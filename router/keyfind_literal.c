/* keyfind_literal.c: values as canonical text, to be asked for in lookups. */
#include <string.h>

#include "router/keyfind_internal.h"

#define LITERAL_MAX 1000 /* bytes of a text that is asked for; longer ones are not indexed either */

/* As the server takes it: no sequence that is cut, overlong, a surrogate or above U+10FFFF. */
static bool is_utf8(const unsigned char *text, size_t length)
{
    for (size_t i = 0; i < length;) {
        unsigned char c = text[i];
        size_t more = c < 0x80 ? 0 : c < 0xc2 ? 4 : c < 0xe0 ? 1 : c < 0xf0 ? 2 : c < 0xf5 ? 3 : 4;
        if (c == 0 || more == 4 || more >= length - i)
            return false;
        for (size_t k = 1; k <= more; k++)
            if ((text[i + k] & 0xc0) != 0x80)
                return false;
        if ((c == 0xe0 && text[i + 1] < 0xa0) || (c == 0xed && text[i + 1] > 0x9f) ||
            (c == 0xf0 && text[i + 1] < 0x90) || (c == 0xf4 && text[i + 1] > 0x8f))
            return false;
        i += more + 1;
    }
    return true;
}

static const char *integer_literal(struct planner *p, struct value *value, uint32_t column_type)
{
    bool good = (value->integer || is_untyped(value->oid) || is_integer_type(value->oid)) &&
                keyfind_number(value) && keyfind_fits(value->number, column_type);
    return good ? arena_printf(p->arena, "%lld", (long long)value->number) : NULL;
}

static const char *uuid_literal(struct planner *p, const struct value *value)
{
    static const char digits[] = "0123456789abcdef";
    struct shardkey key;
    if (keyfind_uuid(value, &key) != VALUE_KNOWN || key.length != 16)
        return NULL;
    char *out = arena_alloc(p->arena, 33);
    for (size_t i = 0; i < 16; i++) {
        out[2 * i] = digits[key.bytes[i] >> 4];
        out[2 * i + 1] = digits[key.bytes[i] & 15];
    }
    out[32] = '\0';
    return out;
}

static const char *text_literal(struct planner *p, const struct value *value)
{
    const struct route_session *session = p->input->session;
    bool text = is_untyped(value->oid) || value->oid == OID_TEXT || value->oid == OID_VARCHAR;
    if (value->integer || !text || value->length > LITERAL_MAX ||
        !is_utf8((const unsigned char *)value->bytes, value->length))
        return NULL;
    for (size_t i = 0; session && session->foreign_encoding && i < value->length; i++)
        if (value->bytes[i] & 0x80)
            return NULL;
    return arena_strndup(p->arena, value->bytes, value->length);
}

static enum value_state literal_of(struct planner *p, struct value *value, uint32_t column_type,
                                   const char **text)
{
    if (value->state != VALUE_KNOWN)
        return value->state == VALUE_INVALID ? VALUE_OPAQUE : value->state;
    if (is_integer_type(column_type))
        *text = integer_literal(p, value, column_type);
    else if (column_type == OID_UUID)
        *text = uuid_literal(p, value);
    else if (column_type == OID_TEXT || column_type == OID_VARCHAR)
        *text = text_literal(p, value);
    else
        *text = NULL;
    return *text ? VALUE_KNOWN : VALUE_OPAQUE;
}

enum value_state keyfind_literal(struct planner *p, const struct expr *expr, uint32_t column_type,
                                 const char **text)
{
    struct value value;
    keyfind_value(p, expr, &value);
    return literal_of(p, &value, column_type, text);
}

typedef bool literal_visitor(void *arg, enum value_state state, const char *text);

/* ---- arrays ---- */

struct listing {
    struct planner *p;
    uint32_t column_type;
    bool (*each)(void *arg, enum value_state state, const char *text);
    void *arg;
};

static bool list_element(void *context, struct value *value)
{
    struct listing *listing = context;
    const char *text = NULL;
    enum value_state state = literal_of(listing->p, value, listing->column_type, &text);
    return listing->each(listing->arg, state, text);
}

bool keyfind_literals(struct planner *p, const struct expr *array, uint32_t column_type,
                      bool (*each)(void *arg, enum value_state state, const char *text), void *arg)
{
    struct listing listing = {p, column_type, each, arg};
    enum value_state state = keyfind_elements(p, array, list_element, &listing);
    if (state == VALUE_NULL || state == VALUE_PENDING)
        return each(arg, state, NULL);
    return state == VALUE_KNOWN;
}
