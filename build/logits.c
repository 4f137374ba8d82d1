/* Loops over the logits of a whole vocabulary, which take milliseconds in Python: rbee/worker/llama/logits.py.

   Each function works on one row of `count` logits. */

#include <math.h>
#include <stdint.h>

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
