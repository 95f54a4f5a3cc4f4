/* peer.c: packs the addresses of clients, and unpacks them. */
#include "proxy/peer.h"

#include <netinet/in.h>
#include <string.h>

_Static_assert(sizeof(struct peer) == 24, "each client has one");

struct peer peer_of(const struct sockaddr_storage *address, unsigned tag)
{
    struct peer peer = {.family = (uint8_t)address->ss_family, .tag = (uint8_t)tag};
    if (address->ss_family == AF_INET) {
        const struct sockaddr_in *v4 = (const struct sockaddr_in *)address;
        memcpy(peer.ip, &v4->sin_addr, sizeof v4->sin_addr);
        peer.port = ntohs(v4->sin_port);
    } else if (address->ss_family == AF_INET6) {
        const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)address;
        memcpy(peer.ip, &v6->sin6_addr, sizeof v6->sin6_addr);
        peer.port = ntohs(v6->sin6_port);
        peer.scope = v6->sin6_scope_id;
    }
    return peer;
}

socklen_t peer_address(const struct peer *peer, struct sockaddr_storage *address)
{
    memset(address, 0, sizeof *address);
    address->ss_family = peer->family;
    if (peer->family == AF_INET) {
        struct sockaddr_in *v4 = (struct sockaddr_in *)address;
        memcpy(&v4->sin_addr, peer->ip, sizeof v4->sin_addr);
        v4->sin_port = htons(peer->port);
        return sizeof *v4;
    }
    if (peer->family == AF_INET6) {
        struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)address;
        memcpy(&v6->sin6_addr, peer->ip, sizeof v6->sin6_addr);
        v6->sin6_port = htons(peer->port);
        v6->sin6_scope_id = peer->scope;
        return sizeof *v6;
    }
    return sizeof address->ss_family;
}
