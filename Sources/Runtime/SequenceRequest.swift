public import Grammar

/// A line of tokens to be read and continued by an ``Engine``.
public struct SequenceRequest: Sendable {
  /// Tokens of the prompt, BOS included where the model wants it.
  public var tokens: [Int32]
  /// Most tokens of the answer, which ends earlier where the context is full; 0 = the tokens are read and nothing is
  /// drawn.
  public var limit: Int
  /// Most tokens of the context, of all turns together; nil = as many as the engine's contexts have. A sequence that is
  /// known to stay short takes less memory.
  public var contextLimit: Int?
  /// How tokens are drawn, in all turns of the sequence.
  public var sampling: SamplingOptions
  /// Texts that end an answer.
  public var stops: StopStrings
  /// Whether to continue past end-of-generation tokens.
  public var ignoresEnd: Bool
  /// Most probable tokens to report with each token of an answer; 0 = none.
  public var logProbabilityCount: Int

  /// What the answers must be; needs an engine that was planned for grammars
  /// (``MemoryPlan/Request/usesGrammars``). An answer ends where nothing more may come.
  public var grammar: CompiledGrammar?
  /// How many of the last tokens are an answer's already, which is continued: grammar and penalties see them so.
  public var answeredCount = 0

  /// Where drafts of tokens come from, which change the answers' speed and nothing else; nil = as the engine was told.
  public var draft: DraftChoice?

  /// Whom it is answered for. Those who ask at the same time have equal shares of places and of what sweeps compute, however
  /// many sequences each of them opens.
  public var client = ""
  /// How far it stands back: 0 = not at all; for each step more, others go first until 4096 rows were computed since it came.
  public var priority = 0

  /// Whether it begins with what the engine's store has of its tokens, and leaves its context there.
  public var usesStore = true

  /// How the hidden states of each turn's tokens are pooled to a vector; nil = not at all.
  ///
  /// It comes with the turn's end (``TokenSequence/Finish/embedding``). Such a sequence reads all of its tokens: it takes
  /// nothing from the store or from other sequences.
  public var pooling: Pooling?

  public init(
    tokens: [Int32], limit: Int = 512, sampling: SamplingOptions = SamplingOptions(),
    stops: StopStrings = [], ignoresEnd: Bool = false, logProbabilityCount: Int = 0
  ) {
    self.tokens = tokens
    self.limit = limit
    self.sampling = sampling
    self.stops = stops
    self.ignoresEnd = ignoresEnd
    self.logProbabilityCount = logProbabilityCount
  }

  /// Tokens that its context has room for.
  func contextLength(in plan: MemoryPlan) -> Int {
    min(plan.contextLength, max(1, contextLimit ?? .max))
  }
}
