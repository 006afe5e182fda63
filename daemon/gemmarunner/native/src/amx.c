/* Prompts of bf16 matrices by tile instructions; see amx.h.
 *
 * A panel's 32 columns of 16 rows are one tile as they lie. Activations are brought into tiles of 16 rows and 32
 * columns, in two parts that are multiplied one after the other, so that no more is lost than in sums of float32
 * numbers: [rows / 16][columns / 32][upper, lower][16][32] bf16.
 */
#define _GNU_SOURCE
#include "amx.h"

enum { TILE_ROWS = 16, TILE_COLUMNS = 32, TILE_BYTES = 1024, STEP = 32 /* tiles of columns that stay in the cache */ };

static int groups_of(int count) { return (count + GM_AMX_ROWS - 1) / GM_AMX_ROWS * 2; }

int64_t gm_amx_bytes(int count, int columns) {
    return (int64_t)groups_of(count) * (columns / TILE_COLUMNS) * 2 * TILE_BYTES;
}

int64_t gm_amx_sum_bytes(int count) {
    return (int64_t)GM_AMX_PANELS * groups_of(count) * TILE_ROWS * GM_PANEL * (int64_t)sizeof(float);
}

#if defined(__x86_64__) && defined(__linux__) && (defined(__clang__) ? __clang_major__ >= 12 : __GNUC__ >= 11)
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512bf16,amx-tile,amx-bf16")
#include <cpuid.h>
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { PERMIT = 0x1023, TILE_DATA = 18 };

typedef struct {
    uint8_t palette, start, unused[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} __attribute__((packed, aligned(64))) shapes;

static int has_tiles(void) {
    unsigned a, b, c, d;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return 0;
    const unsigned wanted = 1u << 22 | 1u << 24; /* AMX-BF16, AMX-TILE */
    if ((d & wanted) != wanted || !__get_cpuid_count(7, 1, &a, &b, &c, &d)) return 0;
    return (a >> 5 & 1) && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw"); /* AVX512_BF16 */
}

int gm_amx_ready(void) {
    static int known = -1; /* threads that come together write the same */
    if (known < 0) known = has_tiles() && syscall(SYS_arch_prctl, PERMIT, TILE_DATA) == 0;
    return known;
}

void gm_amx_settle(const float *x, int row, int columns, uint8_t *tiles) {
    const int steps = columns / TILE_COLUMNS;
    uint8_t *to = tiles + (int64_t)(row / TILE_ROWS) * steps * 2 * TILE_BYTES + row % TILE_ROWS * 64;
    for (int k = 0; k < columns; k += 16) {
        uint8_t *here = to + (int64_t)(k / TILE_COLUMNS) * 2 * TILE_BYTES + k % TILE_COLUMNS * 2;
        __m512 all = _mm512_loadu_ps(x + k);
        __m256i upper = (__m256i)_mm512_cvtneps_pbh(all);
        __m512 first = _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(upper), 16));
        _mm256_storeu_si256((__m256i *)here, upper);
        _mm256_storeu_si256((__m256i *)(here + TILE_BYTES), (__m256i)_mm512_cvtneps_pbh(_mm512_sub_ps(all, first)));
    }
}

/* Two panels times two groups of rows, over `steps` tiles of columns; the sums of four tiles go on where they are. */
static void block(const uint8_t *const panels[2], const uint8_t *const rows[2], int steps, float *const sums[4]) {
    const int bytes = TILE_BYTES;
    _tile_loadd(0, sums[0], 64);
    _tile_loadd(1, sums[1], 64);
    _tile_loadd(2, sums[2], 64);
    _tile_loadd(3, sums[3], 64);
    for (int64_t k = 0; k < steps; k++) {
        _tile_loadd(4, panels[0] + k * bytes, 64);
        _tile_loadd(5, panels[1] + k * bytes, 64);
        _tile_loadd(6, rows[0] + 2 * k * bytes, 64);
        _tile_loadd(7, rows[1] + 2 * k * bytes, 64);
        _tile_dpbf16ps(0, 6, 4);
        _tile_dpbf16ps(1, 7, 4);
        _tile_dpbf16ps(2, 6, 5);
        _tile_dpbf16ps(3, 7, 5);
        _tile_loadd(6, rows[0] + (2 * k + 1) * bytes, 64);
        _tile_loadd(7, rows[1] + (2 * k + 1) * bytes, 64);
        _tile_dpbf16ps(0, 6, 4);
        _tile_dpbf16ps(1, 7, 4);
        _tile_dpbf16ps(2, 6, 5);
        _tile_dpbf16ps(3, 7, 5);
    }
    _tile_stored(0, sums[0], 64);
    _tile_stored(1, sums[1], 64);
    _tile_stored(2, sums[2], 64);
    _tile_stored(3, sums[3], 64);
}

void gm_amx_multiply(const gm_matrix *m, int first, int panels, const uint8_t *tiles, int count, float *sums) {
    const int all = m->columns / TILE_COLUMNS, groups = groups_of(count), cells = TILE_ROWS * GM_PANEL;
    const int64_t panel_bytes = gm_panel_bytes(m), group_bytes = (int64_t)all * 2 * TILE_BYTES;
    float spare[2][TILE_ROWS * GM_PANEL] __attribute__((aligned(64))) = {{0}};
    shapes tile_shapes = {.palette = 1};
    for (int tile = 0; tile < 8; tile++) tile_shapes.row_bytes[tile] = 64, tile_shapes.rows[tile] = TILE_ROWS;
    _tile_loadconfig(&tile_shapes);
    __builtin_memset(sums, 0, sizeof(float) * (size_t)panels * (size_t)groups * (size_t)cells);
    for (int begin = 0; begin < all; begin += STEP)
        for (int panel = 0; panel < panels; panel += 2)
            for (int group = 0; group < groups; group += 2) {
                const int steps = all - begin < STEP ? all - begin : STEP, paired = panel + 1 < panels;
                const uint8_t *one = m->data + (first + panel) * panel_bytes + (int64_t)begin * TILE_BYTES;
                const uint8_t *rows = tiles + group * group_bytes + (int64_t)begin * 2 * TILE_BYTES;
                float *sum = sums + ((int64_t)panel * groups + group) * cells, *next = sum + (int64_t)groups * cells;
                block((const uint8_t *[2]){one, paired ? one + panel_bytes : one},
                      (const uint8_t *[2]){rows, rows + group_bytes}, steps,
                      (float *[4]){sum, sum + cells, paired ? next : spare[0], paired ? next + cells : spare[1]});
            }
    _tile_release();
}
#pragma GCC pop_options
#else
int gm_amx_ready(void) { return 0; }

void gm_amx_settle(const float *x, int row, int columns, uint8_t *tiles) { (void)x, (void)row, (void)columns, (void)tiles; }

void gm_amx_multiply(const gm_matrix *m, int first, int panels, const uint8_t *tiles, int count, float *sums) {
    (void)m, (void)first, (void)panels, (void)tiles, (void)count, (void)sums;
}
#endif
