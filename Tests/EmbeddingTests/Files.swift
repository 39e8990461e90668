import Glibc
import ModelFormat
import TensorBasics
import TestSupport

/// Files that the programs are run on.
struct Files {
  let folder = TemporaryFolder()

  /// Two tensors: 16 floats 0, 1, … and 3 × 4 floats 100, 101, …
  var two: String { folder.write("two.safetensors", Self.twoBytes) }
  var truncated: String { folder.write("truncated.safetensors", Self.twoBytes.dropLast(10)) }
  var foreign: String { folder.write("foreign", Array("%PDF-1.7 is no model\n".utf8)) }
  /// A decoder that can be run, of random weights.
  var model: String { folder.write("model.gguf", TinyModel().gguf(seed: 7).bytes()) }
  /// One with BOS, `<s>`, and a chat template (ChatML).
  var chat: String {
    var gguf = TinyModel(architecture: "gemma3").gguf(seed: 7)
    gguf["tokenizer.chat_template"] = .string(
      "{{ bos_token }}{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content']"
        + " + '<|im_end|>' + '\\n' }}{% endfor %}"
        + "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}")
    return folder.write("chat.gguf", gguf.bytes())
  }
  var experts: String {
    folder.write("experts.gguf", TinyModel.withExperts("qwen3moe").gguf(seed: 7).bytes())
  }

  /// A folder of two safetensors files, each of which says its number.
  var shards: String {
    mkdir(folder.path + "/shards", 0o700)
    for number in 0..<2 {
      let layout = SafetensorsLayout(
        [.init("tensor.\(number)", .f32, [1])], metadata: ["number": "\(number)"])
      folder.write("shards/\(number).safetensors", layout.header + [0, 0, 0, 0])
    }
    return folder.path + "/shards"
  }

  private static let twoBytes: [UInt8] = {
    let layout = SafetensorsLayout(
      [.init("first", .f32, [16]), .init("second", .f32, [3, 4])], metadata: [:])
    let values = (0..<16).map(Float.init) + (100..<112).map(Float.init)
    return layout.header + values.withUnsafeBytes(Array.init)
  }()

  /// A safetensors file of F32 matrices, larger than a budget; returns its path and the sum of each.
  func large(tensorCount: Int, rowCount: Int, columnCount: Int) -> (path: String, sums: [Double]) {
    let layout = SafetensorsLayout(
      (0..<tensorCount).map { .init("layer.\($0).weight", .f32, [rowCount, columnCount]) },
      metadata: [:])
    var bytes = layout.header
    bytes.reserveCapacity(layout.fileByteCount)
    var sums: [Double] = []
    for tensor in 0..<tensorCount {
      let values = (0..<rowCount * columnCount).map { Float(($0 * 7 + tensor) % 101) }
      sums.append(values.reduce(0) { $0 + Double($1) })
      values.withUnsafeBytes { bytes.append(contentsOf: $0) }
    }
    return (folder.write("large.safetensors", bytes), sums)
  }
}
