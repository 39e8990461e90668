import BlockIO
import KVCache
import Kernels
import ModelFormat
import Runtime
import TensorBasics
import TestSupport
import WeightLoader

/// How a session is run, apart from what it computes.
struct RunShape {
  var backend = StorageBackend.auto
  var threadCount = 1
  var maximumChunkLength = 512
  /// Memory beyond the smallest that works; nil = as much as there is.
  var spareByteCount: Int?
  /// Bytes of pinned memory that become committed between two reads; nil = all are at once.
  var commitStep: Int?
  /// When the bytes of an image are compared with its checksums.
  var verification = Verification.first
  /// Where keys and values go.
  var keyValues = KeyValueOptions()
}

/// Opens `path` and plans a session, in the smallest budget plus `shape.spareByteCount`.
func makeSession(
  _ path: String, mirrors: [String] = [], contextLength: Int, promptLength: Int, _ shape: RunShape,
  neurons: NeuronOptions = NeuronOptions()
) throws -> Session {
  try makeSession(
    try ModelSource.open(path, mirrors: mirrors, backend: shape.backend),
    contextLength: contextLength, promptLength: promptLength, shape, neurons: neurons)
}

/// As the one that opens a path, of a model that is open.
func makeSession(
  _ source: ModelSource, contextLength: Int, promptLength: Int, _ shape: RunShape,
  neurons: NeuronOptions = NeuronOptions(), cancellation: CancellationFlag = CancellationFlag(),
  decodeAttention: (any DecodeAttention)? = nil, draftRowCount: Int = 0
) throws -> Session {
  guard let configuration = source.description.configuration else {
    preconditionFailure("a test model has a configuration")
  }
  var request = MemoryPlan.Request(
    budgetByteCount: shape.spareByteCount == nil ? 8 << 30 : 1, contextLength: contextLength,
    promptLength: promptLength, threadCount: shape.threadCount,
    maximumChunkLength: shape.maximumChunkLength)
  request.assumedProcessByteCount = 0
  request.neurons = neurons
  request.verification = shape.verification
  request.keyValues = shape.keyValues
  request.draftRowCount = draftRowCount
  let session: Session
  do {
    session = try Session(
      source, configuration, request, cancellation: cancellation, decodeAttention: decodeAttention)
  } catch {
    guard case .budgetTooSmall(_, let minimum, _) = error else { throw error }
    request.budgetByteCount = minimum.bytes + (shape.spareByteCount ?? 0)
    session = try Session(
      source, configuration, request, cancellation: cancellation, decodeAttention: decodeAttention)
  }
  if let step = shape.commitStep {
    var committed = 0
    session.stream.committedByteCount = {
      committed += step
      return committed
    }
  }
  return session
}

/// Bits of the logits after a prompt and after each token decoded from there.
func logitBits(_ session: Session, prompt: [Int32], decoding: [Int32]) throws -> [[UInt32]] {
  var rows = [Array(try session.prefill(prompt)).map(\.bitPattern)]
  for token in decoding { rows.append(Array(try session.decode(token)).map(\.bitPattern)) }
  return rows
}

/// Tiny models of every family and variant of its graph.
enum TinyFamilies {
  static let names = [
    "llama", "llama untied", "llama rope factors", "llama linear rope", "llama window",
    "llama relu", "qwen2", "qwen3", "qwen3 yarn", "phi3", "phi3 short context",
    "phi3 long context", "gemma3", "olmo2", "olmo2 window", "granite", "smollm3", "command-r",
    "glm4", "gemma2", "qwen3next fused", "qwen35",
    "granitehybrid", "openelm", "mamba2", "nemotron_h", "lfm2", "falcon-h1",
  ]

  /// Families with experts.
  static let expertNames = [
    "mixtral", "qwen2moe", "qwen3moe", "olmoe", "gpt-oss", "glm4moe", "minimax-m2",
    "qwen3next", "mimo2",
  ]

  /// Factors in tensors of their own.
  static let factorNames = ["llama factors", "qwen2 factors", "qwen2moe factors"]

  static func model(_ name: String) -> TinyModel {
    if expertNames.contains(name) { return TinyModel.withExperts(name) }
    let words = name.split(separator: " ", maxSplits: 1).map(String.init)
    var model = TinyModel(architecture: words[0])
    switch words.count > 1 ? words[1] : "" {
    case "untied": model.tiesOutput = false
    case "rope factors": model.hasRopeFactors = true
    case "linear rope": model.ropeLinearScale = 4
    case "window":
      model.slidingWindow = 7
      // Stretched where a layer sees everything.
      if words[0] == "olmo2" { (model.yarnFactor, model.contextLength) = (8, 64) }
    case "factors": model.hasFactors = true
    case "fused": model.scan?.inputs = .byKeyHead
    case "relu": model.hiddenActivation = "relu"
    case "yarn":
      model.yarnFactor = 8
      model.contextLength = 64
    case "short context": (model.shortContextLength, model.rotatedCount) = (24, 12)
    case "long context": (model.shortContextLength, model.rotatedCount) = (23, 12)
    default: break
    }
    return model
  }
}
