extension ChatTemplate {
  /// The form of a Jinja chat template.
  ///
  /// - Throws: `unknownChatTemplate`.
  public static func recognise(_ source: String) throws(TokenizerError) -> ChatTemplate {
    let source = TemplateSource(source)
    let (name, form) = try recogniseForm(source)
    return ChatTemplate(name: name, beginsWithBOS: source.has("bos_token"), form: form)
  }

  private static func recogniseForm(
    _ source: TemplateSource
  ) throws(TokenizerError) -> (String, Form) {
    if source.has("<|im_start|>") {
      let form = try chatML(source)
      return (source.has("<|im_sep|>") ? "phi-4" : "chatml", .framed(form))
    }
    if source.has("[INST]") { return try instruction(source) }
    if source.has("<|start_header_id|>") { return ("llama-3", .framed(try llama3(source))) }
    if source.has("<start_of_turn>") { return ("gemma", .framed(gemma(source))) }
    if source.has("<|assistant|>"), source.has("<|end|>") {
      return ("phi-3", .framed(phi3(source)))
    }
    if source.has("<|assistant|>"), source.has("<|user|>"), source.has("eos_token") {
      let form = FramedForm(
        beforeRole: "<|", afterRole: "|>\n", close: .eos(then: "\n"))
      return ("zephyr", .framed(form))
    }
    throw .unknownChatTemplate("none of chatml, llama-2, llama-3, gemma, mistral, phi, zephyr")
  }

  /// ChatML and what is made of it: Qwen, SmolLM2, Hermes, Phi-4.
  private static func chatML(_ source: TemplateSource) throws(TokenizerError) -> FramedForm {
    // Look-alikes with more in them than messages.
    for mark in ["<end_of_utterance>", "## Metadata", "<|im_middle|>", "reasoning_budget"]
    where source.has(mark) {
      throw .unknownChatTemplate("ChatML with \(mark)")
    }
    if source.has("<|im_sep|>") {
      return FramedForm(
        beforeRole: "<|im_start|>", afterRole: "<|im_sep|>", close: .text("<|im_end|>"))
    }
    return FramedForm(
      beforeRole: "<|im_start|>", afterRole: "\n", close: .text("<|im_end|>\n"),
      system: .frame(
        fallback: source.literal(after: #"<|im_start|>system\n"#, before: "<|im_end|>")),
      trims: source.has("render_content(message.content, true)|trim"),
      dropsThoughts: source.has("split('</think>')"),
      answerPrefix: source.answerOpensThought ? "<think>\n" : "")
  }

  private static func llama3(_ source: TemplateSource) throws(TokenizerError) -> FramedForm {
    for mark in [">>>", "<|reserved_special_token_249|>", "functools", "<|python_tag|>{"]
    where source.has(mark) {
      throw .unknownChatTemplate("Llama 3 with \(mark)")
    }
    // Templates that tell the date do so in every conversation; where they would ask the clock we
    // give the date they fall back on, so that a prompt has one meaning.
    let hasDate = source.has("Cutting Knowledge Date: December 2023")
    let preamble = "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n"
    return FramedForm(
      beforeRole: "<|start_header_id|>", afterRole: "<|end_header_id|>\n\n",
      close: .text("<|eot_id|>"), system: hasDate ? .preamble(preamble) : .frame(fallback: nil),
      trims: source.has("| trim") || source.has("|trim"))
  }

  private static func gemma(_ source: TemplateSource) -> FramedForm {
    FramedForm(
      beforeRole: "<start_of_turn>", afterRole: "\n", close: .text("<end_of_turn>\n"),
      assistant: "model",
      system: source.has("first_user_prefix") ? .firstUserMessage : .none, trims: true)
  }

  private static func phi3(_ source: TemplateSource) -> FramedForm {
    FramedForm(
      beforeRole: "<|", afterRole: "|>\n", close: .text("<|end|>\n"),
      system: source.has("system") ? .frame(fallback: nil) : .none)
  }

  /// Llama 2 and Mistral.
  private static func instruction(
    _ source: TemplateSource
  ) throws(TokenizerError) -> (String, Form) {
    if source.has("<<SYS>>") {
      let trims = source.has(".strip()")
      let form = InstructionForm(
        open: "[INST] ", close: " [/INST]", answerOpen: trims ? " " : "",
        answerClose: trims ? " " : "", system: .markedFirstTurn, trimsTurns: trims,
        repeatsBOS: source.has("bos_token + '[INST]"))
      return ("llama-2", .instruction(form))
    }
    if source.has("[SYSTEM_PROMPT]") {
      if source.has("default_system_message") {
        throw .unknownChatTemplate("Mistral with a system message of its own that tells the date")
      }
      let space = source.has("[SYSTEM_PROMPT] ") ? " " : ""
      let form = InstructionForm(
        open: "[INST]" + space, close: "[/INST]", answerOpen: space,
        system: .before(open: "[SYSTEM_PROMPT]" + space, close: "[/SYSTEM_PROMPT]"))
      return ("mistral-v7", .instruction(form))
    }
    let opensWithSpace = source.hasQuoted(" [INST] ")
    let closesWithSpace = source.hasQuoted(" [/INST]")
    let spacesInside = opensWithSpace || source.hasQuoted("[INST] ")
    let goesLast = source.has("loop.last and system_message")
    let form = InstructionForm(
      open: (opensWithSpace ? " " : "") + "[INST]" + (spacesInside ? " " : ""),
      close: (closesWithSpace ? " " : "") + "[/INST]",
      answerOpen: source.hasSpaceBeforeAnswer ? " " : "",
      system: source.has("system_message") ? .turn(isLast: goesLast) : .none,
      trimsAnswers: source.has(#"message["content"]|trim"#))
    return ("mistral", .instruction(form))
  }
}

/// Questions to the text of a Jinja template. Line feeds are written `\n` in it, however they were.
private struct TemplateSource {
  private let bytes: [UInt8]

  init(_ source: String) {
    bytes = Array(source.utf8).flatMap { $0 == 0x0A ? Array(#"\n"#.utf8) : [$0] }
  }

  private func find(_ needle: String, from start: Int = 0) -> Int? {
    let needle = Array(needle.utf8)
    var position = start
    while position + needle.count <= bytes.count {
      if bytes[position] == needle[0],
        bytes[position..<position + needle.count].elementsEqual(needle)
      {
        return position
      }
      position += 1
    }
    return nil
  }

  func has(_ text: String) -> Bool { find(text) != nil }

  /// Whether a string literal begins with `text`.
  func hasQuoted(_ text: String) -> Bool { has("'" + text) || has("\"" + text) }

  /// Whether a space is written before the model's own turns.
  var hasSpaceBeforeAnswer: Bool {
    has("' ' + message") || has(#"" " + message"#) || has("' '  + content")
  }

  /// Whether the answer begins inside a thought.
  var answerOpensThought: Bool {
    var last: Int?
    var position = 0
    while let next = find("add_generation_prompt", from: position) {
      last = next
      position = next + 1
    }
    guard let last else { return false }
    return find(#"<think>\n'"#, from: last) != nil || find(#"<think>\n""#, from: last) != nil
  }

  /// The first run of plain text between two marks inside one string literal.
  func literal(after opening: String, before closing: String) -> String? {
    var position = 0
    while let start = find(opening, from: position) {
      position = start + opening.utf8.count
      guard let end = find(closing, from: position) else { return nil }
      let text = bytes[position..<end]
      let isPlain = !text.isEmpty && !text.contains { [0x27, 0x22, 0x7B, 0x7D].contains($0) }
      if isPlain { return String(decoding: text, as: UTF8.self).replacingEscapedLineFeeds }
    }
    return nil
  }
}

extension String {
  /// With line feeds for `\n`.
  fileprivate var replacingEscapedLineFeeds: String {
    var result = ""
    var isEscaped = false
    for character in self {
      if isEscaped {
        result += character == "n" ? "\n" : "\\\(character)"
        isEscaped = false
      } else if character == "\\" {
        isEscaped = true
      } else {
        result.append(character)
      }
    }
    return result
  }
}
