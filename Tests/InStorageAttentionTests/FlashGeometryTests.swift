import InStorageAttention
import Testing

@Suite struct FlashGeometryTests {
  @Test func pagesOfAllChannels() {
    let geometry = FlashGeometry(
      channelCount: 8, planesPerChannel: 4, blocksPerPlane: 16, pagesPerBlock: 64,
      pageByteCount: 4096)
    #expect(geometry.pageCount == 8 * 4 * 16 * 64)
  }
}
