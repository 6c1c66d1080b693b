// What the library and its kernels share: a call of the operator, and the threads that work on it.
#pragma once

#include <immintrin.h>
#include <sched.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

constexpr int BLOCK = 128;  // weights that share a scale; values of a head

// Weights as MatMulNBits has them: bytes [outputs][inner] around 128, scales [outputs][inner / BLOCK].
struct Matrix {
    const uint8_t *values;
    const float *scales;
    int inner, outputs;

    int blocks() const { return inner / BLOCK; }
};

// Input of a product, quantised by blocks: [tokens][inner], and [tokens][inner / BLOCK] of what belongs to a block.
struct Activations {
    int inner = 0;
    std::vector<int8_t> values;
    std::vector<float> scales;
    std::vector<float> offsets;  // what the weights' zero of 128 adds to the block's sum, times the scale, negated

    void resize(int tokens, int size) {
        inner = size;
        values.resize(size_t(tokens) * size);
        scales.resize(size_t(tokens) * size / BLOCK);
        offsets.resize(scales.size());
    }
    const int8_t *of(int token) const { return values.data() + size_t(token) * inner; }
    size_t first_block(int token) const { return size_t(token) * (inner / BLOCK); }
};

// Caches are [rows][kv_heads][capacity][BLOCK]; `key` may be `past_key`, and `value` likewise.
struct Layer {
    const float *past_key, *past_value;
    float *key, *value;
    const float *input_norm, *q_norm, *k_norm, *post_norm;
    Matrix qkv, out, gate_up, down;
};

struct Call {
    int rows, added;  // new positions of each row
    int hidden, heads, kv_heads, capacity;
    float epsilon, scale;
    const int32_t *last;  // index of each row's last position
    int total;            // length of the longest row
    const float *cos, *sin;
    const float *input;
    float *output;
    std::vector<Layer> layers;

    std::vector<float> residual, delta, qkv, scores;
    Activations normed, attended, gated;

    int tokens() const { return rows * added; }
    int past(int row) const { return total == added ? 0 : last[row] + 1 - added; }
};

// Threads that take the tasks of one phase after the other. Whoever comes late finds nothing left in a phase and goes
// on to the next one, so that a single thread is enough.
class Team {
    struct alignas(64) Phase {
        std::atomic<int> taken{0};
        alignas(64) std::atomic<int> done{0};
    };
    std::unique_ptr<Phase[]> phases_;
    int size_ = 0;

public:
    void reset(int phases) {
        if (phases > size_) phases_ = std::make_unique<Phase[]>(size_ = phases);
        for (int i = 0; i < phases; ++i) {
            phases_[i].taken.store(0, std::memory_order_relaxed);
            phases_[i].done.store(0, std::memory_order_relaxed);
        }
    }
    bool finished(int phase, int count) const { return phases_[phase].done.load(std::memory_order_acquire) >= count; }

    template <class Task>
    void run(int phase, int count, Task task) {
        int mine = 0;
        for (int i; (i = phases_[phase].taken.fetch_add(1, std::memory_order_relaxed)) < count; ++mine) task(i);
        if (mine) phases_[phase].done.fetch_add(mine, std::memory_order_acq_rel);
        for (int spins = 1; !finished(phase, count); ++spins) {
            if (spins % 4096) _mm_pause();
            else sched_yield();
        }
    }
};

constexpr int PHASES = 7;  // of a layer; one more follows the last layer

namespace avx512 {
void work(Call &call, Team &team);
}
namespace avx2 {
void work(Call &call, Team &team);
}
