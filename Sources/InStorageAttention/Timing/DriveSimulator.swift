/// Plays the attend commands of one layer through a drive on a virtual clock.
///
/// Every unit (plane, channel, filter, DRAM, matrix-vector unit, softmax unit, firmware) serves one piece of
/// work at a time in the order of the schedule, which is fixed before the clock starts. An event is then
/// known as soon as those are on which it waits, so events are visited in the order of the schedule and no
/// queue of events is kept; the clock reads the same. Two consequences: no time becomes longer when a unit
/// becomes faster, and a result does not depend on anything but its arguments.
///
/// The grain is the page: sensed by its plane, moved over its channel, filtered on the way, into device DRAM
/// and out again, multiplied. Keys come before values; values may be read while scores are still being
/// computed. Sparse attention has three parts, approximate scores, exact scores and values, some heads
/// apart, so that no unit waits for the ranking of one head.
struct DriveSimulator {
  private let drive: DriveParameters
  private let engine: EngineParameters
  private let command: AttentionCommand
  private let isSparse: Bool
  /// Heads between the parts of a sparse command.
  private let lookahead: Int

  // Per unit, in nanoseconds, when it has done all that it was given.
  private var planes: [Double]
  private var channels: [Double]
  private var filters: [Double]
  private var memory = 0.0
  private var firmware = 0.0
  private var products: [Double]
  private var softmaxes: [Double]
  private var selections: [Double]
  /// Of the last ``EngineParameters/headsInFlight`` commands, when they ended.
  private var ends: [Double]
  /// Of commands in flight, when their tokens are chosen, and when their weights are computed.
  private var selected: [Double]
  private var weighted: [Double]
  private var last = 0.0
  /// Pages read so far.
  private var readCount = 0

  // Times per piece of work, in nanoseconds.
  private let filterPage: Double
  private let memoryPage: Double
  private let memoryToken: Double
  private let productPage: Double
  private let productBuffered: Double

  init(
    drive: DriveParameters, engine: EngineParameters, command: AttentionCommand,
    tokenByteCount: Int
  ) {
    self.drive = drive
    self.engine = engine
    self.command = command
    isSparse = command.channelPageCount > 0
    lookahead = (engine.headsInFlight - 1) / 2
    let geometry = drive.geometry
    planes = Array(repeating: 0, count: geometry.channelCount * geometry.planesPerChannel)
    channels = Array(repeating: 0, count: geometry.channelCount)
    filters = channels
    products = Array(repeating: 0, count: engine.kernelCount)
    softmaxes = products
    selections = products
    ends = Array(repeating: 0, count: engine.headsInFlight)
    selected = ends
    weighted = ends
    let page = Double(geometry.pageByteCount)
    filterPage = page / engine.filterBytesPerSecond * 1e9
    memoryPage = 2 * page * command.keptFraction / drive.memoryBytesPerSecond * 1e9
    memoryToken = Double(tokenByteCount) / drive.memoryBytesPerSecond * 1e9
    productPage = command.operationsPerPage / engine.operationsPerSecond * 1e9
    productBuffered =
      Double(command.bufferedTokenCount) * command.operationsPerBufferedToken
      / engine.operationsPerSecond * 1e9
  }

  /// Nanoseconds until the last of `commandCount` commands has ended, all given at time 0.
  ///
  /// O(commands × pages of a command).
  mutating func run(commandCount: Int) -> Double {
    if isSparse {
      for slot in 0..<commandCount + 2 * lookahead {
        if slot < commandCount { rank(slot) }
        if (0..<commandCount).contains(slot - lookahead) { score(slot - lookahead) }
        if slot >= 2 * lookahead { addValues(slot - 2 * lookahead) }
      }
    } else {
      for index in 0..<commandCount { attendToAll(index) }
    }
    return last
  }

  /// Takes the next command; returns when its first page may be sensed.
  private mutating func begin(_ index: Int) -> Double {
    firmware = max(firmware, ends[index % ends.count]) + drive.commandNanoseconds
    return firmware
  }

  private mutating func end(_ index: Int, _ time: Double) {
    ends[index % ends.count] = time
    last = max(last, time)
  }

  private mutating func attendToAll(_ index: Int) {
    let start = begin(index)
    let kernel = index % engine.kernelCount
    let bufferedScoreCount = command.bufferedScoreCount
    let scoresPerPage =
      (command.scoreCount - bufferedScoreCount) / Double(max(command.storedPageCount, 1))
    for _ in 0..<command.tokenPageCount {
      multiply(kernel, from: read(from: start), productPage)
      rescore(kernel, scoresPerPage)
    }
    multiplyBuffered(kernel, from: start, notBefore: start)
    rescore(kernel, bufferedScoreCount)
    let weights = softmaxes[kernel]
    for _ in 0..<command.tokenPageCount {
      multiply(kernel, from: max(weights, read(from: start)), productPage)
    }
    multiplyBuffered(kernel, from: start, notBefore: weights)
    end(index, products[kernel])
  }

  /// First part of a sparse command: approximate scores, and which tokens have the largest.
  private mutating func rank(_ index: Int) {
    let start = begin(index)
    let kernel = index % engine.kernelCount
    for _ in 0..<command.channelPageCount {
      multiply(kernel, from: read(from: start), productPage)
    }
    rescore(kernel, command.scoreCount)
    selections[kernel] =
      max(selections[kernel], softmaxes[kernel])
      + command.scoreCount / engine.selectedScoresPerSecond * 1e9
    selected[index % selected.count] = selections[kernel]
  }

  /// Second part: exact scores of those tokens.
  private mutating func score(_ index: Int) {
    let start = selected[index % selected.count]
    let kernel = index % engine.kernelCount
    for _ in 0..<command.tokenPageCount { multiply(kernel, from: read(from: start), productPage) }
    multiplyBuffered(kernel, from: start, notBefore: start)
    rescore(kernel, command.exactScoreCount)
    weighted[index % weighted.count] = softmaxes[kernel]
  }

  /// Last part: their values.
  private mutating func addValues(_ index: Int) {
    let start = selected[index % selected.count]
    let weights = weighted[index % weighted.count]
    let kernel = index % engine.kernelCount
    for _ in 0..<command.tokenPageCount {
      multiply(kernel, from: max(weights, read(from: start)), productPage)
    }
    multiplyBuffered(kernel, from: start, notBefore: weights)
    end(index, products[kernel])
  }

  /// Reads a page into the engine's reach.
  ///
  /// Pages come from channels in turn, and of a channel from planes in turn: groups of tokens are written
  /// that way, and chosen ones are taken to lie as evenly.
  private mutating func read(from start: Double) -> Double {
    let geometry = drive.geometry
    let channel = readCount % geometry.channelCount
    let plane =
      channel * geometry.planesPerChannel + readCount / geometry.channelCount
      % geometry.planesPerChannel
    readCount += 1
    let sensed =
      max(start, planes[plane]) + drive.readNanoseconds * (1 + drive.retriesPerRead)
    let onChannel = max(sensed, channels[channel])
    channels[channel] = onChannel + drive.channelNanoseconds
    planes[plane] = channels[channel]
    filters[channel] = max(
      max(onChannel, filters[channel]) + filterPage, channels[channel])
    memory = max(memory, filters[channel]) + memoryPage
    return memory
  }

  private mutating func multiply(_ kernel: Int, from start: Double, _ nanoseconds: Double) {
    products[kernel] = max(products[kernel], start) + nanoseconds
  }

  /// Keys or values of tokens in the group buffer; values are read before their weights are there.
  private mutating func multiplyBuffered(
    _ kernel: Int, from start: Double, notBefore operands: Double
  ) {
    guard command.bufferedTokenCount > 0 else { return }
    memory = max(memory, start) + Double(command.bufferedTokenCount) * memoryToken
    multiply(kernel, from: max(memory, operands), productBuffered)
  }

  private mutating func rescore(_ kernel: Int, _ scoreCount: Double) {
    softmaxes[kernel] =
      max(softmaxes[kernel], products[kernel]) + scoreCount / engine.scoresPerSecond * 1e9
  }
}
