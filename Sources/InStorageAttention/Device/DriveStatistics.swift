public import TensorBasics

/// What a drive did since it was configured; differences of two give what one step took.
public struct DriveStatistics: Sendable, Equatable {
  /// Commands and their bytes on the bus, entries and payload.
  public var bus = BusTraffic()
  /// What the engine did, for a model of the time it takes.
  public var operations = EngineOperations()
  /// What became of the flash.
  public var flash = FlashCounts()
  /// Pages in use, written to flash or waiting in open blocks; pages there are.
  public var usedPageCount = 0
  public var pageCount = 0
  /// Erases of the least and the most worn block, and of all.
  public var leastEraseCount = 0
  public var mostEraseCount = 0
  /// Blocks that reached their last erase.
  public var retiredBlockCount = 0
  /// The drive's memory that tables, buffers and engine take.
  public var memoryByteCount = 0

  public init() {}
}

/// What crossed the bus.
public struct BusTraffic: Counters, Sendable, Equatable {
  public var commandCount = 0
  public var bytesToDrive = 0
  public var bytesFromDrive = 0

  public var byteCount: Int { bytesToDrive + bytesFromDrive }

  public init() {}

  public static let counters: [any WritableKeyPath<Self, Int> & Sendable] = [
    \.commandCount, \.bytesToDrive, \.bytesFromDrive,
  ]
}

/// What a drive's engine and flash controller did for `attend`.
public struct EngineOperations: Counters, Sendable, Equatable {
  /// Pages read from flash, and pages that the drive's memory still held.
  public var pagesRead = 0
  public var pagesFromMemory = 0
  /// Bytes of flash pages that went into the flash controller's filter.
  public var bytesFiltered = 0
  /// Bytes of keys and values that the engine took, from the filter or from memory.
  public var bytesPassed = 0
  /// Multiplications with addition: of queries and keys, of weights and values.
  public var multiplyAdds = 0
  /// Exponentials of softmax.
  public var exponentials = 0
  /// Scores that went through a top-k selection.
  public var selections = 0

  public init() {}

  public static let counters: [any WritableKeyPath<Self, Int> & Sendable] = [
    \.pagesRead, \.pagesFromMemory, \.bytesFiltered, \.bytesPassed, \.multiplyAdds, \.exponentials,
    \.selections,
  ]
}

/// What became of a drive's flash.
public struct FlashCounts: Counters, Sendable, Equatable {
  /// Pages read, retries apart.
  public var pagesRead = 0
  /// Pages programmed, those moved by garbage collection included.
  public var pagesProgrammed = 0
  public var bytesProgrammed = 0
  public var blocksErased = 0
  /// Pages that garbage collection and wear levelling moved.
  public var pagesMoved = 0
  /// Bits that the modelled code corrected.
  public var bitsCorrected = 0
  /// Reads of a page after its first.
  public var readRetries = 0
  public var uncorrectablePages = 0

  public init() {}

  public static let counters: [any WritableKeyPath<Self, Int> & Sendable] = [
    \.pagesRead, \.pagesProgrammed, \.bytesProgrammed, \.blocksErased, \.pagesMoved,
    \.bitsCorrected, \.readRetries, \.uncorrectablePages,
  ]
}
