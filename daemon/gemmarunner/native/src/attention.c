/* Attention of few rows: two heads at a time read the keys, then the values. */
#include "attention.h"

#if defined(__x86_64__)
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c")
#include <immintrin.h>
#include <math.h>

#define ALWAYS static inline __attribute__((always_inline))
enum { LANES = 8, KEYS = 4, WIDE = 4 };

ALWAYS float across(__m256 v) {
    __m128 half = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    half = _mm_add_ps(half, _mm_movehl_ps(half, half));
    return _mm_cvtss_f32(_mm_add_ss(half, _mm_shuffle_ps(half, half, 1)));
}

/* e^x for x <= 0, within 2 units of the last place; Cephes' polynomial. */
ALWAYS __m256 exp8(__m256 x) {
    x = _mm256_max_ps(x, _mm256_set1_ps(-87.3f));
    __m256 n = _mm256_round_ps(_mm256_mul_ps(x, _mm256_set1_ps(1.44269504f)), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m256 r = _mm256_fnmadd_ps(n, _mm256_set1_ps(0.693359375f), x);
    r = _mm256_fnmadd_ps(n, _mm256_set1_ps(-2.12194440e-4f), r);
    __m256 p = _mm256_set1_ps(1.9875691500e-4f);
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.3981999507e-3f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(8.3334519073e-3f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(4.1665795894e-2f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.6666665459e-1f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(5.0000001201e-1f));
    p = _mm256_fmadd_ps(_mm256_mul_ps(p, r), r, _mm256_add_ps(r, _mm256_set1_ps(1)));
    __m256i power = _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23);
    return _mm256_mul_ps(p, _mm256_castsi256_ps(power));
}

float gm_exp(float *x, int count, float most) {
    __m256 sum = _mm256_setzero_ps(), middle = _mm256_set1_ps(most);
    int i = 0;
    for (; i + LANES <= count; i += LANES) {
        __m256 e = exp8(_mm256_sub_ps(_mm256_loadu_ps(x + i), middle));
        _mm256_storeu_ps(x + i, e);
        sum = _mm256_add_ps(sum, e);
    }
    float total = across(sum);
    for (; i < count; i++) {
        x[i] = _mm256_cvtss_f32(exp8(_mm256_set1_ps(x[i] - most)));
        total += x[i];
    }
    return total;
}

/* Products of `heads` queries with `number` neighbouring keys. */
ALWAYS void dots(const float *queries, int heads, const float *keys, int number, int width, float *scores, int stride) {
    __m256 sum[2][KEYS];
    for (int h = 0; h < heads; h++)
        for (int k = 0; k < number; k++) sum[h][k] = _mm256_setzero_ps();
    for (int i = 0; i < width; i += LANES)
        for (int k = 0; k < number; k++) {
            __m256 key = _mm256_loadu_ps(keys + (int64_t)k * width + i);
            for (int h = 0; h < heads; h++)
                sum[h][k] = _mm256_fmadd_ps(_mm256_loadu_ps(queries + h * width + i), key, sum[h][k]);
        }
    for (int h = 0; h < heads; h++)
        for (int k = 0; k < number; k++) scores[h * stride + k] = across(sum[h][k]);
}

ALWAYS void score(const float *queries, int heads, const float *keys, int count, int width, float *scores) {
    int k = 0;
    for (; k + KEYS <= count; k += KEYS) dots(queries, heads, keys + (int64_t)k * width, KEYS, width, scores + k, count);
    for (; k < count; k++) dots(queries, heads, keys + (int64_t)k * width, 1, width, scores + k, count);
}

/* `vectors` times 8 columns of the heads' mixtures of values. */
ALWAYS void mix(const float *scores, int heads, const float *values, int count, int width, int vectors,
                const float *shares, float *out) {
    __m256 sum[2][WIDE];
    for (int h = 0; h < heads; h++)
        for (int i = 0; i < vectors; i++) sum[h][i] = _mm256_setzero_ps();
    for (int k = 0; k < count; k++)
        for (int i = 0; i < vectors; i++) {
            __m256 value = _mm256_loadu_ps(values + (int64_t)k * width + LANES * i);
            for (int h = 0; h < heads; h++)
                sum[h][i] = _mm256_fmadd_ps(_mm256_broadcast_ss(scores + h * count + k), value, sum[h][i]);
        }
    for (int h = 0; h < heads; h++)
        for (int i = 0; i < vectors; i++)
            _mm256_storeu_ps(out + h * width + LANES * i, _mm256_mul_ps(sum[h][i], _mm256_set1_ps(shares[h])));
}

ALWAYS void attend(const float *queries, int heads, const float *keys, const float *values, int count, int width,
                   float *scores, float *out) {
    float shares[2];
    score(queries, heads, keys, count, width, scores);
    for (int h = 0; h < heads; h++) {
        float most = -INFINITY, *mine = scores + (int64_t)h * count;
        for (int k = 0; k < count; k++) most = fmaxf(most, mine[k]);
        shares[h] = 1.0f / gm_exp(mine, count, most);
    }
    int i = 0;
    for (; i + LANES * WIDE <= width; i += LANES * WIDE)
        mix(scores, heads, values + i, count, width, WIDE, shares, out + i);
    for (; i < width; i += LANES) mix(scores, heads, values + i, count, width, 1, shares, out + i);
}

void gm_attend(const float *queries, int heads, const float *keys, const float *values, int count, int width,
               float *scores, float *out) {
    for (int h = 0; h < heads; h += 2) {
        const float *mine = queries + (int64_t)h * width;
        if (h + 1 < heads)
            attend(mine, 2, keys, values, count, width, scores, out + (int64_t)h * width);
        else
            attend(mine, 1, keys, values, count, width, scores, out + (int64_t)h * width);
    }
}
#pragma GCC pop_options
#else /* no kernels call these yet, see isa.c; the library must still load */
#include <math.h>

float gm_exp(float *x, int count, float most) {
    float total = 0;
    for (int i = 0; i < count; i++) total += x[i] = expf(x[i] - most);
    return total;
}

void gm_attend(const float *queries, int heads, const float *keys, const float *values, int count, int width,
               float *scores, float *out) {
    (void)queries, (void)heads, (void)keys, (void)values, (void)count, (void)width, (void)scores, (void)out;
}
#endif
