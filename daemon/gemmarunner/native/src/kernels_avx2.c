/* Products of one panel with up to five rows, for x86 with AVX2, FMA and F16C. */
#include "matrix.h" /* something is declared on every processor */

#if defined(__x86_64__)
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c")
#include "panel256.h"

/* Weights of eight rows in two neighbouring columns, which are 128 bytes of float32 or 64 of 16-bit floats. */
ALWAYS void widen(const uint8_t *pair, int half, int kind, __m256 *even, __m256 *odd) {
    if (kind == GM_F32) {
        *even = _mm256_load_ps((const float *)pair + 8 * half);
        *odd = _mm256_load_ps((const float *)pair + 16 + 8 * half);
        return;
    }
    __m256i words = _mm256_load_si256((const __m256i *)pair + half);
    if (kind == GM_BF16) {
        *even = _mm256_castsi256_ps(_mm256_slli_epi32(words, 16));
        *odd = _mm256_castsi256_ps(_mm256_and_si256(words, _mm256_set1_epi32((int)0xffff0000)));
        return;
    }
    const __m256i low = _mm256_set1_epi32(0xffff);
    __m256i evens = _mm256_and_si256(words, low), odds = _mm256_srli_epi32(words, 16);
    /* packus interleaves 128-bit lanes: [e0-3 o0-3 | e4-7 o4-7] */
    __m256i both = _mm256_packus_epi32(evens, odds);
    both = _mm256_permute4x64_epi64(both, 0xd8); /* [e0-3 e4-7 | o0-3 o4-7] */
    *even = _mm256_cvtph_ps(_mm256_castsi256_si128(both));
    *odd = _mm256_cvtph_ps(_mm256_extracti128_si256(both, 1));
}

ALWAYS void floats(int kind, int count, const gm_matrix *m, const uint8_t *panel, const gm_rows *x, int first,
                   int begin, int end, float *acc) {
    __m256 a[MOST][2];
    const float *rows[MOST];
    for (int r = 0; r < count; r++) rows[r] = x->values + (int64_t)(first + r) * m->columns;
    load_acc(a, acc, count);
    const int bytes = kind == GM_F32 ? 128 : 64;
    const uint8_t *w = panel + (int64_t)(begin / 2) * bytes;
    for (int k = begin; k < end; k += 2, w += bytes) {
        __m256 even[2], odd[2];
        for (int line = 0; line < bytes; line += 64) _mm_prefetch((const char *)w + AHEAD + line, _MM_HINT_T0);
        for (int h = 0; h < 2; h++) widen(w, h, kind, even + h, odd + h);
#pragma GCC unroll 5
        for (int r = 0; r < count; r++) {
            __m256 x0 = ones_in(rows[r] + k), x1 = ones_in(rows[r] + k + 1);
            for (int h = 0; h < 2; h++) a[r][h] = _mm256_fmadd_ps(even[h], x0, a[r][h]);
            for (int h = 0; h < 2; h++) a[r][h] = _mm256_fmadd_ps(odd[h], x1, a[r][h]);
        }
    }
    store_acc(a, acc, count);
}

ALWAYS void q8(int count, const gm_matrix *m, const uint8_t *panel, const gm_rows *x, int first, int begin, int end,
               float *acc) {
    __m256 a[MOST][2];
    const __m256i one = _mm256_set1_epi16(1);
    const places at = find(m, x, first, count);
    load_acc(a, acc, count);
    for (int b = begin / GM_BLOCK; b < end / GM_BLOCK; b++) {
        const uint8_t *w = panel + (int64_t)b * GM_Q8_BYTES;
        __m256i sum[MOST][2];
        for (int r = 0; r < count; r++) sum[r][0] = sum[r][1] = _mm256_setzero_si256();
#pragma GCC unroll 8
        for (int j = 0; j < 8; j++) {
            _mm_prefetch((const char *)w + AHEAD + 64 * j, _MM_HINT_T0);
            __m256i weights[2], size[2]; /* |w| times x with the sign of w: the left factor is unsigned */
            for (int h = 0; h < 2; h++) {
                weights[h] = _mm256_load_si256((const __m256i *)(w + 32 + 64 * j) + h);
                size[h] = _mm256_abs_epi8(weights[h]);
            }
#pragma GCC unroll 5
            for (int r = 0; r < count; r++) {
                __m256i codes = four_codes(at.codes[r] + GM_BLOCK * b + 4 * j);
                for (int h = 0; h < 2; h++) {
                    __m256i pairs = _mm256_maddubs_epi16(size[h], _mm256_sign_epi8(codes, weights[h]));
                    sum[r][h] = _mm256_add_epi32(sum[r][h], _mm256_madd_epi16(pairs, one));
                    SETTLED(sum[r][h]);
                }
            }
        }
        __m256 scale[2] = {scale_of(w, 0), scale_of(w, 1)};
#pragma GCC unroll 5
        for (int r = 0; r < count; r++) {
            __m256 own = ones_in(at.scales[r] + b);
            for (int h = 0; h < 2; h++)
                a[r][h] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum[r][h]), _mm256_mul_ps(scale[h], own), a[r][h]);
        }
    }
    store_acc(a, acc, count);
}

ALWAYS void q4(int count, const gm_matrix *m, const uint8_t *panel, const gm_rows *x, int first, int begin, int end,
               float *acc) {
    __m256 a[MOST][2];
    const __m256i one = _mm256_set1_epi16(1), low = _mm256_set1_epi8(15);
    const __m256 middle = _mm256_set1_ps(8);
    const places at = find(m, x, first, count);
    load_acc(a, acc, count);
    for (int b = begin / GM_BLOCK; b < end / GM_BLOCK; b++) {
        const uint8_t *w = panel + (int64_t)b * GM_Q4_BYTES;
        __m256i sum[MOST][2]; /* eight products of at most 15 * 127, twice: below 2^15 */
        for (int r = 0; r < count; r++) sum[r][0] = sum[r][1] = _mm256_setzero_si256();
#pragma GCC unroll 4
        for (int j = 0; j < 4; j++) {
            _mm_prefetch((const char *)w + AHEAD + 64 * j, _MM_HINT_T0);
            __m256i lower[2], upper[2];
            for (int h = 0; h < 2; h++) {
                __m256i packed = _mm256_load_si256((const __m256i *)(w + 32 + 64 * j) + h);
                lower[h] = _mm256_and_si256(packed, low);
                upper[h] = _mm256_and_si256(_mm256_srli_epi16(packed, 4), low);
            }
#pragma GCC unroll 5
            for (int r = 0; r < count; r++) {
                const int8_t *c = at.codes[r] + GM_BLOCK * b + 4 * j;
                __m256i x0 = four_codes(c), x1 = four_codes(c + 16);
                for (int h = 0; h < 2; h++) {
                    sum[r][h] = _mm256_add_epi16(sum[r][h], _mm256_maddubs_epi16(lower[h], x0));
                    sum[r][h] = _mm256_add_epi16(sum[r][h], _mm256_maddubs_epi16(upper[h], x1));
                    SETTLED(sum[r][h]);
                }
            }
        }
        __m256 scale[2] = {scale_of(w, 0), scale_of(w, 1)};
#pragma GCC unroll 5
        for (int r = 0; r < count; r++) {
            __m256 own = ones_in(at.scales[r] + b), offset = _mm256_mul_ps(ones_in(at.offsets[r] + b), middle);
            for (int h = 0; h < 2; h++) {
                __m256 dot = _mm256_cvtepi32_ps(_mm256_madd_epi16(sum[r][h], one));
                a[r][h] = _mm256_fmadd_ps(_mm256_fmadd_ps(dot, own, offset), scale[h], a[r][h]);
            }
        }
    }
    store_acc(a, acc, count);
}

#define BF16(n) floats(GM_BF16, n, m, panel, x, first, begin, end, acc)
#define F16(n) floats(GM_F16, n, m, panel, x, first, begin, end, acc)
#define F32(n) floats(GM_F32, n, m, panel, x, first, begin, end, acc)
#define Q8(n) q8(n, m, panel, x, first, begin, end, acc)
#define Q4(n) q4(n, m, panel, x, first, begin, end, acc)
KERNEL(gm_avx2_bf16, BF16)
KERNEL(gm_avx2_f16, F16)
KERNEL(gm_avx2_f32, F32)
static KERNEL(q8_panel, Q8)
static KERNEL(q4_panel, Q4)

const gm_isa gm_avx2 = {"AVX2",
                        MOST,
                        {gm_avx2_bf16, gm_avx2_f16, gm_avx2_f32, q8_panel, q4_panel, gm_avx2_q4k, gm_avx2_q5k, gm_avx2_q6k}};
#pragma GCC pop_options
#endif
