/* Activations and their products with a matrix, as pieces of work that threads share. */
#ifndef GM_LINEAR_H
#define GM_LINEAR_H

#include "matrix.h"
#include "pool.h"

/* Room for `count` rows of activations in the form that one matrix wants. */
typedef struct {
    int kind, columns;
    float *values;
    int8_t *codes;
    float *scales, *offsets;
    int16_t *middles;
} gm_activations;

/* Bytes of scratch for `count` rows of up to `columns` columns, whatever the kind. */
static inline int64_t gm_scratch_bytes(int count, int columns) {
    return (int64_t)count * columns * 5 + (int64_t)count * (columns / GM_BLOCK) * 16 + 192;
}

/* Activations for `m` in `scratch`; their values stand first, [count, columns]. */
gm_activations gm_activations_in(char *scratch, const gm_matrix *m, int count);

/* The values of columns [begin, end) of a row are final, in `from`: brings them into the matrix's form. */
void gm_settle(const gm_activations *a, const float *from, int row, int begin, int end);

/* This thread's share of out [count, all rows of m] = activations times m; all threads name the same queue. */
void gm_multiply(const gm_matrix *m, const gm_activations *a, int count, float *out, gm_queue *queue,
                 const gm_isa *isa);

/* Rows [begin, end) of the activations, for one of several matrices. */
typedef struct {
    int matrix, begin, end;
} gm_group;

/* The same for `count` groups, of matrices that are all of one kind and shape. */
void gm_multiply_groups(const gm_matrix *matrices, const gm_group *groups, int count, const gm_activations *a,
                        float *out, gm_queue *queue, const gm_isa *isa);

#endif
