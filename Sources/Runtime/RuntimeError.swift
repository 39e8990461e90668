public import HostResources
public import KVCache
public import TensorBasics
public import Tokenization
public import WeightLoader

/// Why a model could not answer.
public enum RuntimeError: Error, Sendable, CustomStringConvertible {
  case loader(LoaderError)
  case tokenizer(TokenizerError)
  case allocation(AllocationError)
  /// The file cannot be run although it can be read (a vocabulary alone, a missing tensor).
  case notRunnable(path: String, reason: String)
  /// The memory budget is below what this model needs at this context, for as many sequences as were asked for.
  ///
  /// `fitting`: for how many of them it is enough; nil where one was asked for, or it is enough for none.
  case budgetTooSmall(budget: ByteCount, minimum: ByteCount, fitting: Int? = nil)
  case keyValues(KeyValueError)
  /// Keys and values need more memory than was reserved for them.
  case keyValueBudgetTooSmall(budget: ByteCount, needed: ByteCount)
  /// Attention could not be computed elsewhere, such as in a computational storage drive.
  case decodeAttention(any Error)
  /// What a part of the model computed is infinite or not a number: its weights are damaged.
  case notFinite(path: String, part: String)
  /// A prompt that cannot be answered (empty, too long, a token outside the vocabulary).
  case badPrompt(String)
  /// What was asked of a sequence is not possible as it stands.
  case sequence(SequenceError)
  /// The system refuses the thread that an engine runs on.
  case thread(ThreadError)
  /// The caller asked to stop.
  case interrupted

  public var description: String {
    switch self {
    case .loader(let error): error.description
    case .tokenizer(let error): error.description
    case .allocation(let error): error.description
    case .notRunnable(let path, let reason): "\(path): \(reason)"
    case .budgetTooSmall(let budget, let minimum, let fitting):
      "a memory budget of \(budget) is too small: the smallest that works here is \(minimum)"
        + (fitting.map { ", and \($0) at a time would fit" } ?? "")
    case .keyValueBudgetTooSmall(let budget, let needed):
      "a memory budget of \(budget) for keys and values is too small: the smallest that works here "
        + "is \(needed)"
    case .keyValues(let error): error.description
    case .decodeAttention(let error): "attention outside the host failed: \(error)"
    case .notFinite(let path, let part):
      "\(path): \(part) gave values that are infinite or not numbers: weights are damaged there or just before, "
        + "or were when the file was made, or are too large; get the file again (converting a GGUF names the weight)"
    case .badPrompt(let reason): reason
    case .sequence(let error): error.description
    case .thread(let error): "the engine's thread could not be started: \(error)"
    case .interrupted: "interrupted"
    }
  }

  /// An error of the tokenizer or chat template, which names the file at `path` where that is at fault.
  public init(_ error: TokenizerError, in path: String) {
    switch error {
    case .unknownPreTokenizer, .missingPreTokenizer, .invalidVocabulary, .patternFailed,
      .unsupportedPattern, .unsupportedStep:
      self = .notRunnable(path: path, reason: "its vocabulary cannot be used: \(error)")
    case .textTooLong, .badChatTemplate, .unsupportedConversation, .badMessages:
      self = .tokenizer(error)
    }
  }

  init(_ error: KeyValueError) {
    switch error {
    case .allocation(let error): self = .allocation(error)
    case .interrupted: self = .interrupted
    default: self = .keyValues(error)
    }
  }

  init(_ error: LoaderError) {
    if case .interrupted = error { self = .interrupted } else { self = .loader(error) }
  }
}
