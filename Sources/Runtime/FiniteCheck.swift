import Kernels
import Synchronization

/// Notes, on whatever thread, that values of the current chunk are not finite numbers.
///
/// Kernels keep infinities and NaN what they are until a check sees them: int8 activations have a scale that
/// is not finite, and ReLU leaves alone what is not. Checks stand where values would otherwise be lost: before keys and
/// values are clamped to f16, where experts or neurons are chosen, at each norm, and at the logits.
final class FiniteCheck: Sendable {
  /// What a check looked at, by its layer.
  enum Part: CustomStringConvertible {
    case embedding
    case heads(Int)
    case attention(Int)
    case choice(Int)
    case feedForward(Int)
    case logits

    var description: String {
      switch self {
      case .embedding: "the embedding of a token"
      case .heads(let layer):
        "queries, keys or values of layer \(layer) (blk.\(layer).attn_q, attn_k, attn_v)"
      case .attention(let layer): "attention of layer \(layer) (blk.\(layer).attn_output)"
      case .choice(let layer):
        "what chooses experts or neurons in layer \(layer) (blk.\(layer).ffn_gate_inp, ffn_select)"
      case .feedForward(let layer):
        "the feed-forward network of layer \(layer) (blk.\(layer).ffn_gate, ffn_up, ffn_down)"
      case .logits: "the output head (output.weight, or token_embd.weight where there is none)"
      }
    }
  }

  private let failed = Atomic(false)

  /// Notes the result of a check.
  func note(_ isFinite: Bool) {
    if !isFinite { failed.store(true, ordering: .relaxed) }
  }

  /// Checks `count` values.
  func check(_ x: UnsafePointer<Float>, count: Int) {
    note(VectorOps.isFinite(x, count: count))
  }

  /// Whether something was noted since the last call.
  func takeFailure() -> Bool {
    guard failed.load(ordering: .relaxed) else { return false }
    failed.store(false, ordering: .relaxed)
    return true
  }
}
