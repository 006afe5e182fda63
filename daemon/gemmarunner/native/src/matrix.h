/* A matrix [rows, columns] that activations are multiplied with, cut into panels of 16 rows.
 *
 *   GM_BF16  [panels][columns / 2][16 rows][2]  the upper half of a float32
 *   GM_F16   the same of float16
 *   GM_F32   [panels][columns][16 rows]
 *   GM_Q8    [panels][columns / 32] blocks of 544 bytes: 16 float16 scales, then
 *            [8][16 rows][4 columns] int8
 *   GM_Q4    [panels][columns / 32] blocks of 288 bytes: 16 float16 scales, then
 *            [4][16 rows][4 columns] bytes: columns 4j.. below, columns 16 + 4j.. in the upper bits
 *   GM_Q4K   [panels][columns / 256] super-blocks of 2368 bytes: 16 float16 scales, 16 float16
 *            minima, then [8 blocks][16 rows][a scale, a minimum] bytes, then [8 blocks][4][16 rows][4 columns] bytes
 *            as those of Q4
 *   GM_Q5K   the same, 2880 bytes, and then [8 blocks][16 rows][4] bytes: bit 4 c + j of byte i is
 *            the fifth of column 16 c + 4 j + i
 *   GM_Q6K   [panels][columns / 256] super-blocks of 3360 bytes: 16 float16 scales, then [8 blocks]
 *            [16 rows][2] int8 scales, each of 16 columns, then bytes as those of Q4, then
 *            [8 blocks][2][16 rows][4] bytes: bits 2 j of byte i of half c are the upper two of
 *            column 16 c + 4 j + i
 *
 * A weight of Q8 is scale * code, of Q4 scale * (code - 8), as in GGML's Q8_0 and Q4_0; of Q4K and Q5K
 * d * scale * code - dmin * minimum, of Q6K d * scale * (code - 32), as in GGML's K formats, whose scales of 6 bits
 * take a byte here. So one panel is one stream of memory, and a vector's lanes are rows: nothing
 * is summed across lanes.
 */
#ifndef GM_MATRIX_H
#define GM_MATRIX_H

#include <stdint.h>

enum { GM_BF16, GM_F16, GM_F32, GM_Q8, GM_Q4, GM_Q4K, GM_Q5K, GM_Q6K, GM_KINDS };
enum { GM_PANEL = 16, GM_BLOCK = 32, GM_SUPER = 256, GM_Q8_BYTES = 544, GM_Q4_BYTES = 288 };

/* Where the parts of a K format's super-block begin, in bytes. */
enum { GM_K_PAIRS = 16 * GM_PANEL, GM_K_CODES = GM_SUPER / 2 * GM_PANEL };
static inline int gm_k_has_minima(int kind) { return kind != GM_Q6K; }
static inline int gm_k_pairs(int kind) { return gm_k_has_minima(kind) ? 4 * GM_PANEL : 2 * GM_PANEL; }
static inline int gm_k_codes(int kind) { return gm_k_pairs(kind) + GM_K_PAIRS; }
static inline int gm_k_high(int kind) { return gm_k_codes(kind) + GM_K_CODES; }
static inline int gm_k_high_bits(int kind) { return kind - GM_Q4K; }
static inline int gm_k_bytes(int kind) { return gm_k_high(kind) + gm_k_high_bits(kind) * GM_SUPER / 8 * GM_PANEL; }

typedef struct gm_matrix {
    int32_t kind;
    int32_t rows, columns;
    const uint8_t *data;           /* aligned to 64 bytes */
    const struct gm_matrix *below; /* whose rows follow these, or NULL: quantized too if this is, or neither */
} gm_matrix;

/* Rows with those of all that is below. */
static inline int gm_all_rows(const gm_matrix *m) {
    int rows = 0;
    for (; m; m = m->below) rows += m->rows;
    return rows;
}

/* Bytes from one panel to the next. */
static inline int64_t gm_panel_bytes(const gm_matrix *m) {
    switch (m->kind) {
    case GM_Q8: return (int64_t)(m->columns / GM_BLOCK) * GM_Q8_BYTES;
    case GM_Q4: return (int64_t)(m->columns / GM_BLOCK) * GM_Q4_BYTES;
    case GM_Q4K:
    case GM_Q5K:
    case GM_Q6K: return (int64_t)(m->columns / GM_SUPER) * gm_k_bytes(m->kind);
    default: return (int64_t)m->columns * GM_PANEL * (m->kind == GM_F32 ? 4 : 2);
    }
}

/* Activations [count, columns] as the kernels of a kind read them. */
typedef struct {
    const float *values;   /* [count, columns], for weights that are not quantized */
    const int8_t *codes;   /* [count, columns], for quantized ones: value = scale * code */
    const float *scales;   /* [count, columns / 32] */
    const float *offsets;  /* [count, columns / 32]: minus the sum of a block's values, for codes that have a middle */
    const int16_t *middles; /* [count, columns / 16, 2]: of codes less 32, what that takes off 16 columns' product: in
                               columns 0 and 1 of each four, and in columns 2 and 3 */
} gm_rows;

/* acc[count][16] += the products of one panel's columns [begin, end) with `count` rows; begin and end are
 * multiples of 32, of 256 for K formats, or of 2 where the matrix ends and is not quantized. A row's sums are the same bit for bit for every `count` and every cut of the columns. */
typedef void (*gm_panel_kernel)(const gm_matrix *m, const uint8_t *panel, const gm_rows *x, int first, int count,
                                int begin, int end, float *acc);

typedef struct {
    const char *name;
    int most_rows; /* of one call */
    gm_panel_kernel kernels[GM_KINDS];
} gm_isa;

/* Compilers know AVX-VNNI since GCC 11 and Clang 12. */
#if defined(__x86_64__) && (defined(__clang__) ? __clang_major__ >= 12 : __GNUC__ >= 11)
#define GM_HAS_AVXVNNI
#endif

extern const gm_isa gm_avx2, gm_avxvnni, gm_avx512;
const gm_isa *gm_best_isa(void); /* NULL: this processor has none */

#endif
