"""A change to llama.cpp: 16 rows of Q4_1 weights are multiplied at once (build/engine_patch.py, build/panels.h).

Small models whose widths are no multiples of 256, as SmolLM2-135M, have no K quants, and of the types they have
instead, Q4_1 is multiplied by one column after the other, and its weights are unpacked for each of them. With two
columns or more, which are the rows of a prompt or the streams of a step, they are unpacked once for all columns now.

Milliseconds a step of two threads (AVX-512), SmolLM2-135M (Q4_1), before and after: 8 streams 35 and 20, 16 streams 61
and 30; 64 tokens of a prompt 205 and 56, 512 tokens 1407 and 329.
"""

from pathlib import Path

FILE = "ggml/src/ggml-cpu/ggml-cpu.c"
HEADER = "ggml/src/ggml-cpu/panels.h"
ADDED = {HEADER: (Path(__file__).parent / "panels.h").read_text("utf-8")}

ONE_CHUNK = """\
static void ggml_compute_forward_mul_mat_one_chunk(
"""
SIZES = """\
    const int64_t nr0 = ne0;
"""

REPLACEMENTS = {
    ONE_CHUNK: '#include "panels.h"\n\n' + ONE_CHUNK,
    SIZES: """\
#ifdef PANELS
    if (ggml_mul_mat_panels(params, dst)) {
        return;
    }
#endif

"""
    + SIZES,
}
