import Glibc
import ModelFormat
import TensorBasics
import TestSupport
import Testing

/// A safetensors file of this header and so many bytes of data.
func safetensors(_ header: String, dataByteCount: Int = 0) -> [UInt8] {
  let length = UInt64(header.utf8.count)
  return (0..<8).map { UInt8(truncatingIfNeeded: length >> (8 * $0)) } + Array(header.utf8)
    + [UInt8](repeating: 0, count: dataByteCount)
}

func parseSafetensors(
  _ bytes: [UInt8], fileByteCount: Int? = nil
) throws(FormatError) -> ParseProgress<SafetensorsFile> {
  try withBytes(bytes) { buffer throws(FormatError) in
    try Safetensors.parse(buffer, fileByteCount: fileByteCount ?? buffer.count, path: "tiny")
  }
}

@Suite struct SafetensorsTests {
  private static let header = #"""
    {"__metadata__":{"format":"pt"},"b":{"dtype":"BF16","shape":[2,3],"data_offsets":[4,16]},
     "\u0061é":{"dtype":"F32","shape":[],"data_offsets":[0,4]},
     "c":{"dtype":"F16","shape":[4],"data_offsets":[16,24]}}
    """#

  @Test func `Tensors come in ascending offsets, with their places in the file`() throws {
    let bytes = safetensors(Self.header, dataByteCount: 24)
    let file = try #require(try parseSafetensors(bytes).value)
    #expect(file.tensors.map(\.name) == ["aé", "b", "c"])
    #expect(file.tensors.map(\.type.elementType) == [.f32, .bf16, .f16])
    #expect(file.tensors.map(\.shape) == [[], [2, 3], [4]])
    #expect(file.tensors.map { $0.offset - file.dataOffset } == [0, 4, 16])
    #expect(file.tensors.map(\.byteCount) == [4, 12, 8])
    #expect(file.dataOffset == 8 + Self.header.utf8.count)
  }

  @Test func `Every shorter prefix asks for more, every shorter file is an error`() throws {
    let bytes = safetensors(Self.header, dataByteCount: 24)
    let headerByteCount = bytes.count - 24
    for count in 0..<headerByteCount {
      let progress = try parseSafetensors(Array(bytes[..<count]), fileByteCount: bytes.count)
      guard case .needsMore(let needed) = progress else {
        Issue.record("complete at \(count)")
        continue
      }
      #expect(needed > count && needed <= headerByteCount)
    }
    for count in 0..<bytes.count {
      #expect(throws: FormatError.self, "\(count)") { try parseSafetensors(Array(bytes[..<count])) }
    }
  }

  @Test func `Types that are no weights' have a length and no arithmetic`() throws {
    let bytes = safetensors(
      #"{"a":{"dtype":"I64","shape":[2],"data_offsets":[0,16]},"#
        + #""b":{"dtype":"BOOL","shape":[3],"data_offsets":[16,19]}}"#, dataByteCount: 19)
    let tensors = try #require(try parseSafetensors(bytes).value).tensors
    #expect(tensors.map(\.type.name) == ["I64", "BOOL"])
    #expect(tensors.map(\.type.blockByteCount) == [8, 1])
    #expect(tensors.allSatisfy { $0.type.elementType == nil })
  }

  @Test(arguments: [
    (#"[]"#, "not a JSON object"),
    (#"{"a":{"dtype":"I65","shape":[1],"data_offsets":[0,8]}}"#, "\"a\" has dtype I65"),
    (#"{"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}}"#, "12 bytes by its shape"),
    (#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}}"#, "no range"),
    (#"{"a":{"dtype":"F32","shape":[16],"data_offsets":[0,64]}}"#, "ends at byte 64"),
    (#"{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}"#, "whole numbers"),
    (#"{"a":{"dtype":"F32","shape":[0.5],"data_offsets":[0,4]}}"#, "whole numbers"),
    (#"{"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,4]}}"#, "impossible"),
    (
      #"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"#
        + #""data_offsets":[2,6]}}"#, "overlap"
    ),
    (
      #"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"\u0061":{"dtype":"F32","#
        + #""shape":[1],"data_offsets":[4,8]}}"#, "appears twice"
    ),
    (#"{"a":{"dtype":"F32"}}"#, "no shape"), (#"{} x"#, "after"), (#"{"a":}"#, "no value"),
    (#"{"\ud800":1}"#, "surrogate"), (#"{"a":"\#u{1}"}"#, "does not end"),
    (String(repeating: "[", count: 9999), "levels"),
  ])
  func `What contradicts the format is an error with its place`(header: String, text: String) {
    do throws(FormatError) {
      _ = try parseSafetensors(safetensors(header, dataByteCount: 16))
      Issue.record("parsed: \(header)")
    } catch { #expect(error.message.contains(text) && error.offset != nil, "\(error)") }
  }

  @Test func `Canonically equal names are two tensors`() throws {
    let header =
      #"{"\u00e9":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"#
      + #""e\u0301":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}"#
    let file = try parseSafetensors(safetensors(header, dataByteCount: 8)).value
    #expect(file?.tensors.count == 2)
  }

  @Test func `Damaged headers end in a value or an error`() throws {
    var generator = SeededGenerator(seed: 11)
    let bytes = safetensors(Self.header, dataByteCount: 24)
    for _ in 0..<20_000 {
      let damaged = Mutation.mutate(
        bytes, fields: [(0, 8)], limit: bytes.count - 24, using: &generator)
      do throws(FormatError) {
        let file = try parseSafetensors(damaged).value
        for tensor in file?.tensors ?? [] {
          #expect(tensor.offset >= 0 && tensor.offset + tensor.byteCount <= damaged.count)
        }
      } catch { #expect(!error.message.isEmpty) }
    }
  }

  @Test func `Eight times the tensors take eight times the work`() throws {
    let (few, many) = (manyTensors(12_500), manyTensors(100_000))
    // The best of several: other programs can only add to the time that a thread gets done in.
    var (least, most) = (Int.max, Int.max)
    for _ in 0..<3 {
      least = try min(least, work(parsing: few, tensorCount: 12_500))
      most = try min(most, work(parsing: many, tensorCount: 100_000))
    }
    // Quadratic work would be 64 times as much.
    #expect(most < 24 * least, "\(least) ns of 12,500 tensors, \(most) ns of 100,000")
  }

  /// A file with so many tensors of one element.
  private func manyTensors(_ count: Int) -> [UInt8] {
    let entries = (0..<count).map {
      #""model.layers.\#($0).weight":{"dtype":"F32","shape":[1],"data_offsets":[\#(4 * $0),"#
        + "\(4 * $0 + 4)]}"
    }
    return safetensors("{\(entries.joined(separator: ","))}", dataByteCount: 4 * count)
  }

  /// Nanoseconds for which this thread had a processor, whatever else the machine does.
  private func work(parsing bytes: [UInt8], tensorCount: Int) throws -> Int {
    func now() -> Int {
      var time = timespec()
      clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time)
      return time.tv_sec * 1_000_000_000 + time.tv_nsec
    }
    let start = now()
    let parsed = try parseSafetensors(bytes).value
    let end = now()
    #expect(parsed?.tensors.count == tensorCount)
    return end - start
  }
}
