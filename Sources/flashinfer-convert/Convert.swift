import ArgumentParser
import BlockIO
import CommandLineSupport
import Glibc
import HostResources
import ModelConversion
import ModelFormat
import TensorBasics
import WeightLoader

/// `flashinfer-convert INPUT OUTPUT`: a model as a flash image.
@main
struct Convert: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "flashinfer-convert",
    abstract: "Writes a model as a flash image, laid out for reading from a drive.",
    discussion: """
      INPUT is a GGUF file or a Hugging Face folder (config.json, safetensors, tokenizer.json). \
      Quantised values are moved, never changed. The image appears under its name only when it is \
      complete; a link at OUTPUT stays, and the file that it names is replaced. With --stripe it is \
      cut over OUTPUT and the files named, best each on a drive of its own; any one of them then \
      stands for the model.

      Examples:
        flashinfer-convert model.gguf model.bin
        flashinfer-convert folder model.bin --quantize q4_k
        flashinfer-convert model.gguf /a/model.bin --stripe /b/model.bin
      """,
    version: FlashInferVersion.current)

  static func main() { runAsProgram() }

  /// What `--quantize` can make of float matrices.
  struct QuantisedType: ExpressibleByArgument {
    let type: ElementType
    /// llama.cpp's name of a mix of types that was given in the type's place, such as Q4_K_M.
    var mix: String?

    init?(argument: String) {
      let words = argument.lowercased().split(separator: "_")
      func type(_ words: ArraySlice<Substring>) -> ElementType? {
        let name = words.joined(separator: "_")
        return Converter.quantisedTypes.first { Self.name($0) == name }
      }
      if let type = type(words[...]) {
        self.type = type
      } else if let type = type(words.dropLast()), ["s", "m", "l", "xs", "xl"].contains(words.last)
      {
        self.type = type
        mix = argument
      } else {
        return nil
      }
    }

    var defaultValueDescription: String { Self.name(type) }

    static let allValueStrings = Converter.quantisedTypes.map(name)
    static let defaultCompletionKind = CompletionKind.list(allValueStrings)

    private static func name(_ type: ElementType) -> String { type.name.lowercased() }
  }

  /// What `--bundle` can be.
  enum Bundle: String, ExpressibleByArgument, CaseIterable {
    case none
    case experts
    case neurons
    case singleNeurons = "single-neurons"

    var bundling: Bundling {
      switch self {
      case .none: .none
      case .experts: .experts
      case .neurons: .neurons
      case .singleNeurons: .singleNeurons
      }
    }
  }

  @Argument(help: "GGUF file or Hugging Face folder.") var input: String
  @Argument(help: "Flash image to write.") var output: String
  @Option(
    help: ArgumentHelp(
      "Quantise float matrices, except routers and position embeddings (default: keep them). Where rows are not "
        + "a multiple of 256, q2_k, q3_k and q4_k become iq4_nl, and q5_k and q6_k become q8_0; rows that are not a "
        + "multiple of 32 stay floats. The tensors this affects are printed.",
      valueName: "type"))
  var quantize: QuantisedType?
  @Option(
    parsing: .unconditional,
    help: "Threads that quantise (default: one per processor that may be used).")
  var threads: Int?
  @Option(
    help: ArgumentHelp(
      "What lies together: experts (gate, up and down of each; default where there are any), "
        + "neurons (of a dense FFN: of each neuron, or of as many as a quant block holds), "
        + "single-neurons (of each; down is quantised anew where it was quantised) or none.",
      valueName: "kind"))
  var bundle: Bundle?
  @Option(
    help: ArgumentHelp(
      "With bundles of neurons: predictors or thresholds, as a training tool wrote them.",
      valueName: "file"))
  var selectorFile: String?
  @Option(
    help: ArgumentHelp(
      "A file on another drive to stripe the image over; repeatable.", valueName: "path"))
  var stripe: [String] = []
  @Option(
    help: ArgumentHelp(
      "Bytes that lie together on one drive (default: 512 KiB).", valueName: "size"))
  var stripeUnit: ByteCount?
  @Flag(help: "Replace OUTPUT where it exists.") var force = false
  @Option(help: "How to read: auto, uring, pread or mmap.") var io = StorageBackend.auto
  @Flag(help: "Print one JSON object.") var json = false
  @OptionGroup(title: "Output") var messages: OutputOptions

  func validate() throws {
    if let quantize, let mix = quantize.mix {
      throw ValidationError(
        "--quantize \(mix): llama.cpp's name of a mix of types; here all matrices become one: --quantize "
          + quantize.defaultValueDescription)
    }
    try ResourceOptions.check(threads: threads)
  }

  func run() throws {
    Interruption.install()
    try reportingErrors {
      do { try convert() } catch let error as ConversionError {
        throw CommandError(Self.status(of: error), error.description)
      }
    }
  }

  private func convert() throws {
    let taken = ([output] + stripe).first { path in
      path.withSystemPath { access($0, F_OK) } == 0
    }
    if !force, let taken {
      throw CommandError(.usage, "\(taken) exists; --force replaces it")
    }
    let start = monotonicNanoseconds()
    let striping = try makeStriping()
    let converter = try makeConverter()
    if let quantize { remark(onQuantising: converter, to: quantize) }
    for group in converter.unpackedMatrices {
      Terminal.remark(
        "\(group.count) \(group.count == 1 ? "matrix" : "matrices") of \(group.packing) with scales (\(ByteCount(group.byteCount))) become "
          + "\(group.type.name), "
          + (group.isExact ? "value for value" : "which rounds them"))
    }
    let report = try Progress.showing(
      "writing \(Progress.name(output))", total: converter.imageByteCount, unit: .bytes
    ) { progress in
      try converter.write(
        to: output, striping: striping,
        threadCount: threads ?? HostLimits().defaultThreadCount, cancellation: Interruption.flag
      ) { progress.update($0) }
    }
    if json {
      let seconds = Double(monotonicNanoseconds() - start) / 1e9
      return try printJSON(report, converter, seconds: seconds)
    }
    let others = stripe.isEmpty ? "" : " and \(stripe.count) more"
    Terminal.remark("\(output)\(others): \(ByteCount(converter.imageByteCount))")
    if let error = report.columnError {
      let percent = (error * 1e5).rounded() / 1e3
      Terminal.remark("down matrices quantised anew along columns; relative error \(percent) %")
    }
  }

  /// Says what did not become the type asked for.
  private func remark(onQuantising converter: Converter, to quantize: QuantisedType) {
    if converter.quantisedTensorCount == 0, converter.quantisationExceptions.isEmpty {
      Terminal.warn(
        "--quantize \(quantize.defaultValueDescription) changes nothing: \(input) has no float matrices to "
          + "quantise")
    }
    let lines = QuantisationException.lines(
      converter.quantisationExceptions, asked: quantize.type)
    for line in lines { Terminal.remark(line) }
  }

  /// Prints what was written as one JSON object.
  private func printJSON(
    _ report: ConversionReport, _ converter: Converter, seconds: Double
  ) throws {
    let imageByteCount = converter.imageByteCount
    var figures = [
      Figure("imageBytes", imageByteCount, .bytes), Figure("seconds", seconds, .seconds),
      Figure("imageBytesPerSecond", Double(imageByteCount) / seconds, .bytesPerSecond),
    ]
    if let error = report.columnError {
      figures.append(Figure("columnError", error, .fraction, "relative error of down matrices"))
    }
    let image = try ModelSource.open(output, backend: io)
    JSONDocument(
      "flashinfer-convert", Self.self, model: ModelSummary(output, image), figures: figures
    ).print { json in
      json.text("input", input)
      json.array("outputs", of: [output] + stripe) { $0.text(nil, $1) }
      json.text("sourceIdentity", image.description.sourceIdentity?.description)
      json.array("unpacked", of: converter.unpackedMatrices) { json, group in
        json.object(nil) { json in
          json.text("from", group.packing)
          json.text("to", group.type.name)
          json.number("count", group.count)
          json.number("bytes", group.byteCount)
        }
      }
      json.array("otherTypes", of: converter.quantisationExceptions) { json, exception in
        json.object(nil) { json in
          json.text("tensor", exception.tensorName)
          json.text("type", exception.type.name)
          json.number("length", exception.length)
        }
      }
    }
  }

  /// How to cut the image; nil for one file.
  private func makeStriping() throws -> Striping? {
    guard !stripe.isEmpty else {
      guard stripeUnit == nil else { throw CommandError(.usage, "--stripe-unit needs --stripe") }
      return nil
    }
    do {
      return try Striping(
        path: output, otherPaths: stripe,
        unitByteCount: stripeUnit?.bytes ?? Striping.defaultUnitByteCount)
    } catch { throw CommandError(.usage, error.description) }
  }

  private func makeConverter() throws -> Converter {
    let source: ModelSource
    do { source = try ModelSource.open(input, backend: io) } catch {
      throw ConversionError.loader(error)
    }
    Terminal.warn(notesOf: source)
    if let problem = VocabularyProblem.of(source.description) {
      throw CommandError(.badData, "\(input): the vocabulary cannot be used: \(problem)")
    }
    if source.description.tokenizer == nil {
      Terminal.warn(
        "\(input) holds no vocabulary, and so neither does the image: prompts can only be given as token ids "
          + "(--tokens)")
    }
    let selector = try makeSelector(for: source)
    let total = source.description.storedByteCount
    return try Progress.showing("checksumming the weights", total: total, unit: .bytes) {
      progress in
      try Converter(
        source, quantisation: quantize?.type, bundling: bundle?.bundling, selector: selector,
        cancellation: Interruption.flag, progress: { progress.update($0) })
    }
  }

  private func makeSelector(for source: ModelSource) throws -> SelectorFile? {
    guard let selectorFile else { return nil }
    guard let configuration = source.description.configuration else {
      throw CommandError(.badData, "\(input) holds no weights")
    }
    return try SelectorFile(selectorFile, for: configuration, backend: io)
  }

  private static func status(of error: ConversionError) -> ExitStatus {
    switch error {
    case .loader(let error): ExitStatus(error)
    case .format(let error): ExitStatus(error)
    case .io(let error): ExitStatus(error)
    case .allocation(let error): ExitStatus(error)
    case .notPossible: .badData
    case .interrupted: .interrupted
    }
  }
}
