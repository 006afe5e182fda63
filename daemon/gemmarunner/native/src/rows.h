/* What is done to one row alone. */
#ifndef GM_ROWS_H
#define GM_ROWS_H

enum { GM_GELU_PIECE = 512 }; /* the most that gm_gelu_times takes at once */

/* to = x weight / hypot(|x|, floor) */
void gm_normalise(const float *x, const float *weight, float floor, int n, float *to);

/* x += from weight / hypot(|from|, floor) */
void gm_add_normalised(float *x, const float *from, const float *weight, float floor, int n);

/* to = gelu(gate) * up, gelu by tanh: x / (1 + e^(-2u)). */
void gm_gelu_times(const float *gate, const float *up, int n, float *to);

#endif
