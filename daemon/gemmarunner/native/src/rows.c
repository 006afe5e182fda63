/* What is done to one row alone. */
#include "rows.h"

#include "attention.h"

#include <math.h>

#if defined(__x86_64__)
#pragma GCC target("avx2,fma,f16c")
#endif

static float length_of(const float *x, int n) {
    float sums[16] = {0};
    int i = 0;
    for (; i + 16 <= n; i += 16)
        for (int j = 0; j < 16; j++) sums[j] += x[i + j] * x[i + j];
    for (; i < n; i++) sums[i % 16] += x[i] * x[i];
    for (int width = 8; width; width /= 2)
        for (int j = 0; j < width; j++) sums[j] += sums[j + width];
    return sums[0];
}

void gm_normalise(const float *x, const float *weight, float floor, int n, float *to) {
    float inverse = 1.0f / sqrtf(length_of(x, n) + floor * floor);
    for (int i = 0; i < n; i++) to[i] = x[i] * weight[i] * inverse;
}

void gm_add_normalised(float *x, const float *from, const float *weight, float floor, int n) {
    float inverse = 1.0f / sqrtf(length_of(from, n) + floor * floor);
    for (int i = 0; i < n; i++) x[i] += from[i] * weight[i] * inverse;
}

void gm_gelu_times(const float *gate, const float *up, int n, float *to) {
    float e[GM_GELU_PIECE];
    for (int i = 0; i < n; i++) {
        float u = 1.5957691216f * (gate[i] + 0.044715f * gate[i] * gate[i] * gate[i]);
        e[i] = -fabsf(u);
    }
    gm_exp(e, n, 0);
    for (int i = 0; i < n; i++) {
        float share = gate[i] >= 0 ? 1.0f / (1.0f + e[i]) : e[i] / (1.0f + e[i]);
        to[i] = gate[i] * share * up[i];
    }
}
