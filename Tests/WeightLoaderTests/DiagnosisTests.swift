import Glibc
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

  @Test(arguments: ["config.json", "model.safetensors.index.json", "tokenizer_config.json"])
  func `A document in place of its folder is told so`(name: String) throws {
    let path = folder.write(name, Array("{\"architectures\":[\"LlamaForCausalLM\"]}".utf8))
    for error in [
      failure { _ = try ModelSource.open(path) }, failure { _ = try TensorLoader.open(path) },
    ] {
      let error = try #require(error)
      #expect(error.message.contains("give the folder, \(folder.path)"), "\(error)")
    }
  }

  @Test func `GGUF files in a folder without weights of its own are named`() throws {
    func message() throws -> String {
      try #require(failure { _ = try ModelSource.open(folder.path) }).message
    }
    #expect(try message().contains("without config.json"))
    folder.write("mmproj-F16.gguf", [0])
    folder.write("model-Q4_0.gguf", [0])
    #expect(try message().hasSuffix("give \(folder.path)/model-Q4_0.gguf"))
    folder.write("config.json", Array("{}".utf8))
    #expect(try message().hasSuffix("give \(folder.path)/model-Q4_0.gguf"))
    // A split model is one, by its first member.
    let split = TemporaryFolder()
    _ = split.write(members: TinyModel().gguf(seed: 1).split(into: 3))
    let error = try #require(failure { _ = try ModelSource.open(split.path) })
    #expect(error.message.hasSuffix("give \(split.path)/tiny-00001-of-00003.gguf"), "\(error)")
    folder.write("model-Q8_0.gguf", [0])
    #expect(try message().contains("2 GGUF models"))
  }

  @Test func `Downloads that are under way are called so`() throws {
    let whole = TinyModel().gguf(seed: 1).bytes()
    for name in ["6f85a640a97c.incomplete", "model.gguf.part", "model.gguf.crdownload"] {
      let path = folder.write(name, Array(whole.prefix(whole.count / 2)))
      let error = try #require(failure { _ = try ModelSource.open(path) })
      #expect(error.message.contains("download is not finished"), "\(error)")
      // One that only lacks its last name is read.
      _ = try ModelSource.open(folder.write(name, whole))
      unlink(path)
    }
    folder.write("config.json", Array("{}".utf8))
    folder.write("model.safetensors.incomplete", [0])
    let error = try #require(failure { _ = try ModelSource.open(folder.path) })
    #expect(error.message.contains("model.safetensors.incomplete"), "\(error)")
  }

  @Test func `Shards that others count are missed without an index`() throws {
    folder.write("config.json", Array("{}".utf8))
    for shards in [[1, 3], [2, 3], [1, 2]] {
      for number in 1...3 {
        let name = "model-0000\(number)-of-00003.safetensors"
        unlink("\(folder.path)/\(name)")
        if shards.contains(number) { folder.write(name, [2, 0, 0, 0, 0, 0, 0, 0, 0x7B, 0x7D]) }
      }
      let missing = 6 - shards.reduce(0, +)
      #expect {
        _ = try ModelSource.open(folder.path)
      } throws: { error in
        guard case .missingFile(let path, let text)? = error as? LoaderError else { return false }
        return path == "\(folder.path)/model-0000\(missing)-of-00003.safetensors"
          && text.contains("finish the download")
      }
    }
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
