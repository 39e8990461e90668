import Calibration
import Testing

@Suite struct ChoiceTests {
  private func point(_ block: Int, _ depth: Int, _ rate: Double) -> DrivePoint {
    DrivePoint(blockByteCount: block, queueDepth: depth, bytesPerSecond: rate)
  }

  @Test func `The least memory that is nearly fastest is chosen, in the largest blocks`() {
    #expect(DrivePoint.choose([]) == nil)
    let points = [
      point(1 << 16, 64, 90), point(1 << 18, 16, 97), point(1 << 20, 4, 96), point(1 << 20, 16, 99),
      point(1 << 20, 32, 100), point(1 << 20, 64, 110),
    ]
    #expect(DrivePoint.choose(points) == point(1 << 20, 4, 96))
    #expect(DrivePoint.choose(points, tolerance: 0.035) == point(1 << 20, 16, 99))
    #expect(DrivePoint.choose(Array(points.prefix(2))) == point(1 << 18, 16, 97))
    #expect(DrivePoint.choose(points, tolerance: 0) == point(1 << 20, 32, 100))
  }
}
