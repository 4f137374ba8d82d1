"""A change to llama.cpp: threads that wait for each other sleep where spinning is in vain (build/engine_patch.py).

ggml's threads meet at a barrier after each operation, some hundred times a token, and spin there until the last one
has come. Where another program has the processor of one of them, the others spin through its whole time slice: with
two threads on two processors, beside one program that computes, a model of 98 MB wrote 1 to 3 tokens a second in
place of 20 to 45. OpenMP's barrier sleeps, but needs a library on the host. So here a thread spins for a bounded time
and then sleeps (futex(2)), which frees its processor for the thread that it waits for. To sleep and be woken takes
some 50 µs, too much for every barrier of an idle machine; so the bound follows from what happens: each wait that was
in vain halves it, and each that was not lets it grow by a tenth of the most.

Measured with SmolLM2-135M (Q4_1) and two threads on two processors, tokens a second of one stream and of four: idle 99
and 194 (spinning without a bound 98 and 189), beside one program that computes 42 and 89 (34 and 57). A fixed bound of
200 pauses, which is also the least, wrote 78 and 191 on the idle machine, one of 3000 19 and 57 on the busy one; a
bound that grows by 2 at a time stayed at its least.
"""

FILE = "ggml/src/ggml-cpu/ggml-cpu.c"
INCLUDES = '#include "ggml-backend-impl.h"\n'
FIELD = "    atomic_int GGML_CACHE_ALIGN n_barrier_passed;\n"
START = "        threadpool->n_barrier_passed = 0;\n"
LAST_THREAD = """\
        atomic_fetch_add_explicit(&tp->n_barrier_passed, 1, memory_order_seq_cst);
        return;
"""
WAIT = """\
    while (atomic_load_explicit(&tp->n_barrier_passed, memory_order_relaxed) == n_passed) {
        ggml_thread_cpu_relax();
    }
"""
# Two thousand pauses are 25 to 90 µs, by processor. A sleeper is counted before it looks at the barrier once more
# (the kernel does, in FUTEX_WAIT), and the last thread opens the barrier before it looks at the count: one of the two
# sees the other, so nobody sleeps on.
REPLACEMENTS = {
    INCLUDES: INCLUDES
    + """\
#include <limits.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#define BARRIER_MIN_SPINS   200
#define BARRIER_MAX_SPINS  2000
#define BARRIER_MORE_SPINS  200
""",
    FIELD: FIELD
    + """\
    atomic_int GGML_CACHE_ALIGN n_barrier_asleep; // threads that sleep at the barrier
    atomic_int n_barrier_spins;                   // how often a thread looks at it before it sleeps
""",
    START: START
    + """\
        threadpool->n_barrier_asleep = 0;
        threadpool->n_barrier_spins  = BARRIER_MAX_SPINS;
""",
    LAST_THREAD: """\
        atomic_fetch_add_explicit(&tp->n_barrier_passed, 1, memory_order_seq_cst);
        if (atomic_load_explicit(&tp->n_barrier_asleep, memory_order_seq_cst)) {
            syscall(SYS_futex, &tp->n_barrier_passed, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
        }
        return;
""",
    WAIT: """\
    const int spins = atomic_load_explicit(&tp->n_barrier_spins, memory_order_relaxed);
    int spun = 0;
    while (spun < spins && atomic_load_explicit(&tp->n_barrier_passed, memory_order_relaxed) == n_passed) {
        ggml_thread_cpu_relax();
        spun++;
    }
    if (spun < spins) {
        if (spins < BARRIER_MAX_SPINS) {
            atomic_store_explicit(&tp->n_barrier_spins, spins + BARRIER_MORE_SPINS, memory_order_relaxed);
        }
    } else {
        const int fewer = spins / 2 > BARRIER_MIN_SPINS ? spins / 2 : BARRIER_MIN_SPINS;
        atomic_store_explicit(&tp->n_barrier_spins, fewer, memory_order_relaxed);
        atomic_fetch_add_explicit(&tp->n_barrier_asleep, 1, memory_order_seq_cst);
        while (atomic_load_explicit(&tp->n_barrier_passed, memory_order_seq_cst) == n_passed) {
            syscall(SYS_futex, &tp->n_barrier_passed, FUTEX_WAIT_PRIVATE, n_passed, NULL, NULL, 0);
        }
        atomic_fetch_sub_explicit(&tp->n_barrier_asleep, 1, memory_order_seq_cst);
    }
""",
}
