/* Brings the K formats' blocks, as GGUF files have them, into the layout of matrix.h. */
#ifndef GM_PACK_K_H
#define GM_PACK_K_H

#include "matrix.h"

/* Bytes of a file's block of 256 weights. */
int gm_k_stored(int kind);

/* A file's block of row r into its panel's super-block, whose bytes were zeros. */
void gm_pack_super(int kind, const uint8_t *from, int r, uint8_t *to);

#endif
