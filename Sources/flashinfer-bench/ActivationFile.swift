import BlockIO
import ModelFormat
import Runtime
import TensorBasics

/// A safetensors file of what FFNs do that is written in place while tokens run.
///
/// For each layer: `blk.N.ffn_input` [tokens, dim] and `blk.N.ffn_gate` [tokens, neurons] in F16, and
/// `blk.N.ffn_share` [tokens] in F32, the FFN's output against the residual stream it joined: the
/// quotient of their sums of squares.
final class ActivationFile: FeedForwardObserver {
  private let layout: SafetensorsLayout
  private let tokenCount: Int
  private let file: OutputFile
  /// One row on its way to the file.
  private var row: [UInt16]
  /// What kept bytes from being written; nothing is written after it.
  private var failure: BlockIOError?

  /// Tokens of the chunks before the one that runs.
  var firstToken = 0

  private static let tensorsPerLayer = 3

  /// Bytes of the whole file.
  var byteCount: Int { layout.fileByteCount }

  /// Reserves the whole file and writes its header.
  ///
  /// - Parameter inputs: what is being read meanwhile.
  init(
    path: String, _ configuration: DecoderConfiguration, tokenCount: Int,
    metadata: [String: String], inputs: [String]
  ) throws(BlockIOError) {
    let width = configuration.hiddenSize
    layout = SafetensorsLayout(
      configuration.layers.enumerated().flatMap { layer, spec in
        let length = spec.feedForward.map(configuration.length) ?? configuration.feedForwardLength
        return [
          SafetensorsLayout.Tensor("blk.\(layer).ffn_input", .f16, [tokenCount, width]),
          SafetensorsLayout.Tensor("blk.\(layer).ffn_gate", .f16, [tokenCount, length]),
          SafetensorsLayout.Tensor("blk.\(layer).ffn_share", .f32, [tokenCount]),
        ]
      }, metadata: metadata)
    self.tokenCount = tokenCount
    row = Array(repeating: 0, count: max(width, configuration.longestFeedForwardLength))
    file = try OutputFile(
      path: path, reserving: layout.fileByteCount, inputs: inputs)
    layout.header.withUnsafeBytes { write($0, at: 0) }
  }

  func feedForward(
    _ place: FeedForwardPlace, input: UnsafeBufferPointer<Float>, gate: UnsafeBufferPointer<Float>
  ) {
    writeHalves(input, at: place, tensor: 0)
    writeHalves(gate, at: place, tensor: 1)
  }

  func feedForward(
    _ place: FeedForwardPlace, output: UnsafeBufferPointer<Float>,
    residual: UnsafeBufferPointer<Float>
  ) {
    let width = output.count / place.tokenCount
    var shares: [UInt32] = []
    for token in 0..<place.tokenCount {
      var (part, whole): (Float, Float) = (0, 0)
      for index in (token * width)..<((token + 1) * width) {
        part += output[index] * output[index]
        whole += residual[index] * residual[index]
      }
      shares.append((whole > 0 ? part / whole : 0).bitPattern.littleEndian)
    }
    shares.withUnsafeBytes { write($0, at: offset(of: place, tensor: 2) + first(place) * 4) }
  }

  /// Completes the file.
  ///
  /// - Throws: also what kept bytes from being written before.
  func commit() throws(BlockIOError) {
    if let failure { throw failure }
    try file.commit()
  }

  private func write(_ bytes: UnsafeRawBufferPointer, at offset: Int) {
    guard failure == nil else { return }
    do throws(BlockIOError) { try file.write(bytes, at: offset) } catch { failure = error }
  }

  private func first(_ place: FeedForwardPlace) -> Int {
    precondition(
      firstToken + place.position + place.tokenCount <= tokenCount,
      "more tokens than the file is for")
    return firstToken + place.position
  }

  private func offset(of place: FeedForwardPlace, tensor: Int) -> Int {
    layout.offsets[Self.tensorsPerLayer * place.layer + tensor]
  }

  private func writeHalves(
    _ values: UnsafeBufferPointer<Float>, at place: FeedForwardPlace, tensor: Int
  ) {
    let width = values.count / place.tokenCount
    let start = offset(of: place, tensor: tensor) + first(place) * width * 2
    let largest = Float(Float16.greatestFiniteMagnitude)
    for token in 0..<place.tokenCount {
      for column in 0..<width {
        let value = max(-largest, min(largest, values[token * width + column]))
        row[column] = Float16(value).bitPattern.littleEndian
      }
      row.withUnsafeBytes { bytes in
        write(
          UnsafeRawBufferPointer(rebasing: bytes[..<(width * 2)]), at: start + token * width * 2)
      }
    }
  }
}
