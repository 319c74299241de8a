// Compiled with NDEBUG, as LibTorch is: RecordFunction::inputs() else checks a field that LibTorch
// does not have.
#include "support/product_count.h"

#include <ATen/core/Tensor.h>
#include <ATen/record_function.h>

#include <memory>
#include <string>

namespace dsmoe {
namespace {

thread_local double n_operations = 0;

std::unique_ptr<at::ObserverContext> note(const at::RecordFunction& function) {
  const std::string name = function.name();
  // The product that a linear runs on, or the linear itself if a library runs it as a whole.
  if (name != "aten::mm" && name != "aten::addmm" && name != "aten::mkldnn_linear") return nullptr;
  const size_t first = name == "aten::addmm" ? 1 : 0;
  const auto& a = function.inputs()[first].toTensor();
  const auto& b = function.inputs()[first + 1].toTensor();
  n_operations += 2.0 * static_cast<double>(a.numel() / a.size(-1) * b.numel());
  return nullptr;
}

}  // namespace

ProductCount::ProductCount()
    : handle_(at::addThreadLocalCallback(at::RecordFunctionCallback(&note).needsInputs(true).scopes(
          {at::RecordScope::FUNCTION}))) {
  n_operations = 0;
}

ProductCount::~ProductCount() { at::removeCallback(handle_); }

double ProductCount::operations() const { return n_operations; }

}  // namespace dsmoe
