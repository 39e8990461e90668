import CFlashInfer
import Glibc
import TestSupport

/// The files that the C interface is used on, in memory, and a model that stays open.
enum CInterfaceFiles {
  /// Paths: safetensors, GGUF, GGUF with experts, image, cut short, foreign, a folder, nothing.
  static let paths: [String] = {
    let folder = TemporaryFolder(in: "/dev/shm")
    kept = folder
    atexit { CInterfaceFiles.forget() }
    let model = TinyModel().gguf(seed: 7).bytes()
    let experts = TinyModel.withExperts("qwen3moe").gguf(seed: 7).bytes()
    return [
      folder.write("two.safetensors", safetensors), folder.write("model.gguf", model),
      folder.write("experts.gguf", experts),
      folder.write("model.bin", (try? ImageBuilder.image(of: model)) ?? []),
      folder.write("cut.gguf", Array(model.dropLast(2000))),
      folder.write("foreign", Array("%PDF-1.7".utf8)), folder.path, folder.path + "/nothing",
    ]
  }()
  static let model = 1
  // Safety: written once, while `paths` is made; keeps the folder until the process ends.
  nonisolated(unsafe) private static var kept: TemporaryFolder?

  private static func forget() { kept = nil }

  private static let safetensors: [UInt8] = {
    let header =
      #"{"a":{"dtype":"F32","shape":[16],"data_offsets":[0,64]},"#
      + #""b":{"dtype":"BF16","shape":[3,4],"data_offsets":[64,88]},"#
      + #""none":{"dtype":"U8","shape":[0,5],"data_offsets":[88,88]},"#
      + #""long":{"dtype":"I8","shape":[70,1000],"data_offsets":[88,70088]}}"#
    var bytes: [UInt8] = []
    bytes.appendLittleEndian(UInt64(header.utf8.count))
    bytes += header.utf8
    return bytes + (0..<70_088).map { UInt8(truncatingIfNeeded: $0 &* 31 &+ $0 >> 8) }
  }()
}
