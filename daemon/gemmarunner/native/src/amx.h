/* Prompts of bf16 matrices by tile instructions, on processors and systems that have them. */
#ifndef GM_AMX_H
#define GM_AMX_H

#include "matrix.h"

/* More rows than rounds ever have: only prompts, whose rows nobody compares with others' bit for bit, come this way. */
enum { GM_AMX_LEAST = 65, GM_AMX_ROWS = 32, GM_AMX_PANELS = 8 };

/* Whether tiles may be used; asks the system the first time. */
int gm_amx_ready(void);

/* Bytes of `count` rows of activations as tiles, and of one thread's sums. */
int64_t gm_amx_bytes(int count, int columns);
int64_t gm_amx_sum_bytes(int count);

/* Row `row` of the activations in `tiles`, aligned to 64 bytes: two bf16 numbers whose sum is x within 2^-17 of it. */
void gm_amx_settle(const float *x, int row, int columns, uint8_t *tiles);

/* sums [panels][rows up to the next multiple of 32][16] = the products of at most GM_AMX_PANELS panels of bf16 from
 * `first` on with `count` rows; the matrix has a multiple of 32 columns. */
void gm_amx_multiply(const gm_matrix *m, int first, int panels, const uint8_t *tiles, int count, float *sums);

#endif
