/* Products of one panel in a K format with up to five rows, for x86 with AVX2, FMA and F16C.
 *
 * A block of 32 columns and its scales of 6 or 8 bits are multiplied in whole numbers, which are exact.
 */
#include "matrix.h"

#if defined(__x86_64__)
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c")
#include "panel256.h"

/* What lies there is loaded anew: the compiler would rather keep it, in memory. */
#define ANEW(pointer) __asm__("" : "+r"(pointer))

ALWAYS __m256i shifted(__m256i bytes, int left) {
    return left >= 0 ? _mm256_slli_epi16(bytes, left) : _mm256_srli_epi16(bytes, -left);
}

/* Columns 16 c + 4 j and three more of a block, of eight rows: the codes as they are, from 0. */
ALWAYS __m256i codes_of(int kind, const uint8_t *super, int block, int c, int j, int h) {
    const int bits = gm_k_high_bits(kind), per = 64 * bits; /* bytes of the upper bits of a block */
    const uint8_t *at = super + gm_k_codes(kind) + 4 * 64 * block + 64 * j;
    __m256i packed = _mm256_load_si256((const __m256i *)at + h);
    __m256i low = _mm256_and_si256(shifted(packed, -4 * c), _mm256_set1_epi8(15));
    if (bits == 0) return low;
    const uint8_t *high_at = super + gm_k_high(kind) + per * block + (bits == 2 ? 64 * c : 0);
    __m256i high = _mm256_load_si256((const __m256i *)high_at + h);
    high = shifted(high, 4 - (bits == 2 ? 2 * j : 4 * c + j));
    return _mm256_or_si256(low, _mm256_and_si256(high, _mm256_set1_epi8(bits == 2 ? 0x30 : 0x10)));
}

/* How many products of codes with bytes of at most 127 fit 16 bits, two by two; Q6K's less their middle. */
ALWAYS int products_at_once(int kind) { return kind == GM_Q4K ? 8 : 4; }

/* What the middle of Q6K's codes takes off four products: sums that pass 16 bits come back with it. */
ALWAYS __m256i middle_of(const int16_t *pair) {
    int32_t both;
    memcpy(&both, pair, 4);
    return _mm256_set1_epi32(both);
}

/* Sums of a block's codes times its scales; `pairs` has each row's two bytes of the block, widened. */
ALWAYS void multiply_block(int kind, int count, const uint8_t *super, int block, const places *at, int b,
                           const __m256i *pairs, __m256i (*sum)[2]) {
    const __m256i first = _mm256_set1_epi32(0x01000100), second = _mm256_set1_epi32(0x03020302);
    const __m256i lanes = _mm256_set_epi32(0x0c0c0c0c, 0x08080808, 0x04040404, 0, 0x0c0c0c0c, 0x08080808, 0x04040404, 0);
    const int step = products_at_once(kind);
    const uint8_t *ahead = super + gm_k_codes(kind) + (4 + gm_k_high_bits(kind)) * 64 * block + AHEAD;
    __m256i few[MOST][2];
#pragma GCC unroll 8
    for (int k = 0; k < 8; k++) {
        /* What one load holds is used at once, but where each 16 columns have a scale. */
        const int c = kind == GM_Q6K ? k / 4 : k % 2, j = kind == GM_Q6K ? k % 4 : k / 2;
        __m256i codes[2];
        if (kind == GM_Q6K && k == 4) ANEW(super);
        _mm_prefetch((const char *)ahead + 64 * k, _MM_HINT_T0);
        for (int h = 0; h < 2; h++) codes[h] = codes_of(kind, super, block, c, j, h);
#pragma GCC unroll 5
        for (int r = 0; r < count; r++) {
            __m256i x = four_codes(at->codes[r] + GM_BLOCK * b + 16 * c + 4 * j);
            __m256i start = kind == GM_Q6K ? middle_of(at->middles[r] + 4 * b + 2 * c) : _mm256_setzero_si256();
            for (int h = 0; h < 2; h++) {
                few[r][h] = _mm256_add_epi16(k % step == 0 ? start : few[r][h], _mm256_maddubs_epi16(codes[h], x));
                SETTLED(few[r][h]);
            }
        }
        if (k % step < step - 1) continue;
        __m256i which = _mm256_add_epi8(lanes, kind == GM_Q6K && c ? second : first);
        for (int h = 0; h < 2; h++) {
            __m256i scale = _mm256_shuffle_epi8(pairs[h], which);
#pragma GCC unroll 5
            for (int r = 0; r < count; r++) {
                __m256i scaled = _mm256_madd_epi16(few[r][h], scale);
                sum[r][h] = k < step ? scaled : _mm256_add_epi32(sum[r][h], scaled);
            }
        }
    }
}

ALWAYS void super_block(int kind, int count, const uint8_t *super, const places *at, int number, __m256 (*a)[2]) {
    __m256 scaled[MOST][2], least[MOST][2];
    for (int r = 0; r < count; r++)
        for (int h = 0; h < 2; h++) scaled[r][h] = least[r][h] = _mm256_setzero_ps();
    for (int block = 0; block < GM_SUPER / GM_BLOCK; block++) {
        const int b = number * (GM_SUPER / GM_BLOCK) + block;
        __m256i pairs[2], sum[MOST][2];
        for (int h = 0; h < 2; h++) {
            __m128i bytes = _mm_load_si128((const __m128i *)(super + gm_k_pairs(kind) + 32 * block) + h);
            pairs[h] = kind == GM_Q6K ? _mm256_cvtepi8_epi16(bytes) : _mm256_cvtepu8_epi16(bytes);
        }
        multiply_block(kind, count, super, block, at, b, pairs, sum);
        __m256 minimum[2];
        for (int h = 0; h < 2; h++) minimum[h] = _mm256_cvtepi32_ps(_mm256_srli_epi32(pairs[h], 16));
#pragma GCC unroll 5
        for (int r = 0; r < count; r++) {
            __m256 own = ones_in(at->scales[r] + b), offset = ones_in(at->offsets[r] + b);
            for (int h = 0; h < 2; h++) {
                scaled[r][h] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum[r][h]), own, scaled[r][h]);
                if (gm_k_has_minima(kind)) least[r][h] = _mm256_fmadd_ps(minimum[h], offset, least[r][h]);
            }
        }
    }
    for (int h = 0; h < 2; h++) {
        __m256 scale = scale_of(super, h), under = scale_of(super + 2 * GM_PANEL, h);
        for (int r = 0; r < count; r++) {
            a[r][h] = _mm256_fmadd_ps(scaled[r][h], scale, a[r][h]);
            if (gm_k_has_minima(kind)) a[r][h] = _mm256_fmadd_ps(least[r][h], under, a[r][h]);
        }
    }
}

ALWAYS void supers(int kind, int count, const gm_matrix *m, const uint8_t *panel, const gm_rows *x, int first,
                   int begin, int end, float *acc) {
    __m256 a[MOST][2];
    const places at = find(m, x, first, count);
    load_acc(a, acc, count);
    for (int number = begin / GM_SUPER; number < end / GM_SUPER; number++)
        super_block(kind, count, panel + (int64_t)number * gm_k_bytes(kind), &at, number, a);
    store_acc(a, acc, count);
}

#define Q4K(n) supers(GM_Q4K, n, m, panel, x, first, begin, end, acc)
#define Q5K(n) supers(GM_Q5K, n, m, panel, x, first, begin, end, acc)
#define Q6K(n) supers(GM_Q6K, n, m, panel, x, first, begin, end, acc)
KERNEL(gm_avx2_q4k, Q4K)
KERNEL(gm_avx2_q5k, Q5K)
KERNEL(gm_avx2_q6k, Q6K)
#pragma GCC pop_options
#endif
