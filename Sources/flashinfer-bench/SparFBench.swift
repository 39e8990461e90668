import ArgumentParser
import CommandLineSupport
import Glibc
import InStorageAttention
import KVCache
import Kernels
import ModelFormat
import Runtime
import TensorBasics
import Tokenization
import WeightLoader

/// What SparF's approximation costs a real model, beside dense attention.
struct SparFBench: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "sparf",
    abstract: "What SparF attention in computational storage drives costs, beside dense attention.",
    discussion: """
      The text is cut into chunks as by perplexity; the first half of each is read by the host, the \
      tokens of the second are decoded one by one, with dense attention and with SparF at each share. \
      cosine compares the outputs of attention for the same query, keys and values, head by head, \
      along the dense model's way; the other figures compare whole models, each on its own way. Bytes \
      are those that the engine takes, as a share of what dense attention takes.

      Examples:
        flashinfer-bench sparf model.bin text.txt --share 1/8 --chunks 1
      """)

  @Argument(help: "Flash image, GGUF file or Hugging Face folder.") var model: String
  @Argument(help: "Text file; - is standard input.") var file: String
  @OptionGroup(title: "Memory, processors and drive") var resources: ResourceOptions
  @Option(help: "Shares of query elements and of positions: 1/8, or 1/4,1/8 for each; repeatable.")
  var share: [String] = ["1/8", "1/4"]
  @Option(help: "Chunks to score; 0 = all.") var chunks = 4
  @Option(help: "Drives that share the KV heads.") var devices = 1
  @Flag(help: "Print one JSON object.") var json = false
  @OptionGroup(title: "Output") var messages: OutputOptions

  func validate() throws {
    guard resources.context ?? 512 >= 4 else {
      throw ValidationError("--context must be at least 4")
    }
    guard chunks >= 0 else { throw ValidationError("--chunks must be 0 or more") }
    do throws(DriveError) {
      try DriveArray.checkCount(devices)
      for options in try shares() { try AttentionEngineKind.sparse(options).check() }
    } catch { throw ValidationError("\(error)") }
  }

  private func shares() throws(DriveError) -> [SparseAttention] {
    var result: [SparseAttention] = []
    for text in share {
      guard let options = SparseAttention(shares: text[...]) else {
        throw .impossible("--share: '\(text)' is no share such as 1/8")
      }
      result.append(options)
    }
    return result
  }

  func run() throws {
    Interruption.install()
    try reportingErrors {
      let model = try resources.open(model)
      Terminal.warn(notesOf: model.source)
      if let note = KeyValueOptions.defaultFolderNote { Terminal.warn(note) }
      let length = resources.context ?? 512
      let chunks = try model.chunks(ofTextFile: file, length: length, most: self.chunks)
      let shape = DriveArray.Shape(model.configuration, contextLength: length)
      var runs: [SparseRun] = []
      for (name, options) in zip(share, try shares()) {
        runs.append(
          SparseRun(
            name: name, probe: try makeDrives(shape, .sparse(options)),
            session: try makeSession(
              length, sessionCount: share.count + 1, try makeDrives(shape, .sparse(options)))))
      }
      let dense = try makeDrives(shape, .dense)
      let comparing = try ComparingAttention(dense: dense, sparse: runs.map(\.probe))
      let session = try makeSession(length, sessionCount: share.count + 1, comparing)
      let vocabularyCount = model.configuration.vocabularyCount
      let reference = try AlignedBuffer(byteCount: 4 * vocabularyCount)
      var comparisons = runs.map { _ in
        DistributionComparison(
          vocabularyCount: vocabularyCount, reference: reference.elements(of: Float.self))
      }
      let total = chunks.reduce(0) { $0 + $1.count }
      let progress = Progress.begin(
        "decoding the text", total: total, unit: .count("tokens"))
      defer { progress.finish() }
      for (index, chunk) in chunks.enumerated() {
        try decode(chunk, session, runs.map(\.session), into: &comparisons) {
          progress.update(index * length + $0)
        }
        Terminal.remark(
          "[\(index + 1)/\(chunks.count)] perplexity \(comparisons[0].densePerplexity.fixed(3)) dense, "
            + runs.indices.map {
              "\(comparisons[$0].sparsePerplexity.fixed(3)) at \(runs[$0].name) "
                + "(cosine \(comparing.cosine($0).fixed(4)))"
            }.joined(separator: ", "))
      }
      report(
        figures(comparisons, comparing, dense, runs), model.summary(self.model), asJSON: json)
    }
  }

  /// A share, drives that attend beside the dense ones, and a model that decodes with others.
  private struct SparseRun {
    var name: String
    var probe: DriveArray
    var session: Session
  }

  /// Decodes the second half of a chunk, save the last token, in all sessions.
  private func decode(
    _ tokens: [Int32], _ dense: Session, _ sparse: [Session],
    into comparisons: inout [DistributionComparison], progress: (_ tokenCount: Int) -> Void
  ) throws {
    let half = tokens.count / 2
    for (index, session) in ([dense] + sparse).enumerated() {
      progress(half * index / (sparse.count + 1))
      session.reset()
      _ = try session.prefill(Array(tokens[..<half]))
    }
    for position in half..<tokens.count - 1 {
      progress(position)
      // All comparisons share the memory of the one row.
      let reference = UnsafeBufferPointer(try dense.decode(tokens[position]))
      for run in comparisons.indices { comparisons[run].keep(reference, row: 0) }
      for (run, session) in sparse.enumerated() {
        comparisons[run].compare(
          UnsafeBufferPointer(try session.decode(tokens[position])), row: 0,
          next: tokens[position + 1])
      }
    }
  }

  private func figures(
    _ comparisons: [DistributionComparison], _ comparing: ComparingAttention, _ dense: DriveArray,
    _ runs: [SparseRun]
  ) -> [Figure] {
    var figures = [
      Figure("densePerplexity", comparisons[0].densePerplexity, .number),
      Figure("scoredTokens", Double(comparisons[0].count), .tokens),
    ]
    let all = dense.statistics.operations
    for (index, run) in runs.enumerated() {
      let some = run.probe.statistics.operations
      let pages = some.pagesRead + some.pagesFromMemory
      figures += [
        Figure("cosine/\(run.name)", comparing.cosine(index), .number, "(mean of the heads)"),
        Figure("lowestLayerCosine/\(run.name)", comparing.lowestLayerCosine(index), .number),
        Figure("perplexity/\(run.name)", comparisons[index].sparsePerplexity, .number),
        Figure(
          "perplexityCost/\(run.name)",
          comparisons[index].sparsePerplexity / comparisons[index].densePerplexity - 1,
          .fraction, "of the dense"),
        Figure("meanDivergence/\(run.name)", comparisons[index].divergence, .nats),
        Figure(
          "argmaxAgreement/\(run.name)", comparisons[index].agreement, .fraction, "of the positions"
        ),
        Figure(
          "bytesPassed/\(run.name)", Double(some.bytesPassed) / Double(max(1, all.bytesPassed)),
          .fraction, "of the dense"),
        Figure(
          "pages/\(run.name)",
          Double(pages) / Double(max(1, all.pagesRead + all.pagesFromMemory)), .fraction,
          "of the dense"),
      ]
    }
    // What simulated drives are asked for does not depend on time.
    return figures.map(\.exact)
  }

  private func makeDrives(
    _ shape: DriveArray.Shape, _ engine: AttentionEngineKind
  ) throws -> DriveArray {
    try DriveArray(
      shape, driveCount: devices,
      DriveConfiguration(
        flash: try shape.flash(driveCount: devices, engine: engine), engine: engine,
        file: .temporary(folder: KeyValueOptions.defaultFolder)))
  }

  /// A session with its own opening of the file; sessions share the budget.
  private func makeSession(
    _ length: Int, sessionCount: Int, _ attention: any DecodeAttention
  ) throws -> Session {
    let model = try resources.open(self.model)
    let request = MemoryPlan.Request(
      budgetByteCount: resources.budget / sessionCount, contextLength: length,
      promptLength: length / 2, threadCount: resources.threadCount)
    return try Session(
      model.source, model.configuration, request, cancellation: Interruption.flag,
      decodeAttention: attention)
  }
}

/// Dense attention with sparse attention beside it: a model goes the dense way, and what the sparse ones
/// would have given is compared, head by head.
private final class ComparingAttention: DecodeAttention {
  private let dense: DriveArray
  private let sparse: [DriveArray]
  let hostWindow = 0
  /// Partials of the sparse drives.
  private let partialMemory: AlignedBuffer
  /// Sums of cosines and their number [sparse][layer].
  private var sums: [[Double]]
  private var counts: [Int]

  init(dense: DriveArray, sparse: [DriveArray]) throws(AllocationError) {
    self.dense = dense
    self.sparse = sparse
    let shape = dense.shape
    partialMemory = try AlignedBuffer(
      byteCount: AttentionPartials.byteCount(
        queryCount: shape.queryHeadCount, headDim: shape.headDim))
    sums = sparse.map { Array(repeating: 0, count: $0.shape.layerCount) }
    counts = Array(repeating: 0, count: dense.shape.layerCount)
  }

  func append(
    layer: Int, position: Int, tokenCount: Int, keys: UnsafePointer<Float>,
    values: UnsafePointer<Float>
  ) throws {
    for drives in [dense] + sparse {
      try drives.append(
        layer: layer, position: position, tokenCount: tokenCount, keys: keys, values: values)
    }
  }

  func fold(
    layer: Int, visible: VisibleRange, queries: UnsafePointer<Float>, into partials: TokenPartials,
    continues: Bool
  ) throws {
    let (heads, length) = (dense.shape.queryHeadCount, dense.shape.headDim)
    let own = TokenPartials(
      memory: partialMemory.address, groupSize: partials.groupSize, headDim: length)
    try dense.fold(
      layer: layer, visible: visible, queries: queries, into: partials, continues: continues)
    let expected = output(partials)
    for (index, drives) in sparse.enumerated() {
      try drives.fold(
        layer: layer, visible: visible, queries: queries, into: own, continues: continues)
      let other = output(own)
      for head in 0..<heads {
        var (product, a, b) = (0.0, 0.0, 0.0)
        for element in head * length..<(head + 1) * length {
          product += Double(expected[element]) * Double(other[element])
          a += Double(expected[element]) * Double(expected[element])
          b += Double(other[element]) * Double(other[element])
        }
        sums[index][layer] += a > 0 && b > 0 ? product / (a * b).squareRoot() : 1
      }
    }
    counts[layer] += heads
  }

  /// Attention's output [queryHeadCount, headDim].
  private func output(_ partials: TokenPartials) -> [Float] {
    let width = partials.groupSize * partials.headDim
    var result = [Float](repeating: 0, count: dense.shape.keyValueHeadCount * width)
    result.withUnsafeMutableBufferPointer { buffer in
      guard let address = buffer.baseAddress else { return }
      for head in 0..<dense.shape.keyValueHeadCount {
        AttentionKernel.finish(
          partials[head], into: address + head * width, outputStride: partials.headDim)
      }
    }
    return result
  }

  func reset() { for drives in [dense] + sparse { drives.reset() } }

  func cosine(_ index: Int) -> Double {
    sums[index].reduce(0, +) / Double(max(1, counts.reduce(0, +)))
  }

  func lowestLayerCosine(_ index: Int) -> Double {
    zip(sums[index], counts).map { $0 / Double(max(1, $1)) }.min() ?? 0
  }
}
