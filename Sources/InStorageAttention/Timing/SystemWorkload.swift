/// Sequences that are generated together.
public struct SystemWorkload: Sendable, Equatable {
  public var model: ModelParameters
  /// Sequences.
  public var batch: Int
  /// Tokens of each prompt, and tokens generated for it.
  public var promptLength: Int
  public var outputLength: Int

  public init(model: ModelParameters, batch: Int, promptLength: Int, outputLength: Int) {
    self.model = model
    self.batch = batch
    self.promptLength = promptLength
    self.outputLength = outputLength
  }

  /// Tokens of each sequence when its `index`-th token is computed: the prompt at first.
  func context(_ index: Int) -> Int { promptLength + index }

  /// Keys and values of all sequences at their end, each once.
  var finalByteCount: Double {
    Double(batch) * Double(promptLength + outputLength) * model.tokenByteCount
  }

  func validate() throws(TimingError) {
    try model.validate()
    try requireCount("batch", batch, upTo: 1 << 20)
    try requireCount("prompt", promptLength, upTo: 1 << 24)
    try requireCount("output", outputLength, upTo: 1 << 24)
  }
}

/// Where keys and values lie, and with that who attends over them while decoding.
public enum KeyValuePlacement: Sendable, Equatable {
  /// In drives that compute attention, KV heads divided among them.
  case inStorage(driveCount: Int)
  /// In plain drives, read by the host (FlexGen).
  case hostStorage(driveCount: Int)
  /// In host memory (DeepSpeed ZeRO-Inference).
  case hostMemory
  /// Nowhere: every step computes the whole context again.
  case recomputation
}

/// What a run takes.
public struct SystemTiming: Sendable, Equatable {
  public var prefillSeconds = 0.0
  public var decodeSeconds = 0.0
  /// Of decoding, reading keys and values: flash and channels of drives that compute, or the way to the
  /// processor.
  public var keyValueSeconds = 0.0
  /// Of decoding, attention in drives or reading by the host, with what it waits for.
  public var attentionSeconds = 0.0
  /// Tokens generated per second, prompts included.
  public var tokensPerSecond = 0.0
  /// Bytes over the links of all drives while decoding, or between host memory and processor.
  public var busByteCount = 0.0
  /// Bytes read from and programmed into flash, prompts included.
  public var flashReadByteCount = 0.0
  public var flashWriteByteCount = 0.0
  /// Device DRAM of one drive that tokens need which do not fill a page yet.
  public var groupBufferByteCount = 0.0
  /// Idle time of one drive in which it erases what this run has written.
  public var eraseSeconds = 0.0

  public init() {}

  /// Share of keys and values in decoding.
  public var keyValueShare: Double { keyValueSeconds / decodeSeconds }
}
