/* A Quintet component in C.
 *
 * The interface is quintet_component.h: a table of functions that take and give bytes. The bytes are protobuf; with
 * messages of one number each, as in tally.proto, they are read and written here by hand, and a larger component
 * would use nanopb, upb or protobuf-c.
 *
 * What the platform asks of a component is the same in every language: an update is a function of state, request and
 * context; equal states are saved as equal bytes; what is refused changes nothing.
 */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "quintet_component.h"

/* The bytes of tally.descriptor, made from tally.proto: see the Makefile. */
static const uint8_t descriptor[] = {
#include "tally.descriptor.inc"
};

enum { CHOICES = 16, NUMBER_MAX = 11 /* bytes: a tag and a varint of 64 bits */ };

/* Methods are numbered as they stand in tally.proto. */
enum { METHOD_COUNT, METHOD_ASK, METHOD_DRAW };

typedef struct tally {
    uint64_t votes[CHOICES];
} tally;

/* Ends a call with a status and a sentence. */
static int32_t refuse(const quintet_sink *error, int32_t code, const char *sentence) {
    error->write(error->opaque, (const uint8_t *)sentence, strlen(sentence));
    return code;
}

/* Reads a base-128 number at *at and moves *at behind it. */
static bool read_varint(quintet_bytes bytes, size_t *at, uint64_t *number) {
    *number = 0;
    for (unsigned shift = 0; shift < 64 && *at < bytes.len; shift += 7) {
        uint8_t byte = bytes.data[(*at)++];
        *number |= (uint64_t)(byte & 0x7f) << shift;
        if (!(byte & 0x80))
            return true;
    }
    return false;
}

/* Reads a message whose field 1 is a uint64 and that has no other field. */
static bool read_number(quintet_bytes bytes, uint64_t *number) {
    *number = 0;
    for (size_t at = 0; at < bytes.len;) {
        uint64_t tag;
        if (!read_varint(bytes, &at, &tag) || tag != (1 << 3 | 0) || !read_varint(bytes, &at, number))
            return false;
    }
    return true;
}

/* Writes such a message. */
static int32_t write_number(const quintet_sink *reply, uint64_t number) {
    uint8_t bytes[NUMBER_MAX];
    size_t len = 0;
    if (number == 0)
        return QUINTET_OK; /* a default is not written: the message is empty */
    bytes[len++] = 1 << 3 | 0;
    for (; number >= 0x80; number >>= 7)
        bytes[len++] = (uint8_t)(number | 0x80);
    bytes[len++] = (uint8_t)number;
    return reply->write(reply->opaque, bytes, len) == 0 ? QUINTET_OK : QUINTET_RESOURCE_EXHAUSTED;
}

static int32_t create(void *factory, void **instance, const quintet_sink *error) {
    (void)factory;
    *instance = calloc(1, sizeof(tally));
    return *instance ? QUINTET_OK : refuse(error, QUINTET_RESOURCE_EXHAUSTED, "out of memory");
}

static void destroy(void *instance) {
    free(instance);
}

/* The choice in a request, or an error. */
static int32_t choice_of(quintet_bytes request, uint64_t *choice, const quintet_sink *error) {
    if (!read_number(request, choice))
        return refuse(error, QUINTET_INVALID_ARGUMENT, "the request is not a tally.Choice");
    if (*choice >= CHOICES)
        return refuse(error, QUINTET_OUT_OF_RANGE, "there are 16 choices, from 0");
    return QUINTET_OK;
}

static int32_t update(void *instance, uint32_t method, const quintet_context *context, quintet_bytes request,
                      const quintet_sink *reply, const quintet_sink *error) {
    tally *self = instance;
    uint64_t choice, state = context->seed;
    int32_t code;
    switch (method) {
    case METHOD_COUNT:
        code = choice_of(request, &choice, error);
        return code != QUINTET_OK ? code : write_number(reply, ++self->votes[choice]);
    case METHOD_DRAW:
        return write_number(reply, quintet_random(&state) % CHOICES);
    default:
        return refuse(error, QUINTET_UNIMPLEMENTED, "tally.Tally has no such update");
    }
}

static int32_t read_(void *instance, uint32_t method, const quintet_context *context, quintet_bytes request,
                     const quintet_sink *reply, const quintet_sink *error) {
    const tally *self = instance;
    uint64_t choice;
    int32_t code;
    (void)context;
    if (method != METHOD_ASK)
        return refuse(error, QUINTET_UNIMPLEMENTED, "tally.Tally has no such read");
    code = choice_of(request, &choice, error);
    return code != QUINTET_OK ? code : write_number(reply, self->votes[choice]);
}

/* The state is saved as text, a number a line: readable, and equal for equal states. */
static int32_t save(void *instance, const quintet_sink *out, const quintet_sink *error) {
    const tally *self = instance;
    for (int choice = 0; choice < CHOICES; choice++) {
        char line[24];
        int len = snprintf(line, sizeof line, "%llu\n", (unsigned long long)self->votes[choice]);
        if (out->write(out->opaque, (const uint8_t *)line, (size_t)len) != 0)
            return refuse(error, QUINTET_INTERNAL, "the host takes no more bytes");
    }
    return QUINTET_OK;
}

static int32_t load(void *instance, const quintet_source *from, const quintet_sink *error) {
    tally *self = instance, loaded = {{0}};
    char text[CHOICES * 24 + 1];
    size_t len = 0;
    int64_t given;
    while ((given = from->read(from->opaque, (uint8_t *)text + len, sizeof text - 1 - len)) > 0)
        len += (size_t)given;
    if (given < 0)
        return refuse(error, QUINTET_INTERNAL, "the host could not give the state");
    text[len] = '\0';
    char *at = text, *end;
    for (int choice = 0; choice < CHOICES; choice++, at = end + 1) {
        loaded.votes[choice] = strtoull(at, &end, 10);
        if (end == at || *end != '\n')
            return refuse(error, QUINTET_DATA_LOSS, "these bytes are not a saved tally");
    }
    if (*at != '\0')
        return refuse(error, QUINTET_DATA_LOSS, "a saved tally with bytes behind its end");
    *self = loaded; /* only now: a load that is refused changes nothing */
    return QUINTET_OK;
}

static const char name[] = "tally.Tally";

static const quintet_class tally_class = {
    .size = sizeof(quintet_class),
    .abi_version = QUINTET_ABI_VERSION,
    .name = {(const uint8_t *)name, sizeof name - 1},
    .descriptor = {descriptor, sizeof descriptor},
    .factory = NULL,
    .create = create,
    .destroy = destroy,
    .update = update,
    .read = read_,
    .save = save,
    .load = load,
};

static const quintet_class *const classes[] = {&tally_class};

static const quintet_library library = {
    .size = sizeof(quintet_library),
    .abi_version = QUINTET_ABI_VERSION,
    .class_count = 1,
    .reserved = 0,
    .classes = classes,
};

const quintet_library *quintet_component_library(void) {
    return &library;
}
