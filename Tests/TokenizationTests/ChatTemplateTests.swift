import Testing
import Tokenization

/// Well-known Jinja templates and the prompts they stand for.
@Suite struct ChatTemplateTests {
  private static let smolLM2 =
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    + "{{ '<|im_start|>system\\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face"
    + "<|im_end|>\\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + "
    + "'<|im_end|>' + '\\n'}}{% endfor %}{% if add_generation_prompt %}"
    + "{{ '<|im_start|>assistant\\n' }}{% endif %}"
  private static let chatML =
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + "
    + "'<|im_end|>' + '\\n'}}{% endfor %}{% if add_generation_prompt %}"
    + "{{ '<|im_start|>assistant\\n' }}{% endif %}"
  private static let llama3 =
    "{% set loop_messages = messages %}{% for message in loop_messages %}{% set content = "
    + "'<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'+ message['content'] | trim "
    + "+ '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}"
    + "{{ content }}{% endfor %}{% if add_generation_prompt %}"
    + "{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}"
  private static let gemma =
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not "
    + "supported') }}{% endif %}{% for message in messages %}{% if (message['role'] == 'assistant') %}"
    + "{% set role = 'model' %}{% else %}{% set role = message['role'] %}{% endif %}"
    + "{{ '<start_of_turn>' + role + '\\n' + message['content'] | trim + '<end_of_turn>\\n' }}"
    + "{% endfor %}{% if add_generation_prompt %}{{'<start_of_turn>model\\n'}}{% endif %}"
  private static let mistral =
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}"
    + "{{ '[INST] ' + message['content'] + ' [/INST]' }}{% elif message['role'] == 'assistant' %}"
    + "{{ message['content'] + eos_token}}{% endif %}{% endfor %}"

  private func prompt(_ template: String) throws -> String {
    let pieces = try ChatTemplate.recognise(template).render(
      [ChatMessage(role: .user, "Hi")], bos: Array("<s>".utf8), eos: Array("</s>".utf8))
    return String(decoding: pieces.flatMap(\.bytes), as: UTF8.self)
  }

  @Test("Templates in common use are written as they would write themselves") func known() throws {
    let answer = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    #expect(try prompt(Self.chatML) == answer)
    #expect(
      try prompt(Self.smolLM2)
        == "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, "
        + "trained by Hugging Face<|im_end|>\n" + answer)
    #expect(
      try prompt(Self.llama3) == "<|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
        + "<|start_header_id|>assistant<|end_header_id|>\n\n")
    #expect(
      try prompt(Self.gemma) == "<start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\n")
    #expect(try prompt(Self.mistral) == "[INST] Hi [/INST]")
    #expect(try ChatTemplate.recognise(Self.llama3).beginsWithBOS)
  }

  @Test("Other templates are refused with a way out") func unknown() {
    do {
      _ = try ChatTemplate.recognise("{% for m in messages %}### {{ m.content }}{% endfor %}")
      Issue.record("recognised")
    } catch { #expect("\(error)".contains("--raw")) }
  }
}
