/* Threads that share one piece of work after another, and wait for the next one awake for a while. */
#ifndef GM_POOL_H
#define GM_POOL_H

typedef void (*gm_work)(void *context, int thread, int threads);

/* Every one of `threads` threads, the caller among them, has run `work`. One caller at a time. */
void gm_together(gm_work work, void *context, int threads);

/* Every thread of the work under way has come to this point. */
void gm_barrier(int threads);

/* The next of `count` pieces, or -1; between two barriers, all threads name the same `queue`. */
typedef struct {
    _Alignas(64) int next;
} gm_queue;
int gm_take(gm_queue *queue, int count);

#endif
