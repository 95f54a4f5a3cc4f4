/*
 * parse_ddl.c: schema changes and maintenance: which of them refuse to run in a transaction block, and
 * which relations they name.
 */
#include "router/parse_internal.h"

#include <string.h>

bool parse_is_temporary(const RangeVar *range)
{
    return range->relpersistence == 't' ||
           (range->schemaname && strcmp(range->schemaname, "pg_temp") == 0);
}

static void note_range(struct convert *c, const RangeVar *range)
{
    if (range)
        parse_note_range(c, range, true);
}

/* A relation given as a list of names, of which the last `drop` are no part of it. */
static void note_names(struct convert *c, const Node *object, int drop)
{
    if (!object || !IsA(object, List))
        return;
    const List *names = (const List *)object;
    int count = list_length(names) - drop;
    if (count < 1 || !IsA(list_nth(names, count - 1), String))
        return;
    const char *schema = count > 1 ? parse_copy(c, strVal(list_nth(names, count - 2))) : NULL;
    parse_note_relation(c, schema, parse_copy(c, strVal(list_nth(names, count - 1))), true);
}

/* How many names at the end are not the relation's: -1 if the object is no part of a relation. */
static int names_behind_relation(ObjectType type)
{
    switch ((int)type) {
    case OBJECT_TABLE:
    case OBJECT_VIEW:
    case OBJECT_MATVIEW:
    case OBJECT_FOREIGN_TABLE:
    case OBJECT_SEQUENCE:
    case OBJECT_INDEX:
        return 0;
    case OBJECT_COLUMN:
    case OBJECT_TRIGGER:
    case OBJECT_RULE:
    case OBJECT_POLICY:
    case OBJECT_TABCONSTRAINT:
        return 1;
    default:
        return -1;
    }
}

static void note_object(struct convert *c, ObjectType type, const Node *object)
{
    int drop = names_behind_relation(type);
    if (drop >= 0)
        note_names(c, object, drop);
}

/* ---- tables ---- */

static void note_table_elements(struct convert *c, const List *elements)
{
    parse_constraints(c, elements, NULL);
    for (int i = 0; i < list_length(elements); i++) {
        const Node *element = list_nth(elements, i);
        if (IsA(element, ColumnDef))
            parse_constraints(c, ((const ColumnDef *)element)->constraints,
                              ((const ColumnDef *)element)->colname);
        else if (IsA(element, TableLikeClause))
            parse_note_range(c, ((const TableLikeClause *)element)->relation, false);
    }
}

static void parse_create_table(struct convert *c, const CreateStmt *create)
{
    struct statement *statement = c->statement;
    statement->kind = STMT_CREATE_TABLE;
    statement->create_temp = parse_is_temporary(create->relation);
    statement->create_unlogged = create->relation->relpersistence == 'u';
    note_range(c, create->relation);
    for (int i = 0; i < list_length(create->inhRelations); i++)
        note_range(c, list_nth(create->inhRelations, i));
    note_table_elements(c, create->tableElts);
    parse_constraints(c, create->constraints, NULL);
}

static void parse_alter_table(struct convert *c, const AlterTableStmt *alter)
{
    note_range(c, alter->relation);
    for (int i = 0; i < list_length(alter->cmds); i++) {
        const AlterTableCmd *command = list_nth(alter->cmds, i);
        if (!command->def)
            continue;
        if (IsA(command->def, PartitionCmd)) {
            const PartitionCmd *partition = (const PartitionCmd *)command->def;
            note_range(c, partition->name);
            if (partition->concurrent)
                c->statement->kind = STMT_DDL_NO_TX;
        } else if (IsA(command->def, RangeVar)) { /* INHERIT, NO INHERIT */
            note_range(c, (const RangeVar *)command->def);
        } else if (IsA(command->def, Constraint)) {
            parse_constraint(c, (const Constraint *)command->def, NULL);
        } else if (IsA(command->def, ColumnDef)) {
            parse_constraints(c, ((ColumnDef *)command->def)->constraints,
                              ((ColumnDef *)command->def)->colname);
        }
    }
}

static void parse_view(struct convert *c, const ViewStmt *view)
{
    note_range(c, view->view);
    c->statement->create_temp = parse_is_temporary(view->view);
    parse_query(c, view->query);
}

static void parse_sequence(struct convert *c, const CreateSeqStmt *create)
{
    note_range(c, create->sequence);
    c->statement->create_temp = parse_is_temporary(create->sequence);
}

/* A name written as pg_temp.name. */
static bool is_temporary_name(const List *names)
{
    return list_length(names) > 1 && IsA(linitial(names), String) &&
           strcmp(strVal(linitial(names)), "pg_temp") == 0;
}

/* A function or a type; relations are noted as such. */
static bool names_temporary(const Node *object)
{
    if (IsA(object, ObjectWithArgs))
        return is_temporary_name(((const ObjectWithArgs *)object)->objname);
    return IsA(object, TypeName) && is_temporary_name(((const TypeName *)object)->names);
}

static void parse_drop(struct convert *c, const DropStmt *drop)
{
    for (int i = 0; i < list_length(drop->objects); i++)
        c->statement->create_temp |= names_temporary(list_nth(drop->objects, i));
    if (drop->concurrent)
        c->statement->kind = STMT_DDL_NO_TX;
    for (int i = 0; i < list_length(drop->objects); i++)
        note_object(c, drop->removeType, list_nth(drop->objects, i));
}

static void parse_grant(struct convert *c, const GrantStmt *grant)
{
    if (grant->targtype != ACL_TARGET_OBJECT)
        return;
    for (int i = 0; i < list_length(grant->objects); i++) {
        const Node *object = list_nth(grant->objects, i);
        if (IsA(object, RangeVar))
            note_range(c, (const RangeVar *)object);
    }
}

/* ---- maintenance ---- */

static void parse_vacuum(struct convert *c, const VacuumStmt *vacuum)
{
    if (vacuum->is_vacuumcmd)
        c->statement->kind = STMT_DDL_NO_TX;
    for (int i = 0; i < list_length(vacuum->rels); i++)
        note_range(c, ((const VacuumRelation *)list_nth(vacuum->rels, i))->relation);
}

static void parse_reindex(struct convert *c, const ReindexStmt *reindex)
{
    note_range(c, reindex->relation);
    if (reindex->kind != REINDEX_OBJECT_INDEX && reindex->kind != REINDEX_OBJECT_TABLE)
        c->statement->kind = STMT_DDL_NO_TX;
    for (int i = 0; i < list_length(reindex->params); i++) {
        const DefElem *option = list_nth(reindex->params, i);
        if (!strcmp(option->defname, "concurrently") && parse_option_on(option))
            c->statement->kind = STMT_DDL_NO_TX;
    }
}

static void parse_statistics(struct convert *c, const CreateStatsStmt *stats)
{
    for (int i = 0; i < list_length(stats->relations); i++) {
        const Node *relation = list_nth(stats->relations, i);
        if (IsA(relation, RangeVar))
            note_range(c, (const RangeVar *)relation);
    }
}

static void parse_index(struct convert *c, const IndexStmt *index)
{
    note_range(c, index->relation);
    if (index->unique)
        parse_unique_index(c, index);
    if (!index->concurrent)
        return;
    c->statement->kind = STMT_DDL_NO_TX;
    c->statement->if_exists = index->if_not_exists;
    c->statement->name = index->idxname ? arena_strdup(c->arena, index->idxname) : NULL;
}

static void parse_cluster(struct convert *c, const ClusterStmt *cluster)
{
    note_range(c, cluster->relation);
    if (!cluster->relation)
        c->statement->kind = STMT_DDL_NO_TX;
}

static void parse_alter_database(struct convert *c, const AlterDatabaseStmt *alter)
{
    for (int i = 0; i < list_length(alter->options); i++) {
        if (!strcmp(((const DefElem *)list_nth(alter->options, i))->defname, "tablespace"))
            c->statement->kind = STMT_DDL_NO_TX;
    }
}

/* Statements that carry one relation, or an object that may be part of one. */
static bool parse_ddl_on_relation(struct convert *c, Node *node)
{
    switch ((int)nodeTag(node)) {
    case T_CreateTrigStmt:
        note_range(c, ((CreateTrigStmt *)node)->relation);
        return true;
    case T_RuleStmt:
        note_range(c, ((RuleStmt *)node)->relation);
        return true;
    case T_CreatePolicyStmt:
        note_range(c, ((CreatePolicyStmt *)node)->table);
        return true;
    case T_AlterPolicyStmt:
        note_range(c, ((AlterPolicyStmt *)node)->table);
        return true;
    case T_RenameStmt:
        note_range(c, ((RenameStmt *)node)->relation);
        return true;
    case T_AlterObjectSchemaStmt:
        note_range(c, ((AlterObjectSchemaStmt *)node)->relation);
        return true;
    case T_AlterOwnerStmt:
        note_range(c, ((AlterOwnerStmt *)node)->relation);
        return true;
    case T_RefreshMatViewStmt:
        note_range(c, ((RefreshMatViewStmt *)node)->relation);
        return true;
    case T_AlterSeqStmt:
        note_range(c, ((AlterSeqStmt *)node)->sequence);
        return true;
    case T_CommentStmt:
        note_object(c, ((CommentStmt *)node)->objtype, ((CommentStmt *)node)->object);
        return true;
    case T_SecLabelStmt:
        note_object(c, ((SecLabelStmt *)node)->objtype, ((SecLabelStmt *)node)->object);
        return true;
    default:
        return false;
    }
}

static bool parse_ddl_detail(struct convert *c, Node *node)
{
    switch ((int)nodeTag(node)) {
    case T_CreateStmt:
    case T_CreateForeignTableStmt: /* begins with a CreateStmt */
        parse_create_table(c, (CreateStmt *)node);
        return true;
    case T_AlterTableStmt:
        parse_alter_table(c, (AlterTableStmt *)node);
        return true;
    case T_ViewStmt:
        parse_view(c, (ViewStmt *)node);
        return true;
    case T_CreateSeqStmt:
        parse_sequence(c, (CreateSeqStmt *)node);
        return true;
    case T_DropStmt:
        parse_drop(c, (DropStmt *)node);
        return true;
    case T_GrantStmt:
        parse_grant(c, (GrantStmt *)node);
        return true;
    case T_VacuumStmt:
        parse_vacuum(c, (VacuumStmt *)node);
        return true;
    case T_ReindexStmt:
        parse_reindex(c, (ReindexStmt *)node);
        return true;
    case T_CreateStatsStmt:
        parse_statistics(c, (CreateStatsStmt *)node);
        return true;
    case T_IndexStmt:
        parse_index(c, (IndexStmt *)node);
        return true;
    case T_ClusterStmt:
        parse_cluster(c, (ClusterStmt *)node);
        return true;
    case T_AlterDatabaseStmt:
        parse_alter_database(c, (AlterDatabaseStmt *)node);
        return true;
    default:
        return parse_ddl_on_relation(c, node);
    }
}

void parse_ddl(struct convert *c, Node *node)
{
    c->statement->kind = STMT_DDL;
    parse_schemas(c, node);
    if (parse_ddl_detail(c, node))
        return;
    switch ((int)nodeTag(node)) {
    case T_CreateFunctionStmt:
        c->statement->create_temp = is_temporary_name(((CreateFunctionStmt *)node)->funcname);
        break;
    case T_DefineStmt:
        c->statement->create_temp = is_temporary_name(((DefineStmt *)node)->defnames);
        break;
    case T_CreateDomainStmt:
        c->statement->create_temp = is_temporary_name(((CreateDomainStmt *)node)->domainname);
        break;
    case T_CreateEnumStmt:
        c->statement->create_temp = is_temporary_name(((CreateEnumStmt *)node)->typeName);
        break;
    case T_CompositeTypeStmt:
        c->statement->create_temp = parse_is_temporary(((CompositeTypeStmt *)node)->typevar);
        break;
    case T_CreatedbStmt:
    case T_DropdbStmt:
    case T_CreateTableSpaceStmt:
    case T_DropTableSpaceStmt:
    case T_AlterSystemStmt:
    case T_CreateSubscriptionStmt: /* these three unless they leave the slot alone */
    case T_AlterSubscriptionStmt:
    case T_DropSubscriptionStmt:
        c->statement->kind = STMT_DDL_NO_TX;
        break;
    case T_ConstraintsSetStmt:
        c->statement->kind = STMT_OTHER;
        c->statement->tag = "SET CONSTRAINTS";
        break;
    default: /* CREATE FUNCTION, CREATE TYPE, CREATE ROLE, ...: whatever is left changes the schema */
        break;
    }
}
