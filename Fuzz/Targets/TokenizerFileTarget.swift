import ModelFormat
import TensorBasics

extension FuzzTarget {
  /// `tokenizer.json`, up to a zero, then perhaps `tokenizer_config.json`, up to a zero, then a text, of a model
  /// with one layer.
  static let tokenizerFile = FuzzTarget(
    name: "tokenizer-json", inputByteLimit: 8192, dictionary: TokenizerFileTarget.words,
    seeds: { TokenizerFileTarget.seeds.map { Array($0.utf8) } }, run: TokenizerFileTarget.run)
}

enum TokenizerFileTarget {
  private static let configuration = HuggingFace.Document(
    path: "fuzz",
    bytes: Array(
      (#"{"architectures":["LlamaForCausalLM"],"hidden_size":32,"intermediate_size":64,"#
        + #""num_hidden_layers":1,"num_attention_heads":2,"num_key_value_heads":1,"#
        + #""rms_norm_eps":1e-5,"max_position_embeddings":512,"vocab_size":40,"eos_token_id":[1,2]}"#)
        .utf8))

  /// The model's tensors, in a file without data.
  private static let shard: SafetensorsFile = {
    let shapes: [(String, [Int])] = [
      ("model.embed_tokens.weight", [40, 32]), ("model.norm.weight", [32]),
      ("lm_head.weight", [40, 32]), ("model.layers.0.input_layernorm.weight", [32]),
      ("model.layers.0.post_attention_layernorm.weight", [32]),
      ("model.layers.0.self_attn.q_proj.weight", [32, 32]),
      ("model.layers.0.self_attn.k_proj.weight", [16, 32]),
      ("model.layers.0.self_attn.v_proj.weight", [16, 32]),
      ("model.layers.0.self_attn.o_proj.weight", [32, 32]),
      ("model.layers.0.mlp.gate_proj.weight", [64, 32]),
      ("model.layers.0.mlp.up_proj.weight", [64, 32]),
      ("model.layers.0.mlp.down_proj.weight", [32, 64]),
    ]
    let layout = SafetensorsLayout(
      shapes.map { SafetensorsLayout.Tensor($0.0, .f32, $0.1) }, metadata: [:])
    let parsed = layout.header.withUnsafeBytes { bytes in
      Outcome { () throws(FormatError) in
        try Safetensors.parse(bytes, fileByteCount: layout.fileByteCount, path: "fuzz")
      }
    }
    guard let file = parsed.value else { preconditionFailure("\(parsed)") }
    return file
  }()

  static func run(_ input: UnsafeRawBufferPointer) throws(FuzzFinding) -> Bool {
    var reader = InputReader(input)
    let tokenizer = Array(reader.bytes(upTo: 0))
    let settings = Array(reader.bytes(upTo: 0))
    let typed = Array(reader.rest())
    var documents = HuggingFace.Documents(configuration: configuration)
    documents.tokenizer = HuggingFace.Document(path: "fuzz", bytes: tokenizer)
    if !settings.isEmpty {
      documents.tokenizerConfiguration = HuggingFace.Document(path: "fuzz", bytes: settings)
    }
    func describe() -> Outcome<ModelDescription> {
      Outcome { () throws(FormatError) in
        .complete(
          try HuggingFace.describe(documents, name: "fuzz", shards: [shard]))
      }
    }
    let described = describe()
    try described.check(prefixByteCount: 0, fileByteCount: 1)
    guard let description = described.value else { return false }
    try require(
      (description.tokenizer == nil) != (description.tokenizerProblem == nil),
      "neither a tokenizer nor a problem, or both")
    guard let again = describe().value else { throw FuzzFinding("accepted once, then not") }
    try description.checkEqual(again, "a second time")
    guard let definition = description.tokenizer else { return false }
    try require(
      definition.kinds.count == definition.tokens.count
        && (definition.scores.isEmpty || definition.scores.count == definition.tokens.count),
      "arrays of other lengths than the vocabulary")
    try TokenizerChecks.check(definition, text: Array("ab abc\n<s>tag ▁12".utf8) + typed)
    return true
  }

  // MARK: Seeds

  private static let byteLevelStep = #"{"type":"ByteLevel","add_prefix_space":false"#
  private static let qwen2 =
    #"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*"#
    + #"|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"#

  private static func byteLevel(_ steps: String, merges: String) -> String {
    #"{"added_tokens":[{"id":5,"content":"<s>","special":true},{"id":6,"content":"tag"}],"#
      + #""normalizer":null,"pre_tokenizer":\#(steps),"post_processor":{"type":"TemplateProcessing","#
      + #""single":[{"SpecialToken":{"id":"<s>"}},{"Sequence":{"id":"A"}}]},"model":{"type":"BPE","#
      + #""dropout":null,"vocab":{"a":0,"b":1,"c":2,"ab":3,"abc":4},"merges":\#(merges)}}"#
  }

  /// Steps of every kind, and a text for them.
  private static let everything = #"""
    {"added_tokens":[{"id":3,"content":"Ab","single_word":true,"lstrip":true,"rstrip":true,"normalized":true,
    "special":false}],"normalizer":{"type":"Sequence","normalizers":[{"type":"NFKD"},{"type":"StripAccents"},
    {"type":"Lowercase"},{"type":"Strip"},{"type":"Replace","pattern":{"Regex":"\\s{2,}|[[a-f]&&[^c]]++"},
    "content":"a"}]},"pre_tokenizer":{"type":"Sequence","pretokenizers":[{"type":"WhitespaceSplit"},
    {"type":"Split","pattern":{"Regex":"(?i:ab)|\\p{Han}{1,2}+|^\\h*$"},"behavior":"MergedWithPrevious",
    "invert":true},{"type":"Punctuation"},{"type":"Metaspace","replacement":"▁"}]},
    "decoder":{"type":"Metaspace","replacement":"▁"},"model":{"type":"Unigram","unk_id":0,
    "byte_fallback":true,"vocab":[["<unk>",0],["a",-1.5],["▁",-2]]}}
    """# + "\0\0A\u{301}b 北京\u{1c89}"

  static let seeds = [
    byteLevel(byteLevelStep + "}", merges: #"["a b","ab c"]"#),
    byteLevel(
      #"{"type":"Sequence","pretokenizers":[{"type":"Digits","individual_digits":true},"#
        + byteLevelStep + "}]}", merges: #"[["a","b"],["ab","c"]]"#)
      + "\0" + #"{"bos_token":{"content":"<s>"},"eos_token":null,"add_bos_token":true}"#,
    byteLevel(
      #"{"type":"Sequence","pretokenizers":[{"type":"Split","pattern":{"Regex":"\#(qwen2)"},"#
        + #""behavior":"Isolated","invert":false},"# + byteLevelStep + #","use_regex":false}]}"#,
      merges: "[]"),
    #"{"added_tokens":[{"id":0,"content":"<unk>","special":true}],"normalizer":{"type":"Sequence","#
      + #""normalizers":[{"type":"Prepend","prepend":"▁"},{"type":"Replace","pattern":{"String":" "},"#
      + #""content":"▁"}]},"model":{"type":"BPE","unk_token":"<unk>","byte_fallback":true,"#
      + #""vocab":{"<unk>":0,"<0x0A>":1,"a":2,"b":3,"▁":4,"ab":5,"▁ab":6},"#
      + #""merges":[["a","b"],["▁","ab"]]}}"#,
    #"{"added_tokens":[],"pre_tokenizer":{"type":"Metaspace","replacement":"▁","split":false,"#
      + #""prepend_scheme":"first"},"model":{"byte_fallback":true,"vocab":{"a":0,"b":1,"▁":2},"#
      + #""merges":[]}}"#,
    everything,
  ]

  static let words = [
    "\"added_tokens\":", "\"id\":", "\"content\":", "\"special\":true", "\"lstrip\":true",
    "\"normalizer\":", "\"normalizers\":", "\"pre_tokenizer\":", "\"pretokenizers\":",
    "\"type\":", "\"Sequence\"", "\"ByteLevel\"", "\"Split\"", "\"Digits\"", "\"Metaspace\"",
    "\"NFC\"", "\"Prepend\"", "\"Replace\"", "\"pattern\":", "\"Regex\":", "\"String\":",
    "\"behavior\":", "\"Isolated\"", "\"Removed\"", "\"invert\":true", "\"use_regex\":false",
    "\"add_prefix_space\":true", "\"individual_digits\":true", "\"replacement\":",
    "\"prepend_scheme\":", "\"never\"", "\"model\":", "\"BPE\"", "\"unk_token\":",
    "\"byte_fallback\":true", "\"ignore_merges\":true", "\"dropout\":", "\"vocab\":",
    "\"merges\":", "\"post_processor\":", "\"processors\":", "\"TemplateProcessing\"",
    "\"single\":", "\"SpecialToken\":", "\"bos_token\":", "\"eos_token\":",
    "\"add_bos_token\":true", "\"add_eos_token\":true", "\"chat_template\":", "<0x0A>", "65535",
    "\"Unigram\"", "\"unk_id\":", "\"Contiguous\"", "\"MergedWithNext\"", "\"Punctuation\"",
    "\"NFKC\"", "\"Strip\"", "\"StripAccents\"", "\"Lowercase\"", "\"single_word\":true",
    "\"normalized\":true", "\"decoder\":", "\"ByteFallback\"", "\\\\p{L}", "\\\\p{Han}", "(?i:",
    "[^",
    "&&", "{1,3}+", "(?=", "(?<!", "\\\\b", "\\\\w", "\\\\h", "(?m)",
  ]
}
