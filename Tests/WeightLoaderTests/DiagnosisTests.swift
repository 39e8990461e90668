import ModelFormat
import TestSupport
import Testing
import WeightLoader

/// Files that are no models, opened by every way there is.
@Suite struct DiagnosisTests {
  private let folder = TemporaryFolder()
  private static let pointer = Array(
    "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 4976698672\n".utf8)
  private static let page = Array("<!doctype html>\n<html><head><title>Sign in</title>".utf8)

  private func failure(_ body: () throws -> Void) -> FormatError? {
    do { try body() } catch {
      if case .format(let cause)? = error as? LoaderError { return cause }
    }
    return nil
  }

  @Test func `The runtime and the loader say the same of what is no model`() throws {
    let whole = TinyModel().gguf(seed: 1).bytes()
    let cases: [(bytes: [UInt8], says: String)] = [
      (Self.pointer, "git lfs pull"), (Self.page, "web page"), ([], "empty"),
      (Array(whole.prefix(whole.count / 2)), "incomplete"),
      (Array(whole.dropLast(40)), "incomplete"),
    ]
    for (bytes, text) in cases {
      let path = folder.write("model.gguf", bytes)
      let found = [
        failure { _ = try ModelSource.open(path) }, failure { _ = try TensorLoader.open(path) },
      ]
      for error in found {
        let error = try #require(error)
        #expect(error.path == path && error.message.contains(text), "\(error)")
      }
    }
  }

  @Test func `A split model's member that is no GGUF file is named`() throws {
    let paths = folder.write(members: TinyModel().gguf(seed: 1).split(into: 3))
    for (bytes, text) in [(Self.pointer, "git lfs pull"), (Self.page, "web page"), ([], "empty")] {
      folder.write("tiny-00003-of-00003.gguf", bytes)
      let error = try #require(failure { _ = try ModelSource.open(paths[0]) })
      #expect(error.path == paths[2] && error.message.contains(text), "\(error)")
    }
  }

  @Test(arguments: ["config.json", "model.safetensors"])
  func `A file of a folder that is a pointer is named`(name: String) throws {
    folder.write("config.json", Array("{\"architectures\":[\"LlamaForCausalLM\"]}".utf8))
    folder.write("model.safetensors", [2, 0, 0, 0, 0, 0, 0, 0, 0x7B, 0x7D])
    let path = folder.write(name, Self.pointer)
    let error = try #require(failure { _ = try ModelSource.open(folder.path) })
    #expect(error.path == path && error.message.contains("git lfs pull"), "\(error)")
  }

  @Test func `A file that ends with zeros is an unfinished download`() throws {
    let whole = TinyModel().gguf(seed: 1).bytes()
    let folders = ["model.gguf", "model-00002-of-00002.gguf.tmp"]
    for (name, kept) in zip(folders, [whole.count / 2, whole.count / 4]) {
      let zeros = [UInt8](repeating: 0, count: whole.count - kept)
      let path = folder.write(name, Array(whole[..<kept]) + zeros)
      let error = try #require(failure { _ = try ModelSource.open(path) })
      #expect(error.path == path && error.kind == .truncated, "\(error)")
      #expect(
        error.message.contains("nothing but zeros") && error.message.contains("download"),
        "\(error)")
    }
    // One zero matrix may be a model's own.
    var model = TinyModel().gguf(seed: 1)
    let last = try #require(model.tensors.lastIndex { $0.dimensions.count == 2 })
    model.tensors[last].data = [UInt8](repeating: 0, count: model.tensors[last].data.count)
    _ = try ModelSource.open(folder.write("zero.gguf", model.bytes()))
  }
}
