import Kernels
import ModelFormat

extension DecoderConfiguration.Activation {
  /// x = activation(x) * y, element by element; y is clamped too where the activation says so.
  func gate(_ x: UnsafeMutablePointer<Float>, by y: UnsafePointer<Float>, count: Int) {
    switch self {
    case .silu: VectorOps.siluMultiply(x, y, count: count)
    case .geluTanh: VectorOps.geluTanhMultiply(x, y, count: count)
    case .clampedSwiGLU: VectorOps.clampedSwiGLU(x, y, count: count)
    case .relu: VectorOps.reluMultiply(x, y, count: count)
    case .reluSquared:
      apply(x, count: count)
      VectorOps.reluMultiply(x, y, count: count)
    }
  }

  /// x = activation(x), element by element, of those that FFNs without gate have: ReLU and its square.
  func apply(_ x: UnsafeMutablePointer<Float>, count: Int) {
    if self == .reluSquared {
      VectorOps.reluMultiply(x, x, count: count)
    } else {
      VectorOps.relu(x, count: count)
    }
  }
}
