/* Loops over the logits of a whole vocabulary, which take milliseconds in Python: rbee/worker/llama/logits.py.

   Each function works on one row of `count` logits. */

#include <math.h>
#include <stddef.h>
#include <stdint.h>

/* As many logits are looked at together, which the compiler does with vectors, before one of them is looked at alone. */
#define BLOCK 64

/* Forbids each token whose bit in `mask`, which has whole words, is not set. */
void rbee_mask_logits(float *logits, int32_t count, const uint32_t *mask)
{
    for (int32_t first = 0; first < count; first += 32) {
        const uint32_t word = mask[first / 32];
        if (word == UINT32_MAX)
            continue;
        const int32_t end = count - first < 32 ? count - first : 32;
        for (int32_t bit = 0; bit < end; bit++)
            if (!(word >> bit & 1))
                logits[first + bit] = -INFINITY;
    }
}

/* The logarithm of the sum of the exponentials: a logit less this is the logarithm of the token's probability. */
double rbee_log_sum_exp(const float *logits, int32_t count)
{
    float most = -INFINITY;
    for (int32_t token = 0; token < count; token++)
        if (logits[token] > most)
            most = logits[token];
    if (!isfinite(most))
        return most;
    double sum = 0;
    for (int32_t token = 0; token < count; token++)
        sum += expf(logits[token] - most);
    return most + log(sum);
}

/* Writes the `wanted` tokens with the highest logits into `tokens`, the highest first, and of equals the first one
   first; returns how many there are. NaN is never among them. */
int32_t rbee_highest_logits(const float *logits, int32_t count, int32_t wanted, int32_t *tokens)
{
    int32_t found = 0;
    for (int32_t token = 0; token < count; token++) {
        const float logit = logits[token];
        if (isnan(logit) || (found == wanted && !(logit > logits[tokens[found - 1]])))
            continue;
        int32_t place = found < wanted ? found++ : found - 1;
        for (; place > 0 && logit > logits[tokens[place - 1]]; place--)
            tokens[place] = tokens[place - 1];
        tokens[place] = token;
    }
    return found;
}

static int has_more_than(float bound, const float *logits)
{
    int found = 0;
    for (int i = 0; i < BLOCK; i++)
        found |= logits[i] > bound;
    return found;
}

/* Returns the token with the highest logit, of equals the first one. Where each is -INFINITY or NaN it returns -1. */
int32_t rbee_likeliest(const float *logits, int32_t count)
{
    int32_t likeliest = -1;
    float most = -INFINITY;
    for (int32_t first = 0; first < count; first += BLOCK) {
        if (count - first >= BLOCK && !has_more_than(most, logits + first))
            continue;
        const int32_t end = count - first < BLOCK ? count : first + BLOCK;
        for (int32_t token = first; token < end; token++)
            if (logits[token] > most)
                most = logits[likeliest = token];
    }
    return likeliest;
}

/* `llama_token_data` and `llama_token_data_array` of llama.h. */
struct candidate {
    int32_t token;
    float logit;
    float probability;
};

struct candidates {
    struct candidate *data;
    size_t size;
    int64_t selected;
    _Bool is_sorted;
};

/* Chooses a token with `apply`, which is llama_sampler_apply, and a chain that begins with the `wanted` highest logits.

   llama_sampler_sample does that with an array of the whole vocabulary, which it fills and sorts for each token. Here
   the chain gets what it would begin with: the `wanted` highest, in their order, in `room` for as many. Of equals the
   first one comes first, which llama.cpp leaves open. Returns -1 where no logit is a number. */
int32_t rbee_choose(const float *logits, int32_t count, struct candidate *room, int32_t wanted,
                    void (*apply)(void *chain, struct candidates *), void *chain)
{
    int32_t found = 0;
    float least = -INFINITY; /* of those found, once there are as many as wanted */
    for (int32_t first = 0; first < count; first += BLOCK) {
        if (found == wanted && count - first >= BLOCK && !has_more_than(least, logits + first))
            continue;
        const int32_t end = count - first < BLOCK ? count : first + BLOCK;
        for (int32_t token = first; token < end; token++) {
            const float logit = logits[token];
            if (isnan(logit) || (found == wanted && !(logit > least)))
                continue;
            int32_t place = found < wanted ? found++ : found - 1;
            for (; place > 0 && logit > room[place - 1].logit; place--)
                room[place] = room[place - 1];
            room[place] = (struct candidate){token, logit, 0};
            if (found == wanted)
                least = room[found - 1].logit;
        }
    }
    if (!found)
        return -1;
    struct candidates candidates = {room, (size_t)found, -1, 1};
    apply(chain, &candidates);
    return candidates.selected < 0 ? -1 : room[candidates.selected].token;
}
