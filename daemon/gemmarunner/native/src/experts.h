/* The routed half of a mixture-of-experts layer: each row goes through the few experts that score best for it.
 *
 * A row and one of its experts are a pair. Pairs lie in the order of their experts, so that an expert's weights
 * are read once for all of its rows. A row adds up its experts in their own order, whoever its neighbours are.
 */
#ifndef GM_EXPERTS_H
#define GM_EXPERTS_H

#include "linear.h"

typedef struct {
    const gm_matrix *router;           /* [count, hidden] */
    const gm_matrix *gate_up, *down;   /* one of each expert: [2 inner, hidden], [hidden, inner] */
    const float *router_norm, *input_norm, *dense_norm, *routed_norm; /* [hidden] */
    const float *scale;                /* [count] */
    int32_t count, best;               /* experts; how many a row goes through */
} gm_experts;

/* Room for rows on their way through one layer's experts. */
typedef struct {
    int rows, pairs, hidden;
    const gm_isa *isa;
    gm_activations routed_by, entered, inner; /* by row, by pair, by pair */
    float *own;      /* [rows, hidden] */
    float *scores;   /* [rows, count] */
    float *wide;     /* [pairs, 2 inner] */
    float *out;      /* [pairs, hidden] */
    float *shares;   /* [rows, best] */
    int32_t *chosen; /* [rows, best], in their order */
    int32_t *places; /* [rows, best]: which pair it is */
    int32_t *row_of; /* [pairs] */
    int32_t *ends;   /* [count + 1] */
    gm_group *groups;
    int32_t *number; /* of groups */
} gm_routing;

int64_t gm_routing_bytes(const gm_experts *e, int rows, int hidden);

/* The same memory serves layer after layer: every thread has a routing of its own, all with the same `scratch`. */
gm_routing gm_routing_in(char *scratch, const gm_experts *e, int rows, int hidden, const gm_isa *isa);

/* The steps of a layer in their order; all threads call each, but one alone groups, and meet before the next one. */
void gm_experts_enter(gm_routing *r, const gm_experts *e, const float *x, float floor, gm_queue *queue);
void gm_experts_score(gm_routing *r, const gm_experts *e, gm_queue *queue);
void gm_experts_choose(gm_routing *r, const gm_experts *e, gm_queue *queue);
void gm_experts_group(gm_routing *r, const gm_experts *e);
void gm_experts_settle(gm_routing *r, gm_queue *queue);
void gm_experts_widen(gm_routing *r, const gm_experts *e, gm_queue *queue);
void gm_experts_gate(gm_routing *r, gm_queue *queue);
void gm_experts_narrow(gm_routing *r, const gm_experts *e, gm_queue *queue);

/* dense [rows, hidden] becomes the sum of both halves, each normalised. */
void gm_experts_join(gm_routing *r, const gm_experts *e, float *dense, float floor, gm_queue *queue);

#endif
