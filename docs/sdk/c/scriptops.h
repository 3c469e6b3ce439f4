/* The script API for C, without a C library: functions of the module scriptops_v1, and a thin
 * layer over them that takes strings as C has them. docs/wasm.md says what each one promises.
 *
 *     clang --target=wasm32 -O2 -nostdlib -Wl,--no-entry -o thermostat.wasm thermostat.c
 */
#ifndef SCRIPTOPS_H
#define SCRIPTOPS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The function that a run calls; it returns 0, or a code below to end as that refusal did. */
#define SCRIPTOPS_MAIN __attribute__((export_name("main")))

#define SCRIPTOPS_ABSENT (-1)  /* not known, not set, no such item */
#define SCRIPTOPS_DENIED (-2)  /* the Script's manifest or limits do not permit it */
#define SCRIPTOPS_INVALID (-3) /* it cannot be that: no UTF-8, not finite, too long */

enum scriptops_type { SCRIPTOPS_BOOL = 1, SCRIPTOPS_NUMBER = 2, SCRIPTOPS_STRING = 3 };
enum scriptops_level {
    SCRIPTOPS_DEBUG = 1, SCRIPTOPS_INFO = 2, SCRIPTOPS_WARN = 3, SCRIPTOPS_ERROR = 4
};

#define SCRIPTOPS_IMPORT(name) __attribute__((import_module("scriptops_v1"), import_name(#name)))

/* Strings are UTF-8, address and length. Buffers are address and size; the answer is how many bytes
 * there are, and they were written only if they fit. */
SCRIPTOPS_IMPORT(device_readable) int32_t scriptops_device_readable(int32_t index, char *to, size_t room);
SCRIPTOPS_IMPORT(device_writable) int32_t scriptops_device_writable(int32_t index, char *to, size_t room);
SCRIPTOPS_IMPORT(device_type) int32_t scriptops_device_type(const char *alias, size_t alias_length, const char *name, size_t name_length);
SCRIPTOPS_IMPORT(device_number) double scriptops_device_number(const char *alias, size_t alias_length, const char *name, size_t name_length);
SCRIPTOPS_IMPORT(device_bool) int32_t scriptops_device_bool(const char *alias, size_t alias_length, const char *name, size_t name_length);
SCRIPTOPS_IMPORT(device_string) int32_t scriptops_device_string(const char *alias, size_t alias_length, const char *name, size_t name_length, char *to, size_t room);
SCRIPTOPS_IMPORT(device_set_number) int32_t scriptops_device_set_number(const char *alias, size_t alias_length, const char *name, size_t name_length, double value);
SCRIPTOPS_IMPORT(device_set_bool) int32_t scriptops_device_set_bool(const char *alias, size_t alias_length, const char *name, size_t name_length, int32_t value);
SCRIPTOPS_IMPORT(device_set_string) int32_t scriptops_device_set_string(const char *alias, size_t alias_length, const char *name, size_t name_length, const char *value, size_t value_length);
SCRIPTOPS_IMPORT(device_commit) int32_t scriptops_device_commit(const char *alias, size_t alias_length, int32_t qos, int32_t force);
SCRIPTOPS_IMPORT(env) int32_t scriptops_env(const char *name, size_t name_length, char *to, size_t room);
SCRIPTOPS_IMPORT(event) int32_t scriptops_event(char *to, size_t room);
SCRIPTOPS_IMPORT(log) int32_t scriptops_log(int32_t level, const char *text, size_t length);
SCRIPTOPS_IMPORT(now) double scriptops_now(void);
SCRIPTOPS_IMPORT(random) double scriptops_random(void);
SCRIPTOPS_IMPORT(state_get) int32_t scriptops_state_get(const char *key, size_t key_length, char *to, size_t room);
SCRIPTOPS_IMPORT(state_set) int32_t scriptops_state_set(const char *key, size_t key_length, const char *json, size_t length);
SCRIPTOPS_IMPORT(state_delete) int32_t scriptops_state_delete(const char *key, size_t key_length);
SCRIPTOPS_IMPORT(state_key) int32_t scriptops_state_key(int32_t index, char *to, size_t room);
SCRIPTOPS_IMPORT(fetch) int32_t scriptops_fetch(const char *request, size_t length);
SCRIPTOPS_IMPORT(fetch_reply) int32_t scriptops_fetch_reply(int32_t number, char *to, size_t room);
SCRIPTOPS_IMPORT(refusal) int32_t scriptops_refusal(char *to, size_t room);
SCRIPTOPS_IMPORT(fail) _Noreturn void scriptops_fail(const char *text, size_t length);

static inline size_t scriptops_length(const char *text) {
    size_t length = 0;
    while (text[length] != '\0') length += 1;
    return length;
}

/* Not a number when it is not known; ask device_type first where that matters. */
static inline double device_number(const char *alias, const char *name) {
    return scriptops_device_number(alias, scriptops_length(alias), name, scriptops_length(name));
}

/* 0 or 1, or a code. */
static inline int device_bool(const char *alias, const char *name) {
    return scriptops_device_bool(alias, scriptops_length(alias), name, scriptops_length(name));
}

static inline int device_set_number(const char *alias, const char *name, double value) {
    return scriptops_device_set_number(
        alias, scriptops_length(alias), name, scriptops_length(name), value);
}

static inline int device_set_bool(const char *alias, const char *name, bool value) {
    return scriptops_device_set_bool(
        alias, scriptops_length(alias), name, scriptops_length(name), value);
}

static inline int device_commit(const char *alias) {
    return scriptops_device_commit(alias, scriptops_length(alias), 0, 0);
}

/* Waits until the edge has the values (1) or the device reports them (2); what was reached, or a code. */
static inline int device_commit_and_wait(const char *alias, int qos) {
    return scriptops_device_commit(alias, scriptops_length(alias), qos, 0);
}

static inline void log_info(const char *text) {
    scriptops_log(SCRIPTOPS_INFO, text, scriptops_length(text));
}

static inline _Noreturn void fail(const char *text) {
    scriptops_fail(text, scriptops_length(text));
}

/* A decimal number such as "21.5" at the start of `length` bytes; what follows it is left aside. */
static inline double scriptops_decimal(const char *text, size_t length) {
    double value = 0, scale = 1;
    bool is_negative = length > 0 && text[0] == '-', is_fraction = false;
    for (size_t i = is_negative; i < length; i += 1) {
        if (text[i] == '.' && !is_fraction) {
            is_fraction = true;
        } else if (text[i] >= '0' && text[i] <= '9') {
            value = value * 10 + (text[i] - '0');
            if (is_fraction) scale *= 10;
        } else {
            break;
        }
    }
    return (is_negative ? -value : value) / scale;
}

/* The variable as a number, or `otherwise` when it is not set. */
static inline double env_number(const char *name, double otherwise) {
    char text[32];
    int32_t length = scriptops_env(name, scriptops_length(name), text, sizeof text);
    if (length < 0 || (size_t)length > sizeof text) return otherwise;
    return scriptops_decimal(text, length);
}

/* The state under `key` as a number, or `otherwise` when there is none. */
static inline double state_number(const char *key, double otherwise) {
    char text[32];
    int32_t length = scriptops_state_get(key, scriptops_length(key), text, sizeof text);
    if (length < 0 || (size_t)length > sizeof text) return otherwise;
    return scriptops_decimal(text, length);
}

/* Remembers a whole number for the next runs. */
static inline int state_set_integer(const char *key, int32_t value) {
    char text[12];
    size_t at = sizeof text;
    uint32_t rest = value < 0 ? 0u - (uint32_t)value : (uint32_t)value;
    do {
        text[--at] = '0' + rest % 10;
        rest /= 10;
    } while (rest > 0);
    if (value < 0) text[--at] = '-';
    return scriptops_state_set(key, scriptops_length(key), text + at, sizeof text - at);
}

#endif
