/* Products of one panel in a K format with up to eight rows, for x86 with AVX-512 and its VNNI.
 *
 * A block of 32 columns and its scales of 6 or 8 bits are multiplied in whole numbers, which are exact.
 */
#include "panel512.h"

#if defined(__x86_64__)
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,f16c")

ALWAYS __m512i shifted(__m512i bytes, int left) {
    return left >= 0 ? _mm512_slli_epi16(bytes, left) : _mm512_srli_epi16(bytes, -left);
}

/* Columns 16 c + 4 j and three more of a block: the codes as they are, from 0. */
ALWAYS __m512i codes_of(int kind, const uint8_t *super, int block, int c, int j) {
    const int bits = gm_k_high_bits(kind);
    __m512i packed = _mm512_loadu_si512(super + gm_k_codes(kind) + 4 * 64 * block + 64 * j);
    __m512i low = _mm512_and_si512(shifted(packed, -4 * c), _mm512_set1_epi8(15));
    if (bits == 0) return low;
    __m512i high = _mm512_loadu_si512(super + gm_k_high(kind) + 64 * bits * block + (bits == 2 ? 64 * c : 0));
    high = shifted(high, 4 - (bits == 2 ? 2 * j : 4 * c + j));
    return _mm512_or_si512(low, _mm512_and_si512(high, _mm512_set1_epi8(bits == 2 ? 0x30 : 0x10)));
}

/* What the middle of Q6K's codes takes off 16 columns. */
ALWAYS __m512i middle_of(const int16_t *pair) {
    return _mm512_set1_epi32(pair[0] + pair[1]);
}

/* Sums of 16 columns' codes, of each row. */
ALWAYS void multiply_half(int kind, int count, const uint8_t *super, int block, const places *at, int b, int c,
                          __m512i *sum) {
    const uint8_t *ahead = super + gm_k_codes(kind) + (4 + gm_k_high_bits(kind)) * 64 * block + AHEAD;
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) {
        _mm_prefetch((const char *)ahead + 64 * (4 * c + j), _MM_HINT_T0);
        __m512i codes = codes_of(kind, super, block, c, j);
#pragma GCC unroll 8
        for (int r = 0; r < count; r++)
            sum[r] = _mm512_dpbusd_epi32(sum[r], codes, four_codes(at->codes[r] + GM_BLOCK * b + 16 * c + 4 * j));
    }
}

/* Sums of a block's codes times its scales; `pairs` has each row's two bytes of the block, widened. */
ALWAYS void multiply_block(int kind, int count, const uint8_t *super, int block, const places *at, int b,
                           __m512i pairs, __m512i *sum) {
    const __m512i first = _mm512_srai_epi32(_mm512_slli_epi32(pairs, 16), 16), second = _mm512_srai_epi32(pairs, 16);
    __m512i half[MOST];
    for (int r = 0; r < count; r++) sum[r] = kind == GM_Q6K ? middle_of(at->middles[r] + 4 * b) : _mm512_setzero_si512();
    multiply_half(kind, count, super, block, at, b, 0, sum);
    if (kind == GM_Q6K)
        for (int r = 0; r < count; r++) half[r] = middle_of(at->middles[r] + 4 * b + 2);
    multiply_half(kind, count, super, block, at, b, 1, kind == GM_Q6K ? half : sum);
    for (int r = 0; r < count; r++) {
        sum[r] = _mm512_mullo_epi32(sum[r], first);
        if (kind == GM_Q6K) sum[r] = _mm512_add_epi32(sum[r], _mm512_mullo_epi32(half[r], second));
    }
}

ALWAYS void super_block(int kind, int count, const uint8_t *super, const places *at, int number, __m512 *a) {
    __m512 scaled[MOST], least[MOST];
    for (int r = 0; r < count; r++) scaled[r] = least[r] = _mm512_setzero_ps();
    for (int block = 0; block < GM_SUPER / GM_BLOCK; block++) {
        const int b = number * (GM_SUPER / GM_BLOCK) + block;
        __m256i bytes = _mm256_loadu_si256((const __m256i *)(super + gm_k_pairs(kind) + 32 * block));
        __m512i pairs = kind == GM_Q6K ? _mm512_cvtepi8_epi16(bytes) : _mm512_cvtepu8_epi16(bytes);
        __m512i sum[MOST];
        multiply_block(kind, count, super, block, at, b, pairs, sum);
        __m512 minimum = _mm512_cvtepi32_ps(_mm512_srli_epi32(pairs, 16));
#pragma GCC unroll 8
        for (int r = 0; r < count; r++) {
            scaled[r] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum[r]), _mm512_set1_ps(at->scales[r][b]), scaled[r]);
            if (gm_k_has_minima(kind)) least[r] = _mm512_fmadd_ps(minimum, _mm512_set1_ps(at->offsets[r][b]), least[r]);
        }
    }
    __m512 scale = scale_of(super), under = scale_of(super + 2 * GM_PANEL);
    for (int r = 0; r < count; r++) {
        a[r] = _mm512_fmadd_ps(scaled[r], scale, a[r]);
        if (gm_k_has_minima(kind)) a[r] = _mm512_fmadd_ps(least[r], under, a[r]);
    }
}

ALWAYS void supers(int kind, int count, const gm_matrix *m, const uint8_t *panel, const gm_rows *x, int first,
                   int begin, int end, float *acc) {
    __m512 a[MOST];
    const places at = find(m, x, first, count);
    for (int r = 0; r < count; r++) a[r] = _mm512_loadu_ps(acc + 16 * r);
    for (int number = begin / GM_SUPER; number < end / GM_SUPER; number++)
        super_block(kind, count, panel + (int64_t)number * gm_k_bytes(kind), &at, number, a);
    for (int r = 0; r < count; r++) _mm512_storeu_ps(acc + 16 * r, a[r]);
}

KERNEL(gm_avx512_q4k, supers, GM_Q4K)
KERNEL(gm_avx512_q5k, supers, GM_Q5K)
KERNEL(gm_avx512_q6k, supers, GM_Q6K)
#pragma GCC pop_options
#endif
