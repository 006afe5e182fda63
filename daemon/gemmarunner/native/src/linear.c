/* Few or many rows times a matrix, by all threads: panels are taken from a queue. */
#include "linear.h"

#include "amx.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

enum { STEP = 512, BLOCK_ROWS = 96, PIECE_BYTES = 128 << 10, ROW_PIECE = 4 };

static char *aligned(char *at) { return (char *)(((uintptr_t)at + 63) & ~(uintptr_t)63); }

static int is_quantized(int kind) { return kind >= GM_Q8; }

gm_activations gm_activations_in(char *scratch, const gm_matrix *m, int count) {
    int64_t cells = (int64_t)count * m->columns, blocks = cells / GM_BLOCK;
    gm_activations a = {.kind = m->kind, .columns = m->columns};
    a.values = (float *)aligned(scratch);
    a.scales = a.values + cells;
    a.offsets = a.scales + blocks;
    a.middles = (int16_t *)(a.offsets + blocks);
    a.codes = (int8_t *)(a.middles + 4 * blocks);
    return a;
}

/* One block as int8, its greatest being 127; returns the sum of its codes. `middles`: see gm_rows. */
#if defined(__x86_64__)
#pragma GCC push_options
#pragma GCC target("avx2")
static int quantize(const float *x, int8_t *codes, float *scale, int16_t *middles) {
    const __m256 sign = _mm256_set1_ps(-0.0f);
    __m256 most = _mm256_setzero_ps();
    for (int i = 0; i < GM_BLOCK; i += 8) most = _mm256_max_ps(_mm256_andnot_ps(sign, _mm256_loadu_ps(x + i)), most);
    __m128 half = _mm_max_ps(_mm256_castps256_ps128(most), _mm256_extractf128_ps(most, 1));
    half = _mm_max_ps(half, _mm_movehl_ps(half, half));
    const float greatest = _mm_cvtss_f32(_mm_max_ss(half, _mm_shuffle_ps(half, half, 1)));
    const __m256 inverse = _mm256_set1_ps(greatest > 0 ? 127.0f / greatest : 0);
    __m256i whole[4];
    for (int i = 0; i < 4; i++) whole[i] = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + 8 * i), inverse));
    /* Of either 16 columns, neighbours 0 and 1, then 2 and 3 of each four. */
    __m256i pairs = _mm256_hadd_epi32(_mm256_add_epi32(whole[0], whole[1]), _mm256_add_epi32(whole[2], whole[3]));
    __m128i sum = _mm_add_epi32(_mm256_castsi256_si128(pairs), _mm256_extracti128_si256(pairs, 1));
    __m128i middle = _mm_sub_epi32(_mm_setzero_si128(), _mm_slli_epi32(sum, 5));
    _mm_storel_epi64((__m128i *)middles, _mm_packs_epi32(middle, middle));
    sum = _mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0x4e));
    sum = _mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0xb1));
    __m256i bytes = _mm256_packs_epi16(_mm256_packs_epi32(whole[0], whole[1]), _mm256_packs_epi32(whole[2], whole[3]));
    bytes = _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7)); /* packs keeps lanes apart */
    _mm256_storeu_si256((__m256i *)codes, bytes);
    *scale = greatest / 127.0f;
    return _mm_cvtsi128_si32(sum);
}
#pragma GCC pop_options
#else
static int quantize(const float *x, int8_t *codes, float *scale, int16_t *middles) {
    float most = 0;
    for (int i = 0; i < GM_BLOCK; i++) most = fmaxf(most, fabsf(x[i]));
    float inverse = most > 0 ? 127.0f / most : 0;
    int total = 0, pairs[4] = {0};
    for (int i = 0; i < GM_BLOCK; i++) {
        codes[i] = (int8_t)rintf(x[i] * inverse);
        total += codes[i];
        pairs[i / 16 * 2 + i / 2 % 2] += codes[i];
    }
    for (int i = 0; i < 4; i++) middles[i] = (int16_t)(-32 * pairs[i]);
    *scale = most / 127.0f;
    return total;
}
#endif

void gm_settle(const gm_activations *a, const float *from, int row, int begin, int end) {
    if (!is_quantized(a->kind)) {
        float *to = a->values + (int64_t)row * a->columns + begin;
        if (to != from) memcpy(to, from, sizeof(float) * (size_t)(end - begin));
        return;
    }
    for (int k = begin; k < end; k += GM_BLOCK, from += GM_BLOCK) {
        int64_t at = ((int64_t)row * a->columns + k) / GM_BLOCK;
        int sum = quantize(from, a->codes + at * GM_BLOCK, a->scales + at, a->middles + 4 * at);
        a->offsets[at] = (float)-sum * a->scales[at];
    }
}

/* `count` rows from `first` on times one panel. */
static void multiply(const gm_matrix *m, const gm_rows *x, const gm_isa *isa, const uint8_t *panel, int first,
                     int count, float *acc) {
    int groups = (count + isa->most_rows - 1) / isa->most_rows;
    int step = groups == 1 ? m->columns : STEP; /* several groups find the step in the cache */
    memset(acc, 0, sizeof(float) * GM_PANEL * (size_t)count);
    for (int begin = 0; begin < m->columns; begin += step) {
        int end = begin + step < m->columns ? begin + step : m->columns;
        for (int g = 0, row = 0; g < groups; g++) {
            int rows = (count - row + groups - g - 1) / (groups - g);
            isa->kernels[m->kind](m, panel, x, first + row, rows, begin, end, acc + GM_PANEL * row);
            row += rows;
        }
    }
}

/* `out` begins where the first row of the matrix writes; `stride` is between the rows of activations. */
static void write_out(const gm_matrix *m, int panel, int first, int count, const float *acc, float *out, int stride) {
    int row = panel * GM_PANEL, width = m->rows - row < GM_PANEL ? m->rows - row : GM_PANEL;
    for (int r = 0; r < count; r++)
        memcpy(out + (int64_t)(first + r) * stride + row, acc + GM_PANEL * r, sizeof(float) * (size_t)width);
}

static int panels_at_once(const gm_matrix *m) { return (int)(PIECE_BYTES / gm_panel_bytes(m)) + 1; }

static int panels_of(const gm_matrix *m) { return (m->rows + GM_PANEL - 1) / GM_PANEL; }

static int pieces_of(const gm_matrix *m) { return (panels_of(m) + panels_at_once(m) - 1) / panels_at_once(m); }

static int all_pieces_of(const gm_matrix *m) {
    int pieces = 0;
    for (; m; m = m->below) pieces += pieces_of(m);
    return pieces;
}

/* Rows [begin, end) times some panels of the matrix, or of one below it. */
static void multiply_piece(const gm_matrix *m, const gm_rows *x, int begin, int end, int piece, float *out,
                           const gm_isa *isa) {
    float acc[GM_PANEL * BLOCK_ROWS];
    const int stride = gm_all_rows(m);
    for (; piece >= pieces_of(m); m = m->below) piece -= pieces_of(m), out += m->rows;
    const int64_t bytes = gm_panel_bytes(m);
    const int panels = panels_of(m), at_once = panels_at_once(m);
    for (int panel = piece * at_once; panel < panels && panel < (piece + 1) * at_once; panel++)
        for (int first = begin; first < end; first += BLOCK_ROWS) {
            int rows = end - first < BLOCK_ROWS ? end - first : BLOCK_ROWS;
            multiply(m, x, isa, m->data + panel * bytes, first, rows, acc);
            write_out(m, panel, first, rows, acc, out, stride);
        }
}

void gm_multiply_groups(const gm_matrix *matrices, const gm_group *groups, int count, const gm_activations *a,
                        float *out, gm_queue *queue, const gm_isa *isa) {
    const gm_rows x = {a->values, a->codes, a->scales, a->offsets, a->middles};
    int pieces = all_pieces_of(matrices), task;
    while ((task = gm_take(queue, count * pieces)) >= 0) {
        const gm_group *group = groups + task / pieces;
        multiply_piece(matrices + group->matrix, &x, group->begin, group->end, task % pieces, out, isa);
    }
}

void gm_multiply(const gm_matrix *m, const gm_activations *a, int count, float *out, gm_queue *queue,
                 const gm_isa *isa) {
    gm_multiply_groups(m, &(gm_group){0, 0, count}, 1, a, out, queue, isa);
}

typedef struct {
    const gm_matrix *m;
    const float *x;
    gm_activations a;
    uint8_t *tiles; /* or NULL */
    float *sums;    /* of each thread */
    int count;
    float *out;
    gm_queue rows, panels;
} product;

static void settle_rows(product *p) {
    int columns = p->m->columns, piece, pieces = (p->count + ROW_PIECE - 1) / ROW_PIECE;
    while ((piece = gm_take(&p->rows, pieces)) >= 0)
        for (int row = piece * ROW_PIECE; row < p->count && row < (piece + 1) * ROW_PIECE; row++)
            if (p->tiles)
                gm_amx_settle(p->x + (int64_t)row * columns, row, columns, p->tiles);
            else
                gm_settle(&p->a, p->x + (int64_t)row * columns, row, 0, columns);
}

static void multiply_tiles(product *p, int thread) {
    const int all = panels_of(p->m), padded = (p->count + GM_AMX_ROWS - 1) / GM_AMX_ROWS * GM_AMX_ROWS;
    float *sums = p->sums + thread * (gm_amx_sum_bytes(p->count) / (int64_t)sizeof(float));
    int piece;
    while ((piece = gm_take(&p->panels, (all + GM_AMX_PANELS - 1) / GM_AMX_PANELS)) >= 0) {
        int first = piece * GM_AMX_PANELS, panels = all - first < GM_AMX_PANELS ? all - first : GM_AMX_PANELS;
        gm_amx_multiply(p->m, first, panels, p->tiles, p->count, sums);
        for (int i = 0; i < panels; i++)
            write_out(p->m, first + i, 0, p->count, sums + (int64_t)i * padded * GM_PANEL, p->out, p->m->rows);
    }
}

static void share(void *context, int thread, int threads) {
    product *p = context;
    if (p->tiles || is_quantized(p->m->kind)) {
        settle_rows(p);
        gm_barrier(threads);
    }
    if (p->tiles)
        multiply_tiles(p, thread);
    else
        gm_multiply(p->m, &p->a, p->count, p->out, &p->panels, gm_best_isa());
}

static int fits_tiles(const gm_matrix *m, int count) {
    return m->kind == GM_BF16 && !m->below && count >= GM_AMX_LEAST && m->columns % GM_BLOCK == 0 && gm_amx_ready();
}

/* out [count, all rows] = x [count, columns] times the matrix; -1: there is no memory. */
int gm_linear(const gm_matrix *m, const float *x, int count, float *out, int threads) {
    product p = {.m = m, .x = x, .count = count, .out = out};
    const int by_tiles = fits_tiles(m, count);
    int64_t bytes = by_tiles ? gm_amx_bytes(count, m->columns) + threads * gm_amx_sum_bytes(count) + 64
                    : is_quantized(m->kind) ? gm_scratch_bytes(count, m->columns) : 0;
    char *scratch = bytes ? malloc((size_t)bytes) : NULL;
    if (bytes && !scratch) return -1;
    if (by_tiles) {
        p.tiles = (uint8_t *)aligned(scratch);
        p.sums = (float *)(p.tiles + gm_amx_bytes(count, m->columns));
    } else if (scratch) {
        p.a = gm_activations_in(scratch, m, count);
    } else {
        p.a = (gm_activations){.kind = m->kind, .columns = m->columns, .values = (float *)x};
    }
    gm_together(share, &p, threads);
    free(scratch);
    return 0;
}
