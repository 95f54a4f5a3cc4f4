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

#define list_entry(node, type, member) ((type *)((char *)(node)-offsetof(type, member)))
/* Safe against removal of the current entry. */
#define list_each(at, following, head)                                                             \
    for (struct list_node *at = (head)->next, *following = at->next; at != (head);                 \
         at = following, following = at->next)

#endif
