/* list.h: intrusive circular doubly linked lists; removing is idempotent once initialised. */
#ifndef PGSHUNT_PROXY_LIST_H
#define PGSHUNT_PROXY_LIST_H

#include <stdbool.h>
#include <stddef.h>

struct list_node {
    struct list_node *next, *prev;
};

static inline void list_init(struct list_node *node)
{
    node->next = node->prev = node;
}

static inline bool list_empty(const struct list_node *head)
{
    return head->next == head;
}

static inline void list_remove(struct list_node *node)
{
    node->prev->next = node->next;
    node->next->prev = node->prev;
    list_init(node);
}

static inline void list_push_front(struct list_node *head, struct list_node *node)
{
    node->next = head->next;
    node->prev = head;
    head->next->prev = node;
    head->next = node;
}

static inline void list_push_back(struct list_node *head, struct list_node *node)
{
    list_push_front(head->prev, node);
}

/* To the end of another list. */
static inline void list_move(struct list_node *to, struct list_node *node)
{
    list_remove(node);
    list_push_back(to, node);
}

/* All of `from`, in front of what is in `to`. */
static inline void list_put_back(struct list_node *to, struct list_node *from)
{
    while (!list_empty(from)) {
        struct list_node *last = from->prev;
        list_remove(last);
        list_push_front(to, last);
    }
}

/* The next one to look at, moved to `seen` (initialised); NULL: all have been. */
static inline struct list_node *list_visit(struct list_node *list, struct list_node *seen)
{
    struct list_node *first = list->next;
    if (first == list)
        return NULL;
    list_move(seen, first);
    return first;
}

#define list_entry(node, type, member) ((type *)((char *)(node)-offsetof(type, member)))
/*
 * Safe against removal of the current entry, and of no other: where the end of one may be another's end
 * (a server that comes free, or a place in a limit, lets others go on, who may fail), entries are moved to
 * a list of their own first, or visited:
 *
 *     while ((at = list_visit(list, &seen)))
 *         ...
 *     list_put_back(list, &seen);
 */
#define list_each(at, following, head)                                                             \
    for (struct list_node *at = (head)->next, *following = at->next; at != (head);                 \
         at = following, following = at->next)

#endif
