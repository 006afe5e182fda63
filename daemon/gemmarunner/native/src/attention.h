/* Attention of one row's query heads that share keys and values. */
#ifndef GM_ATTENTION_H
#define GM_ATTENTION_H

#include <stdint.h>

/* out [heads, width] of queries [heads, width] over `count` keys and values [count, width]; nothing is scaled.
 * `scores` has room for 2 * count. A head's result hangs on no other head. */
void gm_attend(const float *queries, int heads, const float *keys, const float *values, int count, int width,
               float *scores, float *out);

/* x[i] = exp(x[i] - most); returns their sum, in an order that `count` alone decides. */
float gm_exp(float *x, int count, float most);

#endif
