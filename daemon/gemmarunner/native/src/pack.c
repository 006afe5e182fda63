/* Brings weights into the layout of matrix.h. Rows beyond the last fill a panel up with zeros. */
#include "pack_k.h"
#include "pool.h"

#include <string.h>

enum { STEP = 64 };

typedef struct {
    int kind, rows, columns;
    const void *weights;
    const uint16_t *scales;
    uint8_t *out;
    gm_queue panels;
} packing;

/* Two neighbouring columns of a row are one word; a few columns at a time, so that what is written stays in the cache. */
static void pack_16(const packing *p, int panel, uint8_t *out) {
    const int words = p->columns / 2, left = p->rows - panel * GM_PANEL, rows = left < GM_PANEL ? left : GM_PANEL;
    const uint32_t *from = (const uint32_t *)p->weights + (int64_t)panel * GM_PANEL * words;
    uint32_t *to = (uint32_t *)out;
    if (rows < GM_PANEL) memset(out, 0, (size_t)words * 4 * GM_PANEL);
    for (int begin = 0; begin < words; begin += STEP) {
        int end = begin + STEP < words ? begin + STEP : words;
        for (int r = 0; r < rows; r++)
            for (int k = begin; k < end; k++) to[k * GM_PANEL + r] = from[(int64_t)r * words + k];
    }
}

static void pack_32(const packing *p, int panel, uint8_t *out) {
    const float *weights = p->weights;
    float *to = (float *)out;
    for (int r = 0; r < GM_PANEL; r++) {
        int row = panel * GM_PANEL + r;
        for (int k = 0; k < p->columns; k++)
            to[k * GM_PANEL + r] = row < p->rows ? weights[(int64_t)row * p->columns + k] : 0;
    }
}

/* Codes lie as [rows, columns] bytes, those of Q4 below 16; scales as float16 [rows, columns / 32]. */
static void pack_block(const packing *p, int row, int r, int block, uint8_t *to) {
    const uint8_t *codes = (const uint8_t *)p->weights + (int64_t)row * p->columns + block * GM_BLOCK;
    memcpy(to + 2 * r, p->scales + (int64_t)row * (p->columns / GM_BLOCK) + block, 2);
    uint8_t *at = to + 2 * GM_PANEL + 4 * r;
    if (p->kind == GM_Q8)
        for (int j = 0; j < 8; j++) memcpy(at + 64 * j, codes + 4 * j, 4);
    else
        for (int j = 0; j < 4; j++)
            for (int i = 0; i < 4; i++) at[64 * j + i] = (uint8_t)(codes[4 * j + i] | codes[16 + 4 * j + i] << 4);
}

/* A file's block: a float16, then the codes; those of Q4_0 lie in pairs as they do here. */
static void copy_block(const packing *p, int row, int r, int block, uint8_t *to) {
    const int words = p->kind == GM_Q8 ? 8 : 4, bytes = 2 + 4 * words;
    const uint8_t *from = (const uint8_t *)p->weights + ((int64_t)row * (p->columns / GM_BLOCK) + block) * bytes;
    memcpy(to + 2 * r, from, 2);
    for (int j = 0; j < words; j++) memcpy(to + 2 * GM_PANEL + 64 * j + 4 * r, from + 2 + 4 * j, 4);
}

static void pack_blocks(const packing *p, int panel, uint8_t *out) {
    int blocks = p->columns / GM_BLOCK, each = p->kind == GM_Q8 ? GM_Q8_BYTES : GM_Q4_BYTES;
    memset(out, 0, (size_t)blocks * (size_t)each);
    for (int r = 0; r < GM_PANEL && panel * GM_PANEL + r < p->rows; r++)
        for (int block = 0; block < blocks; block++)
            (p->scales ? pack_block : copy_block)(p, panel * GM_PANEL + r, r, block, out + (int64_t)block * each);
}

static void pack_supers(const packing *p, int panel, uint8_t *out) {
    const int supers = p->columns / GM_SUPER, each = gm_k_bytes(p->kind), stored = gm_k_stored(p->kind);
    memset(out, 0, (size_t)supers * (size_t)each);
    for (int number = 0; number < supers; number++)
        for (int r = 0; r < GM_PANEL && panel * GM_PANEL + r < p->rows; r++) {
            int64_t at = (int64_t)(panel * GM_PANEL + r) * supers + number;
            gm_pack_super(p->kind, (const uint8_t *)p->weights + at * stored, r, out + (int64_t)number * each);
        }
}

static void share(void *context, int thread, int threads) {
    packing *p = context;
    (void)thread, (void)threads;
    gm_matrix shape = {p->kind, p->rows, p->columns, p->out, NULL};
    int64_t bytes = gm_panel_bytes(&shape);
    int panels = (p->rows + GM_PANEL - 1) / GM_PANEL, panel;
    while ((panel = gm_take(&p->panels, panels)) >= 0) {
        uint8_t *out = p->out + panel * bytes;
        if (p->kind == GM_F32)
            pack_32(p, panel, out);
        else if (p->kind == GM_BF16 || p->kind == GM_F16)
            pack_16(p, panel, out);
        else if (p->kind >= GM_Q4K)
            pack_supers(p, panel, out);
        else
            pack_blocks(p, panel, out);
    }
}

/* `out` of gm_packed_bytes holds the matrix. Q8 and Q4 have codes and `scales`, or NULL and a file's blocks,
 * K formats always these. */
void gm_pack(int kind, int rows, int columns, const void *weights, const void *scales, void *out, int threads) {
    packing p = {kind, rows, columns, weights, scales, out, {0}};
    gm_together(share, &p, threads);
}

int64_t gm_packed_bytes(int kind, int rows, int columns) {
    gm_matrix shape = {kind, rows, columns, NULL, NULL};
    return gm_panel_bytes(&shape) * ((rows + GM_PANEL - 1) / GM_PANEL);
}
