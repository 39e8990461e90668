import Kernels
import Synchronization

/// Notes, on whatever thread, which rows of the current batch have values that are not finite numbers.
///
/// Kernels keep infinities and NaN what they are until a check sees them: int8 activations have a scale that
/// is not finite, and ReLU leaves alone what is not. Checks stand where values would otherwise be lost: before keys and
/// values are clamped to f16, where experts or neurons are chosen, at each norm, and at the logits.
final class FiniteCheck: @unchecked Sendable {
  // Safety: what changes is atomic.
  /// What a check looked at, by its layer.
  enum Part: CustomStringConvertible {
    case embedding
    case join
    case heads(Int)
    case attention(Int)
    case scan(Int)
    case choice(Int)
    case feedForward(Int)
    case logits

    var description: String {
      switch self {
      case .embedding: "the embedding of a token"
      case .join: "what joins a token's embedding and a hidden state (nextn.eh_proj)"
      case .heads(let layer):
        "queries, keys or values of layer \(layer) (blk.\(layer).attn_q, attn_k, attn_v)"
      case .attention(let layer): "attention of layer \(layer) (blk.\(layer).attn_output)"
      case .scan(let layer):
        "the inputs of the scan of layer \(layer) (blk.\(layer).ssm_in, attn_qkv, ssm_ba)"
      case .choice(let layer):
        "what chooses experts or neurons in layer \(layer) (blk.\(layer).ffn_gate_inp, ffn_select)"
      case .feedForward(let layer):
        "the feed-forward network of layer \(layer) (blk.\(layer).ffn_gate, ffn_up, ffn_down)"
      case .logits: "the output head (output.weight, or token_embd.weight where there is none)"
      }
    }
  }

  private let hasFailed = Atomic(false)
  /// Of each row of a batch, whether it has such a value [rowCapacity].
  private let failed: UnsafeMutableBufferPointer<Atomic<Bool>>

  /// - Parameter rowCapacity: most rows of a batch.
  init(rowCapacity: Int) {
    failed = .allocate(capacity: rowCapacity)
    for row in failed.indices { failed.initializeElement(at: row, to: Atomic(false)) }
  }

  deinit {
    failed.deinitialize()
    failed.deallocate()
  }

  /// Notes the result of a check of a row.
  func note(_ isFinite: Bool, row: Int) {
    guard !isFinite else { return }
    failed[row].store(true, ordering: .relaxed)
    hasFailed.store(true, ordering: .relaxed)
  }

  /// Checks `count` values of a row.
  func check(_ x: UnsafePointer<Float>, count: Int, row: Int) {
    note(VectorOps.isFinite(x, count: count), row: row)
  }

  /// Hands the rows that were noted since the last call to `body`.
  ///
  /// - Returns: whether there were any.
  func takeFailures(_ body: (_ row: Int) -> Void) -> Bool {
    guard hasFailed.load(ordering: .relaxed) else { return false }
    hasFailed.store(false, ordering: .relaxed)
    for row in failed.indices where failed[row].exchange(false, ordering: .relaxed) { body(row) }
    return true
  }
}
