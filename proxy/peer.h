/* peer.h: who is at the other end of a client's connection, in the few bytes that each client can spare. */
#ifndef PGSHUNT_PROXY_PEER_H
#define PGSHUNT_PROXY_PEER_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

struct peer {
    unsigned char ip[16]; /* in network order; 4 bytes of it with AF_INET */
    uint32_t scope;       /* AF_INET6: the interface of a link-local address */
    uint16_t port;        /* in host order */
    uint8_t family;       /* AF_INET, AF_INET6, AF_UNIX; AF_UNSPEC: not known */
    uint8_t tag;          /* of the point it came in at: listen_points.h */
};

struct peer peer_of(const struct sockaddr_storage *address, unsigned tag);
/* The address again; returns its length. */
socklen_t peer_address(const struct peer *peer, struct sockaddr_storage *address);
static inline bool peer_is_local(const struct peer *peer)
{
    return peer->family == AF_UNIX;
}

#endif
