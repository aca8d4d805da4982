/* The C interface between a Quintet component library and its host, version 1.
 *
 * A component library is a shared library that exports one function:
 *
 *     const quintet_library *quintet_component_library(void);
 *
 * It returns the table of the library's classes, or NULL if it cannot. It is called once; the tables and all they
 * point to must stay as they are for ever. A host never unloads a library.
 *
 * Every table begins with its size and the version of this interface; set them to sizeof and QUINTET_ABI_VERSION.
 *
 * Memory: what is handed in (quintet_bytes, sinks, sources, contexts) is lent for the call and the receiver neither
 * keeps nor frees it. What goes out is written to a sink, as often as you like.
 *
 * Threads: every function may be called on any thread. For one instance, update, load and destroy are called alone;
 * read and save run concurrently with each other.
 *
 * Results: 0, or a gRPC status code (1 to 16) after a sentence for the caller was written to `error`. An update must
 * be a function of state, request and context alone: no clock, no randomness but quintet_random, no addresses.
 * No C++ exception may leave a function.
 */
#ifndef QUINTET_COMPONENT_H
#define QUINTET_COMPONENT_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define QUINTET_ABI_VERSION 1u

/* The gRPC status codes. */
enum {
    QUINTET_OK = 0,
    QUINTET_CANCELLED = 1,
    QUINTET_UNKNOWN = 2,
    QUINTET_INVALID_ARGUMENT = 3,
    QUINTET_DEADLINE_EXCEEDED = 4,
    QUINTET_NOT_FOUND = 5,
    QUINTET_ALREADY_EXISTS = 6,
    QUINTET_PERMISSION_DENIED = 7,
    QUINTET_RESOURCE_EXHAUSTED = 8,
    QUINTET_FAILED_PRECONDITION = 9,
    QUINTET_ABORTED = 10,
    QUINTET_OUT_OF_RANGE = 11,
    QUINTET_UNIMPLEMENTED = 12,
    QUINTET_INTERNAL = 13,
    QUINTET_UNAVAILABLE = 14,
    QUINTET_DATA_LOSS = 15,
    QUINTET_UNAUTHENTICATED = 16,
    /* From update and load: the state may be half changed; the host asks this instance for nothing more. */
    QUINTET_FAILED = 1000
};

/* Bytes lent for a call. data may be NULL if len is 0. */
typedef struct quintet_bytes {
    const uint8_t *data;
    size_t len;
} quintet_bytes;

/* Takes bytes, in order; only during the call it was handed to, on that call's thread. write returns 0, or anything
 * else when it takes no more: then return an error. */
typedef struct quintet_sink {
    void *opaque;
    int32_t (*write)(void *opaque, const uint8_t *data, size_t len);
} quintet_sink;

/* Gives bytes, in order; used like a sink. read writes up to len bytes to `into` and returns how many: 0 at the end,
 * negative after an error. */
typedef struct quintet_source {
    void *opaque;
    int64_t (*read)(void *opaque, uint8_t *into, size_t len);
} quintet_source;

/* What a call knows of itself; the same on every replica. */
typedef struct quintet_context {
    uint32_t size;
    uint32_t reserved;
    uint64_t position;    /* in the order of all updates */
    uint64_t time_ns;     /* ordered time, since the Unix epoch */
    uint64_t client_low;  /* who called, 128 bits; 0 is the platform itself */
    uint64_t client_high;
    uint64_t seed;        /* for quintet_random */
} quintet_context;

/* A class and the functions of its instances. */
typedef struct quintet_class {
    uint32_t size;
    uint32_t abi_version;
    quintet_bytes name;       /* the full name of the service, UTF-8: "bank.Bank" */
    quintet_bytes descriptor; /* a serialized google.protobuf.FileDescriptorSet, imports included:
                                 protoc --include_imports -o bank.descriptor bank.proto */
    void *factory;            /* handed to create */
    /* Makes an instance in its initial state and stores a pointer to it, not NULL. */
    int32_t (*create)(void *factory, void **instance, const quintet_sink *error);
    void (*destroy)(void *instance);
    /* Methods have numbers: their place in the service, from 0. */
    int32_t (*update)(void *instance, uint32_t method, const quintet_context *context, quintet_bytes request,
                      const quintet_sink *reply, const quintet_sink *error);
    int32_t (*read)(void *instance, uint32_t method, const quintet_context *context, quintet_bytes request,
                    const quintet_sink *reply, const quintet_sink *error);
    /* Writes the whole state: equal states give equal bytes. */
    int32_t (*save)(void *instance, const quintet_sink *out, const quintet_sink *error);
    /* Replaces the whole state by one that save wrote. */
    int32_t (*load)(void *instance, const quintet_source *from, const quintet_sink *error);
} quintet_class;

/* What a library holds. */
typedef struct quintet_library {
    uint32_t size;
    uint32_t abi_version;
    uint32_t class_count;
    uint32_t reserved;
    const quintet_class *const *classes;
} quintet_library;

/* The function that a component library exports. */
#if defined(__GNUC__)
__attribute__((visibility("default")))
#endif
const quintet_library *quintet_component_library(void);

/* The next random number of a call, the same on every replica (SplitMix64). Begin with state = context->seed. */
static inline uint64_t quintet_random(uint64_t *state) {
    uint64_t z = (*state += UINT64_C(0x9e3779b97f4a7c15));
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

#if defined(__STDC_VERSION__) && __STDC_VERSION__ >= 201112L && UINTPTR_MAX == UINT64_MAX
_Static_assert(sizeof(quintet_bytes) == 16, "layout of quintet_bytes");
_Static_assert(sizeof(quintet_sink) == 16, "layout of quintet_sink");
_Static_assert(sizeof(quintet_source) == 16, "layout of quintet_source");
_Static_assert(sizeof(quintet_context) == 48, "layout of quintet_context");
_Static_assert(sizeof(quintet_library) == 24, "layout of quintet_library");
_Static_assert(sizeof(quintet_class) == 96, "layout of quintet_class");
#endif

#ifdef __cplusplus
}
#endif

#endif /* QUINTET_COMPONENT_H */
