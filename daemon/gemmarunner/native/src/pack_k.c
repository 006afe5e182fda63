/* Brings the K formats' blocks, as GGUF files have them, into the layout of matrix.h.
 *
 * A file's blocks, as GGML's block_q4_K, block_q5_K and block_q6_K:
 *   Q4_K  144 bytes: d, dmin float16 | 12 bytes: 8 scales and 8 minima of 6 bits | 128 bytes: codes
 *   Q5_K  176 bytes: d, dmin | the same 12 | 32 bytes: fifth bits | 128 bytes: lower bits
 *   Q6_K  210 bytes: 128 bytes: lower bits | 64 bytes: upper bits | 16 int8 scales | d
 */
#include "pack_k.h"

#include <string.h>

enum { BLOCKS = GM_SUPER / GM_BLOCK };

/* A block, unpacked: its float16 numbers, two bytes for each 32 weights, and the codes. */
typedef struct {
    uint8_t halves[4], pairs[2 * BLOCKS], codes[GM_SUPER];
} super;

int gm_k_stored(int kind) { return kind == GM_Q4K ? 144 : kind == GM_Q5K ? 176 : 210; }

/* Of the later four blocks the lower four bits lie together, the upper two above those of the first four. */
static void read_minima(super *s, const uint8_t *from) {
    for (int b = 0; b < 4; b++) {
        s->pairs[2 * b] = from[b] & 63;
        s->pairs[2 * b + 1] = from[4 + b] & 63;
        s->pairs[2 * (4 + b)] = (uint8_t)((from[8 + b] & 15) | from[b] >> 6 << 4);
        s->pairs[2 * (4 + b) + 1] = (uint8_t)(from[8 + b] >> 4 | from[4 + b] >> 6 << 4);
    }
}

static super read_q4_or_q5(const uint8_t *from, int bits) {
    super s;
    const uint8_t *high = from + 16, *low = high + (bits ? 32 : 0);
    memcpy(s.halves, from, 4);
    read_minima(&s, from + 4);
    for (int i = 0; i < GM_SUPER; i++) {
        int b = i / 32, at = i % 32;
        s.codes[i] = low[b / 2 * 32 + at] >> 4 * (b % 2) & 15;
        if (bits) s.codes[i] |= (uint8_t)((high[at] >> b & 1) << 4);
    }
    return s;
}

static super read_q6(const uint8_t *from) {
    super s;
    const uint8_t *high = from + 128;
    memcpy(s.pairs, from + 192, sizeof s.pairs);
    memcpy(s.halves, from + 208, 2);
    for (int i = 0; i < GM_SUPER; i++) {
        int c = i / 128, b = i / 32 % 4, at = i % 32;
        int low = from[64 * c + i % 64] >> 4 * (b / 2) & 15;
        s.codes[i] = (uint8_t)(low | (high[32 * c + at] >> 2 * b & 3) << 4);
    }
    return s;
}

/* The lower four bits of 32 codes as those of Q4; the upper ones into fields of a byte. */
static void pack_block(int bits, const uint8_t *codes, int r, uint8_t *low, uint8_t *high) {
    for (int j = 0; j < 4; j++)
        for (int i = 0; i < 4; i++) {
            const int one = codes[4 * j + i], other = codes[16 + 4 * j + i], at = 4 * r + i;
            low[64 * j + at] = (uint8_t)((one & 15) | (other & 15) << 4);
            if (bits == 1) high[at] |= (uint8_t)(one >> 4 << j | other >> 4 << (4 + j));
            if (bits == 2) high[at] |= (uint8_t)(one >> 4 << 2 * j), high[64 + at] |= (uint8_t)(other >> 4 << 2 * j);
        }
}

void gm_pack_super(int kind, const uint8_t *from, int r, uint8_t *to) {
    const int bits = gm_k_high_bits(kind);
    const super s = kind == GM_Q6K ? read_q6(from) : read_q4_or_q5(from, bits);
    memcpy(to + 2 * r, s.halves, 2);
    if (gm_k_has_minima(kind)) memcpy(to + 2 * GM_PANEL + 2 * r, s.halves + 2, 2);
    for (int b = 0; b < BLOCKS; b++) {
        memcpy(to + gm_k_pairs(kind) + 2 * GM_PANEL * b + 2 * r, s.pairs + 2 * b, 2);
        pack_block(bits, s.codes + GM_BLOCK * b, r, to + gm_k_codes(kind) + 256 * b, to + gm_k_high(kind) + 64 * bits * b);
    }
}
