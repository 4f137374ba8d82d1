"""A change to llama.cpp: memory of a context is taken as it is used, and not when it is made (build/engine_patch.py).

llama.cpp writes zeros over the whole cache as it makes a context: half a second of a processor for each GB, and all of
it counts as used from then on, for conversations that may never be as long. Here whole pages are given back instead
(madvise(2), MADV_DONTNEED): the system hands them out anew, with zeros, when they are first touched. Only memory that
ggml has allocated is cleared so, and never a file that is mapped, whose pages would come back as the file has them.
"""

FILE = "ggml/src/ggml-backend.cpp"
INCLUDES = "#include <assert.h>\n#include <limits.h>\n#include <stdarg.h>\n"
CLEAR = """\
    memset(buffer->context, value, buffer->size);
}

static const struct ggml_backend_buffer_i ggml_backend_cpu_buffer_i = {
"""
OWN_BUFFERS = """\
    /* .clear           = */ ggml_backend_cpu_buffer_clear,
    /* .reset           = */ NULL,
};

static const struct ggml_backend_buffer_i ggml_backend_cpu_buffer_from_ptr_i = {
"""
REPLACEMENTS = {
    INCLUDES: INCLUDES + "#include <sys/mman.h>\n#include <unistd.h>\n",
    CLEAR: """\
    memset(buffer->context, value, buffer->size);
}

static void ggml_backend_cpu_buffer_clear_own(ggml_backend_buffer_t buffer, uint8_t value) {
    GGML_ASSERT(buffer);
    const uintptr_t page  = (uintptr_t) sysconf(_SC_PAGESIZE);
    const uintptr_t start = (uintptr_t) buffer->context;
    const uintptr_t end   = start + buffer->size;
    const uintptr_t first = (start + page - 1) / page * page;
    const uintptr_t last  = end / page * page;
    if (value != 0 || last <= first || madvise((void *) first, last - first, MADV_DONTNEED) != 0) {
        memset(buffer->context, value, buffer->size);
        return;
    }
    memset((void *) start, 0, first - start);
    memset((void *) last,  0, end - last);
}

static const struct ggml_backend_buffer_i ggml_backend_cpu_buffer_i = {
""",
    OWN_BUFFERS: OWN_BUFFERS.replace("ggml_backend_cpu_buffer_clear,", "ggml_backend_cpu_buffer_clear_own,", 1),
}
