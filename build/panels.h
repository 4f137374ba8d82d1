// Multiplies Q4_1 weights by columns of activations, 16 rows of weights at a time (build/patch_panels.py says why).
//
// A panel is 16 rows of the weights, with the numbers of one block (32 columns of the matrix) side by side: the quants of
// all rows are unpacked once, a lane of a vector for each row, and are multiplied by every column of activations. So
// there is no sum across lanes, and what belongs to a row (scale, offset) is a vector as well. The numbers of a row and a
// column are added up in the same order whatever is computed beside them.

#pragma once

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VNNI__)
#define PANELS 1
#define PANEL_HALVES 1 // vectors that hold a number of each row
#define PANEL_COLUMNS 4 // columns of activations that share a load of weights
typedef __m512i panel_ints;
typedef __m512 panel_floats;
#elif defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
#define PANELS 1
#define PANEL_HALVES 2
#define PANEL_COLUMNS 2
typedef __m256i panel_ints;
typedef __m256 panel_floats;
#endif

#ifdef PANELS

#define PANEL_ROWS 16
#define PANEL_BLOCKS 32 // that are unpacked at once

typedef struct {
    panel_ints   quants[PANEL_BLOCKS][8][PANEL_HALVES]; // four quants of each row
    panel_floats d[PANEL_BLOCKS][PANEL_HALVES];
    panel_floats m[PANEL_BLOCKS][PANEL_HALVES];
} panel;

// four columns of four 32-bit numbers, of rows 0 to 3, 4 to 7, ... in the four 128-bit lanes
static inline void panel_transpose(const __m128i rows[PANEL_ROWS], uint32_t out[4][PANEL_ROWS]) {
    for (int i = 0; i < PANEL_ROWS; i += 4) {
        const __m128i a = _mm_unpacklo_epi32(rows[i], rows[i + 1]);
        const __m128i b = _mm_unpacklo_epi32(rows[i + 2], rows[i + 3]);
        const __m128i c = _mm_unpackhi_epi32(rows[i], rows[i + 1]);
        const __m128i d = _mm_unpackhi_epi32(rows[i + 2], rows[i + 3]);
        _mm_store_si128((__m128i *) (out[0] + i), _mm_unpacklo_epi64(a, b));
        _mm_store_si128((__m128i *) (out[1] + i), _mm_unpackhi_epi64(a, b));
        _mm_store_si128((__m128i *) (out[2] + i), _mm_unpacklo_epi64(c, d));
        _mm_store_si128((__m128i *) (out[3] + i), _mm_unpackhi_epi64(c, d));
    }
}

// unpacks n_blocks blocks of 16 rows; those from n_rows on are the last one again
static void panel_unpack(panel * p, const block_q4_1 * weights, size_t row_blocks, int n_rows, int n_blocks) {
    const block_q4_1 * rows[PANEL_ROWS];
    for (int r = 0; r < PANEL_ROWS; r++) {
        rows[r] = weights + (r < n_rows ? r : n_rows - 1) * row_blocks;
    }
    for (int b = 0; b < n_blocks; b++) {
        __attribute__((aligned(64))) uint32_t packed[4][PANEL_ROWS];
        __attribute__((aligned(64))) uint16_t scales[2][PANEL_ROWS];
        __m128i quants[PANEL_ROWS];
        for (int r = 0; r < PANEL_ROWS; r++) {
            quants[r]    = _mm_loadu_si128((const __m128i *) rows[r][b].qs);
            scales[0][r] = rows[r][b].d;
            scales[1][r] = rows[r][b].m;
        }
        panel_transpose(quants, packed);
#if PANEL_HALVES == 1
        const __m512i low = _mm512_set1_epi8(0x0F);
        for (int k = 0; k < 4; k++) {
            const __m512i both = _mm512_load_si512(packed[k]);
            p->quants[b][k][0]     = _mm512_and_si512(both, low);
            p->quants[b][k + 4][0] = _mm512_and_si512(_mm512_srli_epi16(both, 4), low);
        }
        p->d[b][0] = _mm512_cvtph_ps(_mm256_load_si256((const __m256i *) scales[0]));
        p->m[b][0] = _mm512_cvtph_ps(_mm256_load_si256((const __m256i *) scales[1]));
#else
        const __m256i low = _mm256_set1_epi8(0x0F);
        for (int half = 0; half < 2; half++) {
            for (int k = 0; k < 4; k++) {
                const __m256i both = _mm256_load_si256((const __m256i *) (packed[k] + 8 * half));
                p->quants[b][k][half]     = _mm256_and_si256(both, low);
                p->quants[b][k + 4][half] = _mm256_and_si256(_mm256_srli_epi16(both, 4), low);
            }
            p->d[b][half] = _mm256_cvtph_ps(_mm_load_si128((const __m128i *) (scales[0] + 8 * half)));
            p->m[b][half] = _mm256_cvtph_ps(_mm_load_si128((const __m128i *) (scales[1] + 8 * half)));
        }
#endif
    }
}

// adds the products of n_blocks blocks to n_columns results of 16 rows each, which are zero at first
static inline __attribute__((always_inline)) void panel_multiply(
        const panel * p, int n_blocks, const block_q8_1 * const * columns, int n_columns, float (*results)[PANEL_ROWS]) {
    panel_floats sums[PANEL_COLUMNS][PANEL_HALVES];
    for (int c = 0; c < n_columns; c++) {
        for (int half = 0; half < PANEL_HALVES; half++) {
            sums[c][half] = *(const panel_floats *) (results[c] + half * (PANEL_ROWS / PANEL_HALVES));
        }
    }
    for (int b = 0; b < n_blocks; b++) {
#if PANEL_HALVES == 1
        __m512i dots[PANEL_COLUMNS];
        for (int c = 0; c < n_columns; c++) {
            dots[c] = _mm512_setzero_si512();
        }
        for (int k = 0; k < 8; k++) {
            for (int c = 0; c < n_columns; c++) {
                int32_t four;
                memcpy(&four, columns[c][b].qs + 4 * k, sizeof(four));
                dots[c] = _mm512_dpbusd_epi32(dots[c], p->quants[b][k][0], _mm512_set1_epi32(four));
            }
        }
        for (int c = 0; c < n_columns; c++) {
            const __m512 d = _mm512_cvtph_ps(_mm256_set1_epi16((int16_t) columns[c][b].d));
            const __m512 s = _mm512_cvtph_ps(_mm256_set1_epi16((int16_t) columns[c][b].s));
            sums[c][0] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dots[c]), _mm512_mul_ps(p->d[b][0], d), sums[c][0]);
            sums[c][0] = _mm512_fmadd_ps(p->m[b][0], s, sums[c][0]);
        }
#else
        // 8 sums of two products of at most 15 * 127 fit into 16 bits
        __m256i dots[PANEL_COLUMNS][2];
        for (int c = 0; c < n_columns; c++) {
            dots[c][0] = dots[c][1] = _mm256_setzero_si256();
        }
        for (int k = 0; k < 8; k++) {
            for (int c = 0; c < n_columns; c++) {
                int32_t four;
                memcpy(&four, columns[c][b].qs + 4 * k, sizeof(four));
                const __m256i y = _mm256_set1_epi32(four);
                for (int half = 0; half < 2; half++) {
                    dots[c][half] = _mm256_add_epi16(dots[c][half], _mm256_maddubs_epi16(p->quants[b][k][half], y));
                }
            }
        }
        const __m256i ones = _mm256_set1_epi16(1);
        for (int c = 0; c < n_columns; c++) {
            const __m256 d = _mm256_cvtph_ps(_mm_set1_epi16((int16_t) columns[c][b].d));
            const __m256 s = _mm256_cvtph_ps(_mm_set1_epi16((int16_t) columns[c][b].s));
            for (int half = 0; half < 2; half++) {
                const __m256 dot = _mm256_cvtepi32_ps(_mm256_madd_epi16(dots[c][half], ones));
                sums[c][half] = _mm256_fmadd_ps(dot, _mm256_mul_ps(p->d[b][half], d), sums[c][half]);
                sums[c][half] = _mm256_fmadd_ps(p->m[b][half], s, sums[c][half]);
            }
        }
#endif
    }
    for (int c = 0; c < n_columns; c++) {
        for (int half = 0; half < PANEL_HALVES; half++) {
            *(panel_floats *) (results[c] + half * (PANEL_ROWS / PANEL_HALVES)) = sums[c][half];
        }
    }
}

static void panel_multiply_some(
        const panel * p, int n_blocks, const block_q8_1 * const * columns, int n_columns, float (*results)[PANEL_ROWS]) {
    switch (n_columns) {
        case 1: panel_multiply(p, n_blocks, columns, 1, results); break;
        case 2: panel_multiply(p, n_blocks, columns, 2, results); break;
#if PANEL_COLUMNS == 4
        case 3: panel_multiply(p, n_blocks, columns, 3, results); break;
        case 4: panel_multiply(p, n_blocks, columns, 4, results); break;
#endif
    }
}

// one panel of weights by columns [first, end) of activations; results go to dst, a column of which has dst_stride floats
static void panel_run(
        const block_q4_1 * weights, size_t row_blocks, int n_rows, int n_blocks,
        const block_q8_1 * activations, size_t column_blocks, int64_t first, int64_t end, float * dst, size_t dst_stride) {
    panel p;
    for (int start = 0; start < n_blocks; start += PANEL_BLOCKS) {
        const int n = n_blocks - start < PANEL_BLOCKS ? n_blocks - start : PANEL_BLOCKS;
        panel_unpack(&p, weights + start, row_blocks, n_rows, n);
        for (int64_t column = first; column < end; column += PANEL_COLUMNS) {
            const int n_columns = end - column < PANEL_COLUMNS ? (int) (end - column) : PANEL_COLUMNS;
            __attribute__((aligned(64))) float results[PANEL_COLUMNS][PANEL_ROWS];
            const block_q8_1 * columns[PANEL_COLUMNS];
            memset(results, 0, sizeof(results));
            for (int c = 0; c < n_columns; c++) {
                columns[c] = activations + (column + c) * column_blocks + start;
                if (start) {
                    memcpy(results[c], dst + (column + c) * dst_stride, n_rows * sizeof(float));
                }
            }
            panel_multiply_some(&p, n, columns, n_columns, results);
            for (int c = 0; c < n_columns; c++) {
                memcpy(dst + (column + c) * dst_stride, results[c], n_rows * sizeof(float));
            }
        }
    }
}

// the whole product of a matrix of Q4_1 by columns that are Q8_1 in the work buffer; false where it has to be another way's
static bool ggml_mul_mat_panels(const struct ggml_compute_params * params, struct ggml_tensor * dst) {
    const struct ggml_tensor * src0 = dst->src[0];
    const struct ggml_tensor * src1 = dst->src[1];
    if (src0->type != GGML_TYPE_Q4_1 || src1->type != GGML_TYPE_F32 || params->use_ref ||
        src1->ne[1] < 2 || src0->ne[2] != 1 || src0->ne[3] != 1 || src1->ne[2] != 1 || src1->ne[3] != 1) {
        return false;
    }
    const int64_t n_rows = src0->ne[1], n_columns = src1->ne[1];
    const int     n_blocks = (int) (src0->ne[0] / QK4_1);
    const int64_t n_panels = (n_rows + PANEL_ROWS - 1) / PANEL_ROWS;
    // Columns are shared out where there are too few panels for all threads.
    const int64_t column_parts = n_panels >= 4 * params->nth || n_columns < 64 ? 1 : (n_columns + 63) / 64;
    const int64_t part = ((n_columns + column_parts - 1) / column_parts + PANEL_COLUMNS - 1) / PANEL_COLUMNS * PANEL_COLUMNS;
    const int64_t together = MAX(n_panels / (16 * params->nth), 1); // panels that a thread takes at once
    const int64_t n_groups = (n_panels + together - 1) / together;

    for (int64_t chunk = params->ith; chunk < n_groups * column_parts;
         chunk = ggml_threadpool_chunk_add(params->threadpool, 1)) {
        const int64_t first = chunk % column_parts * part;
        const int64_t end   = MIN(first + part, n_columns);
        const int64_t last  = MIN((chunk / column_parts + 1) * together, n_panels);
        for (int64_t number = chunk / column_parts * together; number < last && first < end; number++) {
            const int64_t row = number * PANEL_ROWS;
            panel_run(
                (const block_q4_1 *) ((const char *) src0->data + row * src0->nb[1]), src0->nb[1] / sizeof(block_q4_1),
                (int) MIN(n_rows - row, PANEL_ROWS), n_blocks, (const block_q8_1 *) params->wdata, n_blocks, first, end,
                (float *) dst->data + row, dst->nb[1] / sizeof(float));
        }
    }
    return true;
}

#endif
