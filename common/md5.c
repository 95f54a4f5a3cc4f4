/* md5.c: Postgres' md5 password exchange. */
#include <string.h>

#include <openssl/crypto.h>
#include <openssl/evp.h>

#include "pgshunt/scram.h"

#define MD5_LENGTH 16
#define MD5_HEX (2 * MD5_LENGTH)

/* hex(md5(a b)) with a NUL behind it; false where the library refuses md5 (FIPS). */
static bool md5_hex(const void *a, size_t a_len, const void *b, size_t b_len, char out[MD5_HEX + 1])
{
    unsigned char digest[EVP_MAX_MD_SIZE];
    EVP_MD_CTX *context = EVP_MD_CTX_new();
    bool ok = context && EVP_DigestInit_ex(context, EVP_md5(), NULL) == 1 &&
              EVP_DigestUpdate(context, a, a_len) == 1 &&
              EVP_DigestUpdate(context, b, b_len) == 1 &&
              EVP_DigestFinal_ex(context, digest, NULL) == 1;
    EVP_MD_CTX_free(context);
    for (int i = 0; ok && i < MD5_LENGTH; i++) {
        out[2 * i] = "0123456789abcdef"[digest[i] >> 4];
        out[2 * i + 1] = "0123456789abcdef"[digest[i] & 15];
    }
    out[ok ? MD5_HEX : 0] = '\0';
    return ok;
}

bool md5_is_secret(const char *secret)
{
    return strlen(secret) == MD5_SECRET_LENGTH && strncmp(secret, "md5", 3) == 0 &&
           strspn(secret + 3, "0123456789abcdef") == MD5_HEX;
}

/* A SCRAM secret is refused: no password can be had from it, and its text is none. */
bool md5_response(const char *secret, const char *user, const unsigned char salt[4], char *out)
{
    struct scram_secret scram;
    char inner[MD5_HEX + 1];
    if (scram_secret_parse(secret, &scram))
        return false;
    if (md5_is_secret(secret))
        memcpy(inner, secret + 3, sizeof(inner));
    else if (!md5_hex(secret, strlen(secret), user, strlen(user), inner))
        return false;
    memcpy(out, "md5", 3);
    bool ok = md5_hex(inner, MD5_HEX, salt, 4, out + 3);
    OPENSSL_cleanse(inner, sizeof(inner));
    return ok;
}

bool md5_secret(const char *password, const char *user, char *out)
{
    memcpy(out, "md5", 3);
    return md5_hex(password, strlen(password), user, strlen(user), out + 3);
}
