import ModelFormat
import TestSupport
import Testing

/// What tells keys and values of one file from those of another.
@Suite struct StructureChecksumTests {
  @Test func `Images with the identity of one source differ where their data do`() throws {
    let gguf = TinyModel().gguf(seed: 1).bytes()
    let image = try ImageBuilder.description(of: try ImageBuilder.image(of: gguf))
    var other = image
    #expect(other.structureChecksum == image.structureChecksum)
    other.extents[0].checksum ^= 1
    #expect(other.identity == image.identity)
    #expect(other.structureChecksum != image.structureChecksum)
  }

  @Test func `Images differ where their thresholds do`() throws {
    let gguf = TinyModel().gguf(seed: 1).bytes()
    var image = try ImageBuilder.description(of: try ImageBuilder.image(of: gguf))
    let checksums = [Float(0.25), 0.5].map { value in
      image.neurons = NeuronLayout(
        layers: [], thresholds: NeuronThresholds(values: [value], keptFraction: 0.5))
      return image.structureChecksum
    }
    #expect(checksums[0] != checksums[1])
  }
}
