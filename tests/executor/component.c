/* A rule as a component, with the canonical ABI by hand: what a binding generator would write. */
#include <stddef.h>
#include <stdint.h>

#define IMPORT(interface, name) \
    __attribute__((import_module("scriptops:rule/" interface "@1.0.0"), import_name(name)))

typedef struct { const char *at; size_t length; } text;
typedef struct { uint8_t is_error; text error; } result;
typedef struct { uint8_t is_some; text some; } option;
typedef struct {
    uint8_t is_error;
    _Alignas(8) union {
        struct { uint8_t kind; _Alignas(8) union { uint8_t boolean; double number; text string; }; };
        text error;
    };
} reading;

IMPORT("device", "get") void device_get(const char *, size_t, const char *, size_t, reading *);
IMPORT("device", "set") void device_set(
    const char *, size_t, const char *, size_t, int32_t, int64_t, size_t, result *);
IMPORT("device", "commit") void device_commit(const char *, size_t, int32_t, int32_t, result *);
IMPORT("state", "get") void state_get(const char *, size_t, option *);
IMPORT("state", "set") void state_set(const char *, size_t, const char *, size_t, result *);
IMPORT("web", "fetch") void web_fetch(const char *, size_t, result *);
IMPORT("web", "reply") void web_reply(int32_t, result *);
IMPORT("run", "env") void run_env(const char *, size_t, option *);
IMPORT("run", "event") void run_event(text *);
IMPORT("run", "log") void run_log(int32_t, const char *, size_t);
IMPORT("run", "now") double run_now(void);

static _Alignas(8) char heap[4096];
static size_t used;

__attribute__((export_name("cabi_realloc"))) void *cabi_realloc(
    void *old, size_t before, size_t alignment, size_t size) {
    (void)old, (void)before;
    used = (used + alignment - 1) & ~(alignment - 1);
    char *at = heap + used;
    used += size;
    return at;
}

static result ended;

/* Heats below 20, tells what it was given, remembers that it ran, asks where env says so. */
__attribute__((export_name("main"))) result *run(void) {
    reading temperature;
    device_get("thermometer", 11, "temperature", 11, &temperature);
    if (temperature.is_error) {
        ended = (result){1, temperature.error};
        return &ended;
    }
    text event;
    run_event(&event);
    run_log(1, event.at, event.length);
    option url;
    run_env("request", 7, &url);
    if (url.is_some) {
        web_fetch(url.some.at, url.some.length, &ended);
        if (ended.is_error) return &ended;
        web_reply(0, &ended);
        run_log(2, ended.error.at, ended.error.length);
        if (ended.is_error) return &ended;
    }
    option before;
    state_get("ran", 3, &before);
    state_set("ran", 3, before.is_some ? "\"again\"" : "\"once\"", before.is_some ? 7 : 6, &ended);
    if (ended.is_error || temperature.kind != 2) return &ended;
    device_set("heater", 6, "power", 5, 0, temperature.number < 20, 0, &ended);
    if (ended.is_error) return &ended;
    option waits;
    run_env("waits", 5, &waits);
    device_commit("heater", 6, waits.is_some ? 2 : 0, run_now() > 0, &ended);
    return &ended;
}
