/* What the kernels of AVX-512 share: up to eight rows, and a panel's 16 rows as one vector. */
#ifndef GM_PANEL512_H
#define GM_PANEL512_H

#include "matrix.h"

#if defined(__x86_64__)
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,f16c")
#include <immintrin.h>
#include <string.h>

#define ALWAYS static inline __attribute__((always_inline))
enum { MOST = 8, AHEAD = 8192 };

ALWAYS __m512i four_codes(const int8_t *x) {
    int32_t word;
    memcpy(&word, x, 4);
    return _mm512_set1_epi32(word);
}

ALWAYS __m512 scale_of(const uint8_t *block) {
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)block));
}

/* Where each row's codes and scales lie. */
typedef struct {
    const int8_t *codes[MOST];
    const float *scales[MOST], *offsets[MOST];
    const int16_t *middles[MOST];
} places;

ALWAYS places find(const gm_matrix *m, const gm_rows *x, int first, int count) {
    places at;
    const int64_t blocks = m->columns / GM_BLOCK;
    for (int r = 0; r < count; r++) {
        at.codes[r] = x->codes + (first + r) * (int64_t)m->columns;
        at.scales[r] = x->scales + (first + r) * blocks;
        at.offsets[r] = x->offsets + (first + r) * blocks;
        at.middles[r] = x->middles + 4 * (first + r) * blocks;
    }
    return at;
}

#define KERNEL(name, function, kind)                                                                                   \
    void name(const gm_matrix *m, const uint8_t *panel, const gm_rows *x, int first, int count, int begin, int end,    \
              float *acc) {                                                                                            \
        switch (count) {                                                                                               \
        case 1: function(kind, 1, m, panel, x, first, begin, end, acc); break;                                         \
        case 2: function(kind, 2, m, panel, x, first, begin, end, acc); break;                                         \
        case 3: function(kind, 3, m, panel, x, first, begin, end, acc); break;                                         \
        case 4: function(kind, 4, m, panel, x, first, begin, end, acc); break;                                         \
        case 5: function(kind, 5, m, panel, x, first, begin, end, acc); break;                                         \
        case 6: function(kind, 6, m, panel, x, first, begin, end, acc); break;                                         \
        case 7: function(kind, 7, m, panel, x, first, begin, end, acc); break;                                         \
        default: function(kind, 8, m, panel, x, first, begin, end, acc); break;                                        \
        }                                                                                                              \
    }

void gm_avx512_q4k(const gm_matrix *, const uint8_t *, const gm_rows *, int, int, int, int, float *);
void gm_avx512_q5k(const gm_matrix *, const uint8_t *, const gm_rows *, int, int, int, int, float *);
void gm_avx512_q6k(const gm_matrix *, const uint8_t *, const gm_rows *, int, int, int, int, float *);

#pragma GCC pop_options
#endif
#endif
