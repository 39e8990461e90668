import Glibc
import ModelFormat
import TensorBasics

/// Reads the tokenizer out of a GGUF file for these tests, without the format library.
struct VocabularyFile {
  enum Value {
    case integer(Int)
    case text(ArraySlice<UInt8>)
    case strings(PackedStrings)
    case floats([Float])
    case integers([Int])
  }

  struct Malformed: Error {}

  private let bytes: [UInt8]
  private var position = 0
  private(set) var values: [String: Value] = [:]

  init(path: String) throws {
    bytes = try Self.contents(path)
    position = 8
    let tensorCount = try number(8)
    let valueCount = try number(8)
    _ = tensorCount
    for _ in 0..<valueCount {
      let key = String(decoding: try string(), as: UTF8.self)
      values[key] = try value(of: try number(4))
    }
  }

  static func contents(_ path: String) throws -> [UInt8] {
    guard let file = fopen(path, "rb") else { throw Malformed() }
    defer { fclose(file) }
    fseek(file, 0, SEEK_END)
    // The vocabulary stands at the beginning, before any weights.
    let count = min(ftell(file), 64 << 20)
    rewind(file)
    return [UInt8](unsafeUninitializedCapacity: count) { buffer, used in
      used = fread(buffer.baseAddress, 1, count, file)
    }
  }

  private mutating func number(_ byteCount: Int) throws -> Int {
    guard position + byteCount <= bytes.count else { throw Malformed() }
    var value: UInt64 = 0
    for index in (0..<byteCount).reversed() {
      value = value << 8 | UInt64(bytes[position + index])
    }
    position += byteCount
    return Int(truncatingIfNeeded: value)
  }

  private mutating func string() throws -> ArraySlice<UInt8> {
    let count = try number(8)
    guard count >= 0, count <= bytes.count - position else { throw Malformed() }
    position += count
    return bytes[position - count..<position]
  }

  private static let byteCounts = [1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8]

  private mutating func value(of type: Int) throws -> Value {
    guard type >= 0, type < Self.byteCounts.count else { throw Malformed() }
    if type == 8 { return .text(try string()) }
    guard type == 9 else { return .integer(try number(Self.byteCounts[type])) }
    let elementType = try number(4)
    let count = try number(8)
    if elementType == 8 {
      var strings = PackedStrings()
      for _ in 0..<count { strings.append(try string()) }
      return .strings(strings)
    }
    guard elementType >= 0, elementType < Self.byteCounts.count else { throw Malformed() }
    var integers: [Int] = []
    for _ in 0..<count { integers.append(try number(Self.byteCounts[elementType])) }
    if elementType == 6 {
      return .floats(integers.map { Float(bitPattern: UInt32(truncatingIfNeeded: $0)) })
    }
    return .integers(integers)
  }

  private func integer(_ key: String) -> Int? {
    guard case .integer(let value) = values["tokenizer.ggml.\(key)"] else { return nil }
    return value
  }

  private func strings(_ key: String) -> PackedStrings {
    guard case .strings(let value) = values["tokenizer.ggml.\(key)"] else { return PackedStrings() }
    return value
  }

  func text(_ key: String) -> String? {
    guard case .text(let value) = values[key] else { return nil }
    return String(decoding: value, as: UTF8.self)
  }

  func definition() throws -> TokenizerDefinition {
    let models: [String: TokenizerDefinition.Model] = [
      "gpt2": .byteLevelBPE, "llama": .sentencePieceBPE, "t5": .unigram, "gemma4": .spacedBPE,
    ]
    guard let model = models[text("tokenizer.ggml.model") ?? ""] else { throw Malformed() }
    var scores: [Float] = []
    if case .floats(let values) = values["tokenizer.ggml.scores"] { scores = values }
    var kinds: [UInt8] = []
    if case .integers(let values) = values["tokenizer.ggml.token_type"] {
      kinds = values.map { UInt8(clamping: $0) }
    }
    return TokenizerDefinition(
      model: model, preTokenizer: text("tokenizer.ggml.pre"), tokens: strings("tokens"),
      scores: scores, kinds: kinds, merges: strings("merges"), bosToken: integer("bos_token_id"),
      eosToken: integer("eos_token_id"), eotToken: integer("eot_token_id"),
      unknownToken: integer("unknown_token_id"),
      addsBOS: integer("add_bos_token").map { $0 != 0 },
      addsEOS: integer("add_eos_token").map { $0 != 0 },
      addsSpacePrefix: integer("add_space_prefix").map { $0 != 0 },
      removesExtraWhitespace: integer("remove_extra_whitespaces").map { $0 != 0 })
  }
}
