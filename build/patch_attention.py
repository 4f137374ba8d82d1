"""A change to llama.cpp: attention passes over cells of other sequences fast (build/engine_patch.py).

All sequences share one pool of cells, so that prefixes are shared and one request may use all of it. Attention on a
processor tested the mask of every cell for every row and head, by a look-up in a table of 256 KB. Now the mask is
compared with that of a hidden cell for 64 cells at once, and only the visible ones are visited. Where many rows are
computed in tiles of 64 rows and 64 cells, a tile has the next cells that one of its rows sees, wherever they lie, and
only those rows are multiplied from the first to the last that sees one of them: a step that decodes eight sequences
beside a prompt multiplied the prompt's rows with all of their cells too. So what a sequence computes alone does not
depend, to the last bit, on where its cells lie among those of others, as long as they lie in the order of its tokens.

Where one token alone is computed by several threads, which it is where it sees 512 cells, and not where there are so
many, each of them takes as many visible cells, and not as many cells:
a conversation whose cells lie behind 16,000 that others left was one thread's alone. The last bits differ from those of
an unchanged llama.cpp.

Fewer than 64 rows are computed in tiles too, where that costs less than going from one visible cell to the next, as it
does for a part of a prompt: llama.cpp computes them row by row, and so a step of 63 rows takes three times as long as
one of 64. Then each thread has the rows of a head to itself, which are multiplied with the same keys and values. Keys
are turned eight by eight in registers, and not number by number.

Milliseconds a step of two threads, SmolLM2-135M (Q4_1), before and after: 8 tokens of a prompt behind 3500 others 91
and 50; 32 tokens there 338 and 105; 63 tokens 648 and 180.

Milliseconds a step of one thread, SmolLM2-135M (Q4_1), before and after: 4 sequences of 64 tokens beside 16,000 cells
that others left 67 and 42, 128 tokens of a prompt there 1237 and 768; 8 sequences of 400 tokens 95 and 85; 8 of 200
beside 120 tokens of a prompt 878 and 707.
"""

FILE = "ggml/src/ggml-cpu/ops.cpp"
ONE_CHUNK = """\
static void ggml_compute_forward_flash_attn_ext_f16_one_chunk(
        const ggml_compute_params * params,
"""
CELL_LOOP = """\
        for (int64_t ic = ic_start; ic < ic_end; ++ic) {
            const float mv = mp ? slope*GGML_CPU_FP16_TO_FP32(mp[ic]) : 0.0f;
            if (mv == -INFINITY) {
                continue;
            }

            float s; // KQ value
"""
CELL_LOOP_END = """\
            S = S*ms + vs; // scale and increment sum with partial sum
        }
"""
TILE_MASK = """\
                bool can_skip = true;
                for (int tq = 0; tq < tile_rows; tq++) {
                    const ggml_fp16_t * mp_row = \
(const ggml_fp16_t *)((const char *) mask->data + (iq1 + tq)*mask->nb[1] + (iq2%mask->ne[2])*mask->nb[2] + \
(iq3%mask->ne[3])*mask->nb[3]);
                    for (int tk = 0; tk < kv_tile; tk++) {
                        mask32[tq * KV_TILE_SZ + tk] = slope * GGML_CPU_FP16_TO_FP32(mp_row[ic + tk]);
                        if (mask32[tq * KV_TILE_SZ + tk] != -INFINITY) {
                            can_skip = false;
                        }
                    }
"""
TILE_SKIP = """\
                if (can_skip) {
                    continue;
                }
            }
"""
TILE_START = """\
            // skip the tile entirely if all the masks are -inf
"""
TILE_LOOP = """\
        for (int64_t ic = 0; ic < nek1; ic += KV_TILE_SZ) {
            const int kv_tile = (int)std::min((int64_t)KV_TILE_SZ, nek1 - ic);

"""
TILE_KEY = """\
            for (int tk = 0; tk < kv_tile; tk++) {
                const char * k_data = (const char *)k->data + (ic + tk)*nbk1 + ik2*nbk2 + ik3*nbk3;
"""
TILE_VALUE = """\
            for (int tk = 0; tk < kv_tile; tk++) {
                const char * v_data = (const char *)v->data + (ic + tk)*nbv1 + iv2*nbv2 + iv3*nbv3;
"""
TILE_KEYS = """\
                    for (int64_t dk = 0; dk < DK; dk++) {
                        K_f32[dk * KV_TILE_SZ + tk] = GGML_CPU_FP16_TO_FP32(k_f16[dk]);
                    }
"""
TILE_PRODUCTS = """\
            memset(KQ, 0, Q_TILE_SZ * KV_TILE_SZ * sizeof(float));
            simd_gemm(KQ, (const float *)Q_q, K_f32, Q_TILE_SZ, DK, KV_TILE_SZ);
            ggml_vec_scale_f32(Q_TILE_SZ * KV_TILE_SZ, KQ, scale);

            if (logit_softcap != 0.0f) {
                ggml_vec_tanh_f32(Q_TILE_SZ * KV_TILE_SZ, KQ, KQ);
                ggml_vec_scale_f32(Q_TILE_SZ * KV_TILE_SZ, KQ, logit_softcap);
            }

            // Set padded KQ entries to -inf so softmax gives them zero weight
            if (kv_tile < KV_TILE_SZ) {
                for (int tq = 0; tq < Q_TILE_SZ; tq++) {
"""
TILE_ADD = """\
            if (mask) {
                ggml_vec_add_f32(tile_rows * KV_TILE_SZ, KQ, KQ, mask32);
            }

            bool skip[Q_TILE_SZ] = {};

            for (int tq = 0; tq < Q_TILE_SZ; tq++) {
"""
USE_SPLIT = """\
q->type == GGML_TYPE_F32 && nek1 >= 512;
"""
SHARE = """\
        const int64_t chunk_size = (nek1 + nth - 1) / nth;

"""
SHARE_ENDS = """\
        const int64_t ic_start = ith * chunk_size;
        const int64_t ic_end   = std::min(ic_start + chunk_size, nek1);
"""
SHARES_ADDED = """\
        ggml_flash_attn_ext_reduce_partials(params, dst, nth, chunk_size);
"""
TILED = """\
static void ggml_compute_forward_flash_attn_ext_tiled(
"""
TILE_QUERIES = """\
            for (int tq = tile_rows; tq < Q_TILE_SZ; tq++) {
                memset(Q_f32 + tq * DK, 0, DK * sizeof(float));
            }
"""
TILE_SUMS = """\
        memset(VKQ32, 0, Q_TILE_SZ * DV * sizeof(float));
        memset(mask32, 0, Q_TILE_SZ * KV_TILE_SZ * sizeof(float));
"""
TILE_CELLS = """\
        memset(K_f32, 0, DK * KV_TILE_SZ * sizeof(float));
        memset(V32,   0, KV_TILE_SZ * DV * sizeof(float));
"""
ROWS_OF_CHUNK = """\
        const int64_t dr = (nr + nchunk - 1) / nchunk;

        static constexpr int64_t Q_TILE_SZ  = ggml_fa_tile_config::Q;
"""
USE_TILED = """\
                                neq1 >= Q_TILE_SZ);
"""
CHUNKS = """\
        int current_chunk = ith;

        while (current_chunk < nchunk) {
            const int64_t ir0 = dr * current_chunk;
            const int64_t ir1 = MIN(ir0 + dr, nr);

            if (use_tiled) {
"""
TILE_VALUES = """\
            for (int tq = 0; tq < Q_TILE_SZ; tq++) {
                if (skip[tq]) {
                    memset(KQ + tq * KV_TILE_SZ, 0, KV_TILE_SZ * sizeof(float));
                }
            }
            simd_gemm(VKQ32, KQ, V32, Q_TILE_SZ, KV_TILE_SZ, DV);
"""

REPLACEMENTS = {
    ONE_CHUNK: """\
#if defined(__SSE2__)
#include <immintrin.h>
#endif

// a bit for each of n <= 64 cells that can be seen: whose mask is not -INFINITY
static inline uint64_t ggml_fa_visible(const ggml_fp16_t * mask, int64_t n) {
    uint64_t bits = 0;
    if (n < 64) {
        for (int64_t i = 0; i < n; i++) {
            bits |= (uint64_t) (mask[i] != 0xFC00) << i;
        }
        return bits;
    }
#if defined(__AVX512BW__)
    const __m512i hidden = _mm512_set1_epi16((short) 0xFC00);
    bits  = (uint64_t) _mm512_cmpneq_epi16_mask(_mm512_loadu_si512(mask),      hidden);
    bits |= (uint64_t) _mm512_cmpneq_epi16_mask(_mm512_loadu_si512(mask + 32), hidden) << 32;
#elif defined(__AVX2__)
    const __m256i hidden = _mm256_set1_epi16((short) 0xFC00);
    for (int i = 0; i < 64; i += 32) {
        const __m256i a = _mm256_cmpeq_epi16(_mm256_loadu_si256((const __m256i *) (mask + i)),      hidden);
        const __m256i b = _mm256_cmpeq_epi16(_mm256_loadu_si256((const __m256i *) (mask + i + 16)), hidden);
        const __m256i bytes = _mm256_permute4x64_epi64(_mm256_packs_epi16(a, b), 0xD8);
        bits |= (uint64_t) (uint32_t) ~_mm256_movemask_epi8(bytes) << i;
    }
#elif defined(__SSE2__)
    const __m128i hidden = _mm_set1_epi16((short) 0xFC00);
    for (int i = 0; i < 64; i += 16) {
        const __m128i a = _mm_cmpeq_epi16(_mm_loadu_si128((const __m128i *) (mask + i)),     hidden);
        const __m128i b = _mm_cmpeq_epi16(_mm_loadu_si128((const __m128i *) (mask + i + 8)), hidden);
        bits |= (uint64_t) (uint16_t) ~_mm_movemask_epi8(_mm_packs_epi16(a, b)) << i;
    }
#else
    for (int i = 0; i < 64; i += 4) {
        uint64_t four;
        memcpy(&four, mask + i, sizeof(four));
        if (four != 0xFC00FC00FC00FC00) {
            for (int j = i; j < i + 4; j++) {
                bits |= (uint64_t) (mask[j] != 0xFC00) << j;
            }
        }
    }
#endif
    return bits;
}

// how many of n cells the first row of a mask sees; all without one
static int64_t ggml_fa_count_visible(const ggml_tensor * mask, int64_t n) {
    if (!mask || mask->ne[2] != 1) {
        return n;
    }
    const ggml_fp16_t * row = (const ggml_fp16_t *) mask->data;
    int64_t count = 0;
    for (int64_t block = 0; block < n; block += 64) {
        count += __builtin_popcountll(ggml_fa_visible(row + block, std::min(n - block, (int64_t) 64)));
    }
    return count;
}

// the visible cell that `before` others precede, or n
static inline int64_t ggml_fa_visible_cell(const ggml_fp16_t * mask, int64_t n, int64_t before) {
    for (int64_t block = 0; block < n; block += 64) {
        uint64_t visible = ggml_fa_visible(mask + block, std::min(n - block, (int64_t) 64));
        const int count = __builtin_popcountll(visible);
        if (before < count) {
            for (; before > 0; before--) {
                visible &= visible - 1;
            }
            return block + __builtin_ctzll(visible);
        }
        before -= count;
    }
    return n;
}

"""
    + ONE_CHUNK,
    USE_SPLIT: """\
q->type == GGML_TYPE_F32 && ggml_fa_count_visible(dst->src[3], nek1) >= 512;
""",
    SHARE: """\
        // each thread gets as many cells that can be seen
        const ggml_tensor * mask = dst->src[3];
        const ggml_fp16_t * mp   = mask && mask->ne[2] == 1 ? (const ggml_fp16_t *) mask->data : nullptr;
        const int64_t n_visible = ggml_fa_count_visible(mask, nek1);
        const int64_t share = std::max((n_visible + nth - 1) / nth, (int64_t) 1);

""",
    SHARE_ENDS: """\
        const int64_t first    = ith * share; // of those that can be seen
        const int64_t ic_end   = mp ? ggml_fa_visible_cell(mp, nek1, first + share) : std::min(first + share, nek1);
        const int64_t ic_start = ith == 0 ? 0 : mp ? ggml_fa_visible_cell(mp, nek1, first) : std::min(first, nek1);
""",
    SHARES_ADDED: """\
        ggml_flash_attn_ext_reduce_partials(params, dst, nth, 1); // a share without a cell says so
""",
    CELL_LOOP: """\
        for (int64_t block = ic_start; block < ic_end; block += 64) {
        const int64_t n_block = std::min(ic_end - block, (int64_t) 64);
        uint64_t visible = mp ? ggml_fa_visible(mp + block, n_block) : UINT64_MAX >> (64 - n_block);
        for (; visible; visible &= visible - 1) {
            const int64_t ic = block + __builtin_ctzll(visible);
            const float mv = mp ? slope*GGML_CPU_FP16_TO_FP32(mp[ic]) : 0.0f;

            float s; // KQ value
""",
    CELL_LOOP_END: CELL_LOOP_END + "        }\n",
    TILED: """\
// The cells that a row of n_rows sees, in their order.
struct ggml_fa_cells {
    const ggml_tensor * mask; // none: all
    const char * rows;
    int64_t n_rows;
    int64_t n_cells;
    int64_t block   = 0;
    uint64_t bits   = 0; // those of the block before this one that are still to be taken

    // puts the next ones, at most `most`, into out; returns how many
    int take(int32_t * out, int most) {
        int n = 0;
        while (n < most) {
            if (!bits) {
                if (block >= n_cells) {
                    break;
                }
                const int64_t left = std::min(n_cells - block, (int64_t) 64);
                bits = mask ? 0 : UINT64_MAX >> (64 - left);
                for (int64_t row = 0; row < n_rows && mask; row++) {
                    bits |= ggml_fa_visible((const ggml_fp16_t *) (rows + row*mask->nb[1]) + block, left);
                }
                block += 64;
                continue;
            }
            out[n++] = (int32_t) (block - 64 + __builtin_ctzll(bits));
            bits &= bits - 1;
        }
        return n;
    }
};

#if defined(__AVX__) && defined(__F16C__)
// numbers [dk, dk + 8) of eight keys, to eight rows of out with one of each key
static inline void ggml_fa_transpose_8x8(const ggml_fp16_t * const keys[8], int64_t dk, float * out, int64_t stride) {
    __m256 r[8], s[8];
    for (int i = 0; i < 8; i++) {
        r[i] = _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *) (keys[i] + dk)));
    }
    for (int i = 0; i < 8; i += 4) {
        const __m256 a = _mm256_unpacklo_ps(r[i], r[i + 1]);
        const __m256 b = _mm256_unpackhi_ps(r[i], r[i + 1]);
        const __m256 c = _mm256_unpacklo_ps(r[i + 2], r[i + 3]);
        const __m256 d = _mm256_unpackhi_ps(r[i + 2], r[i + 3]);
        s[i]     = _mm256_shuffle_ps(a, c, 0x44);
        s[i + 1] = _mm256_shuffle_ps(a, c, 0xEE);
        s[i + 2] = _mm256_shuffle_ps(b, d, 0x44);
        s[i + 3] = _mm256_shuffle_ps(b, d, 0xEE);
    }
    for (int i = 0; i < 4; i++) {
        _mm256_storeu_ps(out + i*stride,       _mm256_permute2f128_ps(s[i], s[i + 4], 0x20));
        _mm256_storeu_ps(out + (i + 4)*stride, _mm256_permute2f128_ps(s[i], s[i + 4], 0x31));
    }
}
#endif

// Whether tiles cost less than going from one visible cell to the next, row by row. Measured with SmolLM2-135M, cycles
// of a head: 55 for each row and cell that it sees; in tiles 115 for each cell that is seen and 11 for each row of it.
static bool ggml_fa_prefers_tiles(const ggml_tensor * mask, int64_t n_rows, int64_t n_cells) {
#if !defined(GGML_SIMD)
    return n_rows >= GGML_FA_TILE_Q;
#endif
    if (n_rows >= GGML_FA_TILE_Q || !mask) {
        return n_rows > 4;
    }
    int64_t seen = 0, by_rows = 0;
    for (int64_t ic = 0; ic < n_cells; ic += 64) {
        const int64_t n = std::min(n_cells - ic, (int64_t) 64);
        uint64_t any = 0;
        for (int64_t row = 0; row < n_rows; row++) {
            const uint64_t visible =
                ggml_fa_visible((const ggml_fp16_t *) ((const char *) mask->data + row*mask->nb[1]) + ic, n);
            by_rows += __builtin_popcountll(visible);
            any     |= visible;
        }
        seen += __builtin_popcountll(any);
    }
    return 115*seen < (55 - 11)*by_rows;
}

"""
    + TILED,
    TILE_QUERIES: "",
    TILE_SUMS: """\
        memset(VKQ32, 0, tile_rows * DV * sizeof(float));
        memset(mask32, 0, tile_rows * KV_TILE_SZ * sizeof(float));
""",
    TILE_CELLS: "",
    TILE_LOOP: """\
        ggml_fa_cells seen = { mask, mask ? (const char *) mask->data + iq1*mask->nb[1] + \
(iq2%mask->ne[2])*mask->nb[2] + (iq3%mask->ne[3])*mask->nb[3] : nullptr, tile_rows, nek1 };
        int32_t cells[KV_TILE_SZ];
        while (const int kv_tile = seen.take(cells, KV_TILE_SZ)) {
            const bool is_gap = cells[kv_tile - 1] - cells[0] >= kv_tile; // between two of the cells
""",
    TILE_KEY: """\
            int n_packed = 0;
#if defined(__AVX__) && defined(__F16C__)
            for (; kv_type == GGML_TYPE_F16 && DK % 8 == 0 && n_packed + 8 <= kv_tile; n_packed += 8) {
                const ggml_fp16_t * keys[8];
                for (int tk = 0; tk < 8; tk++) {
                    const char * k_data = (const char *)k->data + cells[n_packed + tk]*nbk1 + ik2*nbk2 + ik3*nbk3;
                    keys[tk] = (const ggml_fp16_t *) k_data;
                }
                for (int64_t dk = 0; dk < DK; dk += 8) {
                    ggml_fa_transpose_8x8(keys, dk, K_f32 + dk * KV_TILE_SZ + n_packed, KV_TILE_SZ);
                }
            }
#endif
            for (int tk = n_packed; tk < kv_tile; tk++) {
                const char * k_data = (const char *)k->data + cells[tk]*nbk1 + ik2*nbk2 + ik3*nbk3;
""",
    TILE_VALUE: """\
            memset(V32 + kv_tile * DV, 0, (KV_TILE_SZ - kv_tile) * DV * sizeof(float));
            for (int tk = 0; tk < kv_tile; tk++) {
                const char * v_data = (const char *)v->data + cells[tk]*nbv1 + iv2*nbv2 + iv3*nbv3;
""",
    ROWS_OF_CHUNK: """\
        int64_t dr = (nr + nchunk - 1) / nchunk;

""",
    USE_TILED: """\
                                ggml_fa_prefers_tiles(dst->src[3], neq1, nek1));
""",
    CHUNKS: """\
        // a tile is of one head: few rows are not shared out among threads where there are heads enough
        if (use_tiled && neq1 <= GGML_FA_TILE_Q && neq2*neq3 >= 2*nth && !disable_chunking) {
            dr     = neq1;
            nchunk = neq2*neq3;
        }

"""
    + CHUNKS,
    TILE_START: """\
            // the rows of this tile that are computed: from the first to the last that sees a cell of it
            int row0 = 0;
            int row1 = tile_rows;

""",
    TILE_MASK: """\
                row0 = row1 = tile_rows;
                for (int tq = 0; tq < tile_rows; tq++) {
                    const ggml_fp16_t * mp_row = (const ggml_fp16_t *) (seen.rows + tq*mask->nb[1]);
                    ggml_fp16_t of_cells[KV_TILE_SZ];
                    if (is_gap) {
                        for (int tk = 0; tk < kv_tile; tk++) {
                            of_cells[tk] = mp_row[cells[tk]];
                        }
                    }
                    const ggml_fp16_t * mp = is_gap ? of_cells : mp_row + cells[0];
                    if (ggml_fa_visible(mp, kv_tile)) {
                        row0 = std::min(row0, tq);
                        row1 = tq + 1;
                    }
                    ggml_cpu_fp16_to_fp32(mp, mask32 + tq * KV_TILE_SZ, kv_tile);
                    if (slope != 1.0f) {
                        ggml_vec_scale_f32(kv_tile, mask32 + tq * KV_TILE_SZ, slope);
                    }
""",
    TILE_SKIP: """\
            }
            const int n_rows = row1 - row0;
            float * KQ_rows = KQ + row0 * KV_TILE_SZ;
""",
    TILE_KEYS: """\
                    float row[64];
                    for (int64_t dk0 = 0; dk0 < DK; dk0 += 64) {
                        const int64_t n = std::min(DK - dk0, (int64_t) 64);
                        ggml_cpu_fp16_to_fp32(k_f16 + dk0, row, n);
                        for (int64_t dk = 0; dk < n; dk++) {
                            K_f32[(dk0 + dk) * KV_TILE_SZ + tk] = row[dk];
                        }
                    }
""",
    TILE_PRODUCTS: """\
            memset(KQ_rows, 0, n_rows * KV_TILE_SZ * sizeof(float));
            simd_gemm(KQ_rows, (const float *)Q_q + row0 * DK, K_f32, n_rows, DK, KV_TILE_SZ);
            ggml_vec_scale_f32(n_rows * KV_TILE_SZ, KQ_rows, scale);

            if (logit_softcap != 0.0f) {
                ggml_vec_tanh_f32(n_rows * KV_TILE_SZ, KQ_rows, KQ_rows);
                ggml_vec_scale_f32(n_rows * KV_TILE_SZ, KQ_rows, logit_softcap);
            }

            // Set padded KQ entries to -inf so softmax gives them zero weight
            if (kv_tile < KV_TILE_SZ) {
                for (int tq = row0; tq < row1; tq++) {
""",
    TILE_ADD: """\
            if (mask) {
                ggml_vec_add_f32(n_rows * KV_TILE_SZ, KQ_rows, KQ_rows, mask32 + row0 * KV_TILE_SZ);
            }

            bool skip[Q_TILE_SZ] = {};

            for (int tq = row0; tq < row1; tq++) {
""",
    TILE_VALUES: """\
            for (int tq = row0; tq < row1; tq++) {
                if (skip[tq]) {
                    memset(KQ + tq * KV_TILE_SZ, 0, KV_TILE_SZ * sizeof(float));
                }
            }
            simd_gemm(VKQ32 + row0 * DV, KQ_rows, V32, n_rows, KV_TILE_SZ, DV);
""",
}
