/* keyfind_array.c: the elements of `= ANY (array)`: of constructors, literals and parameters, text or binary. */
#include "router/keyfind_internal.h"

static uint32_t element_type(uint32_t array_oid)
{
    switch (array_oid) {
    case 1005:
        return OID_INT2;
    case 1007:
        return OID_INT4;
    case 1016:
        return OID_INT8;
    case 1009:
        return OID_TEXT;
    case 1015:
        return OID_VARCHAR;
    case 2951:
        return OID_UUID;
    default:
        return 0;
    }
}
/* "int8[]" and the like around an array. False: a cast we do not follow. */
static bool array_cast(const struct expr *cast, uint32_t *element)
{
    static const struct {
        const char *name;
        uint32_t oid;
    } types[] = {{"int8[]", OID_INT8},
                 {"int4[]", OID_INT4},
                 {"int2[]", OID_INT2},
                 {"text[]", OID_TEXT},
                 {"uuid[]", OID_UUID}};
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++)
        if (same_name(types[i].name, cast->name)) {
            *element = types[i].oid;
            return true;
        }
    return false;
}
struct taking {
    struct planner *p;
    uint32_t element; /* as a cast around the array says; 0: none does */
    value_visitor *each;
    void *arg;
};

/* The array constructor's type: of its elements, if the cast around says one we know. */
static bool take_constructor(const struct taking *taking, const struct expr *array)
{
    for (int i = 0; i < array->nargs; i++) {
        struct value value;
        keyfind_value(taking->p, array->args[i], &value);
        if (taking->element && value.state == VALUE_KNOWN && is_untyped(value.oid))
            value.oid = taking->element;
        if (!taking->each(taking->arg, &value))
            return false;
    }
    return true;
}

static bool take_value(const struct taking *taking, const struct value *array)
{
    struct array_reader reader;
    const char *bytes;
    size_t length;
    if (!array_open(&reader, array->bytes, array->length, array->binary, taking->p->arena))
        return false;
    while (array_next(&reader, &bytes, &length)) {
        struct value value = {.state = bytes ? VALUE_KNOWN : VALUE_NULL,
                              .binary = array->binary,
                              .oid = array->binary ? reader.type : taking->element,
                              .bytes = bytes,
                              .length = length};
        if (!taking->each(taking->arg, &value))
            return false;
    }
    return !reader.bad;
}

static enum value_state taken(bool all)
{
    return all ? VALUE_KNOWN : VALUE_OPAQUE;
}

enum value_state keyfind_elements(struct planner *p, const struct expr *array, value_visitor *each,
                                  void *arg)
{
    struct taking taking = {p, 0, each, arg};
    struct value value;
    if (array->kind == EXPR_CAST) {
        if (!array_cast(array, &taking.element))
            return VALUE_OPAQUE;
        array = array->args[0];
    }
    if (array->kind == EXPR_ARRAY)
        return taken(take_constructor(&taking, array));
    if (array->kind != EXPR_PARAM && array->kind != EXPR_CONST)
        return VALUE_OPAQUE;
    keyfind_value(p, array, &value);
    if (value.state == VALUE_NULL || value.state == VALUE_PENDING)
        return value.state;
    if (value.state != VALUE_KNOWN || value.integer)
        return VALUE_OPAQUE;
    if (!is_untyped(value.oid)) {
        uint32_t declared = element_type(value.oid);
        if (!declared || (taking.element && taking.element != declared))
            return VALUE_OPAQUE;
        taking.element = declared;
    }
    return taken(take_value(&taking, &value));
}
