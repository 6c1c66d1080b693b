// The decoder layers. Compiled once for each instruction set, into a namespace of its own: -DKERNEL=avx512 or avx2.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "stack.h"

namespace KERNEL {
namespace {

constexpr int CHUNK = 32;  // outputs of a product in one task, whose number is a multiple of BLOCK
constexpr int TILE = 4;    // tokens for which a weight is loaded once

// After Cephes' expf; within 2 units in the last place from -87 to 88.
inline float exponential(float x) {
    x = std::min(std::max(x, -87.0f), 88.0f);
    const float n = __builtin_rintf(x * 1.44269504f);
    float r = __builtin_fmaf(n, -0.693359375f, x);
    r = __builtin_fmaf(n, 2.12194440e-4f, r);
    float p = 1.9875691500e-4f;
    p = __builtin_fmaf(p, r, 1.3981999507e-3f);
    p = __builtin_fmaf(p, r, 8.3334519073e-3f);
    p = __builtin_fmaf(p, r, 4.1665795894e-2f);
    p = __builtin_fmaf(p, r, 1.6666665459e-1f);
    p = __builtin_fmaf(p, r, 5.0000001201e-1f);
    const int32_t power = (int32_t(n) + 127) << 23;
    float two;
    std::memcpy(&two, &power, sizeof two);
    return __builtin_fmaf(p, r * r, r + 1.0f) * two;
}

// To signed bytes by the block's largest value, as MatMulNBits does at accuracy_level 4.
void quantise(const float *x, Activations &a, int token, int block) {
    float largest = 0;
    for (int j = 0; j < BLOCK; ++j) largest = std::max(largest, std::fabs(x[j]));
    const float inverse = largest > 0 ? 127.0f / largest : 0.0f;
    int8_t *values = a.values.data() + size_t(token) * a.inner + size_t(block) * BLOCK;
    int32_t sum = 0;
    for (int j = 0; j < BLOCK; ++j) {
        const int32_t value = int32_t(__builtin_rintf(x[j] * inverse));
        values[j] = int8_t(value);
        sum += value;
    }
    const size_t i = a.first_block(token) + block;
    a.scales[i] = largest / 127.0f;
    a.offsets[i] = -128.0f * a.scales[i] * float(sum);
}

// Products of R neighbouring outputs with T neighbouring tokens.
template <int R, int T>
inline void tile(const Matrix &m, int output, const Activations &a, int token, float *to, size_t stride) {
    const int blocks = m.blocks();
    const uint8_t *w = m.values + size_t(output) * m.inner;
    const float *ws = m.scales + size_t(output) * blocks;
    const int8_t *x = a.of(token);
    const float *xs = a.scales.data() + a.first_block(token);
#ifdef __AVX512VNNI__
    const float *offsets = a.offsets.data() + a.first_block(token);
    __m512 sums[R][T];
    for (int r = 0; r < R; ++r)
        for (int t = 0; t < T; ++t) sums[r][t] = _mm512_setzero_ps();
    for (int b = 0; b < blocks; ++b) {
        for (int r = 0; r < R; ++r) {
            const uint8_t *from = w + size_t(r) * m.inner + b * BLOCK;
            const __m512i low = _mm512_loadu_si512(from), high = _mm512_loadu_si512(from + 64);
            for (int t = 0; t < T; ++t) {
                const int8_t *with = x + size_t(t) * m.inner + b * BLOCK;
                __m512i dot = _mm512_dpbusd_epi32(_mm512_setzero_si512(), low, _mm512_loadu_si512(with));
                dot = _mm512_dpbusd_epi32(dot, high, _mm512_loadu_si512(with + 64));
                const __m512 by = _mm512_set1_ps(ws[r * blocks + b] * xs[t * blocks + b]);
                sums[r][t] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot), by, sums[r][t]);
            }
        }
    }
    for (int r = 0; r < R; ++r) {
        for (int t = 0; t < T; ++t) {
            __m256 zero = _mm256_setzero_ps();
            for (int b = 0; b < blocks; b += 8) {
                const __mmask8 there = blocks - b < 8 ? (1 << (blocks - b)) - 1 : 255;
                zero = _mm256_fmadd_ps(_mm256_maskz_loadu_ps(there, ws + r * blocks + b),
                                       _mm256_maskz_loadu_ps(there, offsets + t * blocks + b), zero);
            }
            to[t * stride + r] = _mm512_reduce_add_ps(_mm512_add_ps(sums[r][t], _mm512_zextps256_ps512(zero)));
        }
    }
#else
    const __m256i middle = _mm256_set1_epi8(char(128)), ones = _mm256_set1_epi16(1);
    for (int r = 0; r < R; ++r) {
        __m256 sums[T];
        for (int t = 0; t < T; ++t) sums[t] = _mm256_setzero_ps();
        for (int b = 0; b < blocks; ++b) {
            __m256i signs[4], sizes[4];
            for (int i = 0; i < 4; ++i) {
                const uint8_t *from = w + size_t(r) * m.inner + b * BLOCK + 32 * i;
                signs[i] = _mm256_xor_si256(_mm256_loadu_si256((const __m256i *)from), middle);
                sizes[i] = _mm256_abs_epi8(signs[i]);
            }
            for (int t = 0; t < T; ++t) {
                __m256i dot = _mm256_setzero_si256();
                for (int i = 0; i < 4; ++i) {
                    const int8_t *with = x + size_t(t) * m.inner + b * BLOCK + 32 * i;
                    const __m256i value = _mm256_sign_epi8(_mm256_loadu_si256((const __m256i *)with), signs[i]);
                    dot = _mm256_add_epi32(dot, _mm256_madd_epi16(_mm256_maddubs_epi16(sizes[i], value), ones));
                }
                const __m256 by = _mm256_set1_ps(ws[r * blocks + b] * xs[t * blocks + b]);
                sums[t] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot), by, sums[t]);
            }
        }
        for (int t = 0; t < T; ++t) {
            float parts[8], sum = 0;
            _mm256_storeu_ps(parts, sums[t]);
            for (float part : parts) sum += part;
            to[t * stride + r] = sum;
        }
    }
#endif
}

template <int R, int T>
void tiles(const Matrix &m, int first, int count, const Activations &a, int token, float *to, size_t stride) {
    for (int n = 0; n < count; n += R) tile<R, T>(m, first + n, a, token, to + n, stride);
}

// to[t * stride + n] = output first + n of token + t, for up to TILE tokens.
void product(const Matrix &m, int first, int count, const Activations &a, int token, int tokens, float *to,
             size_t stride) {
    if (tokens == 1) tiles<4, 1>(m, first, count, a, token, to, stride);
    if (tokens == 2) tiles<2, 2>(m, first, count, a, token, to, stride);
    if (tokens == 3) tiles<2, 3>(m, first, count, a, token, to, stride);
    if (tokens == 4) tiles<2, 4>(m, first, count, a, token, to, stride);
}

int chunks(const Matrix &m) { return m.outputs / CHUNK; }

void product_chunk(const Call &c, const Matrix &m, int chunk, const Activations &a, float *to) {
    const int first = chunk * CHUNK;
    for (int token = 0; token < c.tokens(); token += TILE)
        product(m, first, CHUNK, a, token, std::min(TILE, c.tokens() - token), to + size_t(token) * m.outputs + first,
                m.outputs);
}

inline float inverse_rms(const float *x, int size, float epsilon) {
    float sum = 0;
    for (int j = 0; j < size; ++j) sum += x[j] * x[j];
    return 1.0f / std::sqrt(sum / float(size) + epsilon);
}

// Takes the residual stream on by what the last product gave, and leaves its norm for the next one.
void normalise(Call &c, bool starts, const float *weight, int token) {
    const size_t at = size_t(token) * c.hidden;
    float *x = c.residual.data() + at;
    if (starts) std::memcpy(x, c.input + at, c.hidden * sizeof(float));
    else
        for (int j = 0; j < c.hidden; ++j) x[j] += c.delta[at + j];
    const float by = inverse_rms(x, c.hidden, c.epsilon);
    for (int block = 0; block < c.hidden / BLOCK; ++block) {
        float normed[BLOCK];
        for (int j = 0; j < BLOCK; ++j) normed[j] = weight[block * BLOCK + j] * (x[block * BLOCK + j] * by);
        quantise(normed, c.normed, token, block);
    }
}

// Norm and rotary embedding of one head, times a factor.
void turn(const Call &c, const float *x, const float *weight, int position, float factor, float *to) {
    constexpr int HALF = BLOCK / 2;
    const float by = inverse_rms(x, BLOCK, c.epsilon);
    const float *cos = c.cos + size_t(position) * HALF, *sin = c.sin + size_t(position) * HALF;
    for (int j = 0; j < HALF; ++j) {
        const float left = weight[j] * (x[j] * by), right = weight[j + HALF] * (x[j + HALF] * by);
        to[j] = factor * (left * cos[j] - right * sin[j]);
        to[j + HALF] = factor * (right * cos[j] + left * sin[j]);
    }
}

// A row's queries of one key head: writes the new positions into the caches, and leaves what is attended to.
void attend(Call &c, const Layer &layer, int task) {
    const int row = task / c.kv_heads, kv_head = task % c.kv_heads, group = c.heads / c.kv_heads, past = c.past(row);
    const size_t at = size_t(task) * c.capacity * BLOCK, width = size_t(c.heads + 2 * c.kv_heads) * BLOCK;
    float *keys = layer.key + at, *values = layer.value + at, *scores = c.scores.data() + size_t(task) * c.capacity;
    if (layer.key != layer.past_key) std::memcpy(keys, layer.past_key + at, size_t(past) * BLOCK * sizeof(float));
    if (layer.value != layer.past_value) std::memcpy(values, layer.past_value + at, size_t(past) * BLOCK * sizeof(float));
    for (int i = 0; i < c.added; ++i) {
        const float *key = c.qkv.data() + size_t(row * c.added + i) * width + size_t(c.heads + kv_head) * BLOCK;
        turn(c, key, layer.k_norm, past + i, 1.0f, keys + size_t(past + i) * BLOCK);
        std::memcpy(values + size_t(past + i) * BLOCK, key + size_t(c.kv_heads) * BLOCK, BLOCK * sizeof(float));
    }
    for (int i = 0; i < c.added; ++i) {
        const int token = row * c.added + i, positions = past + i + 1;
        for (int head = kv_head * group; head < (kv_head + 1) * group; ++head) {
            float query[BLOCK], sums[BLOCK] = {}, largest = -3e38f, total = 0;
            turn(c, c.qkv.data() + token * width + size_t(head) * BLOCK, layer.q_norm, past + i, c.scale, query);
            for (int p = 0; p < positions; ++p) {
                float dot = 0;
                for (int j = 0; j < BLOCK; ++j) dot += query[j] * keys[size_t(p) * BLOCK + j];
                scores[p] = dot;
                largest = std::max(largest, dot);
            }
            for (int p = 0; p < positions; ++p) total += scores[p] = exponential(scores[p] - largest);
            for (int p = 0; p < positions; ++p)
                for (int j = 0; j < BLOCK; ++j) sums[j] += scores[p] * values[size_t(p) * BLOCK + j];
            for (float &sum : sums) sum /= total;
            quantise(sums, c.attended, token, head);
        }
    }
}

// One block of gate and up, and what SwiGLU makes of them.
void gate(Call &c, const Matrix &m, int block) {
    for (int token = 0; token < c.tokens(); token += TILE) {
        const int tokens = std::min(TILE, c.tokens() - token);
        float gates[TILE * BLOCK], ups[TILE * BLOCK];
        product(m, block * BLOCK, BLOCK, c.normed, token, tokens, gates, BLOCK);
        product(m, m.outputs / 2 + block * BLOCK, BLOCK, c.normed, token, tokens, ups, BLOCK);
        for (int j = 0; j < tokens * BLOCK; ++j) ups[j] *= gates[j] / (1.0f + exponential(-gates[j]));
        for (int t = 0; t < tokens; ++t) quantise(ups + t * BLOCK, c.gated, token + t, block);
    }
}

}  // namespace

void work(Call &c, Team &team) {
    int phase = 0;
    const int tokens = c.tokens();
    for (const Layer &layer : c.layers) {
        const bool starts = phase == 0;
        team.run(phase++, tokens, [&](int token) { normalise(c, starts, layer.input_norm, token); });
        team.run(phase++, chunks(layer.qkv),
                 [&](int chunk) { product_chunk(c, layer.qkv, chunk, c.normed, c.qkv.data()); });
        team.run(phase++, c.rows * c.kv_heads, [&](int task) { attend(c, layer, task); });
        team.run(phase++, chunks(layer.out),
                 [&](int chunk) { product_chunk(c, layer.out, chunk, c.attended, c.delta.data()); });
        team.run(phase++, tokens, [&](int token) { normalise(c, false, layer.post_norm, token); });
        team.run(phase++, layer.down.blocks(), [&](int block) { gate(c, layer.gate_up, block); });
        team.run(phase++, chunks(layer.down),
                 [&](int chunk) { product_chunk(c, layer.down, chunk, c.gated, c.delta.data()); });
    }
    team.run(phase, tokens, [&](int token) {
        const size_t at = size_t(token) * c.hidden;
        for (int j = 0; j < c.hidden; ++j) c.output[at + j] = c.residual[at + j] + c.delta[at + j];
    });
}

}  // namespace KERNEL
