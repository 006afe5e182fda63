/* Products of one panel with up to five rows, for x86 with AVX2 and its VNNI: processors without AVX-512 that sum
 * four products of bytes at once. Weights of 16 and 32 bits are multiplied as on any AVX2. */
#include "matrix.h"

#if defined(GM_HAS_AVXVNNI)
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c,avxvnni")
#include "panel256.h"

/* Codes of Q8 become unsigned by adding 128; what that, or Q4's middle of 8, adds to a block is taken off again. */
ALWAYS void quantized(int kind, int count, const gm_matrix *m, const uint8_t *panel, const gm_rows *x, int first,
                      int begin, int end, float *acc) {
    __m256 a[MOST][2];
    const int64_t bytes = kind == GM_Q8 ? GM_Q8_BYTES : GM_Q4_BYTES;
    const int vectors = kind == GM_Q8 ? 8 : 4;
    const __m256i top = _mm256_set1_epi8((char)0x80), low = _mm256_set1_epi8(15);
    const __m256 middle = _mm256_set1_ps(kind == GM_Q8 ? 128 : 8);
    const places at = find(m, x, first, count);
    load_acc(a, acc, count);
    for (int b = begin / GM_BLOCK; b < end / GM_BLOCK; b++) {
        const uint8_t *w = panel + b * bytes;
        __m256i sum[MOST][2];
        for (int r = 0; r < count; r++) sum[r][0] = sum[r][1] = _mm256_setzero_si256();
        for (int j = 0; j < vectors; j++) {
            _mm_prefetch((const char *)w + AHEAD + 64 * j, _MM_HINT_T0);
            __m256i lower[2], upper[2];
            for (int h = 0; h < 2; h++) {
                __m256i codes = _mm256_load_si256((const __m256i *)(w + 32 + 64 * j) + h);
                lower[h] = kind == GM_Q8 ? _mm256_xor_si256(codes, top) : _mm256_and_si256(codes, low);
                upper[h] = _mm256_and_si256(_mm256_srli_epi16(codes, 4), low);
            }
#pragma GCC unroll 5
            for (int r = 0; r < count; r++) {
                const int8_t *c = at.codes[r] + GM_BLOCK * b + 4 * j;
                __m256i x0 = four_codes(c);
                for (int h = 0; h < 2; h++) sum[r][h] = _mm256_dpbusd_avx_epi32(sum[r][h], lower[h], x0);
                if (kind == GM_Q8) continue;
                __m256i x1 = four_codes(c + 16);
                for (int h = 0; h < 2; h++) sum[r][h] = _mm256_dpbusd_avx_epi32(sum[r][h], upper[h], x1);
            }
        }
        __m256 scale[2] = {scale_of(w, 0), scale_of(w, 1)};
#pragma GCC unroll 5
        for (int r = 0; r < count; r++) {
            __m256 own = ones_in(at.scales[r] + b), offset = _mm256_mul_ps(ones_in(at.offsets[r] + b), middle);
            for (int h = 0; h < 2; h++)
                a[r][h] = _mm256_fmadd_ps(_mm256_fmadd_ps(_mm256_cvtepi32_ps(sum[r][h]), own, offset), scale[h], a[r][h]);
        }
    }
    store_acc(a, acc, count);
}

#define Q8(n) quantized(GM_Q8, n, m, panel, x, first, begin, end, acc)
#define Q4(n) quantized(GM_Q4, n, m, panel, x, first, begin, end, acc)
static KERNEL(q8_panel, Q8)
static KERNEL(q4_panel, Q4)

const gm_isa gm_avxvnni = {"AVX2 with VNNI",
                           MOST,
                           {gm_avx2_bf16, gm_avx2_f16, gm_avx2_f32, q8_panel, q4_panel, gm_avx2_q4k, gm_avx2_q5k, gm_avx2_q6k}};
#pragma GCC pop_options
#endif
