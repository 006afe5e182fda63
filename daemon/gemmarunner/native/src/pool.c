/* A pool of threads that is made on first use and grows to the largest number asked for.
 *
 * A round of a pair is some hundred pieces of work, microseconds apart: whoever has none spins for
 * SPIN rounds, giving its core away to others who want it, and then sleeps until the next piece.
 * A thread that the system took off its core would hold up the others, so pieces are taken from a
 * queue, not dealt out.
 */
#define _GNU_SOURCE
#include "pool.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>

#if defined(__x86_64__)
#include <immintrin.h>
#define relax() _mm_pause()
#elif defined(__aarch64__)
#define relax() __asm__ __volatile__("yield")
#else
#define relax() ((void)0)
#endif

enum { SPIN = 2000, MOST = 255, BETWEEN_YIELDS = 64 };

static void rest(int i) {
    relax();
    if (i % BETWEEN_YIELDS == 0) sched_yield();
}

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t woken = PTHREAD_COND_INITIALIZER;
static pthread_mutex_t callers = PTHREAD_MUTEX_INITIALIZER; /* one piece of work at a time */

/* Number of the piece of work << 16 | threads that share it: read at once, so that a thread that comes
 * late sees either that its help is waited for or that it is not. */
static _Atomic uint64_t announced;
static _Atomic int working;         /* helpers that are not yet done with it */
static _Atomic int arrived, passed; /* of the barrier */
static int helpers;                 /* threads made so far; the caller alone reads and writes it */
static int asleep;                  /* guarded by `lock` */

static gm_work current; /* these two stand still while `working` is above 0 */
static void *current_context;

static uint64_t await_work(uint64_t seen) {
    uint64_t now;
    for (int i = 1; i <= SPIN; i++) {
        if ((now = atomic_load_explicit(&announced, memory_order_acquire)) != seen) return now;
        rest(i);
    }
    pthread_mutex_lock(&lock);
    asleep++;
    while ((now = atomic_load(&announced)) == seen) pthread_cond_wait(&woken, &lock);
    asleep--;
    pthread_mutex_unlock(&lock);
    return now;
}

typedef struct {
    int thread;
    uint64_t seen;
} birth;

static void *helper(void *argument) {
    birth born = *(birth *)argument;
    free(argument);
    for (uint64_t now = born.seen;;) {
        now = await_work(now);
        int threads = (int)(now & 0xffff);
        if (born.thread >= threads) continue;
        current(current_context, born.thread, threads);
        atomic_fetch_sub_explicit(&working, 1, memory_order_release);
    }
    return NULL;
}

static int make_helper(int thread) {
    pthread_t made;
    birth *born = malloc(sizeof *born);
    if (!born) return 0;
    *born = (birth){thread, atomic_load(&announced)};
    if (pthread_create(&made, NULL, helper, born)) {
        free(born);
        return 0;
    }
    pthread_detach(made);
    return 1;
}

void gm_together(gm_work work, void *context, int threads) {
    if (threads <= 1) {
        work(context, 0, 1);
        return;
    }
    pthread_mutex_lock(&callers);
    while (helpers < threads - 1 && helpers < MOST && make_helper(helpers + 1)) helpers++;
    if (threads > helpers + 1) threads = helpers + 1;
    current = work;
    current_context = context;
    atomic_store(&working, threads - 1);
    pthread_mutex_lock(&lock);
    uint64_t number = (atomic_load(&announced) >> 16) + 1;
    atomic_store_explicit(&announced, number << 16 | (uint64_t)threads, memory_order_release);
    if (asleep) pthread_cond_broadcast(&woken);
    pthread_mutex_unlock(&lock);
    work(context, 0, threads);
    for (int i = 1; atomic_load_explicit(&working, memory_order_acquire) > 0; i++) rest(i);
    pthread_mutex_unlock(&callers);
}

void gm_barrier(int threads) {
    if (threads <= 1) return;
    int turn = atomic_load_explicit(&passed, memory_order_acquire);
    if (atomic_fetch_add_explicit(&arrived, 1, memory_order_acq_rel) == threads - 1) {
        atomic_store(&arrived, 0);
        atomic_fetch_add_explicit(&passed, 1, memory_order_release);
        return;
    }
    for (int i = 1; atomic_load_explicit(&passed, memory_order_acquire) == turn; i++) rest(i);
}

int gm_take(gm_queue *queue, int count) {
    int piece = __atomic_fetch_add(&queue->next, 1, __ATOMIC_RELAXED);
    return piece < count ? piece : -1;
}
