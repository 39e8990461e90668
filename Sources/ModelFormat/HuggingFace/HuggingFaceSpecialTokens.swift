import TensorBasics

/// What the documents beside a vocabulary say of its special tokens.
struct HuggingFaceSpecialTokens {
  /// `tokenizer_config.json`.
  let settings: JSONValue?
  /// `config.json`.
  private let configuration: JSONValue?
  /// `generation_config.json`.
  private let generation: JSONValue?

  init() { (settings, configuration, generation) = (nil, nil, nil) }

  init(_ documents: HuggingFace.Documents) throws(FormatError) {
    settings = try documents.tokenizerConfiguration?.json()
    configuration = try documents.configuration.json()
    generation = try documents.generationConfiguration?.json()
  }

  /// A token added to a vocabulary by `tokenizer_config.json`.
  struct Added {
    var id: Int
    var content: String
    var value: JSONValue
  }

  /// The tokens of `added_tokens_decoder`, by id.
  func added() -> [Added] {
    let members = settings?["added_tokens_decoder"]?.members ?? []
    return members.compactMap { member in
      guard let id = Int(member.key), let content = member.value["content"]?.string,
        !content.isEmpty
      else { return nil }
      return Added(id: id, content: content, value: member.value)
    }.sorted { $0.id < $1.id }
  }

  /// The name of the class that reads the vocabulary.
  var className: String? { settings?["tokenizer_class"]?.string }

  /// The model's architecture, such as `LlamaForCausalLM`.
  var architecture: String? { configuration?["architectures"]?.array?.first?.string }

  /// Names BOS, EOS and all ends of an answer, and puts BOS and EOS around prompts where the settings say so.
  ///
  /// - Parameters:
  ///   - stated: what the vocabulary itself names.
  ///   - id: finds a token.
  func add(
    to definition: inout TokenizerDefinition, stated: (bos: Int?, eos: Int?) = (nil, nil),
    id: (String) -> Int?
  ) {
    let count = definition.tokens.count
    func named(_ key: StaticString, _ idKey: StaticString) -> Int? {
      if let settings {
        // A stated null means that there is none.
        let token = settings[key]
        return (token?.string ?? token?["content"]?.string).flatMap(id)
      }
      return Self.ids(configuration?[idKey], below: count).first
    }
    definition.bosToken = named("bos_token", "bos_token_id") ?? stated.bos
    definition.eosToken = named("eos_token", "eos_token_id") ?? stated.eos
    definition.stopTokens =
      Self.ids(generation?["eos_token_id"], below: count)
      + Self.ids(configuration?["eos_token_id"], below: count)
    definition.eosToken = definition.eosToken ?? definition.stopTokens.first
    definition.eotToken = definition.stopTokens.first { $0 != definition.eosToken }
    let adds = (
      bos: settings?["add_bos_token"]?.bool, eos: settings?["add_eos_token"]?.bool
    )
    guard var pipeline = definition.pipeline else {
      definition.addsBOS = adds.bos ?? definition.addsBOS
      definition.addsEOS = adds.eos ?? definition.addsEOS
      return
    }
    if let bos = definition.bosToken, let adds = adds.bos {
      if pipeline.prefix.first == bos { pipeline.prefix.removeFirst() }
      if adds { pipeline.prefix.insert(bos, at: 0) }
    }
    if let eos = definition.eosToken, let adds = adds.eos {
      if pipeline.suffix.last == eos { pipeline.suffix.removeLast() }
      if adds { pipeline.suffix.append(eos) }
    }
    definition.pipeline = pipeline
    definition.addsBOS = pipeline.prefix.first.map { $0 == definition.bosToken } ?? false
    definition.addsEOS = pipeline.suffix.last.map { $0 == definition.eosToken } ?? false
  }

  /// One id or several; those that are no token are left out.
  private static func ids(_ value: JSONValue?, below count: Int) -> [Int] {
    guard let value else { return [] }
    return (value.array ?? [value]).compactMap(\.integer).filter { (0..<count).contains($0) }
  }
}

extension AddedTokenFlags {
  private static let names: [(StaticString, AddedTokenFlags)] = [
    ("single_word", .singleWord), ("lstrip", .stripsLeft), ("rstrip", .stripsRight),
    ("normalized", .normalized),
  ]

  /// The flags that an entry of an added token states.
  init(_ entry: JSONValue) {
    self = .added
    for (key, value) in Self.names where entry[key]?.bool == true { insert(value) }
    if entry["normalized"] == nil, entry["special"]?.bool != true { insert(.normalized) }
  }
}
