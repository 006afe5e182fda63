/* A matrix [rows, columns] that activations are multiplied with, cut into panels of 16 rows.
 *
 *   GM_BF16  [panels][columns / 2][16 rows][2]  the upper half of a float32
 *   GM_F16   the same of float16
 *   GM_F32   [panels][columns][16 rows]
 *   GM_Q8    [panels][columns / 32] blocks of 544 bytes: 16 float16 scales, then
 *            [8][16 rows][4 columns] int8
 *   GM_Q4    [panels][columns / 32] blocks of 288 bytes: 16 float16 scales, then
 *            [4][16 rows][4 columns] bytes: columns 4j.. below, columns 16 + 4j.. in the upper bits
 *
 * A weight of Q8 is scale * code, of Q4 scale * (code - 8), as in GGML's Q8_0 and Q4_0. So one
 * panel is one stream of memory, and a vector's lanes are rows: nothing is summed across lanes.
 */
#ifndef GM_MATRIX_H
#define GM_MATRIX_H

#include <stdint.h>

enum { GM_BF16, GM_F16, GM_F32, GM_Q8, GM_Q4, GM_KINDS };
enum { GM_PANEL = 16, GM_BLOCK = 32, GM_Q8_BYTES = 544, GM_Q4_BYTES = 288 };

typedef struct {
    int32_t kind;
    int32_t rows, columns;
    const uint8_t *data; /* aligned to 64 bytes */
} gm_matrix;

/* Bytes from one panel to the next. */
static inline int64_t gm_panel_bytes(const gm_matrix *m) {
    switch (m->kind) {
    case GM_Q8: return (int64_t)(m->columns / GM_BLOCK) * GM_Q8_BYTES;
    case GM_Q4: return (int64_t)(m->columns / GM_BLOCK) * GM_Q4_BYTES;
    default: return (int64_t)m->columns * GM_PANEL * (m->kind == GM_F32 ? 4 : 2);
    }
}

/* Activations [count, columns] as the kernels of a kind read them. */
typedef struct {
    const float *values;   /* [count, columns], for weights that are not quantized */
    const int8_t *codes;   /* [count, columns], for quantized ones: value = scale * code */
    const float *scales;   /* [count, columns / 32] */
    const float *offsets;  /* [count, columns / 32]: added to a block's product, since its codes are not signed */
} gm_rows;

/* acc[count][16] += the products of one panel's columns [begin, end) with `count` rows; begin and end are
 * multiples of 32, or of 2 where the matrix ends and is not quantized. A row's sums are the same bit for bit for every `count` and every cut of the columns. */
typedef void (*gm_panel_kernel)(const gm_matrix *m, const uint8_t *panel, const gm_rows *x, int first, int count,
                                int begin, int end, float *acc);

typedef struct {
    const char *name;
    int most_rows; /* of one call */
    int middle;    /* what the kernels add to codes of Q8 to make them unsigned */
    gm_panel_kernel kernels[GM_KINDS];
} gm_isa;

/* Compilers know AVX-VNNI since GCC 11 and Clang 12. */
#if defined(__x86_64__) && (defined(__clang__) ? __clang_major__ >= 12 : __GNUC__ >= 11)
#define GM_HAS_AVXVNNI
#endif

extern const gm_isa gm_avx2, gm_avxvnni, gm_avx512;
const gm_isa *gm_best_isa(void); /* NULL: this processor has none */

#endif
