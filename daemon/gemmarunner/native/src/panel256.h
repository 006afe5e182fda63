/* What kernels of 256-bit vectors share: a panel's 16 rows are two halves. To be included where their target is set. */
#ifndef GM_PANEL256_H
#define GM_PANEL256_H

#include "matrix.h"

#include <immintrin.h>
#include <string.h>

#define ALWAYS static inline __attribute__((always_inline))
enum { MOST = 5, AHEAD = 2048 };

/* This sum is made now: the compiler would rather keep many addends, in memory, and add them up later. */
#define SETTLED(sum) __asm__("" : "+x"(sum))

ALWAYS __m256 ones_in(const float *x) { return _mm256_broadcast_ss(x); }

ALWAYS __m256i four_codes(const int8_t *x) {
    int32_t word;
    memcpy(&word, x, 4);
    return _mm256_set1_epi32(word);
}

ALWAYS __m256 scale_of(const uint8_t *block, int half) {
    return _mm256_cvtph_ps(_mm_load_si128((const __m128i *)block + half));
}

ALWAYS void load_acc(__m256 (*a)[2], const float *acc, int count) {
    for (int r = 0; r < count; r++)
        for (int h = 0; h < 2; h++) a[r][h] = _mm256_loadu_ps(acc + 16 * r + 8 * h);
}

ALWAYS void store_acc(__m256 (*a)[2], float *acc, int count) {
    for (int r = 0; r < count; r++)
        for (int h = 0; h < 2; h++) _mm256_storeu_ps(acc + 16 * r + 8 * h, a[r][h]);
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

#define BY_COUNT(call)                                                                                                 \
    switch (count) {                                                                                                   \
    case 1: call(1); break;                                                                                            \
    case 2: call(2); break;                                                                                            \
    case 3: call(3); break;                                                                                            \
    case 4: call(4); break;                                                                                            \
    default: call(5); break;                                                                                           \
    }
#define KERNEL(name, call)                                                                                             \
    void name(const gm_matrix *m, const uint8_t *panel, const gm_rows *x, int first, int count, int begin, int end,    \
              float *acc) {                                                                                            \
        BY_COUNT(call)                                                                                                 \
    }

void gm_avx2_bf16(const gm_matrix *, const uint8_t *, const gm_rows *, int, int, int, int, float *);
void gm_avx2_f16(const gm_matrix *, const uint8_t *, const gm_rows *, int, int, int, int, float *);
void gm_avx2_f32(const gm_matrix *, const uint8_t *, const gm_rows *, int, int, int, int, float *);
void gm_avx2_q4k(const gm_matrix *, const uint8_t *, const gm_rows *, int, int, int, int, float *);
void gm_avx2_q5k(const gm_matrix *, const uint8_t *, const gm_rows *, int, int, int, int, float *);
void gm_avx2_q6k(const gm_matrix *, const uint8_t *, const gm_rows *, int, int, int, int, float *);

#endif
