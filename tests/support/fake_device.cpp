#include "support/fake_device.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/EmptyTensor.h>
#include <ATen/core/Tensor.h>
#include <ATen/detail/MTIAHooksInterface.h>
#include <ATen/native/CPUFallback.h>
#include <ATen/ops/_local_scalar_dense.h>
#include <ATen/ops/_reshape_alias_native.h>
#include <ATen/ops/as_strided_native.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/resize_native.h>
#include <ATen/ops/unfold_native.h>
#include <ATen/ops/view_native.h>
#include <c10/core/CPUAllocator.h>
#include <c10/core/DeviceGuard.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <torch/library.h>

#include <array>
#include <cstdlib>
#include <memory>
#include <string>
#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>
#include <tuple>
#include <utility>
#include <vector>

namespace dsmoe {
namespace {

// The name of a device that torch defines without code. The private one (PrivateUse1) does not
// work: torch::nn::Module::to refuses it.
constexpr auto kFake = c10::DeviceType::MTIA;

void release(void* data) { c10::GetDefaultCPUAllocator()->raw_deallocate(data); }

constexpr c10::DeviceIndex kDevices = 2;
thread_local c10::DeviceIndex current = 0;

struct FakeAllocator : c10::Allocator {
  c10::DataPtr allocate(size_t n) override {
    void* data = n == 0 ? nullptr : c10::GetDefaultCPUAllocator()->raw_allocate(n);
    return {data, data, &release, c10::Device(kFake, current)};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &release; }
  void copy_data(void* to, const void* from, size_t n) const override {
    default_copy_data(to, from, n);
  }
};

FakeAllocator allocator;
REGISTER_ALLOCATOR(kFake, &allocator);

// Devices with one stream each that has always finished.
struct FakeGuard : c10::impl::DeviceGuardImplInterface {
  c10::DeviceType type() const override { return kFake; }
  c10::Device exchangeDevice(c10::Device device) const override {
    return {kFake, std::exchange(current, device.index())};
  }
  c10::Device getDevice() const override { return {kFake, current}; }
  void setDevice(c10::Device device) const override { current = device.index(); }
  void uncheckedSetDevice(c10::Device device) const noexcept override { current = device.index(); }
  c10::Stream getStream(c10::Device device) const override {
    return c10::Stream(c10::Stream::DEFAULT, device);
  }
  c10::Stream exchangeStream(c10::Stream stream) const override { return stream; }
  c10::DeviceIndex deviceCount() const noexcept override { return kDevices; }
  void destroyEvent(void*, const c10::DeviceIndex) const noexcept override {}
  void record(void**,
              const c10::Stream&,
              const c10::DeviceIndex,
              const c10::EventFlag) const override {}
  void block(void*, const c10::Stream&) const override {}
  bool queryEvent(void*) const override { return true; }
};

C10_REGISTER_GUARD_IMPL(MTIA, FakeGuard);

// A separate generator: random numbers of the CPU would hide forgotten copies.
struct FakeHooks : at::MTIAHooksInterface {
  explicit FakeHooks(at::MTIAHooksArgs) {}
  void init() const override {}
  // Torch supports one accelerator: if tests run on a real one, this is none.
  bool hasMTIA() const override {
    const char* device = std::getenv("DSMOE_TEST_DEVICE");
    return device == nullptr || std::string(device) != "cuda";
  }
  bool isAvailable() const override { return true; }
  bool hasPrimaryContext(c10::DeviceIndex) const override { return true; }
  void setCurrentDevice(c10::DeviceIndex index) const override { current = index; }
  c10::DeviceIndex getCurrentDevice() const override { return current; }
  c10::DeviceIndex exchangeDevice(c10::DeviceIndex index) const override {
    return std::exchange(current, index);
  }
  c10::DeviceIndex maybeExchangeDevice(c10::DeviceIndex index) const override {
    return index < 0 ? current : std::exchange(current, index);
  }
  c10::DeviceIndex deviceCount() const override { return kDevices; }
  const at::Generator& getDefaultGenerator(c10::DeviceIndex index) const override {
    static const std::array<at::Generator, kDevices> generators = {
        at::detail::createCPUGenerator(0), at::detail::createCPUGenerator(1)};
    return generators.at(static_cast<size_t>(index < 0 ? current : index));
  }
};

}  // namespace
}  // namespace dsmoe

namespace at {
using FakeHooks = dsmoe::FakeHooks;
C10_REGISTER_CLASS(MTIAHooksRegistry, MTIAHooks, FakeHooks);
}  // namespace at

namespace dsmoe {
namespace {

at::Tensor on_cpu(const at::Tensor& tensor) {
  return at::from_blob(
      tensor.data_ptr(), tensor.sizes(), tensor.strides(), tensor.options().device(at::kCPU));
}

at::Tensor empty(at::IntArrayRef size,
                 std::optional<at::ScalarType> dtype,
                 std::optional<at::Layout>,
                 std::optional<at::Device> device,
                 std::optional<bool>,
                 std::optional<at::MemoryFormat> format) {
  const c10::OptionalDeviceGuard guard(device);
  const auto type = c10::dtype_or_default(dtype);
  return at::Tensor(at::detail::empty_generic(
      size, &allocator, c10::DispatchKeySet(c10::DispatchKey::MTIA), type, format));
}

at::Tensor empty_strided(at::IntArrayRef size,
                         at::IntArrayRef stride,
                         std::optional<at::ScalarType> dtype,
                         std::optional<at::Layout>,
                         std::optional<at::Device> device,
                         std::optional<bool>) {
  const c10::OptionalDeviceGuard guard(device);
  const auto type = c10::dtype_or_default(dtype);
  return at::Tensor(at::detail::empty_strided_generic(
      size, stride, &allocator, c10::DispatchKeySet(c10::DispatchKey::MTIA), type));
}

constexpr auto kNoWaits = c10::DebugInfoKind::TEST_INFO;
thread_local int n_fallbacks = 0;  // waits inside a fallback are allowed

void note_wait() {
  const bool forbidden = c10::ThreadLocalDebugInfo::get(kNoWaits) != nullptr;
  TORCH_CHECK(!forbidden || n_fallbacks > 0, "fake device: the host waits for it");
}

at::Tensor copy_from(const at::Tensor& from, const at::Tensor& to, bool) {
  if (from.is_cpu() != to.is_cpu()) note_wait();
  const auto source = from.is_cpu() ? from : on_cpu(from);
  (to.is_cpu() ? to : on_cpu(to)).copy_(source);
  return to;
}

at::Tensor copy_from_and_resize(const at::Tensor& from, const at::Tensor& to) {
  if (to.sizes() != from.sizes()) at::native::resize_(to, from.sizes(), std::nullopt);
  return copy_from(from, to, false);
}

at::Scalar local_scalar(const at::Tensor& tensor) {
  note_wait();
  return at::_local_scalar_dense(on_cpu(tensor));
}

void run_on_cpu(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  struct Depth {
    Depth() { ++n_fallbacks; }
    ~Depth() { --n_fallbacks; }
  } depth;
  at::native::cpu_fallback(op, stack);
}

// Torch's own way for devices without a kernel reads where the groups end; GPUs that have one for
// bfloat16 do not.
void grouped_product(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  const auto& x = (*stack)[stack->size() - op.schema().arguments().size()].toTensor();
  if (x.scalar_type() != at::kBFloat16) note_wait();
  run_on_cpu(op, stack);
}

TORCH_LIBRARY_IMPL(aten, MTIA, library) {
  library.impl("_grouped_mm", torch::CppFunction::makeFromBoxedFunction<&grouped_product>());
  library.impl("empty.memory_format", empty);
  library.impl("empty_strided", empty_strided);
  library.impl("_copy_from", copy_from);
  library.impl("_copy_from_and_resize", copy_from_and_resize);
  library.impl("_local_scalar_dense", local_scalar);
  library.impl("view", at::native::view);
  library.impl("unfold", at::native::unfold);
  library.impl("as_strided", at::native::as_strided_tensorimpl);
  library.impl("_reshape_alias", at::native::_reshape_alias);
  library.impl("resize_", at::native::resize_);
}

TORCH_LIBRARY_IMPL(_, MTIA, library) {
  library.fallback(torch::CppFunction::makeFromBoxedFunction<&run_on_cpu>());
}

// As torch's CUDA implementations: each calls the group's backend of the device.
using Group = c10::intrusive_ptr<c10d::ProcessGroup>;
using Work = c10::intrusive_ptr<c10d::Work>;

std::tuple<std::vector<at::Tensor>, Work> broadcast(at::TensorList tensors,
                                                    const Group& group,
                                                    int64_t root_rank,
                                                    int64_t root_tensor,
                                                    bool,
                                                    int64_t) {
  auto list = tensors.vec();
  c10d::BroadcastOptions options;
  options.rootRank = root_rank;
  options.rootTensor = root_tensor;
  return {list, group->getBackend(kFake)->broadcast(list, options)};
}

std::tuple<std::vector<at::Tensor>, Work> all_reduce(at::TensorList tensors,
                                                     const Group& group,
                                                     const c10::intrusive_ptr<c10d::ReduceOp>& op,
                                                     const std::optional<at::Tensor>&,
                                                     bool,
                                                     int64_t) {
  auto list = tensors.vec();
  c10d::AllreduceOptions options;
  options.reduceOp = *op;
  return {list, group->getBackend(kFake)->allreduce(list, options)};
}

std::tuple<std::vector<std::vector<at::Tensor>>, Work> all_gather(
    const std::vector<std::vector<at::Tensor>>& outputs,
    at::TensorList inputs,
    const Group& group,
    bool,
    int64_t) {
  auto out = outputs;
  auto in = inputs.vec();
  return {outputs, group->getBackend(kFake)->allgather(out, in)};
}

std::tuple<at::Tensor, Work> all_gather_base(at::Tensor& output,
                                             at::Tensor& input,
                                             const Group& group,
                                             bool,
                                             int64_t) {
  return {output, group->getBackend(kFake)->_allgather_base(output, input)};
}

TORCH_LIBRARY_IMPL(c10d, MTIA, library) {
  library.impl("broadcast_", broadcast);
  library.impl("allreduce_", all_reduce);
  library.impl("allgather_", all_gather);
  library.impl("_allgather_base_", all_gather_base);
}

}  // namespace

c10::Device fake_device(c10::DeviceIndex index) { return {kFake, index}; }

ForbidWaits::ForbidWaits() : mark_(kNoWaits, std::make_shared<c10::DebugInfoBase>()) {}

}  // namespace dsmoe
