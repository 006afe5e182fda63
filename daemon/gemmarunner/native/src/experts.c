/* The routed half of a mixture-of-experts layer; see experts.h. */
#include "experts.h"

#include "attention.h"
#include "rows.h"

#include <string.h>

#if defined(__x86_64__)
#pragma GCC target("avx2,fma,f16c")
#endif

enum { ALIGNED = 64 };

static char *take(char **at, int64_t bytes) {
    char *taken = *at;
    *at += (bytes + ALIGNED - 1) / ALIGNED * ALIGNED;
    return taken;
}

gm_routing gm_routing_in(char *scratch, const gm_experts *e, int rows, int hidden, const gm_isa *isa) {
    const int64_t pairs = (int64_t)rows * e->best, inner = e->down->columns;
    gm_routing r = {.rows = rows, .pairs = (int)pairs, .hidden = hidden, .isa = isa};
    r.routed_by = gm_activations_in(take(&scratch, gm_scratch_bytes(rows, hidden)), e->router, rows);
    r.entered = gm_activations_in(take(&scratch, gm_scratch_bytes((int)pairs, hidden)), e->gate_up, (int)pairs);
    r.inner = gm_activations_in(take(&scratch, gm_scratch_bytes((int)pairs, (int)inner)), e->down, (int)pairs);
    r.own = (float *)take(&scratch, 4 * (int64_t)rows * hidden);
    r.scores = (float *)take(&scratch, 4 * (int64_t)rows * e->count);
    r.wide = (float *)take(&scratch, 8 * pairs * inner);
    r.out = (float *)take(&scratch, 4 * pairs * hidden);
    r.shares = (float *)take(&scratch, 4 * pairs);
    r.chosen = (int32_t *)take(&scratch, 4 * pairs);
    r.places = (int32_t *)take(&scratch, 4 * pairs);
    r.row_of = (int32_t *)take(&scratch, 4 * pairs);
    r.ends = (int32_t *)take(&scratch, 4 * (int64_t)(e->count + 1));
    r.number = (int32_t *)take(&scratch, 4);
    r.groups = (gm_group *)take(&scratch, (int64_t)sizeof(gm_group) * pairs);
    return r;
}

int64_t gm_routing_bytes(const gm_experts *e, int rows, int hidden) {
    const int64_t pairs = (int64_t)rows * e->best, inner = e->down->columns;
    return gm_scratch_bytes(rows, hidden) + gm_scratch_bytes((int)pairs, hidden) +
           gm_scratch_bytes((int)pairs, (int)inner) + 4 * ((int64_t)rows * (hidden + e->count) + e->count + 2) +
           pairs * (8 * inner + 4 * hidden + 16 + (int64_t)sizeof(gm_group)) + 14 * ALIGNED;
}

void gm_experts_enter(gm_routing *r, const gm_experts *e, const float *x, float floor, gm_queue *queue) {
    int row, hidden = r->hidden;
    while ((row = gm_take(queue, r->rows)) >= 0) {
        int64_t at = (int64_t)row * hidden;
        gm_normalise(x + at, e->router_norm, floor, hidden, r->routed_by.values + at);
        gm_settle(&r->routed_by, r->routed_by.values + at, row, 0, hidden);
        gm_normalise(x + at, e->input_norm, floor, hidden, r->own + at);
    }
}

void gm_experts_score(gm_routing *r, const gm_experts *e, gm_queue *queue) {
    gm_multiply(e->router, &r->routed_by, r->rows, r->scores, queue, r->isa);
}

/* Among equals the one that comes first. */
static int best_of(const float *scores, int count) {
    int best = 0;
    for (int i = 1; i < count; i++)
        if (scores[i] > scores[best]) best = i;
    return best;
}

/* Puts a row's newest choice in its place among the earlier ones. */
static void insert(int32_t *chosen, float *shares, int number, int expert, float share) {
    int at = number;
    for (; at > 0 && chosen[at - 1] > expert; at--) chosen[at] = chosen[at - 1], shares[at] = shares[at - 1];
    chosen[at] = expert;
    shares[at] = share;
}

/* Softmax's denominator goes when the best are made to add up to 1. */
static void choose(const gm_experts *e, float *scores, int32_t *chosen, float *shares) {
    float sum = 0;
    gm_exp(scores, e->count, scores[best_of(scores, e->count)]);
    for (int i = 0; i < e->best; i++) {
        int expert = best_of(scores, e->count);
        insert(chosen, shares, i, expert, scores[expert]);
        sum += scores[expert];
        scores[expert] = -1;
    }
    for (int i = 0; i < e->best; i++) shares[i] = shares[i] / sum * e->scale[chosen[i]];
}

void gm_experts_choose(gm_routing *r, const gm_experts *e, gm_queue *queue) {
    int row;
    while ((row = gm_take(queue, r->rows)) >= 0)
        choose(e, r->scores + (int64_t)row * e->count, r->chosen + row * e->best, r->shares + row * e->best);
}

void gm_experts_group(gm_routing *r, const gm_experts *e) {
    const int pairs = r->rows * e->best;
    memset(r->ends, 0, sizeof(int32_t) * (size_t)(e->count + 1));
    for (int i = 0; i < pairs; i++) r->ends[r->chosen[i] + 1]++;
    for (int expert = 0; expert < e->count; expert++) r->ends[expert + 1] += r->ends[expert];
    for (int i = 0; i < pairs; i++) {
        r->places[i] = r->ends[r->chosen[i]]++; /* so that it ends where the next begins */
        r->row_of[r->places[i]] = i / e->best;
    }
    *r->number = 0;
    for (int expert = 0, begin = 0; expert < e->count; begin = r->ends[expert++])
        if (r->ends[expert] > begin) r->groups[(*r->number)++] = (gm_group){expert, begin, r->ends[expert]};
}

void gm_experts_settle(gm_routing *r, gm_queue *queue) {
    int pair;
    while ((pair = gm_take(queue, r->pairs)) >= 0)
        gm_settle(&r->entered, r->own + (int64_t)r->row_of[pair] * r->hidden, pair, 0, r->hidden);
}

void gm_experts_widen(gm_routing *r, const gm_experts *e, gm_queue *queue) {
    gm_multiply_groups(e->gate_up, r->groups, *r->number, &r->entered, r->wide, queue, r->isa);
}

void gm_experts_gate(gm_routing *r, gm_queue *queue) {
    int inner = r->inner.columns, pair;
    while ((pair = gm_take(queue, r->pairs)) >= 0)
        for (int begin = 0; begin < inner; begin += GM_GELU_PIECE) {
            int n = inner - begin < GM_GELU_PIECE ? inner - begin : GM_GELU_PIECE;
            const float *gate = r->wide + (int64_t)pair * 2 * inner + begin;
            float *to = r->inner.values + (int64_t)pair * inner + begin;
            gm_gelu_times(gate, gate + inner, n, to);
            gm_settle(&r->inner, to, pair, begin, begin + n);
        }
}

void gm_experts_narrow(gm_routing *r, const gm_experts *e, gm_queue *queue) {
    gm_multiply_groups(e->down, r->groups, *r->number, &r->inner, r->out, queue, r->isa);
}

/* What a row's experts made of it, by their shares, into the first one's place. */
static float *sum_of(const gm_routing *r, const gm_experts *e, int row) {
    const int32_t *places = r->places + row * e->best;
    const float *shares = r->shares + row * e->best;
    float *sum = r->out + (int64_t)places[0] * r->hidden;
    for (int i = 0; i < r->hidden; i++) sum[i] *= shares[0];
    for (int k = 1; k < e->best; k++) {
        const float *more = r->out + (int64_t)places[k] * r->hidden;
        for (int i = 0; i < r->hidden; i++) sum[i] += shares[k] * more[i];
    }
    return sum;
}

void gm_experts_join(gm_routing *r, const gm_experts *e, float *dense, float floor, gm_queue *queue) {
    int row, hidden = r->hidden;
    while ((row = gm_take(queue, r->rows)) >= 0) {
        float *half = dense + (int64_t)row * hidden;
        gm_normalise(half, e->dense_norm, floor, hidden, half);
        gm_add_normalised(half, sum_of(r, e, row), e->routed_norm, floor, hidden);
    }
}
