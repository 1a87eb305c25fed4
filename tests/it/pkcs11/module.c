/* A PKCS#11 module in front of a real one (REAL): it writes down what is called (CONTROL.log), and does what the file CONTROL
   says: "flags N" sets bits of the token's flags, "maker 1" gives it another maker, "hide N M" takes mechanisms away, "fail_from N CODE" answers CODE from the
   N-th call on that changes something or opens a session, until CONTROL changes. Offsets are those of PKCS#11 2.40. */
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

typedef unsigned long ulong;
typedef ulong (*call)();
static struct list { unsigned char version[2]; call of[68]; } real, mine;

enum { INITIALIZE = 0, FINALIZE = 1, TOKEN_INFO = 6, MECHANISMS = 7, OPEN_SESSION = 12, LOGIN = 18, CREATE_OBJECT = 20,
       DESTROY_OBJECT = 22, ENCRYPT_INIT = 29, DECRYPT_INIT = 33, GENERATE_KEY = 58, WRAP_KEY = 60, UNWRAP_KEY = 61 };
enum { MAKER_AT = 32, FLAGS_AT = 96, ALREADY_INITIALIZED = 0x191 };

static char before[256];
static ulong calls;

static ulong setting(const char *name, ulong *second) {
    char text[256] = "", copy[256], *line;
    ulong first = 0, more = 0;
    FILE *file = fopen(CONTROL, "r");
    if (file) {
        text[fread(text, 1, sizeof text - 1, file)] = 0;
        fclose(file);
    }
    if (strcmp(text, before)) {
        strcpy(before, text);
        calls = 0;
    }
    strcpy(copy, text);
    for (line = strtok(copy, "\n"); line; line = strtok(NULL, "\n"))
        if (!strncmp(line, name, strlen(name)) && sscanf(line + strlen(name), "%lu %lu", &first, &more) > 0) {
            if (second) *second = more;
            return first;
        }
    return 0;
}

static void note(const char *name, ulong answer) {
    FILE *file = fopen(CONTROL ".log", "a");
    if (file) {
        fprintf(file, "%s %lu\n", name, answer);
        fclose(file);
    }
}

/* The code to fail with now, or 0. */
static ulong trouble(const char *name) {
    ulong code = 0, from = setting("fail_from ", &code);
    if (!from || ++calls < from) return 0;
    note(name, code);
    return code;
}

#define CHECKED(NAME, PARAMETERS, ARGUMENTS)                 \
    static ulong my_##NAME PARAMETERS {                      \
        ulong answer = trouble(#NAME);                       \
        if (answer) return answer;                           \
        answer = real.of[NAME] ARGUMENTS;                    \
        note(#NAME, answer);                                 \
        return answer;                                       \
    }

CHECKED(OPEN_SESSION, (ulong a, ulong b, void *c, void *d, ulong *e), (a, b, c, d, e))
CHECKED(LOGIN, (ulong a, ulong b, void *c, ulong d), (a, b, c, d))
CHECKED(CREATE_OBJECT, (ulong a, void *b, ulong c, ulong *d), (a, b, c, d))
CHECKED(DESTROY_OBJECT, (ulong a, ulong b), (a, b))
CHECKED(ENCRYPT_INIT, (ulong a, void *b, ulong c), (a, b, c))
CHECKED(DECRYPT_INIT, (ulong a, void *b, ulong c), (a, b, c))
CHECKED(GENERATE_KEY, (ulong a, void *b, void *c, ulong d, ulong *e), (a, b, c, d, e))
CHECKED(WRAP_KEY, (ulong a, void *b, ulong c, ulong d, void *e, ulong *f), (a, b, c, d, e, f))
CHECKED(UNWRAP_KEY, (ulong a, void *b, ulong c, void *d, ulong e, void *f, ulong g, ulong *h), (a, b, c, d, e, f, g, h))

/* The real module serves others in this process too: it is not taken away from them. */
static ulong my_initialize(void *arguments) {
    ulong answer = real.of[INITIALIZE](arguments);
    note("INITIALIZE", answer);
    return answer == ALREADY_INITIALIZED ? 0 : answer;
}

static ulong my_finalize(void *reserved) {
    (void)reserved;
    note("FINALIZE", 0);
    return 0;
}

static ulong my_token_info(ulong slot, void *info) {
    ulong answer = real.of[TOKEN_INFO](slot, info), flags = setting("flags ", NULL), now;
    if (!answer && flags) {
        memcpy(&now, (char *)info + FLAGS_AT, sizeof now);
        now |= flags;
        memcpy((char *)info + FLAGS_AT, &now, sizeof now);
    }
    if (!answer && setting("maker ", NULL)) memcpy((char *)info + MAKER_AT, "Test devices   ", 15);
    return answer;
}

static ulong my_mechanisms(ulong slot, ulong *list, ulong *count) {
    ulong answer = real.of[MECHANISMS](slot, list, count), more = 0, hidden = setting("hide ", &more), kept = 0, at;
    if (answer || !list || !hidden) return answer;
    for (at = 0; at < *count; at++)
        if (list[at] != hidden && list[at] != more) list[kept++] = list[at];
    *count = kept;
    return answer;
}

ulong C_GetFunctionList(struct list **out) {
    void *library = dlopen(REAL, RTLD_NOW | RTLD_LOCAL);
    ulong (*get)(struct list **) = library ? (ulong (*)(struct list **))dlsym(library, "C_GetFunctionList") : NULL;
    struct list *theirs;
    if (!get || get(&theirs)) return 5;
    real = mine = *theirs;
    mine.of[INITIALIZE] = (call)my_initialize;
    mine.of[FINALIZE] = (call)my_finalize;
    mine.of[TOKEN_INFO] = (call)my_token_info;
    mine.of[MECHANISMS] = (call)my_mechanisms;
    mine.of[OPEN_SESSION] = (call)my_OPEN_SESSION;
    mine.of[LOGIN] = (call)my_LOGIN;
    mine.of[CREATE_OBJECT] = (call)my_CREATE_OBJECT;
    mine.of[DESTROY_OBJECT] = (call)my_DESTROY_OBJECT;
    mine.of[ENCRYPT_INIT] = (call)my_ENCRYPT_INIT;
    mine.of[DECRYPT_INIT] = (call)my_DECRYPT_INIT;
    mine.of[GENERATE_KEY] = (call)my_GENERATE_KEY;
    mine.of[WRAP_KEY] = (call)my_WRAP_KEY;
    mine.of[UNWRAP_KEY] = (call)my_UNWRAP_KEY;
    *out = &mine;
    return 0;
}
