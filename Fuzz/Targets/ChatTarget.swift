import ModelFormat
import Tokenization

extension FuzzTarget {
  /// Conversations: a chat template up to a zero, then messages up to a zero each, of which the first
  /// is the system's where its first byte is 1.
  static let chat = FuzzTarget(
    name: "chat",
    dictionary: [
      "<|im_start|>", "<|im_end|>", "<|im_sep|>", "[INST]", "[/INST]", "<<SYS>>",
      "<|start_header_id|>", "<|eot_id|>", "<start_of_turn>", "<|assistant|>", "<|user|>",
      "<|end|>", "eos_token", "bos_token", "| trim", ".strip()", "[SYSTEM_PROMPT]",
      "default_system_message", "loop.last and system_message", "add_generation_prompt",
      "<think>\\x5cn'", "split('</think>')", "</think>", "first_user_prefix", "system",
      "Cutting Knowledge Date: December 2023", "bos_token + '[INST]", "\\xe2\\x80\\x83",
      "<|im_start|>system\\x5cn", "message[\\\"content\\\"]|trim",
    ], seeds: { ChatTarget.seeds }, run: ChatTarget.run)
}

enum ChatTarget {
  static let seeds: [[UInt8]] = [
    "'<|im_start|>system\\nBe kind.\\n<|im_end|>' '<|im_start|>' + role add_generation_prompt",
    "<|im_start|><|im_sep|>",
    "bos_token <|start_header_id|> | trim Cutting Knowledge Date: December 2023",
    "bos_token <start_of_turn> first_user_prefix", "<|assistant|><|end|>system",
    "<|assistant|><|user|>eos_token", "bos_token + '[INST] <<SYS>>.strip()",
    "'[INST] ' [SYSTEM_PROMPT] ",
    "' [INST] ' ' [/INST]' system_message loop.last and system_message",
    "<|im_start|>split('</think>')add_generation_prompt<think>\\n'",
  ].map { template in
    Array(template.utf8) + [0, 1] + Array("Be brief. <|im_end|>\0Hi </think>\0\n ok\0 tag? \n".utf8)
  }

  static func run(_ input: UnsafeRawBufferPointer) throws(FuzzFinding) -> Bool {
    var reader = InputReader(input)
    let source = String(decoding: reader.bytes(upTo: 0), as: UTF8.self)
    var messages: [ChatMessage] = []
    var rest = InputReader(reader.rest())
    var roleNumber = 0
    while messages.count < 8 {
      let content = Array(rest.bytes(upTo: 0))
      if content.isEmpty { break }
      if messages.isEmpty, content[0] == 1 {
        messages.append(ChatMessage(role: .system, content: Array(content.dropFirst())))
      } else {
        messages.append(
          ChatMessage(role: roleNumber.isMultiple(of: 2) ? .user : .assistant, content: content))
        roleNumber += 1
      }
    }
    let template: ChatTemplate
    let pieces: [ChatPiece]
    do throws(TokenizerError) {
      template = try ChatTemplate.recognise(source)
      pieces = try template.render(messages, bos: Array("<s>".utf8), eos: Array("</s>".utf8))
    } catch { return false }
    try checkContents(pieces, messages)
    let tokenizer = PromptTarget.tokenizers[1]
    let isControl = tokenizer.token(spelled: "<|im_start|>")
    let tokens = try TokenizerChecks.encode(tokenizer, pieces)
    let markup = pieces.filter(\.isMarkup).flatMap(\.bytes)
    // What stands in markup can be found at most as often as it is written there.
    let mark = Array("<|im_start|>".utf8)
    let most = markup.indices.count { markup[$0...].starts(with: mark) }
    try require(
      tokens.count { $0 == isControl } <= most, "a message made a control token: \(pieces)")
    return true
  }

  /// Nothing of a message is markup, and the last one is there.
  private static func checkContents(
    _ pieces: [ChatPiece], _ messages: [ChatMessage]
  ) throws(FuzzFinding) {
    let written = pieces.filter { !$0.isMarkup }.reduce(0) { $0 + $1.bytes.count }
    let said = messages.reduce(0) { $0 + $1.content.count }
    // Forms put a few characters of their own between the system's text and the first message.
    try require(written <= said + 64, "\(written) bytes of messages that have \(said)")
    guard let last = messages.last?.content else { return }
    let isPlain = !last.isEmpty && last.allSatisfy { (0x21...0x7E).contains($0) }
    let all = pieces.filter { !$0.isMarkup }.flatMap(\.bytes)
    try require(
      !isPlain || all.indices.contains { all[$0...].starts(with: last) },
      "the last message is not in the prompt")
  }
}
