// A library of custom operators for ONNX Runtime with one operator, qwen3_tts_edge.DecoderStack: all layers of the
// talker, or those of a step of the code predictor.
//
// Inputs: hidden states [rows, new, hidden]; index of each row's last position, int32 [rows]; length of the longest
// row, int32 [1]; rotary tables [positions, 64] of cosines and sines; a key and a value cache for each layer; then the
// layer's weights: input norm, QKV, q norm, k norm, output, post-attention norm, gate and up, down, each product as
// bytes and scales. Outputs: hidden states before the final norm, and the caches.
//
// ONNX Runtime's wheels come without headers. Its C interface is a table of functions to which later versions append:
// what is needed of it is declared here, by place and for version 17, which has them all.
#include <sys/mman.h>

#include <cstdlib>
#include <cstring>
#include <exception>
#include <mutex>

#include "stack.h"

namespace {

enum Place {
    CREATE_STATUS = 0, CREATE_DOMAIN = 26, ADD_OPERATOR = 27, ADD_DOMAIN = 28, DATA = 51, DIMENSION_COUNT = 61,
    DIMENSIONS = 62, SHAPE = 65, FLOAT_ATTRIBUTE = 85, INT_ATTRIBUTE = 86, INPUT_COUNT = 88, INPUT = 90, OUTPUT = 91,
    RELEASE_SHAPE = 99, PARALLEL_FOR = 274
};
constexpr uint32_t INTERFACE = 17, OPERATOR = 16;  // versions of the table, and of what is below
constexpr int FLOATS = 1, ANY = 0, ONE = 0, VARIADIC = 2;

struct Table { void *functions[PARALLEL_FOR + 1]; };
struct Base { const Table *(*table)(uint32_t version); const char *(*version)(); };
struct Failure { void *status; };

const Table *api;

template <class... Arguments>
void call(Place place, Arguments... arguments) {
    if (void *status = reinterpret_cast<void *(*)(Arguments...)>(api->functions[place])(arguments...))
        throw Failure{status};
}

void *status_of(const char *message) {
    return reinterpret_cast<void *(*)(int, const char *)>(api->functions[CREATE_STATUS])(1, message);
}

void check(bool holds, const char *message) {
    if (!holds) throw Failure{status_of(message)};
}

template <class Work>
void *guarded(Work work) {
    try {
        work();
        return nullptr;
    } catch (const Failure &failure) {
        return failure.status;
    } catch (const std::exception &error) {
        return status_of(error.what());
    }
}

struct Tensor {
    void *data = nullptr;
    std::vector<int64_t> shape;
};

Tensor input(void *context, size_t index) {
    Tensor tensor;
    const void *value = nullptr;
    void *shape = nullptr;
    size_t count = 0;
    call(INPUT, context, index, &value);
    call(DATA, value, &tensor.data);
    call(SHAPE, value, &shape);
    call(DIMENSION_COUNT, shape, &count);
    tensor.shape.resize(count);
    call(DIMENSIONS, shape, tensor.shape.data(), count);
    reinterpret_cast<void (*)(void *)>(api->functions[RELEASE_SHAPE])(shape);
    return tensor;
}

template <class T>
T *output(void *context, size_t index, const std::vector<int64_t> &shape) {
    void *value = nullptr, *data = nullptr;
    call(OUTPUT, context, index, shape.data(), shape.size(), &value);
    call(DATA, value, &data);
    return static_cast<T *>(data);
}

using Work = void (*)(Call &, Team &);

// The kernel of the best instruction set that this processor has, or none.
Work best() {
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl"))
        return avx512::work;
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? avx2::work : nullptr;
}

class Kernel {
    Call call_;
    Team team_;
    Work work_ = nullptr;
    std::mutex busy_;
    int64_t layers_ = 0, copies_ = 0, avx2_ = 0;
    std::vector<uint8_t *> copied_;
    std::vector<size_t> sizes_;

    // What the matrix has as bytes: where ONNX Runtime has mapped them, or a copy in pages of 2 MiB.
    const uint8_t *bytes(const Tensor &tensor, size_t index) {
        if (!copies_) return static_cast<uint8_t *>(tensor.data);
        if (copied_.size() == index) {
            const size_t size = tensor.shape[0] * tensor.shape[1] * tensor.shape[2], page = size_t(2) << 20;
            sizes_.push_back((size + page - 1) / page * page);
            copied_.push_back(static_cast<uint8_t *>(aligned_alloc(page, sizes_.back())));
            check(copied_.back(), "DecoderStack: there is too little memory for a copy of the weights");
            madvise(copied_.back(), sizes_.back(), MADV_HUGEPAGE);
            std::memcpy(copied_.back(), tensor.data, size);
        }
        return copied_[index];
    }

    Matrix matrix(void *context, size_t &index, size_t number) {
        const Tensor values = input(context, index++), scales = input(context, index++);
        const int64_t inner = values.shape.size() == 3 ? values.shape[1] * values.shape[2] : 0;
        check(inner && values.shape[2] == BLOCK && values.shape[0] % BLOCK == 0,
              "DecoderStack: matrices must have 8 bits in blocks of 128, and a multiple of 128 outputs");
        return {bytes(values, number), static_cast<float *>(scales.data), int(inner), int(values.shape[0])};
    }

public:
    explicit Kernel(const void *info) {
        int64_t heads = 0, kv_heads = 0;
        call(INT_ATTRIBUTE, info, "layers", &layers_);
        call(INT_ATTRIBUTE, info, "heads", &heads);
        call(INT_ATTRIBUTE, info, "kv_heads", &kv_heads);
        call(INT_ATTRIBUTE, info, "copies", &copies_);
        call(INT_ATTRIBUTE, info, "avx2", &avx2_);
        call(FLOAT_ATTRIBUTE, info, "epsilon", &call_.epsilon);
        call(FLOAT_ATTRIBUTE, info, "scale", &call_.scale);
        call_.heads = int(heads), call_.kv_heads = int(kv_heads);
        work_ = avx2_ ? avx2::work : best();
        check(work_, "DecoderStack: this processor has no AVX2");
    }

    ~Kernel() {
        for (uint8_t *copy : copied_) free(copy);
    }

    void compute(void *context) {
        const std::lock_guard<std::mutex> alone(busy_);
        Call &c = call_;
        const Tensor hidden = input(context, 0), cache = input(context, 5);
        check(cache.shape[1] == c.kv_heads && cache.shape[3] == BLOCK, "DecoderStack: heads must have 128 values");
        c.rows = int(hidden.shape[0]), c.added = int(hidden.shape[1]), c.hidden = int(hidden.shape[2]);
        c.capacity = int(cache.shape[2]);
        c.input = static_cast<float *>(hidden.data);
        c.last = static_cast<int32_t *>(input(context, 1).data);
        c.total = *static_cast<int32_t *>(input(context, 2).data);
        c.cos = static_cast<float *>(input(context, 3).data);
        c.sin = static_cast<float *>(input(context, 4).data);
        c.output = output<float>(context, 0, hidden.shape);
        c.layers.resize(layers_);
        size_t next = 5 + 2 * layers_;
        for (int64_t i = 0; i < layers_; ++i) {
            Layer &layer = c.layers[i];
            layer.past_key = static_cast<float *>(input(context, 5 + 2 * i).data);
            layer.past_value = static_cast<float *>(input(context, 6 + 2 * i).data);
            layer.key = output<float>(context, 1 + 2 * i, cache.shape);
            layer.value = output<float>(context, 2 + 2 * i, cache.shape);
            layer.input_norm = static_cast<float *>(input(context, next++).data);
            layer.qkv = matrix(context, next, 4 * i);
            layer.q_norm = static_cast<float *>(input(context, next++).data);
            layer.k_norm = static_cast<float *>(input(context, next++).data);
            layer.out = matrix(context, next, 4 * i + 1);
            layer.post_norm = static_cast<float *>(input(context, next++).data);
            layer.gate_up = matrix(context, next, 4 * i + 2);
            layer.down = matrix(context, next, 4 * i + 3);
        }
        for (int row = 0; row < c.rows; ++row)
            check(c.past(row) >= 0 && c.past(row) + c.added <= c.capacity, "DecoderStack: a row does not fit its cache");
        prepare();
        call(PARALLEL_FOR, context, &Kernel::take_part, size_t(64), size_t(0), static_cast<void *>(this));
    }

private:
    void prepare() {
        Call &c = call_;
        const size_t tokens = c.tokens();
        c.residual.resize(tokens * c.hidden);
        c.delta.resize(tokens * c.hidden);
        c.qkv.resize(tokens * (c.heads + 2 * c.kv_heads) * BLOCK);
        c.scores.resize(size_t(c.rows) * c.kv_heads * c.capacity);
        c.normed.resize(int(tokens), c.hidden);
        c.attended.resize(int(tokens), c.heads * BLOCK);
        c.gated.resize(int(tokens), c.layers[0].down.inner);
        team_.reset(PHASES * int(layers_) + 1);
    }

    // One of the runtime's threads; those behind its last thread find the work done.
    static void take_part(void *kernel, size_t) {
        Kernel &self = *static_cast<Kernel *>(kernel);
        if (!self.team_.finished(PHASES * int(self.layers_), self.call_.tokens())) self.work_(self.call_, self.team_);
    }
};

// As the interface wants an operator described, in this order.
struct Operator {
    uint32_t version = OPERATOR;
    void *(*create)(const Operator *, const Table *, const void *) = nullptr;
    const char *(*name)(const Operator *) = [](const Operator *) { return "DecoderStack"; };
    const char *(*provider)(const Operator *) = [](const Operator *) { return (const char *)nullptr; };
    int (*input_type)(const Operator *, size_t) = [](const Operator *, size_t i) { return i ? ANY : FLOATS; };
    size_t (*inputs)(const Operator *) = [](const Operator *) { return size_t(2); };
    int (*output_type)(const Operator *, size_t) = [](const Operator *, size_t) { return FLOATS; };
    size_t (*outputs)(const Operator *) = [](const Operator *) { return size_t(2); };
    void (*compute)(void *, void *) = nullptr;
    void (*destroy)(void *) = [](void *kernel) { delete static_cast<Kernel *>(kernel); };
    int (*input_kind)(const Operator *, size_t) = [](const Operator *, size_t i) { return i ? VARIADIC : ONE; };
    int (*output_kind)(const Operator *, size_t) = [](const Operator *, size_t i) { return i ? VARIADIC : ONE; };
    int (*input_memory)(const Operator *, size_t) = [](const Operator *, size_t) { return 0; };
    int (*least_inputs)(const Operator *) = [](const Operator *) { return 1; };
    int (*inputs_alike)(const Operator *) = [](const Operator *) { return 0; };
    int (*least_outputs)(const Operator *) = [](const Operator *) { return 1; };
    int (*outputs_alike)(const Operator *) = [](const Operator *) { return 1; };
    void *(*create_guarded)(const Operator *, const Table *, const void *, void **) =
        [](const Operator *, const Table *, const void *info, void **kernel) {
            return guarded([&] { *kernel = new Kernel(info); });
        };
    void *(*compute_guarded)(void *, void *) = [](void *kernel, void *context) {
        return guarded([&] { static_cast<Kernel *>(kernel)->compute(context); });
    };
    void *later[16] = {};  // of later versions, and not looked at
} decoder_stack;

}  // namespace

extern "C" __attribute__((visibility("default"))) void *RegisterCustomOps(void *options, const Base *base) {
    api = base->table(INTERFACE);
    return guarded([&] {
        static void *domain = nullptr;
        if (!domain) {
            call(CREATE_DOMAIN, "qwen3_tts_edge", &domain);
            call(ADD_OPERATOR, domain, &decoder_stack);
        }
        call(ADD_DOMAIN, options, domain);
    });
}
