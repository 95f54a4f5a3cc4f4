/* parse_schemas.c: the schemas that a schema change is about, other than by the relations it names. */
#include "router/parse_internal.h"

static void note(struct convert *c, const char *name, bool made)
{
    struct statement *statement = c->statement;
    statement->schemas =
        parse_grow(c->arena, statement->schemas, statement->nschemas, sizeof *statement->schemas);
    statement->schemas[statement->nschemas++] =
        (struct object_schema){.name = parse_copy(c, name), .made = made};
}

/* An object's name: its schema, or none. */
static void note_name(struct convert *c, const List *names, bool made)
{
    int count = list_length(names);
    bool qualified = count > 1 && IsA(list_nth(names, count - 2), String);
    note(c, qualified ? strVal(list_nth(names, count - 2)) : NULL, made);
}

/* An object of a kind that is no relation: its type tells how it is named. */
static void note_object(struct convert *c, ObjectType type, const Node *object)
{
    if (!object)
        return;
    if (type == OBJECT_SCHEMA && IsA(object, String))
        note(c, strVal(object), false);
    else if (IsA(object, ObjectWithArgs))
        note_name(c, ((const ObjectWithArgs *)object)->objname, false);
    else if (IsA(object, TypeName))
        note_name(c, ((const TypeName *)object)->names, false);
    else if (IsA(object, List) &&
             (type == OBJECT_COLLATION || type == OBJECT_CONVERSION ||
              type == OBJECT_STATISTIC_EXT || type == OBJECT_TSCONFIGURATION ||
              type == OBJECT_TSDICTIONARY || type == OBJECT_TSPARSER || type == OBJECT_TSTEMPLATE ||
              type == OBJECT_DOMAIN || type == OBJECT_TYPE))
        note_name(c, (const List *)object, false);
}

static void note_objects(struct convert *c, ObjectType type, const List *objects)
{
    for (int i = 0; i < list_length(objects); i++)
        note_object(c, type, list_nth(objects, i));
}

static void note_grant(struct convert *c, const GrantStmt *grant)
{
    bool schemas = grant->objtype == OBJECT_SCHEMA || grant->targtype == ACL_TARGET_ALL_IN_SCHEMA;
    note_objects(c, schemas ? OBJECT_SCHEMA : grant->objtype, grant->objects);
}

static void note_default_privileges(struct convert *c, const AlterDefaultPrivilegesStmt *alter)
{
    for (int i = 0; i < list_length(alter->options); i++) {
        const DefElem *option = list_nth(alter->options, i);
        if (option->arg && IsA(option->arg, List) && option->defname[0] == 's')
            note_objects(c, OBJECT_SCHEMA, (const List *)option->arg);
    }
}

static void note_create_schema(struct convert *c, const CreateSchemaStmt *create)
{
    if (create->schemaname)
        note(c, create->schemaname, false);
    else if (create->authrole && create->authrole->rolename)
        note(c, create->authrole->rolename, false);
}

/* Whether it makes an object with a schema: one without goes where the search_path says. */
static bool note_made(struct convert *c, Node *node)
{
    switch ((int)nodeTag(node)) {
    case T_CreateFunctionStmt:
        note_name(c, ((CreateFunctionStmt *)node)->funcname, true);
        return true;
    case T_DefineStmt:
        note_name(c, ((DefineStmt *)node)->defnames, true);
        return true;
    case T_CreateDomainStmt:
        note_name(c, ((CreateDomainStmt *)node)->domainname, true);
        return true;
    case T_CreateEnumStmt:
        note_name(c, ((CreateEnumStmt *)node)->typeName, true);
        return true;
    case T_CreateRangeStmt:
        note_name(c, ((CreateRangeStmt *)node)->typeName, true);
        return true;
    case T_CompositeTypeStmt:
        note(c, ((CompositeTypeStmt *)node)->typevar->schemaname, true);
        return true;
    default:
        return false;
    }
}

void parse_schemas(struct convert *c, Node *node)
{
    if (note_made(c, node))
        return;
    switch ((int)nodeTag(node)) {
    case T_CreateSchemaStmt:
        note_create_schema(c, (CreateSchemaStmt *)node);
        break;
    case T_DropStmt:
        note_objects(c, ((DropStmt *)node)->removeType, ((DropStmt *)node)->objects);
        break;
    case T_RenameStmt:
        if (((RenameStmt *)node)->renameType == OBJECT_SCHEMA) {
            note(c, ((RenameStmt *)node)->subname, false);
            note(c, ((RenameStmt *)node)->newname, false);
        } else {
            note_object(c, ((RenameStmt *)node)->renameType, ((RenameStmt *)node)->object);
        }
        break;
    case T_AlterObjectSchemaStmt:
        note_object(c, ((AlterObjectSchemaStmt *)node)->objectType,
                    ((AlterObjectSchemaStmt *)node)->object);
        note(c, ((AlterObjectSchemaStmt *)node)->newschema, false);
        break;
    case T_AlterOwnerStmt:
        note_object(c, ((AlterOwnerStmt *)node)->objectType, ((AlterOwnerStmt *)node)->object);
        break;
    case T_AlterFunctionStmt:
        note_object(c, OBJECT_FUNCTION, (Node *)((AlterFunctionStmt *)node)->func);
        break;
    case T_AlterEnumStmt:
        note_name(c, ((AlterEnumStmt *)node)->typeName, false);
        break;
    case T_AlterDomainStmt:
        note_name(c, ((AlterDomainStmt *)node)->typeName, false);
        break;
    case T_CommentStmt:
        note_object(c, ((CommentStmt *)node)->objtype, ((CommentStmt *)node)->object);
        break;
    case T_SecLabelStmt:
        note_object(c, ((SecLabelStmt *)node)->objtype, ((SecLabelStmt *)node)->object);
        break;
    case T_GrantStmt:
        note_grant(c, (GrantStmt *)node);
        break;
    case T_AlterDefaultPrivilegesStmt:
        note_default_privileges(c, (AlterDefaultPrivilegesStmt *)node);
        break;
    case T_ReindexStmt:
        if (((ReindexStmt *)node)->kind == REINDEX_OBJECT_SCHEMA)
            note(c, ((ReindexStmt *)node)->name, false);
        break;
    default:
        break;
    }
}
