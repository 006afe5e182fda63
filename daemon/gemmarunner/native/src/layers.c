/* Few rows through decoder layers, in one call: every operator is shared out among the threads.
 *
 * Between two operators all threads meet (half a microsecond while they are awake), where a call
 * from Python for each operator takes some microseconds and more threads' attention. Rows hang on
 * nothing but themselves: each is normalised, multiplied and attended to alone.
 */
#include "attention.h"
#include "experts.h"
#include "linear.h"
#include "rows.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#if defined(__x86_64__)
#pragma GCC target("avx2,fma,f16c")
#endif

typedef struct {
    const gm_matrix *project, *output, *gate_up, *down, *ple_gate, *ple_widen; /* the last two may be NULL */
    const float *input_norm, *head_norm, *attention_norm, *mlp_norm, *post_mlp_norm, *ple_norm;
    float floor, head_floor; /* sqrt(width * eps) of hidden rows and of heads */
    float scalar;
    int32_t heads, kv_heads, width, half; /* half: by how much rotation rolls a head */
    int32_t k_eq_v;                       /* whether V is K as it was projected */
    int32_t shape;                        /* which of the step's places are its own */
    const gm_experts *experts;            /* or NULL */
} gm_layer;

/* Where each row stands in layers of one shape. */
typedef struct {
    const float *cos, *sin; /* [rows, width] */
    const int32_t *slots;   /* [rows]: where its K and V go */
    const int32_t *begins, *ends; /* [rows]: the slots it sees */
} gm_places;

typedef struct {
    int32_t rows, hidden, most_seen;
    const int32_t *sequences; /* [rows] */
    const gm_places *places;  /* by shape */
    float *const *stores;     /* [layers][sequences]: K heads, then V heads, of [slots, width] each */
    const int64_t *spans;     /* [layers][sequences]: floats from one head to the next */
    int32_t store_columns;    /* sequences */
    const float *ple;         /* [rows][layers][dim], or NULL */
    int64_t ple_row, ple_layer; /* floats from one to the next */
} gm_step;

enum { PHASES = 24 };

typedef struct {
    const gm_layer *layers;
    int count;
    const gm_step *step;
    float *x; /* [rows, hidden], in and out */
    const gm_isa *isa;
    gm_queue *queues;
    char *normed, *wide; /* activations of a matrix */
    char *routing;
    float *projected, *out;
    float *scores;
} run;

static void rotate(float *head, const float *cos, const float *sin, int half) {
    for (int i = 0; i < half; i++) {
        float low = head[i], high = head[i + half];
        head[i] = low * cos[i] + high * sin[i];
        head[i + half] = high * cos[i + half] + low * sin[i + half];
    }
}

/* One raw head becomes a query in place, or a key and a value in the cache. */
static void place_head(run *r, const gm_layer *layer, int index, int row, int head, int raw_heads) {
    const gm_places *at = r->step->places + layer->shape;
    const int width = layer->width, kv = head - layer->heads;
    float *raw = r->projected + ((int64_t)row * raw_heads + head) * width;
    const float *cos = at->cos + (int64_t)row * width, *sin = at->sin + (int64_t)row * width;
    const float *weight = layer->head_norm + (int64_t)head * width;
    if (kv < 0) {
        gm_normalise(raw, weight, layer->head_floor, width, raw);
        rotate(raw, cos, sin, layer->half);
        return;
    }
    int64_t cell = (int64_t)index * r->step->store_columns + r->step->sequences[row], span = r->step->spans[cell];
    float *store = r->step->stores[cell] + (int64_t)at->slots[row] * width;
    gm_normalise(raw, weight, layer->head_floor, width, store + kv * span);
    if (kv >= layer->kv_heads) return; /* values are not turned */
    if (layer->k_eq_v)
        gm_normalise(raw, weight + (int64_t)layer->kv_heads * width, layer->head_floor, width, store + (kv + layer->kv_heads) * span);
    rotate(store + kv * span, cos, sin, layer->half);
}

static void attend_row(run *r, const gm_layer *layer, const gm_activations *a, int index, int row, int head, int heads,
                       int raw_heads, float *scores) {
    const gm_places *at = r->step->places + layer->shape;
    const int width = layer->width, begin = at->begins[row], kv = head / (layer->heads / layer->kv_heads);
    int64_t cell = (int64_t)index * r->step->store_columns + r->step->sequences[row], span = r->step->spans[cell];
    const float *keys = r->step->stores[cell] + kv * span + (int64_t)begin * width;
    float *out = a->values + ((int64_t)row * layer->heads + head) * width;
    gm_attend(r->projected + ((int64_t)row * raw_heads + head) * width, heads, keys, keys + layer->kv_heads * span,
              at->ends[row] - begin, width, scores, out);
    gm_settle(a, out, row, head * width, (head + heads) * width);
}

static void normalise_rows(run *r, const gm_activations *a, const float *weight, float floor, gm_queue *queue) {
    int row, hidden = r->step->hidden;
    while ((row = gm_take(queue, r->step->rows)) >= 0) {
        float *to = a->values + (int64_t)row * hidden;
        gm_normalise(r->x + (int64_t)row * hidden, weight, floor, hidden, to);
        gm_settle(a, to, row, 0, hidden);
    }
}

static void add_rows(run *r, const float *weight, float floor, float scalar, gm_queue *queue) {
    int row, hidden = r->step->hidden;
    while ((row = gm_take(queue, r->step->rows)) >= 0) {
        float *x = r->x + (int64_t)row * hidden;
        gm_add_normalised(x, r->out + (int64_t)row * hidden, weight, floor, hidden);
        if (scalar != 1.0f)
            for (int i = 0; i < hidden; i++) x[i] *= scalar;
    }
}

static void gate_rows(run *r, const gm_activations *a, const float *gates, int stride, const float *up, int64_t up_stride,
                      gm_queue *queue) {
    int pieces = (a->columns + GM_GELU_PIECE - 1) / GM_GELU_PIECE, task;
    while ((task = gm_take(queue, r->step->rows * pieces)) >= 0) {
        int row = task / pieces, begin = task % pieces * GM_GELU_PIECE;
        int n = a->columns - begin < GM_GELU_PIECE ? a->columns - begin : GM_GELU_PIECE;
        float *to = a->values + (int64_t)row * a->columns + begin;
        gm_gelu_times(gates + (int64_t)row * stride + begin, up + row * up_stride + begin, n, to);
        gm_settle(a, to, row, begin, begin + n);
    }
}

/* One thread on its way through one layer. */
typedef struct {
    run *r;
    const gm_layer *l;
    int index, thread, threads;
    gm_queue *queue; /* of the next operator */
} turn;

#define NEXT (t->queue++)
#define MEET gm_barrier(t->threads)

static void attention_half(turn *t) {
    run *r = t->r;
    const gm_layer *l = t->l;
    const int rows = r->step->rows, raw_heads = gm_all_rows(l->project) / l->width, group = l->heads / l->kv_heads;
    const int heads = group % 2 == 0 ? 2 : 1, pieces = l->heads / heads; /* a task's, of one K/V head */
    float *scores = r->scores + (int64_t)t->thread * 2 * r->step->most_seen;
    gm_queue *queue;
    int task;

    gm_activations a = gm_activations_in(r->normed, l->project, rows);
    normalise_rows(r, &a, l->input_norm, l->floor, NEXT);
    MEET;
    gm_multiply(l->project, &a, rows, r->projected, NEXT, r->isa);
    MEET;
    queue = NEXT;
    while ((task = gm_take(queue, rows * raw_heads)) >= 0)
        place_head(r, l, t->index, task / raw_heads, task % raw_heads, raw_heads);
    MEET;
    a = gm_activations_in(r->wide, l->output, rows);
    queue = NEXT;
    while ((task = gm_take(queue, rows * pieces)) >= 0)
        attend_row(r, l, &a, t->index, task / pieces, task % pieces * heads, heads, raw_heads, scores);
    MEET;
    gm_multiply(l->output, &a, rows, r->out, NEXT, r->isa);
    MEET;
    add_rows(r, l->attention_norm, l->floor, 1.0f, NEXT);
    MEET;
}

/* r->out is what the dense MLP makes of the rows. `routing`, if any, has chosen their experts meanwhile. */
static void dense_half(turn *t, gm_routing *routing) {
    run *r = t->r;
    const gm_layer *l = t->l;
    const int rows = r->step->rows;
    gm_activations a = gm_activations_in(r->normed, l->gate_up, rows);
    normalise_rows(r, &a, l->mlp_norm, l->floor, NEXT);
    if (routing) gm_experts_enter(routing, l->experts, r->x, l->floor, NEXT);
    MEET;
    gm_multiply(l->gate_up, &a, rows, r->projected, NEXT, r->isa);
    if (routing) gm_experts_score(routing, l->experts, NEXT);
    MEET;
    a = gm_activations_in(r->wide, l->down, rows);
    gate_rows(r, &a, r->projected, 2 * l->down->columns, r->projected + l->down->columns, 2 * l->down->columns, NEXT);
    if (routing) gm_experts_choose(routing, l->experts, NEXT);
    MEET;
    if (routing && t->thread == 0) gm_experts_group(routing, l->experts);
    gm_multiply(l->down, &a, rows, r->out, NEXT, r->isa);
    MEET;
}

/* r->out is the sum of the dense MLP's and the experts' parts. */
static void mixture(turn *t) {
    run *r = t->r;
    const gm_experts *e = t->l->experts;
    gm_routing routing = gm_routing_in(r->routing, e, r->step->rows, r->step->hidden, r->isa);
    dense_half(t, &routing);
    gm_experts_settle(&routing, NEXT);
    MEET;
    gm_experts_widen(&routing, e, NEXT);
    MEET;
    gm_experts_gate(&routing, NEXT);
    MEET;
    gm_experts_narrow(&routing, e, NEXT);
    MEET;
    gm_experts_join(&routing, e, r->out, t->l->floor, NEXT);
    MEET;
}

static void per_layer_half(turn *t) {
    run *r = t->r;
    const gm_layer *l = t->l;
    const int rows = r->step->rows, hidden = r->step->hidden;
    gm_activations a = gm_activations_in(r->normed, l->ple_gate, rows);
    gm_queue *queue = NEXT;
    int row;
    while ((row = gm_take(queue, rows)) >= 0) gm_settle(&a, r->x + (int64_t)row * hidden, row, 0, hidden);
    MEET;
    gm_multiply(l->ple_gate, &a, rows, r->projected, NEXT, r->isa);
    MEET;
    a = gm_activations_in(r->wide, l->ple_widen, rows);
    gate_rows(r, &a, r->projected, l->ple_gate->rows, r->step->ple + t->index * r->step->ple_layer, r->step->ple_row, NEXT);
    MEET;
    gm_multiply(l->ple_widen, &a, rows, r->out, NEXT, r->isa);
    MEET;
    add_rows(r, l->ple_norm, l->floor, l->scalar, NEXT);
    MEET;
}

static void one_layer(run *r, int index, int thread, int threads) {
    const gm_layer *l = r->layers + index;
    turn t = {r, l, index, thread, threads, r->queues + (int64_t)index * PHASES};
    attention_half(&t);
    if (l->experts)
        mixture(&t);
    else
        dense_half(&t, NULL);
    add_rows(r, l->post_mlp_norm, l->floor, l->ple_gate ? 1.0f : l->scalar, t.queue++);
    gm_barrier(threads);
    if (l->ple_gate) per_layer_half(&t);
}

static void share(void *context, int thread, int threads) {
    run *r = context;
    for (int index = 0; index < r->count; index++) one_layer(r, index, thread, threads);
}

/* Bytes of what all layers need in turn. */
typedef struct {
    int64_t queues, normed, wide, projected, out, scores, routing;
} room;

static int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }

static room room_of(const gm_layer *layers, int count, const gm_step *step, int threads) {
    const int64_t rows = step->rows;
    int wide = 0, projected = 0;
    room need = {.queues = (int64_t)sizeof(gm_queue) * PHASES * count};
    for (const gm_layer *l = layers; l < layers + count; l++) {
        projected = (int)most(projected, most(gm_all_rows(l->project), gm_all_rows(l->gate_up)));
        wide = (int)most(wide, most(l->output->columns, l->down->columns));
        if (l->ple_gate) projected = (int)most(projected, l->ple_gate->rows), wide = (int)most(wide, l->ple_widen->columns);
        if (l->experts) need.routing = most(need.routing, gm_routing_bytes(l->experts, step->rows, step->hidden));
    }
    need.normed = gm_scratch_bytes(step->rows, step->hidden);
    need.wide = gm_scratch_bytes(step->rows, wide);
    need.projected = 4 * rows * projected;
    need.out = 4 * rows * step->hidden;
    need.scores = 8 * (int64_t)threads * step->most_seen;
    return need;
}

static char *take(char **at, int64_t bytes) {
    char *taken = *at;
    *at += (bytes + 63) & ~63LL;
    return taken;
}

/* x [rows, hidden] has gone through `count` layers, whose K and V are in the stores; -1: there is no memory. */
int gm_layers(const gm_layer *layers, int count, const gm_step *step, float *x, int threads) {
    run r = {.layers = layers, .count = count, .step = step, .x = x, .isa = gm_best_isa()};
    const room need = room_of(layers, count, step, threads);
    const int64_t all = need.queues + need.normed + need.wide + need.projected + need.out + need.scores + need.routing;
    char *scratch = aligned_alloc(64, (size_t)((all + 8 * 64) & ~63LL)), *at = scratch;
    if (!scratch) return -1;
    r.queues = memset(take(&at, need.queues), 0, (size_t)need.queues);
    r.normed = take(&at, need.normed);
    r.wide = take(&at, need.wide);
    r.projected = (float *)take(&at, need.projected);
    r.out = (float *)take(&at, need.out);
    r.scores = (float *)take(&at, need.scores);
    r.routing = take(&at, need.routing);
    gm_together(share, &r, threads);
    free(scratch);
    return 0;
}
