/* The kernels that this processor runs fastest. */
#include "matrix.h"

#include <stddef.h>

const gm_isa *gm_best_isa(void) {
#if defined(__x86_64__)
    static const gm_isa *chosen; /* threads that come together write the same */
    if (chosen) return chosen;
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vnni"))
        return chosen = &gm_avx512;
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) return NULL; /* f16c comes with them */
#if defined(GM_HAS_AVXVNNI)
    if (__builtin_cpu_supports("avxvnni")) return chosen = &gm_avxvnni;
#endif
    return chosen = &gm_avx2;
#else
    return NULL;
#endif
}

/* Their name; empty where there are none. */
const char *gm_isa_name(void) {
    const gm_isa *isa = gm_best_isa();
    return isa ? isa->name : "";
}


#ifndef GM_STAMP
#define GM_STAMP ""
#endif

/* Of the sources that this was built of, see stamp.py; empty if nobody said. */
const char *gm_stamp(void) {
    return GM_STAMP;
}
