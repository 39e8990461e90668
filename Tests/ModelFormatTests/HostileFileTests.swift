import ModelFormat
import TensorBasics
import TestSupport
import Testing

/// Damaged headers: every one is read, or refused with a typed error that names the file.
@Suite struct HostileFileTests {
  private static let mutationCount = 20_000

  /// Parses damaged bytes; a trap or an endless loop fails the run, a wrong error the test.
  private func parse(_ bytes: [UInt8], _ what: @autoclosure () -> String) {
    do throws(FormatError) {
      switch try describe(bytes) {
      case .complete: break
      case .needsMore: Issue.record("\(what()): the whole file is not enough")
      }
    } catch {
      #expect(error.path == "tiny", "\(what()): \(error)")
      #expect(!error.message.isEmpty)
      if let offset = error.offset { #expect(offset >= 0, "\(what()): \(error)") }
    }
  }

  private func models() -> [TinyModel] {
    var llama = TinyModel()
    llama.layerCount = 1
    llama.hasRopeFactors = true
    var gemma = TinyModel(architecture: "gemma3")
    gemma.layerCount = 2
    var experts = TinyModel(architecture: "qwen2moe")
    experts.layerCount = 1
    experts.experts?.expertCount = 3
    var predicting = TinyModel(architecture: "glm4moe")
    (predicting.layerCount, predicting.predictionLayerCount) = (2, 1)
    return [llama, gemma, experts, predicting]
  }

  @Test func `Damaged GGUF headers`() {
    for (number, model) in models().enumerated() {
      let encoded = model.gguf(seed: 1).encode()
      var generator = SeededGenerator(seed: UInt64(number))
      for round in 0..<Self.mutationCount / 2 {
        let bytes = Mutation.mutate(
          encoded.bytes, fields: encoded.integerFields, limit: encoded.headerByteCount,
          using: &generator)
        parse(bytes, "model \(number), round \(round)")
      }
    }
  }

  @Test func `Damaged flash images, half of them with checksums that agree`() throws {
    for (number, model) in models().enumerated() {
      let image = try ImageBuilder.image(of: model.gguf(seed: 1).bytes())
      let dataOffset = try #require(
        try ImageBuilder.description(of: image).tensors.map(\.offset).min())
      let fields = stride(from: 0, to: 64, by: 8).map { (offset: $0, byteCount: 8) }
      var generator = SeededGenerator(seed: 100 + UInt64(number))
      for round in 0..<Self.mutationCount / 2 {
        var bytes = Mutation.mutate(
          image, fields: round % 4 == 0 ? fields : [], limit: dataOffset, using: &generator)
        if round % 2 == 0 { repairChecksums(&bytes) }
        parse(bytes, "model \(number), round \(round)")
      }
    }
  }

  /// Changes digits and words of the JSON, which random bytes would mostly break.
  @Test func `Flash images whose header says something else`() throws {
    for (number, model) in models().enumerated() where number != 1 {
      let image = try ImageBuilder.image(of: model.gguf(seed: 1).bytes())
      let length = Int(littleEndian(image, at: 24))
      let digits = (64..<64 + length).filter { (0x30...0x39).contains(image[$0]) }
      var generator = SeededGenerator(seed: 5)
      for round in 0..<Self.mutationCount / 4 {
        var bytes = image
        for _ in 0..<Int.random(in: 1...3, using: &generator) {
          let place = digits.randomElement(using: &generator) ?? 64
          bytes[place] = UInt8.random(in: 0x30...0x39, using: &generator)
        }
        repairChecksums(&bytes)
        parse(bytes, "model \(number), round \(round)")
      }
    }
  }

  @Test func `Images cut at every structure, and at every byte of the prologue`() throws {
    for model in [models()[0], models()[2]] {
      let image = try ImageBuilder.image(of: model.gguf(seed: 1).bytes())
      let description = try ImageBuilder.description(of: image)
      let ends =
        description.tensors.flatMap { [$0.offset, $0.byteSpan.upperBound] }
        + description.extents.map { $0.offset + $0.byteCount }
        + [64 + Int(littleEndian(image, at: 24)), image.count - 1] + Array(0...64)
      for end in Set(ends) where end < image.count {
        do throws(FormatError) {
          _ = try describe(Array(image[..<end]))
          Issue.record("cut at \(end) and accepted")
        } catch {
          #expect([.truncated, .unrecognised].contains(error.kind), "cut at \(end): \(error)")
        }
      }
    }
  }
}
