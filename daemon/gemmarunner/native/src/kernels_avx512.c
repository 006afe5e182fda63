/* Products of one panel with up to eight rows, for x86 with AVX-512 and its VNNI: a panel's 16 rows are one vector. */
#include "panel512.h"

#if defined(__x86_64__)
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,f16c")

/* Weights of a panel in two neighbouring columns. */
ALWAYS void widen(const uint8_t *pair, int kind, __m512 *even, __m512 *odd) {
    if (kind == GM_F32) {
        *even = _mm512_load_ps(pair);
        *odd = _mm512_load_ps(pair + 64);
        return;
    }
    __m512i words = _mm512_load_si512(pair);
    if (kind == GM_BF16) {
        *even = _mm512_castsi512_ps(_mm512_slli_epi32(words, 16));
        *odd = _mm512_castsi512_ps(_mm512_and_si512(words, _mm512_set1_epi32((int)0xffff0000)));
        return;
    }
    *even = _mm512_cvtph_ps(_mm512_cvtepi32_epi16(words));
    *odd = _mm512_cvtph_ps(_mm512_cvtepi32_epi16(_mm512_srli_epi32(words, 16)));
}

/* Even and odd columns are summed apart in blocks of 32, so that no chain of sums holds one row up. */
ALWAYS void floats(int kind, int count, const gm_matrix *m, const uint8_t *panel, const gm_rows *x, int first,
                   int begin, int end, float *acc) {
    __m512 a[MOST], o[MOST];
    const int bytes = kind == GM_F32 ? 128 : 64;
    const float *rows[MOST];
    for (int r = 0; r < count; r++) {
        rows[r] = x->values + (int64_t)(first + r) * m->columns;
        a[r] = _mm512_loadu_ps(acc + 16 * r);
    }
    for (int block = begin; block < end; block += GM_BLOCK) {
        const uint8_t *w = panel + (int64_t)(block / 2) * bytes;
        for (int r = 0; r < count; r++) o[r] = _mm512_setzero_ps();
        for (int k = 0; k < GM_BLOCK && block + k < end; k += 2, w += bytes) {
            __m512 even, odd;
            for (int line = 0; line < bytes; line += 64) _mm_prefetch((const char *)w + AHEAD + line, _MM_HINT_T0);
            widen(w, kind, &even, &odd);
#pragma GCC unroll 8
            for (int r = 0; r < count; r++) {
                a[r] = _mm512_fmadd_ps(even, _mm512_set1_ps(rows[r][block + k]), a[r]);
                o[r] = _mm512_fmadd_ps(odd, _mm512_set1_ps(rows[r][block + k + 1]), o[r]);
            }
        }
        for (int r = 0; r < count; r++) a[r] = _mm512_add_ps(a[r], o[r]);
    }
    for (int r = 0; r < count; r++) _mm512_storeu_ps(acc + 16 * r, a[r]);
}

/* Codes of Q8 become unsigned by adding 128; what that, or Q4's middle of 8, adds to a block is taken off again. */
ALWAYS void quantized(int kind, int count, const gm_matrix *m, const uint8_t *panel, const gm_rows *x, int first,
                      int begin, int end, float *acc) {
    __m512 a[MOST];
    const int64_t bytes = kind == GM_Q8 ? GM_Q8_BYTES : GM_Q4_BYTES;
    const int vectors = kind == GM_Q8 ? 8 : 4;
    const __m512i top = _mm512_set1_epi8((char)0x80), low = _mm512_set1_epi8(15);
    const float middle = kind == GM_Q8 ? 128 : 8;
    const places at = find(m, x, first, count);
    for (int r = 0; r < count; r++) a[r] = _mm512_loadu_ps(acc + 16 * r);
    for (int b = begin / GM_BLOCK; b < end / GM_BLOCK; b++) {
        const uint8_t *w = panel + b * bytes;
        __m512i sum[MOST];
        for (int r = 0; r < count; r++) sum[r] = _mm512_setzero_si512();
        for (int j = 0; j < vectors; j++) {
            __m512i codes = _mm512_loadu_si512(w + 32 + 64 * j);
            _mm_prefetch((const char *)w + AHEAD + 64 * j, _MM_HINT_T0);
            if (kind == GM_Q8) {
                codes = _mm512_xor_si512(codes, top);
#pragma GCC unroll 8
                for (int r = 0; r < count; r++)
                    sum[r] = _mm512_dpbusd_epi32(sum[r], codes, four_codes(at.codes[r] + GM_BLOCK * b + 4 * j));
            } else {
                __m512i lower = _mm512_and_si512(codes, low);
                __m512i upper = _mm512_and_si512(_mm512_srli_epi16(codes, 4), low);
#pragma GCC unroll 8
                for (int r = 0; r < count; r++) {
                    const int8_t *c = at.codes[r] + GM_BLOCK * b + 4 * j;
                    sum[r] = _mm512_dpbusd_epi32(sum[r], lower, four_codes(c));
                    sum[r] = _mm512_dpbusd_epi32(sum[r], upper, four_codes(c + 16));
                }
            }
        }
        __m512 scale = scale_of(w);
#pragma GCC unroll 8
        for (int r = 0; r < count; r++) {
            __m512 dot = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum[r]), _mm512_set1_ps(at.scales[r][b]),
                                         _mm512_set1_ps(middle * at.offsets[r][b]));
            a[r] = _mm512_fmadd_ps(dot, scale, a[r]);
        }
    }
    for (int r = 0; r < count; r++) _mm512_storeu_ps(acc + 16 * r, a[r]);
}

static KERNEL(bf16_panel, floats, GM_BF16)
static KERNEL(f16_panel, floats, GM_F16)
static KERNEL(f32_panel, floats, GM_F32)
static KERNEL(q8_panel, quantized, GM_Q8)
static KERNEL(q4_panel, quantized, GM_Q4)

const gm_isa gm_avx512 = {
    "AVX-512",
    MOST,
    {bf16_panel, f16_panel, f32_panel, q8_panel, q4_panel, gm_avx512_q4k, gm_avx512_q5k, gm_avx512_q6k}};
#pragma GCC pop_options
#endif
