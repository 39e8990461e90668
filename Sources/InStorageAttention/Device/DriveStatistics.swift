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
public struct BusTraffic: Sendable, Equatable {
  public var commandCount = 0
  public var bytesToDrive = 0
  public var bytesFromDrive = 0

  public var byteCount: Int { bytesToDrive + bytesFromDrive }

  public init() {}

  public static func += (total: inout Self, part: Self) {
    total.commandCount += part.commandCount
    total.bytesToDrive += part.bytesToDrive
    total.bytesFromDrive += part.bytesFromDrive
  }

  public static func - (total: Self, part: Self) -> Self {
    var result = total
    result.commandCount -= part.commandCount
    result.bytesToDrive -= part.bytesToDrive
    result.bytesFromDrive -= part.bytesFromDrive
    return result
  }
}

/// What a drive's engine and flash controller did for `attend`.
public struct EngineOperations: Sendable, Equatable {
  /// Pages read from flash, and pages that the drive's memory still held.
  public var pagesRead = 0
  public var pagesFromMemory = 0
  /// Bytes of flash pages that went into the flash controller's filter.
  public var bytesFiltered = 0
  /// Bytes of keys and values that the engine took, behind the filter or from memory.
  public var bytesPassed = 0
  /// Multiplications with addition: of queries and keys, of weights and values.
  public var multiplyAdds = 0
  /// Exponentials of softmax.
  public var exponentials = 0
  /// Scores that went through a top-k selection.
  public var selections = 0

  public init() {}

  public static func += (total: inout Self, part: Self) {
    total.pagesRead += part.pagesRead
    total.pagesFromMemory += part.pagesFromMemory
    total.bytesFiltered += part.bytesFiltered
    total.bytesPassed += part.bytesPassed
    total.multiplyAdds += part.multiplyAdds
    total.exponentials += part.exponentials
    total.selections += part.selections
  }

  public static func - (total: Self, part: Self) -> Self {
    var result = total
    result.pagesRead -= part.pagesRead
    result.pagesFromMemory -= part.pagesFromMemory
    result.bytesFiltered -= part.bytesFiltered
    result.bytesPassed -= part.bytesPassed
    result.multiplyAdds -= part.multiplyAdds
    result.exponentials -= part.exponentials
    result.selections -= part.selections
    return result
  }
}

/// What became of a drive's flash.
public struct FlashCounts: Sendable, Equatable {
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

  public static func += (total: inout Self, part: Self) {
    total.pagesRead += part.pagesRead
    total.pagesProgrammed += part.pagesProgrammed
    total.bytesProgrammed += part.bytesProgrammed
    total.blocksErased += part.blocksErased
    total.pagesMoved += part.pagesMoved
    total.bitsCorrected += part.bitsCorrected
    total.readRetries += part.readRetries
    total.uncorrectablePages += part.uncorrectablePages
  }
}
