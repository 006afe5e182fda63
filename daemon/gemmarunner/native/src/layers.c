/* Few rows through decoder layers, in one call: every operator is shared out among the threads.
 *
 * Between two operators all threads meet (half a microsecond while they are awake), where a call
 * from Python for each operator takes some microseconds and more threads' attention. Rows hang on
 * nothing but themselves: each is normalised, multiplied and attended to alone.
 */
#include "attention.h"
#include "linear.h"

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

enum { PHASES = 16, GELU_PIECE = 512 };

typedef struct {
    const gm_layer *layers;
    int count;
    const gm_step *step;
    float *x; /* [rows, hidden], in and out */
    const gm_isa *isa;
    gm_queue *queues;
    char *normed, *wide; /* activations of a matrix */
    float *projected, *out;
    float *scores;
} run;

static float length_of(const float *x, int n) {
    float sums[16] = {0};
    int i = 0;
    for (; i + 16 <= n; i += 16)
        for (int j = 0; j < 16; j++) sums[j] += x[i + j] * x[i + j];
    for (; i < n; i++) sums[i % 16] += x[i] * x[i];
    for (int width = 8; width; width /= 2)
        for (int j = 0; j < width; j++) sums[j] += sums[j + width];
    return sums[0];
}

/* to = x weight / hypot(|x|, floor) */
static void normalise(const float *x, const float *weight, float floor, int n, float *to) {
    float inverse = 1.0f / sqrtf(length_of(x, n) + floor * floor);
    for (int i = 0; i < n; i++) to[i] = x[i] * weight[i] * inverse;
}

static void add_normalised(float *x, const float *from, const float *weight, float floor, int n) {
    float inverse = 1.0f / sqrtf(length_of(from, n) + floor * floor);
    for (int i = 0; i < n; i++) x[i] += from[i] * weight[i] * inverse;
}

/* gelu(gate) * up, gelu by tanh: x / (1 + e^(-2u)). */
static void gelu_times(const float *gate, const float *up, int n, float *to) {
    float e[GELU_PIECE];
    for (int i = 0; i < n; i++) {
        float u = 1.5957691216f * (gate[i] + 0.044715f * gate[i] * gate[i] * gate[i]);
        e[i] = -fabsf(u);
    }
    gm_exp(e, n, 0);
    for (int i = 0; i < n; i++) {
        float share = gate[i] >= 0 ? 1.0f / (1.0f + e[i]) : e[i] / (1.0f + e[i]);
        to[i] = gate[i] * share * up[i];
    }
}

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
        normalise(raw, weight, layer->head_floor, width, raw);
        rotate(raw, cos, sin, layer->half);
        return;
    }
    int64_t cell = (int64_t)index * r->step->store_columns + r->step->sequences[row], span = r->step->spans[cell];
    float *store = r->step->stores[cell] + (int64_t)at->slots[row] * width;
    normalise(raw, weight, layer->head_floor, width, store + kv * span);
    if (kv >= layer->kv_heads) return; /* values are not turned */
    if (layer->k_eq_v)
        normalise(raw, weight + (int64_t)layer->kv_heads * width, layer->head_floor, width, store + (kv + layer->kv_heads) * span);
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
        normalise(r->x + (int64_t)row * hidden, weight, floor, hidden, to);
        gm_settle(a, to, row, 0, hidden);
    }
}

static void add_rows(run *r, const float *weight, float floor, float scalar, gm_queue *queue) {
    int row, hidden = r->step->hidden;
    while ((row = gm_take(queue, r->step->rows)) >= 0) {
        float *x = r->x + (int64_t)row * hidden;
        add_normalised(x, r->out + (int64_t)row * hidden, weight, floor, hidden);
        if (scalar != 1.0f)
            for (int i = 0; i < hidden; i++) x[i] *= scalar;
    }
}

static void gate_rows(run *r, const gm_activations *a, const float *gates, int stride, const float *up, int64_t up_stride,
                      gm_queue *queue) {
    int pieces = (a->columns + GELU_PIECE - 1) / GELU_PIECE, task;
    while ((task = gm_take(queue, r->step->rows * pieces)) >= 0) {
        int row = task / pieces, begin = task % pieces * GELU_PIECE;
        int n = a->columns - begin < GELU_PIECE ? a->columns - begin : GELU_PIECE;
        float *to = a->values + (int64_t)row * a->columns + begin;
        gelu_times(gates + (int64_t)row * stride + begin, up + row * up_stride + begin, n, to);
        gm_settle(a, to, row, begin, begin + n);
    }
}

#define NEXT (queue++)
#define MEET gm_barrier(threads)

static void one_layer(run *r, int index, int thread, int threads) {
    const gm_layer *l = r->layers + index;
    const gm_step *step = r->step;
    const gm_isa *isa = r->isa;
    gm_queue *queue = r->queues + (int64_t)index * PHASES;
    const int rows = step->rows, raw_heads = l->project->rows / l->width, group = l->heads / l->kv_heads;
    const int heads = group % 2 == 0 ? 2 : 1; /* a task's, of one K/V head */
    float *scores = r->scores + (int64_t)thread * 2 * step->most_seen;
    int task;

    gm_activations a = gm_activations_in(r->normed, l->project, rows, isa);
    normalise_rows(r, &a, l->input_norm, l->floor, NEXT);
    MEET;
    gm_multiply(l->project, &a, rows, r->projected, NEXT, isa);
    MEET;
    while ((task = gm_take(queue, rows * raw_heads)) >= 0)
        place_head(r, l, index, task / raw_heads, task % raw_heads, raw_heads);
    queue++;
    MEET;
    a = gm_activations_in(r->wide, l->output, rows, isa);
    while ((task = gm_take(queue, rows * (l->heads / heads))) >= 0)
        attend_row(r, l, &a, index, task / (l->heads / heads), task % (l->heads / heads) * heads, heads, raw_heads, scores);
    queue++;
    MEET;
    gm_multiply(l->output, &a, rows, r->out, NEXT, isa);
    MEET;
    add_rows(r, l->attention_norm, l->floor, 1.0f, NEXT);
    MEET;
    a = gm_activations_in(r->normed, l->gate_up, rows, isa);
    normalise_rows(r, &a, l->mlp_norm, l->floor, NEXT);
    MEET;
    gm_multiply(l->gate_up, &a, rows, r->projected, NEXT, isa);
    MEET;
    a = gm_activations_in(r->wide, l->down, rows, isa);
    gate_rows(r, &a, r->projected, l->gate_up->rows, r->projected + l->down->columns, l->gate_up->rows, NEXT);
    MEET;
    gm_multiply(l->down, &a, rows, r->out, NEXT, isa);
    MEET;
    add_rows(r, l->post_mlp_norm, l->floor, l->ple_gate ? 1.0f : l->scalar, NEXT);
    MEET;
    if (!l->ple_gate) return;
    a = gm_activations_in(r->normed, l->ple_gate, rows, isa);
    while ((task = gm_take(queue, rows)) >= 0) gm_settle(&a, r->x + (int64_t)task * step->hidden, task, 0, step->hidden);
    queue++;
    MEET;
    gm_multiply(l->ple_gate, &a, rows, r->projected, NEXT, isa);
    MEET;
    a = gm_activations_in(r->wide, l->ple_widen, rows, isa);
    gate_rows(r, &a, r->projected, l->ple_gate->rows, step->ple + index * step->ple_layer, step->ple_row, NEXT);
    MEET;
    gm_multiply(l->ple_widen, &a, rows, r->out, NEXT, isa);
    MEET;
    add_rows(r, l->ple_norm, l->floor, l->scalar, NEXT);
    MEET;
}

static void share(void *context, int thread, int threads) {
    run *r = context;
    for (int index = 0; index < r->count; index++) one_layer(r, index, thread, threads);
}

static int larger(int a, int b) { return a > b ? a : b; }

/* x [rows, hidden] has gone through `count` layers, whose K and V are in the stores; -1: there is no memory. */
int gm_layers(const gm_layer *layers, int count, const gm_step *step, float *x, int threads) {
    run r = {.layers = layers, .count = count, .step = step, .x = x, .isa = gm_best_isa()};
    int narrow = step->hidden, wide = 0, projected = 0;
    for (int i = 0; i < count; i++) {
        const gm_layer *l = layers + i;
        projected = larger(projected, larger(l->project->rows, l->gate_up->rows));
        wide = larger(wide, larger(l->output->columns, l->down->columns));
        if (l->ple_gate) projected = larger(projected, l->ple_gate->rows), wide = larger(wide, l->ple_widen->columns);
    }
    int64_t queues = sizeof(gm_queue) * PHASES * (int64_t)count, rows = step->rows;
    int64_t normed = gm_scratch_bytes(step->rows, narrow), widened = gm_scratch_bytes(step->rows, wide);
    int64_t floats = rows * (projected + step->hidden) + (int64_t)threads * 2 * step->most_seen;
    normed = (normed + 63) & ~63LL, widened = (widened + 63) & ~63LL;
    char *scratch = aligned_alloc(64, (size_t)((queues + normed + widened + 4 * floats + 63) & ~63LL));
    if (!scratch) return -1;
    memset(scratch, 0, (size_t)queues);
    r.queues = (gm_queue *)scratch;
    r.normed = scratch + queues;
    r.wide = r.normed + normed;
    r.projected = (float *)(r.wide + widened);
    r.out = r.projected + rows * projected;
    r.scores = r.out + rows * step->hidden;
    gm_together(share, &r, threads);
    free(scratch);
    return 0;
}
