/// Attends over the first and the last slabs (StreamingLLM, arXiv:2309.17453 §3.2); positions keep their
/// places, where the paper renumbers those of its cache.
final class RecentPolicy: KeyValuePolicy {
  private let sinkSlabCount: Int
  private let recentSlabCount: Int

  init(sinkSlabCount: Int, recentSlabCount: Int) {
    self.sinkSlabCount = sinkSlabCount
    self.recentSlabCount = recentSlabCount
  }

  func plan(layer: Int, queries: UnsafePointer<Float>?, into plan: BlockPlan) {
    for slab in plan.slabs
    where slab < sinkSlabCount || slab >= plan.slabs.upperBound - recentSlabCount {
      plan.include(slab: slab)
    }
  }
}
