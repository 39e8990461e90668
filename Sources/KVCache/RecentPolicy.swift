/// Attends over the first and the last page groups (StreamingLLM, arXiv:2309.17453 §3.2); positions keep their
/// places, where the paper renumbers those of its cache.
final class RecentPolicy: KeyValuePolicy {
  private let sinkPageGroupCount: Int
  private let recentPageGroupCount: Int

  init(sinkPageGroupCount: Int, recentPageGroupCount: Int) {
    self.sinkPageGroupCount = sinkPageGroupCount
    self.recentPageGroupCount = recentPageGroupCount
  }

  func plan(layer: Int, queries: UnsafePointer<Float>?, into plan: BlockPlan) {
    for pageGroup in plan.pageGroups
    where pageGroup < sinkPageGroupCount
      || pageGroup >= plan.pageGroups.upperBound - recentPageGroupCount
    {
      plan.include(pageGroup: pageGroup)
    }
  }
}
