import ModelFormat
import TensorBasics
import TestSupport
import Tokenization

extension FuzzTarget {
  /// GGUF headers: a byte that says how long the file is, then the file's beginning.
  static let gguf = FuzzTarget(
    name: "gguf", inputByteLimit: 16384, dictionary: GGUFTarget.words, seeds: GGUFTarget.seeds,
    run: GGUFTarget.run)
}

enum GGUFTarget {
  /// Files may be longer than the header that is there; this long, where a bit of the first byte is set.
  private static let longFileByteCount = 1 << 24

  static func run(_ input: UnsafeRawBufferPointer) throws(FuzzFinding) -> Bool {
    var reader = InputReader(input)
    let isWhole = reader.byte() & 1 == 0
    let header = reader.rest()
    let fileByteCount = isWhole ? header.count : max(header.count, longFileByteCount)
    let parsed = Outcome { () throws(FormatError) in
      try GGUF.parse(header, fileByteCount: fileByteCount, path: "fuzz")
    }
    try parsed.check(prefixByteCount: header.count, fileByteCount: fileByteCount)
    if let file = parsed.value { try check(file) }
    let described = Outcome { () throws(FormatError) in
      try ModelFile.describe(header, fileByteCount: fileByteCount, path: "fuzz")
    }
    try described.check(prefixByteCount: header.count, fileByteCount: fileByteCount)
    if let file = parsed.value, let split = file.split, split.count > 1 {
      try require(described.value == nil, "member \(split.index) was taken for a model")
      checkMember(file, split, header)
      return true
    }
    guard let description = described.value else { return false }
    try description.checkPlaces(fileByteCount: fileByteCount)
    let again = Outcome { () throws(FormatError) in
      try ModelFile.describe(header, fileByteCount: fileByteCount, path: "fuzz")
    }
    guard let other = again.value else { throw FuzzFinding("accepted once, then not") }
    try description.checkEqual(other, "a second time")
    if let definition = description.tokenizer {
      try TokenizerChecks.check(
        definition, text: Array("Hello  the\n world's 123 ▁é\u{1F600}".utf8))
    }
    try checkImage(of: description)
    return true
  }

  /// What the first member says is read whatever its tensors are, but it is no model by itself.
  private static func checkMember(
    _ file: GGUFFile, _ split: GGUFSplit, _ header: UnsafeRawBufferPointer
  ) {
    guard split.index == 0 else { return }
    _ = Outcome { () throws(FormatError) in
      ParseProgress.complete(try GGUF.describe([file], header: header))
    }
  }

  private static func check(_ file: GGUFFile) throws(FuzzFinding) {
    var end = file.dataOffset
    for tensor in file.tensors.sorted(by: { $0.offset < $1.offset }) {
      try require(tensor.offset >= end, "tensor \(tensor.name) begins in another one")
      end = tensor.offset + tensor.byteCount
      try require(end <= file.fileByteCount, "tensor \(tensor.name) ends after the file")
      let rowByteCount =
        tensor.columnCount / tensor.type.blockElementCount * tensor.type.blockByteCount
      try require(
        tensor.type.isOpaque || rowByteCount * tensor.rowCount == tensor.byteCount,
        "tensor \(tensor.name) has another length than its shape")
    }
    try require(file.headerByteCount <= file.dataOffset, "the data begins in the header")
    if let split = file.split {
      try require(
        (0..<split.count).contains(split.index) && split.count <= 65535 && split.tensorCount >= 0,
        "member \(split.index) of \(split.count)")
    }
    for entry in file.metadata.entries {
      try require(
        entry.key.upperBound <= file.headerByteCount
          && entry.value.upperBound <= file.headerByteCount, "metadata after the header")
    }
  }

  /// Plans an image of the model and reads its header back.
  private static func checkImage(of description: ModelDescription) throws(FuzzFinding) {
    guard description.configuration != nil else { return }
    let layout: FlashImage.Layout
    let preamble: [UInt8]
    do throws(FormatError) {
      layout = try FlashImage.Layout(for: description)
      preamble = try layout.preamble(
        checksums: [UInt64](repeating: 7, count: layout.description.extents.count))
    } catch { return }
    try require(preamble.count == layout.dataOffset, "a preamble of another length")
    let parsed = preamble.withUnsafeBytes { bytes in
      Outcome { () throws(FormatError) in
        try FlashImage.parse(bytes, fileByteCount: layout.fileByteCount, path: "fuzz")
      }
    }
    guard let image = parsed.value else {
      throw FuzzFinding("an image that was written is refused: \(parsed)")
    }
    var expected = layout.description
    for index in expected.extents.indices { expected.extents[index].checksum = 7 }
    expected.tokenizerProblem = nil
    try expected.checkEqual(image, "from the image")
  }

  // MARK: Seeds

  @Sendable static func seeds() throws -> [[UInt8]] {
    var inputs: [[UInt8]] = []
    for architecture in [
      "llama", "gemma3", "qwen2", "qwen2moe", "qwen3", "qwen3moe", "olmoe", "qwen3next", "qwen35",
      "granitehybrid", "mamba2", "lfm2", "falcon-h1",
    ] {
      var model = TinyModel(architecture: architecture)
      model.layerCount = 1
      model.experts?.expertCount = 3
      var file = model.gguf(seed: 1)
      shortenVocabulary(of: &file)
      inputs.append(header(file))
      if architecture == "llama" {
        var bare = file
        bare.metadata.removeAll { $0.key.hasPrefix("tokenizer.") }
        inputs.append(header(bare))
        bare.alignment = 64
        inputs.append(header(bare))
        inputs.append(header(TinyGGUF(metadata: file.metadata)))
        for member in bare.split(into: 1) + bare.split(into: 3, firstIsEmpty: true) {
          inputs.append(header(member))
        }
        bare.version = 2
        inputs.append(header(bare))
      }
    }
    inputs.append(header(everyType))
    return inputs
  }

  /// A file with metadata of every type.
  private static var everyType: TinyGGUF {
    TinyGGUF(
      metadata: [
        ("general.architecture", .string("other")), ("a", .uint8(1)), ("b", .int32(-1)),
        ("c", .uint64(1 << 40)), ("d", .float64(0.5)), ("e", .bool(true)),
        ("f", .strings([[0x61], []])), ("g", .int32s([1, 2])), ("h", .uint32s([3])),
        ("i", .float32s([1, 2])), ("j", .bools([true, false])), ("k", .float32(1)),
      ])
  }

  private static func header(_ file: TinyGGUF) -> [UInt8] {
    let encoded = file.encode()
    return [1] + encoded.bytes[..<encoded.headerByteCount]
  }

  /// Leaves a few tokens: a vocabulary is most of a small header, and every mutation would hit it.
  static func shortenVocabulary(of file: inout TinyGGUF) {
    let prefix = "tokenizer.ggml."
    guard case .strings(let tokens) = file[prefix + "tokens"] else { return }
    let isByteLevel = file[prefix + "merges"] != nil
    // Of SentencePiece's vocabulary the first byte tokens and the pieces.
    let kept =
      isByteLevel ? [0] + Array(65..<90) + Array(257..<265) : Array(0..<8) + Array(259..<270)
    file[prefix + "tokens"] = .strings(kept.map { tokens[$0] })
    if case .int32s(let kinds) = file[prefix + "token_type"] {
      file[prefix + "token_type"] = .int32s(kept.map { kinds[$0] })
    }
    if case .float32s(let scores) = file[prefix + "scores"] {
      file[prefix + "scores"] = .float32s(kept.map { scores[$0] })
    }
  }

  static let words =
    ["GGUF", "general.alignment", "general.architecture", "general.name"]
    + ["split.no", "split.count", "split.tensors.count"]
    + ["llama", "gemma3", "qwen2", "qwen2moe", "qwen3", "qwen3moe", "olmoe", "opt"]
    + [
      "block_count", "context_length", "embedding_length", "feed_forward_length",
      "attention.head_count", "attention.head_count_kv", "attention.key_length",
      "attention.layer_norm_rms_epsilon", "attention.sliding_window", "rope.freq_base",
      "rope.scaling.type", "rope.scaling.factor", "linear", "expert_count", "expert_used_count",
      "expert_feed_forward_length", "expert_shared_feed_forward_length", "expert_weights_norm",
      "tokenizer.ggml.model", "tokenizer.ggml.pre", "tokenizer.ggml.tokens",
      "tokenizer.ggml.scores", "tokenizer.ggml.token_type", "tokenizer.ggml.merges",
      "tokenizer.ggml.bos_token_id", "tokenizer.ggml.unknown_token_id", "tokenizer.chat_template",
      "tokenizer.ggml.add_space_prefix", "gpt2", "t5", "gemma4", "gpt-2", "tekken", "superbpe",
      "token_embd.weight", "output.weight", "output_norm.weight", "blk.0.attn_q.weight",
      "rope_freqs.weight", "position_embd.weight",
    ]
}
